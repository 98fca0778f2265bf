//! From the text of a document to what requests are held against: every problem at once.

use std::sync::Arc;

use serde_json::Value;

use crate::api::{Api, Operation, PathItem};
use crate::body::{Bodies, BodyRule, Form, MediaRange};
use crate::parameter::{Divider, Parameter, Style};
use crate::problem::Problem;
use crate::refs::{Refs, join};
use crate::schema::{Dialect, Rule, Schemas};
use crate::shape::Types;
use crate::source::Source;
use crate::template::{self, Paths, Template};
use crate::violation::Part;

/// What is asked of a document beside what it says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Where its paths begin, instead of what its `servers` say: `/v1`.
    pub base: Option<String>,
    /// Whether parameters of the query that it does not name pass.
    pub unknown_query: bool,
}

impl Api {
    /// Compiles a document: OpenAPI 3.0 or 3.1, in YAML or JSON, whole in one text. Nothing else is opened.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place, in the order of the text.
    pub fn load(text: &str, options: &Options) -> Result<Api, Vec<Problem>> {
        let source = Source::read(text).map_err(|problem| vec![problem])?;
        let refs = Refs::new(&source);
        let dialect = dialect(&refs).map_err(|problem| vec![problem])?;
        let mut loader = Loader { refs: &refs, schemas: Schemas::new(&refs, dialect), problems: Vec::new() };
        let api = loader.api(options);
        let Loader { schemas, mut problems, .. } = loader;
        problems.extend(schemas.compile());
        problems.sort();
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
        if problems.is_empty() { Ok(api) } else { Err(problems) }
    }
}

/// So many problems of one document are told at once.
const PROBLEMS_MAX: usize = 50;

fn dialect(refs: &Refs<'_>) -> Result<Dialect, Problem> {
    let version = refs.at("/openapi").and_then(Value::as_str);
    match version {
        Some(version) if version.starts_with("3.0.") => Ok(Dialect::V30),
        Some(version) if version.starts_with("3.1.") => Ok(Dialect::V31),
        Some(version) => {
            Err(refs.problem("/openapi", format!("OpenAPI {version:?} is not known; write 3.0.x or 3.1.x")))
        }
        None if refs.at("/swagger").is_some() => {
            Err(refs.problem("/swagger", "this is Swagger 2.0; convert it to OpenAPI 3 first"))
        }
        None => Err(refs.problem("", "this is no OpenAPI document: `openapi: 3.1.0` is missing")),
    }
}

/// The methods that a path may have (OpenAPI 3.1 §4.8.9).
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Fields of the head that no parameter is about. OpenAPI 3.1 §4.8.12 describes the first three elsewhere;
/// the others are set anew by whoever stands between, so that the client's say nothing of what the upstream
/// sees.
const UNCHECKED: [&str; 11] = [
    "accept",
    "content-type",
    "authorization",
    "forwarded",
    "host",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

struct Loader<'s> {
    refs: &'s Refs<'s>,
    schemas: Schemas<'s>,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn api(&mut self, options: &Options) -> Api {
        let bases = match &options.base {
            Some(base) => self.base(base, "").into_iter().collect(),
            None => self.servers("/servers"),
        };
        let (mut paths, mut items) = (Paths::default(), Vec::new());
        let written = self.refs.at("/paths").and_then(Value::as_object);
        if written.is_none_or(|paths| paths.is_empty()) {
            self.wrong("/paths", "`paths` is missing or empty, so every request would be refused");
        }
        for path in written.into_iter().flatten().map(|(path, _)| path).filter(|path| !path.starts_with("x-"))
        {
            let pointer = join("/paths", path);
            match Template::read(path) {
                Err(message) => self.wrong(&pointer, message),
                Ok(template) => {
                    let item = self.item(&pointer, template.variables.clone());
                    items.extend(item);
                    if paths.add(template, items.len().saturating_sub(1)).is_some() {
                        self.wrong(&pointer, format!("another path takes the same requests as {path:?}"));
                    }
                }
            }
        }
        let query_keys = self.query_keys();
        Api { bases, paths, items, unknown_query: options.unknown_query, query_keys }
    }

    fn wrong(&mut self, pointer: &str, message: impl Into<String>) {
        self.problems.push(self.refs.problem(pointer, message));
    }

    /// What is at `pointer`, references followed.
    fn resolved(&mut self, pointer: &str) -> Option<(String, Value)> {
        match self.refs.resolve(pointer) {
            Ok((pointer, value)) => Some((pointer, value.clone())),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// Where the paths of each server begin.
    fn servers(&mut self, pointer: &str) -> Vec<Vec<String>> {
        let servers = self.refs.at(pointer).and_then(Value::as_array).map_or(0, Vec::len);
        let mut bases: Vec<Vec<String>> = Vec::new();
        for at in 0..servers {
            let pointer = format!("{pointer}/{at}");
            let Some(url) = self.refs.at(&format!("{pointer}/url")).and_then(Value::as_str) else {
                self.wrong(&pointer, "a server needs a `url`");
                continue;
            };
            let path = match url.split_once("://") {
                Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
                None => url,
            };
            let path = self.with_defaults(path, &pointer);
            if let Some(base) = self.base(&path, &pointer)
                && !bases.contains(&base)
            {
                bases.push(base);
            }
        }
        if bases.is_empty() {
            bases.push(Vec::new());
        }
        bases
    }

    /// Puts the defaults of a server's variables into its path.
    fn with_defaults(&self, path: &str, server: &str) -> String {
        let variables = self.refs.at(&format!("{server}/variables")).and_then(Value::as_object);
        let mut path = path.to_owned();
        for (name, variable) in variables.into_iter().flatten() {
            let default = variable.get("default").and_then(Value::as_str).unwrap_or_default();
            path = path.replace(&format!("{{{name}}}"), default);
        }
        path
    }

    fn base(&mut self, path: &str, pointer: &str) -> Option<Vec<String>> {
        let trimmed = path.trim_end_matches('/');
        if trimmed.is_empty() {
            return Some(Vec::new());
        }
        let segments = template::segments(trimmed);
        if segments.is_none() || trimmed.contains(['{', '?', '#']) {
            self.wrong(pointer, format!("{path:?} is no path that requests can begin with"));
            return None;
        }
        segments
    }

    /// Keys that clients may show in the query.
    fn query_keys(&self) -> Vec<String> {
        let schemes = self.refs.at("/components/securitySchemes").and_then(Value::as_object);
        let of_query = |scheme: &&Value| scheme.get("in").and_then(Value::as_str) == Some("query");
        let keys = schemes.into_iter().flatten().map(|(_, scheme)| scheme).filter(of_query);
        keys.filter_map(|scheme| Some(scheme.get("name")?.as_str()?.to_owned())).collect()
    }

    fn item(&mut self, pointer: &str, variables: Vec<String>) -> Option<PathItem> {
        let (pointer, item) = self.resolved(pointer)?;
        if item.get("servers").is_some() {
            let message = "`servers` of one path are not supported; write them for the whole document";
            self.wrong(&join(&pointer, "servers"), message);
        }
        let shared = self.parameters(&pointer, &variables);
        let mut operations = Vec::new();
        for method in METHODS {
            let at = join(&pointer, method);
            let Some(operation) = item.get(method) else { continue };
            if operation.get("servers").is_some() {
                let message =
                    "`servers` of one operation are not supported; write them for the whole document";
                self.wrong(&join(&at, "servers"), message);
            }
            let mut parameters = self.parameters(&at, &variables);
            // An operation's own parameter stands instead of its path's.
            for parameter in &shared {
                let same = |own: &Written| own.name == parameter.name && own.part == parameter.part;
                if !parameters.iter().any(same) {
                    parameters.push(parameter.clone());
                }
            }
            self.undeclared(&at, &variables, &parameters);
            let parameters = parameters.into_iter().map(|written| self.compiled(written)).collect();
            let body = operation.get("requestBody").and_then(|_| self.body(&join(&at, "requestBody")));
            operations.push((method.to_ascii_uppercase(), Operation { parameters, body, at }));
        }
        Some(PathItem { variables, operations })
    }

    /// A variable that no parameter describes takes anything, which nobody means.
    fn undeclared(&mut self, pointer: &str, variables: &[String], parameters: &[Written]) {
        for name in variables {
            if !parameters.iter().any(|own| own.part == Part::Path && own.name == *name) {
                self.wrong(pointer, format!("the path has {{{name}}}, and no parameter describes it"));
            }
        }
    }

    fn parameters(&mut self, pointer: &str, variables: &[String]) -> Vec<Written> {
        let pointer = join(pointer, "parameters");
        let count = self.refs.at(&pointer).and_then(Value::as_array).map_or(0, Vec::len);
        (0..count).filter_map(|at| self.parameter(&format!("{pointer}/{at}"), variables)).collect()
    }

    fn parameter(&mut self, pointer: &str, variables: &[String]) -> Option<Written> {
        let (at, value) = self.resolved(pointer)?;
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let Some(name) = text("name") else {
            self.wrong(&at, "a parameter needs a `name`");
            return None;
        };
        let part = match text("in") {
            Some("path") => Part::Path,
            Some("query") => Part::Query,
            Some("header") => Part::Header,
            Some("cookie") => Part::Cookie,
            _ => {
                self.wrong(&at, "a parameter is `in` path, query, header or cookie");
                return None;
            }
        };
        if part == Part::Path && !variables.iter().any(|variable| variable == name) {
            self.wrong(&at, format!("the path has no {{{name}}}"));
        }
        if part == Part::Header && UNCHECKED.contains(&name.to_ascii_lowercase().as_str()) {
            return None;
        }
        let flag = |key: &str| value.get(key).and_then(Value::as_bool);
        Some(Written {
            name: name.to_owned(),
            part,
            required: flag("required").unwrap_or(false) || part == Part::Path,
            allow_empty: flag("allowEmptyValue").unwrap_or(false),
            style: text("style").map(str::to_owned),
            explode: flag("explode"),
            content: value
                .get("content")
                .and_then(Value::as_object)
                .and_then(|all| all.keys().next().cloned()),
            at,
        })
    }

    fn compiled(&mut self, written: Written) -> Parameter {
        let schema = match &written.content {
            Some(media) => join(&join(&join(&written.at, "content"), media), "schema"),
            None => join(&written.at, "schema"),
        };
        if self.refs.at(&schema).is_none() {
            self.wrong(&written.at, "a parameter needs a `schema`, or `content` with one");
        }
        let rule = self.rule(&schema);
        let style = self.style(&written, &rule);
        let Written { name, part, required, allow_empty, at, .. } = written;
        Parameter { name, part, required, style, allow_empty, at, rule }
    }

    fn style(&mut self, written: &Written, rule: &Rule) -> Style {
        if let Some(media) = &written.content {
            let is_json = MediaRange::read(media).is_some_and(|range| Form::of(&range) == Some(Form::Json));
            if !is_json {
                self.wrong(&written.at, format!("a parameter of {media:?} cannot be checked; JSON can"));
            }
            return Style::Json;
        }
        let is_object = rule.types().has(Types::OBJECT);
        let in_query = matches!(written.part, Part::Query | Part::Cookie);
        let usual = if in_query { "form" } else { "simple" };
        let style = written.style.as_deref().unwrap_or(usual);
        match (style, written.part) {
            ("deepObject", Part::Query) => return Style::DeepObject,
            ("form" | "simple" | "spaceDelimited" | "pipeDelimited", _) if is_object => {
                let message = format!("the object {:?} is not supported in this style", written.name);
                self.wrong(
                    &written.at,
                    format!("{message}; write style: deepObject, or content: application/json"),
                );
            }
            ("form", Part::Query) if written.explode != Some(false) => return Style::Each,
            ("form", Part::Query | Part::Cookie) | ("simple", Part::Path | Part::Header) => {}
            ("spaceDelimited", Part::Query) => return Style::Divided(Divider::Space),
            ("pipeDelimited", Part::Query) => return Style::Divided(Divider::Pipe),
            _ => {
                let part = written.part.as_str();
                self.wrong(&written.at, format!("style {style:?} of a parameter in {part} is not supported"));
            }
        }
        Style::Divided(Divider::Comma)
    }

    fn rule(&mut self, pointer: &str) -> Rule {
        let id = self.schemas.meet(pointer);
        self.schemas.rule(id)
    }

    fn body(&mut self, pointer: &str) -> Option<Bodies> {
        let (at, value) = self.resolved(pointer)?;
        let required = value.get("required").and_then(Value::as_bool).unwrap_or(false);
        let content = join(&at, "content");
        let mut contents = Vec::new();
        for (media, described) in value.get("content").and_then(Value::as_object).into_iter().flatten() {
            let at = join(&content, media);
            let Some(range) = MediaRange::read(media) else {
                self.wrong(&at, format!("{media:?} is no media type"));
                continue;
            };
            let form = Form::of(&range).filter(|_| described.get("schema").is_some());
            let rule = form.map(|form| {
                let schema = join(&at, "schema");
                Arc::new(BodyRule { form, rule: self.rule(&schema), at: schema })
            });
            contents.push((range, rule));
        }
        if contents.is_empty() {
            self.wrong(&at, "a body needs `content`: the media types that it may have");
        }
        contents.sort_by_key(|(range, _)| std::cmp::Reverse(range.rank()));
        Some(Bodies { required, contents, at })
    }
}

/// A parameter as it is written.
#[derive(Clone, Debug)]
struct Written {
    name: String,
    part: Part,
    required: bool,
    allow_empty: bool,
    style: Option<String>,
    explode: Option<bool>,
    /// The media type that describes it, if it is not described by a schema alone.
    content: Option<String>,
    at: String,
}

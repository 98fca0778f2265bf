//! A compiled document, and what it says to a request.

use std::sync::Arc;

use crate::body::{Bodies, BodyError, BodyRule, MediaRange, is_other_charset};
use crate::parameter::{Parameter, Query, Style, member_of};
use crate::template::{self, Paths};
use crate::violation::{Part, VIOLATIONS_MAX, Violation};

/// An interface that requests are held against.
#[derive(Debug)]
pub struct Api {
    /// Where its paths begin, each as its segments.
    pub(crate) bases: Vec<Vec<String>>,
    pub(crate) paths: Paths,
    pub(crate) items: Vec<PathItem>,
    /// Whether parameters of the query that the document does not name pass.
    pub(crate) unknown_query: bool,
    /// Parameters of the query that carry credentials, whatever the operation.
    pub(crate) query_keys: Vec<String>,
}

/// What may be done with one path.
#[derive(Debug)]
pub(crate) struct PathItem {
    pub(crate) variables: Vec<String>,
    /// By method, in capitals.
    pub(crate) operations: Vec<(String, Operation)>,
}

/// What a request of one method to one path must be.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<Bodies>,
    pub(crate) at: String,
}

/// A request, as far as its head tells.
pub struct Ask<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, as it is forwarded, without the query.
    pub path: &'a str,
    /// Its query, as it is forwarded, without the question mark.
    pub query: Option<&'a str>,
    /// Calls back with every value of the field of a name, until one is answered with `true`.
    pub header: &'a HasField<'a>,
    /// Whether a body of one byte or more comes with it, or one of unknown length.
    pub has_body: bool,
}

/// Whether a field of this name has a value that fits.
pub type HasField<'a> = dyn Fn(&str, &mut dyn FnMut(&[u8]) -> bool) -> bool + 'a;

/// What a document says to the head of a request.
#[derive(Debug, Default)]
pub struct Inspected {
    /// What is wrong.
    pub refusal: Option<Refusal>,
    /// What the body must be, if it must be looked at.
    pub body: Option<Arc<BodyRule>>,
}

/// A request that is not as the document wants it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", first(.violations))]
pub struct Refusal {
    /// The status that says so.
    pub status: u16,
    /// The methods that there are, for a method that there is not.
    pub allow: Option<String>,
    /// Each rule that is broken; one at least.
    pub violations: Vec<Violation>,
}

fn first(violations: &[Violation]) -> String {
    violations.first().map(ToString::to_string).unwrap_or_default()
}

impl Refusal {
    fn one(status: u16, violation: Violation) -> Self {
        Refusal { status, allow: None, violations: vec![violation] }
    }

    /// The part of the request that its first violation is about.
    pub fn part(&self) -> Part {
        self.violations.first().map_or(Part::Path, |violation| violation.part)
    }
}

impl From<BodyError> for Refusal {
    /// 400 for what is no JSON or no form at all, 422 (RFC 9110 §15.5.21) for what breaks the schema.
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Syntax(violation) => Refusal::one(400, violation),
            BodyError::Schema(violations) => Refusal { status: 422, allow: None, violations },
        }
    }
}

impl Api {
    /// Holds the head of a request against the document.
    pub fn inspect(&self, ask: &Ask<'_>) -> Inspected {
        let refused = |refusal| Inspected { refusal: Some(refusal), body: None };
        let Some((item, values)) = self.find(ask.path) else {
            let detail = "the interface has no such path";
            return refused(Refusal::one(404, Violation::new(Part::Path, "", "paths", "", detail)));
        };
        let Some(operation) = item.operation(ask.method) else {
            // A browser asks before it sends, and the answer is the upstream's (Fetch, §3.2.2).
            if ask.method == "OPTIONS" && has(ask, "access-control-request-method") {
                return Inspected::default();
            }
            return refused(item.wrong_method());
        };
        let mut violations = Vec::new();
        operation.check_parameters(self, item, &values, ask, &mut violations);
        let body = operation.check_body(ask, &mut violations);
        violations.truncate(VIOLATIONS_MAX);
        match body {
            Err(status) => refused(Refusal { status, allow: None, violations }),
            Ok(body) if violations.is_empty() => Inspected { refusal: None, body },
            Ok(body) => Inspected { refusal: Some(Refusal { status: 400, allow: None, violations }), body },
        }
    }

    fn find(&self, path: &str) -> Option<(&PathItem, Vec<String>)> {
        let segments = template::segments(path)?;
        let below = self.bases.iter().filter_map(|base| segments.strip_prefix(base.as_slice()));
        let (item, values) = below.into_iter().find_map(|rest| self.paths.find(rest))?;
        Some((&self.items[item], values))
    }
}

impl PathItem {
    fn operation(&self, method: &str) -> Option<&Operation> {
        let of = |method: &str| self.operations.iter().find(|(own, _)| own == method);
        // RFC 9110 §9.3.2: HEAD is GET without the body of its answer.
        let found = of(method).or_else(|| (method == "HEAD").then(|| of("GET")).flatten());
        found.map(|(_, operation)| operation)
    }

    fn wrong_method(&self) -> Refusal {
        let mut methods: Vec<&str> = self.operations.iter().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&"GET") && !methods.contains(&"HEAD") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        let detail = format!("the path has {}", methods.join(", "));
        let violation = Violation::new(Part::Method, "", "method", "", detail);
        Refusal { allow: Some(methods.join(", ")), ..Refusal::one(405, violation) }
    }
}

impl Operation {
    fn check_parameters(
        &self,
        api: &Api,
        item: &PathItem,
        values: &[String],
        ask: &Ask<'_>,
        out: &mut Vec<Violation>,
    ) {
        let query = Query::read(ask.query.unwrap_or_default());
        if query.malformed {
            let detail = "has a name that is encoded wrongly, or too many parameters";
            out.push(Violation::new(Part::Query, "", "style", "", detail));
        }
        for parameter in &self.parameters {
            let name = parameter.name.as_str();
            match parameter.part {
                Part::Path => {
                    let at = item.variables.iter().position(|variable| variable == name);
                    let text = at.and_then(|at| values.get(at)).map(String::as_str);
                    parameter.check(text.as_slice(), &[], out);
                }
                Part::Query if parameter.style == Style::DeepObject => {
                    parameter.check(&[], &query.members(name), out);
                }
                Part::Query => parameter.check(&query.all(name), &[], out),
                Part::Header => check_field(parameter, ask, out),
                Part::Cookie => check_cookie(parameter, ask, out),
                Part::Method | Part::Body => {}
            }
        }
        if !api.unknown_query {
            let unknown = query.names().filter(|name| !self.knows(api, name));
            for name in unknown.take(VIOLATIONS_MAX) {
                let detail = "the operation has no such parameter";
                out.push(Violation::new(Part::Query, name, "unknown", &self.at, detail));
            }
        }
    }

    fn knows(&self, api: &Api, name: &str) -> bool {
        let of_query = self.parameters.iter().filter(|parameter| parameter.part == Part::Query);
        let named = |parameter: &Parameter| match parameter.style {
            Style::DeepObject => member_of(name, &parameter.name).is_some(),
            _ => parameter.name == name,
        };
        of_query.into_iter().any(named) || api.query_keys.iter().any(|key| key == name)
    }

    /// What the body must be; `Err` with the status if its head already rules it out.
    fn check_body(&self, ask: &Ask<'_>, out: &mut Vec<Violation>) -> Result<Option<Arc<BodyRule>>, u16> {
        let wrong = |name: &str, rule: &str, at: &str, detail: &str| {
            Violation::new(Part::Body, name, rule, at, detail)
        };
        let Some(bodies) = &self.body else {
            if ask.has_body {
                out.push(wrong("", "requestBody", &self.at, "the operation takes no body"));
            }
            return Ok(None);
        };
        if !ask.has_body {
            if bodies.required {
                out.push(wrong("", "required", &bodies.at, "is missing"));
            }
            return Ok(None);
        }
        let content_type = only(ask, "content-type");
        let media = content_type.as_deref().and_then(MediaRange::read);
        let Some(Ok(rule)) = media.map(|media| bodies.rule(&media)) else {
            out.push(wrong("", "content", &bodies.at, "the operation takes no such media type"));
            return Err(415);
        };
        let Some(rule) = rule else { return Ok(None) };
        let encoded = only(ask, "content-encoding").is_some_and(|coding| coding != "identity")
            || content_type.as_deref().is_some_and(is_other_charset);
        if encoded {
            out.push(wrong("", "encoding", &bodies.at, "must be plain UTF-8, not compressed"));
            return Err(415);
        }
        Ok(Some(rule.clone()))
    }
}

fn check_field(parameter: &Parameter, ask: &Ask<'_>, out: &mut Vec<Violation>) {
    match joined(ask, &parameter.name, ", ") {
        Some(Ok(text)) => parameter.check(&[text.trim()], &[], out),
        Some(Err(())) => out.push(parameter.violation("style", "is no UTF-8")),
        None => parameter.check(&[], &[], out),
    }
}

fn check_cookie(parameter: &Parameter, ask: &Ask<'_>, out: &mut Vec<Violation>) {
    match joined(ask, "cookie", "; ") {
        Some(Ok(text)) => {
            let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
            let values = pairs.filter(|(name, _)| name.trim() == parameter.name);
            let values: Vec<&str> = values.map(|(_, value)| value.trim().trim_matches('"')).collect();
            parameter.check(&values, &[], out);
        }
        Some(Err(())) => out.push(parameter.violation("style", "is no UTF-8")),
        None => parameter.check(&[], &[], out),
    }
}

/// Every value of a field as one text (RFC 9110 §5.3); `None` if there is none.
fn joined(ask: &Ask<'_>, name: &str, between: &str) -> Option<Result<String, ()>> {
    let mut whole: Option<Vec<u8>> = None;
    (ask.header)(name, &mut |value| {
        match &mut whole {
            None => whole = Some(value.to_vec()),
            Some(whole) => {
                whole.extend_from_slice(between.as_bytes());
                whole.extend_from_slice(value);
            }
        }
        false
    });
    whole.map(|bytes| String::from_utf8(bytes).map_err(drop))
}

/// The value of a field, in lower case; an empty one, which is none that is known, if it stands there twice.
fn only(ask: &Ask<'_>, name: &str) -> Option<String> {
    let mut lines = 0;
    (ask.header)(name, &mut |_| {
        lines += 1;
        false
    });
    let text = joined(ask, name, ", ")?.unwrap_or_default();
    Some(if lines == 1 { text.trim().to_ascii_lowercase() } else { String::new() })
}

fn has(ask: &Ask<'_>, name: &str) -> bool {
    (ask.header)(name, &mut |_| true)
}

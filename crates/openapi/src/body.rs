//! Bodies: which media types an operation takes, and what a body of each must be.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::decode;
use crate::json;
use crate::parameter::PAIRS_MAX;
use crate::schema::Rule;
use crate::shape::{self, Shape, Types};
use crate::violation::{Part, Violation};

/// What an operation takes as its body.
#[derive(Debug)]
pub(crate) struct Bodies {
    pub(crate) required: bool,
    /// By media type, in lower case; the most exact first.
    pub(crate) contents: Vec<(MediaRange, Option<Arc<BodyRule>>)>,
    /// Where the document has it.
    pub(crate) at: String,
}

/// `application/json`, `text/*` or `*/*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MediaRange {
    kind: Option<String>,
    subtype: Option<String>,
}

/// What a body must be. It is checked as a whole, and so has to be held until it is whole.
#[derive(Debug)]
pub struct BodyRule {
    pub(crate) form: Form,
    pub(crate) rule: Rule,
    pub(crate) at: String,
}

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Json,
    UrlEncoded,
}

impl Form {
    /// The form of a media type that can be checked; `None`: its bodies pass as they are.
    pub(crate) fn of(range: &MediaRange) -> Option<Form> {
        match (range.kind.as_deref()?, range.subtype.as_deref()?) {
            ("application", "x-www-form-urlencoded") => Some(Form::UrlEncoded),
            ("application" | "text", "json") => Some(Form::Json),
            (_, subtype) if subtype.ends_with("+json") => Some(Form::Json),
            _ => None,
        }
    }
}

impl MediaRange {
    /// Reads a media type, whatever parameters it has.
    pub(crate) fn read(text: &str) -> Option<MediaRange> {
        let (kind, subtype) = text.split(';').next()?.trim().split_once('/')?;
        let part = |part: &str| {
            let token = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            (token && !part.is_empty()).then(|| (part != "*").then(|| part.to_ascii_lowercase()))
        };
        Some(MediaRange { kind: part(kind)?, subtype: part(subtype)? })
    }

    /// Greater is more exact.
    pub(crate) fn rank(&self) -> (bool, bool) {
        (self.kind.is_some(), self.subtype.is_some())
    }

    fn takes(&self, other: &MediaRange) -> bool {
        let fits = |wanted: &Option<String>, have: &Option<String>| wanted.is_none() || wanted == have;
        fits(&self.kind, &other.kind) && fits(&self.subtype, &other.subtype)
    }
}

/// Whether `content_type` says that its text is in another encoding than UTF-8.
pub(crate) fn is_other_charset(content_type: &str) -> bool {
    content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("charset")
            && !value.eq_ignore_ascii_case("utf-8")
            && !value.eq_ignore_ascii_case("us-ascii")
    })
}

impl Bodies {
    /// The rule for a body of this media type: `Err` if the operation takes none such, `Ok(None)` if it is
    /// not looked into.
    pub(crate) fn rule(&self, media: &MediaRange) -> Result<Option<&Arc<BodyRule>>, ()> {
        let found = self.contents.iter().find(|(range, _)| range.takes(media));
        found.map(|(_, rule)| rule.as_ref()).ok_or(())
    }
}

/// A body that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// It is not what its media type says; told by one violation.
    Syntax(Violation),
    /// It breaks the schema.
    Schema(Vec<Violation>),
}

impl BodyRule {
    /// Checks a whole body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, bytes: &[u8]) -> Result<(), BodyError> {
        let value = match self.form {
            Form::Json => json::read(bytes).map_err(|error| self.syntax("json", &error.to_string()))?,
            Form::UrlEncoded => form(bytes, &self.rule.shape).map_err(|why| self.syntax("form", why))?,
        };
        let mut violations = Vec::new();
        self.rule.check(value, Part::Body, "", &mut violations);
        if violations.is_empty() { Ok(()) } else { Err(BodyError::Schema(violations)) }
    }

    fn syntax(&self, rule: &str, detail: &str) -> BodyError {
        BodyError::Syntax(Violation::new(Part::Body, "", rule, &self.at, detail))
    }
}

/// Reads a form (WHATWG URL, §5.1) as the object that its schema is about.
fn form(bytes: &[u8], whole: &Shape) -> Result<Value, &'static str> {
    let text = str::from_utf8(bytes).map_err(|_| "is no UTF-8")?;
    let mut object = Map::new();
    for (at, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if at >= PAIRS_MAX {
            return Err("has too many fields");
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text| decode::percent(text, true).map_err(|_| "is encoded wrongly");
        let (name, value) = (decoded(name)?, decoded(value)?);
        let wanted = whole.property(&name).unwrap_or(&shape::TEXT);
        if wanted.types.has(Types::ARRAY) {
            let item = wanted.items().unwrap_or(&shape::TEXT).read(&value);
            let list = object.entry(name.into_owned()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(item);
            }
        } else if object.insert(name.into_owned(), wanted.read(&value)).is_some() {
            return Err("has a field more than once");
        }
    }
    Ok(Value::Object(object))
}

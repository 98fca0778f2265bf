//! What a request does wrong, in words that repeat nothing of what it sent but names.

use std::fmt;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

/// The part of a request that a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The path: no such path, or a parameter in it.
    Path,
    /// The method.
    Method,
    /// A parameter of the query.
    Query,
    /// A field of the head.
    Header,
    /// A cookie.
    Cookie,
    /// The body.
    Body,
}

impl Part {
    /// Every part.
    pub const ALL: [Part; 6] =
        [Part::Path, Part::Method, Part::Query, Part::Header, Part::Cookie, Part::Body];

    /// The word for it, as OpenAPI has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::Path => "path",
            Part::Method => "method",
            Part::Query => "query",
            Part::Header => "header",
            Part::Cookie => "cookie",
            Part::Body => "body",
        }
    }
}

/// One rule that a request breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Where in the request.
    pub part: Part,
    /// The name of the parameter, or the JSON pointer into the body; empty for the part as a whole.
    pub name: String,
    /// The rule: a keyword of JSON Schema or of OpenAPI.
    pub rule: String,
    /// Where the document says so, as a JSON pointer; empty where it is what the document does not say.
    pub at: String,
    /// What would be right.
    pub detail: String,
}

/// So many violations are told of one request at most.
pub(crate) const VIOLATIONS_MAX: usize = 16;

/// The longest name or pointer of the client's that is repeated to it, in bytes.
const NAME_MAX: usize = 128;

/// The longest list of what would be right, in bytes.
const DETAIL_MAX: usize = 256;

impl Violation {
    pub(crate) fn new(part: Part, name: &str, rule: &str, at: &str, detail: impl Into<String>) -> Self {
        Violation {
            part,
            name: shortened(name, NAME_MAX),
            rule: rule.into(),
            at: at.into(),
            detail: shortened(&detail.into(), DETAIL_MAX),
        }
    }
}

impl fmt::Display for Violation {
    /// For logs: which rule of the document, and nothing that the client wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part.as_str(), self.rule)?;
        if self.at.is_empty() { Ok(()) } else { write!(f, " at #{}", self.at) }
    }
}

/// What `error` says is wanted: words of the schema, never the value.
pub(crate) fn wanted(error: &ValidationError<'_>) -> String {
    use ValidationErrorKind as Kind;
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(wanted) } => format!("must be of type {wanted}"),
        Kind::Type { kind: TypeKind::Multiple(wanted) } => {
            let words: Vec<String> = wanted.iter().map(|kind| kind.to_string()).collect();
            format!("must be of type {}", words.join(" or "))
        }
        Kind::Required { property } => format!("{property} is missing"),
        Kind::Enum { options } => format!("must be one of {options}"),
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have at least {}", many(*limit, "character")),
        Kind::MaxLength { limit } => format!("must have at most {}", many(*limit, "character")),
        Kind::MinItems { limit } => format!("must have at least {}", many(*limit, "item")),
        Kind::MaxItems { limit } => format!("must have at most {}", many(*limit, "item")),
        Kind::MinProperties { limit } => format!("must have at least {}", many(*limit, "member")),
        Kind::MaxProperties { limit } => format!("must have at most {}", many(*limit, "member")),
        Kind::Pattern { pattern } => format!("must match {pattern}"),
        Kind::Format { format } => format!("must be in the format {format}"),
        Kind::UniqueItems => "must not have the same item twice".into(),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let names: Vec<String> = unexpected.iter().take(4).map(|name| quoted(name)).collect();
            format!("must not have {}", names.join(", "))
        }
        Kind::OneOfNotValid { .. } | Kind::AnyOf { .. } => "fits none of the alternatives".into(),
        Kind::OneOfMultipleValid { .. } => "fits more than one of the alternatives".into(),
        Kind::Not { .. } => "is what is ruled out".into(),
        Kind::FalseSchema => "must not be there".into(),
        kind => format!("breaks the rule \"{}\"", kind.keyword()),
    }
}

fn many(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A name of the client's, as JSON, so that nothing in it can pass for ours.
fn quoted(name: &str) -> String {
    Value::from(shortened(name, NAME_MAX / 2)).to_string()
}

fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    format!("{}\u{2026}", &text[..text.floor_char_boundary(most)])
}

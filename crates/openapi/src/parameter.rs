//! Parameters: where they stand, how their texts become values (OpenAPI 3.1 §4.8.12.2), and what those must
//! be.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::decode::{self, Malformed};
use crate::json;
use crate::schema::Rule;
use crate::shape::{self, Types};
use crate::violation::{Part, Violation};

/// A parameter of an operation.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) part: Part,
    pub(crate) required: bool,
    pub(crate) style: Style,
    pub(crate) allow_empty: bool,
    /// Where the document has it.
    pub(crate) at: String,
    pub(crate) rule: Rule,
}

/// How a value is written as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// Each item of an array on its own: `a=1&a=2`.
    Each,
    /// The items of an array in one text, divided by this.
    Divided(Divider),
    /// Members as `name[member]=value`.
    DeepObject,
    /// JSON.
    Json,
}

/// What divides the items of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Divider {
    Comma,
    Space,
    Pipe,
}

impl Parameter {
    /// Checks the texts that a request has for it, encoded as they came.
    pub(crate) fn check(&self, texts: &[&str], members: &[(&str, &str)], out: &mut Vec<Violation>) {
        let wrong = |rule: &str, detail: &str| self.violation(rule, detail);
        if texts.is_empty() && members.is_empty() {
            if self.required {
                out.push(wrong("required", "is missing"));
            }
            return;
        }
        if self.allow_empty && matches!(texts, [""]) {
            return;
        }
        let value = match self.style {
            Style::DeepObject => self.object(members),
            _ => self.value(texts),
        };
        match value {
            Ok(value) => self.rule.check(value, self.part, &self.name, out),
            Err(Unread::Twice) => out.push(wrong("style", "stands there more than once")),
            Err(Unread::Encoding) => out.push(wrong("style", "is encoded wrongly")),
            Err(Unread::Json) => out.push(wrong("content", "is no JSON")),
        }
    }

    pub(crate) fn violation(&self, rule: &str, detail: &str) -> Violation {
        Violation::new(self.part, &self.name, rule, &self.at, detail)
    }

    fn value(&self, texts: &[&str]) -> Result<Value, Unread> {
        let whole = &self.rule.shape;
        let is_list = whole.types.has(Types::ARRAY);
        let item = |text: &str| Ok(whole.items().unwrap_or(&shape::TEXT).read(&self.decoded(text)?));
        match (self.style, texts) {
            (Style::Each, texts) if is_list => texts.iter().map(|text| item(text)).collect(),
            (_, [_, _, ..]) => Err(Unread::Twice),
            (Style::Json, [text]) => json::read(self.decoded(text)?.as_bytes()).map_err(|_| Unread::Json),
            (Style::Divided(divider), [text]) if is_list => divider.split(text).map(item).collect(),
            (_, [text]) => Ok(whole.read(&self.decoded(text)?)),
            (_, []) => Ok(Value::Null),
        }
    }

    fn object(&self, members: &[(&str, &str)]) -> Result<Value, Unread> {
        let mut object = Map::new();
        for (name, text) in members {
            let wanted = self.rule.shape.property(name).unwrap_or(&shape::TEXT);
            if object.insert((*name).to_owned(), wanted.read(&self.decoded(text)?)).is_some() {
                return Err(Unread::Twice);
            }
        }
        Ok(Value::Object(object))
    }

    fn decoded<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Malformed> {
        match self.part {
            Part::Query => decode::percent(text, true),
            // Decoded before they were divided, or never encoded.
            _ => Ok(Cow::Borrowed(text)),
        }
    }
}

enum Unread {
    Twice,
    Encoding,
    Json,
}

impl From<Malformed> for Unread {
    fn from(_: Malformed) -> Self {
        Unread::Encoding
    }
}

impl Divider {
    /// The items of `text`, which is still encoded where its part is: an encoded comma divides nothing.
    fn split(self, text: &str) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Divider::Comma => Box::new(text.split(',').map(|item| item.trim_matches([' ', '\t']))),
            Divider::Space => Box::new(text.split("%20").flat_map(|part| part.split(['+', ' ']))),
            Divider::Pipe => Box::new(text.split('|').flat_map(|part| part.split("%7C"))),
        }
    }
}

/// The query of a request, divided but not decoded; the names are.
#[derive(Debug, Default)]
pub(crate) struct Query<'q> {
    pairs: Vec<(Cow<'q, str>, &'q str)>,
    /// Whether a name was encoded wrongly.
    pub(crate) malformed: bool,
}

/// How many parameters a query may have that is checked.
pub(crate) const PAIRS_MAX: usize = 1_000;

impl<'q> Query<'q> {
    pub(crate) fn read(text: &'q str) -> Query<'q> {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match decode::percent(name, true) {
                Ok(name) if query.pairs.len() < PAIRS_MAX => query.pairs.push((name, value)),
                _ => query.malformed = true,
            }
        }
        query
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| &**name)
    }

    pub(crate) fn all<'s>(&'s self, name: &'s str) -> Vec<&'q str> {
        self.pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| *value).collect()
    }

    /// The members `name[member]`.
    pub(crate) fn members<'s>(&'s self, name: &'s str) -> Vec<(&'s str, &'q str)> {
        let member = |(other, value): &'s (Cow<'q, str>, &'q str)| Some((member_of(other, name)?, *value));
        self.pairs.iter().filter_map(member).collect()
    }
}

/// The member that `text` names of the deep object `name`.
pub(crate) fn member_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')
}

//! What `$ref` leads to, within the one file.

use serde_json::Value;

use crate::decode;
use crate::problem::Problem;
use crate::source::{Source, escaped};

/// How many references may follow one another.
const CHAIN_MAX: usize = 32;

/// A document, by its pointers.
#[derive(Debug)]
pub(crate) struct Refs<'s> {
    source: &'s Source,
}

impl<'s> Refs<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Refs { source }
    }

    pub(crate) fn at(&self, pointer: &str) -> Option<&'s Value> {
        self.source.root.pointer(pointer)
    }

    pub(crate) fn problem(&self, pointer: &str, message: impl Into<String>) -> Problem {
        Problem { place: self.source.place(pointer), message: message.into() }
    }

    /// The pointer that the reference `target`, which stands at `pointer`, names.
    pub(crate) fn target(&self, target: &Value, pointer: &str) -> Result<String, Problem> {
        let Some(text) = target.as_str() else {
            return Err(self.problem(pointer, "`$ref` must be a text"));
        };
        let Some(fragment) = text.strip_prefix('#') else {
            let message =
                format!("`$ref` leads out of the file, to {text:?}; bundle the document into one file first");
            return Err(self.problem(pointer, message));
        };
        let decoded = decode::percent(fragment, false).unwrap_or_default();
        let is_pointer = decoded.is_empty() || decoded.starts_with('/');
        match is_pointer && self.at(&decoded).is_some() {
            true => Ok(decoded.into_owned()),
            false => Err(self.problem(pointer, format!("`$ref` names {text:?}, and there is nothing there"))),
        }
    }

    /// The value at `pointer`, or what it refers to, and where that stands.
    pub(crate) fn resolve(&self, pointer: &str) -> Result<(String, &'s Value), Problem> {
        let mut pointer = pointer.to_owned();
        for _ in 0..CHAIN_MAX {
            let value = self.at(&pointer).ok_or_else(|| self.problem(&pointer, "this is missing"))?;
            match value.get("$ref") {
                Some(target) => pointer = self.target(target, &join(&pointer, "$ref"))?,
                None => return Ok((pointer, value)),
            }
        }
        Err(self.problem(&pointer, "the references go in a circle"))
    }

    /// Whether a property is in answers alone.
    pub(crate) fn is_read_only(&self, property: &Value, pointer: &str) -> bool {
        let marked = |value: &Value| value.get("readOnly") == Some(&Value::Bool(true));
        marked(property) || self.resolve(pointer).is_ok_and(|(_, resolved)| marked(resolved))
    }
}

/// The pointer of the member `step` of what is at `pointer`.
pub(crate) fn join(pointer: &str, step: &str) -> String {
    format!("{pointer}/{}", escaped(step))
}

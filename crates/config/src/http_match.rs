//! Which requests an HTTP route takes.

use std::collections::HashMap;

use crate::fields::Fields;
use crate::host::HostPattern;
use crate::key::Of;
use crate::node::{Entry, Node};
use crate::path_pattern::PathPattern;
use crate::place::{Place, Spot};
use crate::problem::Problems;

/// Which requests a route takes: those that fit in every respect. Two that are written in another order are
/// equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct HttpMatch {
    /// The hosts asked for, sorted; none: any.
    pub hosts: Vec<HostPattern>,
    /// The path; none: any.
    pub path: Option<PathPattern>,
    /// The methods, sorted; none: any.
    pub methods: Vec<String>,
    /// What the fields of the head must be, sorted by name.
    pub headers: Vec<Condition>,
    /// What the parameters of the query must be, sorted by name.
    pub query: Vec<Condition>,
}

/// What one field or parameter must be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Condition {
    /// Its name; that of a field is in lower case.
    pub name: String,
    /// Its value.
    pub value: Expected,
}

/// The value that is asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expected {
    /// Any, as long as there is one.
    Present,
    /// This one: a field as it was sent, a parameter after percent-decoding.
    Exactly(String),
}

/// Reads the keys that say which requests a route takes.
pub(crate) fn read(fields: &mut Fields, problems: &mut Problems) -> HttpMatch {
    let hosts = once("host", fields.list::<HostPattern>("host"), problems);
    let path = fields.maybe("path");
    let methods = once("method", fields.list::<String>("method"), problems);
    let sorted = |conditions: Option<Vec<Condition>>| {
        let mut conditions = conditions.unwrap_or_default();
        conditions.sort_unstable();
        conditions
    };
    let (headers, query) = (sorted(fields.maybe("headers")), sorted(fields.maybe("query")));
    HttpMatch { hosts, path, methods, headers, query }
}

/// `items` sorted; one that is written twice is told.
fn once<T: Ord + std::fmt::Display>(name: &str, mut items: Vec<Spot<T>>, problems: &mut Problems) -> Vec<T> {
    items.sort_by(|a, b| a.value.cmp(&b.value));
    for pair in items.windows(2).filter(|pair| pair[0].value == pair[1].value) {
        problems
            .error(pair[1].place, format!("`{name}` \"{}\" stands here for the second time", pair[1].value));
    }
    items.dedup_by(|a, b| a.value == b.value);
    items.into_iter().map(|item| item.value).collect()
}

impl HttpMatch {
    /// What tells which requests it takes, without the names that it gives to parts of them.
    pub(crate) fn unnamed(&self) -> Self {
        Self { path: self.path.as_ref().map(PathPattern::unnamed), ..self.clone() }
    }
}

/// Reads a table of conditions; what has a problem is told and left out.
pub(crate) fn conditions(of: Of, key: &str, entries: &[Entry], problems: &mut Problems) -> Vec<Condition> {
    let mut names: HashMap<String, Place> = HashMap::new();
    let mut conditions = Vec::new();
    for Entry { name, value } in entries {
        let Some(condition) = condition(of, key, name, value, problems) else { continue };
        match names.get(&condition.name) {
            Some(first) => {
                let message = format!("`{key}` has \"{}\" already, in line {}", condition.name, first.line);
                problems.error(name.place, message).hint("fields are not told apart by case");
            }
            None => {
                names.insert(condition.name.clone(), name.place);
                conditions.push(condition);
            }
        }
    }
    conditions
}

fn condition(
    of: Of,
    key: &str,
    name: &Spot<String>,
    value: &Spot<Node>,
    problems: &mut Problems,
) -> Option<Condition> {
    let Node::Text(text) = &value.value else {
        let message =
            format!("`{key}`: \"{}\" takes a text like \"2\", not {}", name.value, value.value.describe());
        let number = if let Node::Whole(number) = value.value { Some(number) } else { None };
        let hint = || Some(format!("write it in quotes: \"{}\"", number?));
        problems.error(value.place, message).maybe(hint);
        return None;
    };
    match of {
        Of::Fields => field(key, name, text, value.place, problems)?,
        Of::Parameters if name.value.is_empty() => {
            problems.error(name.place, format!("`{key}`: a parameter's name cannot be empty"));
            return None;
        }
        Of::Parameters => {}
    }
    let expected = if text == "*" { Expected::Present } else { Expected::Exactly(text.clone()) };
    let name = if of == Of::Fields { name.value.to_ascii_lowercase() } else { name.value.clone() };
    Some(Condition { name, value: expected })
}

/// Whether a field can be called `name` and have the value `text`.
fn field(key: &str, name: &Spot<String>, text: &str, place: Place, problems: &mut Problems) -> Option<()> {
    if !is_token(&name.value) {
        problems.error(name.place, format!("`{key}`: \"{}\" is no name of a field", name.value));
        return None;
    }
    if name.value.eq_ignore_ascii_case("host") {
        problems.error(name.place, format!("`{key}` cannot ask for \"{}\"", name.value)).hint("write `host`");
        return None;
    }
    if !is_value(text) {
        let message =
            format!("`{key}`: no field \"{}\" has a value with line ends or space around it", name.value);
        problems.error(place, message);
        return None;
    }
    Some(())
}

/// RFC 9110 §5.5: space around a value is no part of it.
pub(crate) fn is_value(text: &str) -> bool {
    let visible = text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..));
    visible && text.trim_matches([' ', '\t']) == text
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

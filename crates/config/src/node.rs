//! The file as it is written: every value and key with its place, in the order of the file. Knows TOML, knows
//! no key.

use toml::de::{DeTable, DeValue};

use crate::place::{Lines, Spot};
use crate::problem::Problems;

/// One value of the file.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Text(String),
    /// A whole number that fits; one that does not is `Other`.
    Whole(i64),
    Flag(bool),
    List(Vec<Spot<Node>>),
    Table(Vec<Entry>),
    /// A fraction, a date, a number too large: nothing that any key takes. Holds how it is written.
    Other(String),
}

/// One `key = value` of the file, or one `[key]`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Spot<String>,
    pub(crate) value: Spot<Node>,
}

impl Node {
    /// What it is, in the words of an error message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Node::Text(text) if text.len() <= 60 => format!("the text \"{text}\""),
            Node::Text(_) => "a long text".into(),
            Node::Whole(number) => format!("the number {number}"),
            Node::Flag(flag) => flag.to_string(),
            Node::List(_) => "an array".into(),
            Node::Table(_) => "a table".into(),
            Node::Other(written) => written.clone(),
        }
    }
}

/// Reads a whole file. Syntax errors go to `problems`; what could be read in spite of them is dropped,
/// because what they hide would be reported as missing.
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<Vec<Entry>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    tell_syntax(text, &lines, &errors, problems);
    errors.is_empty().then(|| entries(table.get_ref(), &lines))
}

fn tell_syntax(text: &str, lines: &Lines<'_>, errors: &[toml::de::Error], problems: &mut Problems) {
    let mut errors: Vec<_> =
        errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let mut last = (0, "");
    for (span, message) in errors {
        let place = lines.place(span.start);
        // What follows the first error of a line, or goes on line by line behind a bracket left open, is its
        // echo.
        let kind = message.split(' ').next().unwrap_or(message);
        let echo = place.line == last.0 || (place.line == last.0 + 1 && kind == last.1);
        if !echo {
            problems.error(place, in_our_words(message, text.get(span).unwrap_or("")));
            last.1 = kind;
        }
        last.0 = place.line;
    }
}

/// The TOML reader's message, said plainer where its own words puzzle.
fn in_our_words(message: &str, at: &str) -> String {
    match message {
        "duplicate key" => format!("`{at}` stands here for the second time"),
        _ if message.starts_with("string values must be quoted") && at.is_empty() => {
            "the value is missing".into()
        }
        _ if message.starts_with("string values must be quoted") => {
            format!("text stands in quotes: \"{at}\"")
        }
        _ if message.starts_with("invalid float") => "this is no number; text stands in quotes".into(),
        _ => message.strip_suffix(", expected nothing").unwrap_or(message).into(),
    }
}

/// Reads one value alone: a default or an example of a key's description. Text may leave its quotes off.
pub(crate) fn parse_value(text: &str) -> Node {
    let (value, errors) = DeValue::parse_recoverable(text);
    if errors.is_empty() { node(value.get_ref(), &Lines::of(text)) } else { Node::Text(text.into()) }
}

fn entries(table: &DeTable<'_>, lines: &Lines<'_>) -> Vec<Entry> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let read = entries.into_iter().map(|(name, value)| Entry {
        name: Spot { value: name.get_ref().to_string(), place: lines.place(name.span().start) },
        value: Spot { value: node(value.get_ref(), lines), place: lines.place(value.span().start) },
    });
    read.collect()
}

/// Recursion is bounded: the TOML reader refuses nesting beyond 80 levels.
fn node(value: &DeValue<'_>, lines: &Lines<'_>) -> Node {
    match value {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Node::Whole(number),
            Err(_) => Node::Other(format!("the number {number}")),
        },
        DeValue::Boolean(flag) => Node::Flag(*flag),
        DeValue::Float(number) => Node::Other(format!("the number {number}")),
        DeValue::Datetime(date) => Node::Other(format!("the date {date}")),
        DeValue::Table(table) => Node::Table(entries(table, lines)),
        DeValue::Array(array) => {
            let items = array.iter().map(|item| Spot {
                value: node(item.get_ref(), lines),
                place: lines.place(item.span().start),
            });
            Node::List(items.collect())
        }
    }
}

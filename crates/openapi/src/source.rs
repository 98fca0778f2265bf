//! The text of a document as values, each with its place: YAML, of which JSON is a part.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use crate::problem::{Place, Problem};

/// The largest document that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// How deep a document may be nested: beyond what people write, within what a stack holds.
const DEPTH_MAX: usize = 96;

/// How many values a document may hold. Aliases count as often as they are used: a few lines of them could
/// stand for more than any memory.
const VALUES_MAX: usize = 400_000;

/// A document that was read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) root: Value,
    /// Where each value stands, by its JSON pointer (RFC 6901).
    places: HashMap<String, Place>,
}

impl Source {
    /// Reads `text`.
    pub(crate) fn read(text: &str) -> Result<Source, Problem> {
        if text.len() > DOCUMENT_BYTES_MAX {
            let message = format!("the document is larger than {} MiB", DOCUMENT_BYTES_MAX >> 20);
            return Err(Problem { place: Place::START, message });
        }
        // JSON says what is wrong with JSON better than YAML does.
        if text.trim_start().starts_with('{')
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
        {
            let place = Place { line: error.line(), column: error.column().max(1) };
            return Err(Problem { place, message: format!("this is no JSON: {error}") });
        }
        Reader::default().read(text)
    }

    /// Where the value at `pointer` stands, or the nearest around it.
    pub(crate) fn place(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return *place;
            }
            match pointer.rfind('/') {
                Some(cut) => pointer = &pointer[..cut],
                None => return Place::START,
            }
        }
    }
}

/// What stands between a value's begin and its end.
enum Open {
    Sequence { anchor: usize, items: Vec<Value> },
    Mapping { anchor: usize, entries: Map<String, Value>, key: Option<String> },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    /// The pointer of what is read now, and how long it was before each step.
    pointer: String,
    steps: Vec<usize>,
    places: HashMap<String, Place>,
    anchors: HashMap<usize, Value>,
    values: usize,
    root: Option<Value>,
}

impl Reader {
    fn read(mut self, text: &str) -> Result<Source, Problem> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| Problem {
                place: place(error.marker()),
                message: format!("this is no YAML: {}", error.info()),
            })?;
            let at = place(&span.start);
            let wrong = |message: String| Problem { place: at, message };
            documents += usize::from(matches!(event, Event::DocumentStart(_)));
            if documents > 1 {
                return Err(wrong("the file holds more than one document".into()));
            }
            self.take(event, at).map_err(wrong)?;
        }
        let root = self.root.ok_or(Problem { place: Place::START, message: "the file is empty".into() })?;
        Ok(Source { root, places: self.places })
    }

    fn take(&mut self, event: Event<'_>, at: Place) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, _) => self.scalar(&text, style, anchor, at)?,
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value = value.ok_or("an alias stands within what it names")?;
                self.begin(at)?;
                self.count(weight(&value))?;
                self.end(value, 0);
            }
            Event::SequenceStart(anchor, _) => {
                self.begin(at)?;
                self.open.push(Open::Sequence { anchor, items: Vec::new() });
            }
            Event::MappingStart(anchor, _) => {
                self.begin(at)?;
                self.open.push(Open::Mapping { anchor, entries: Map::new(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence { anchor, items }) => self.end(Value::Array(items), anchor),
                Some(Open::Mapping { anchor, entries, .. }) => self.end(Value::Object(entries), anchor),
                None => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, at: Place) -> Result<(), String> {
        if self.takes_key(text, at)? {
            return Ok(());
        }
        let value = scalar(text, style)?;
        self.begin(at)?;
        self.end(value, anchor);
        Ok(())
    }

    /// Takes `text` as a key, if that is what comes next.
    fn takes_key(&mut self, text: &str, at: Place) -> Result<bool, String> {
        let Some(Open::Mapping { entries, key: key @ None, .. }) = self.open.last_mut() else {
            return Ok(false);
        };
        if text == "<<" {
            return Err("merge keys (<<) are not part of YAML 1.2; write the keys out".into());
        }
        if entries.contains_key(text) {
            return Err(format!("\"{text}\" stands here twice"));
        }
        *key = Some(text.to_owned());
        // Better than the place of the value, which may be the next line.
        self.places.insert(format!("{}/{}", self.pointer, escaped(text)), at);
        Ok(true)
    }

    /// A value begins at `at`.
    fn begin(&mut self, at: Place) -> Result<(), String> {
        self.count(1)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("this is nested deeper than {DEPTH_MAX} levels"));
        }
        self.steps.push(self.pointer.len());
        match self.open.last() {
            None => {}
            Some(Open::Sequence { items, .. }) => self.pointer.push_str(&format!("/{}", items.len())),
            Some(Open::Mapping { key: Some(key), .. }) => {
                self.pointer.push('/');
                self.pointer.push_str(&escaped(key));
            }
            Some(Open::Mapping { key: None, .. }) => return Err("a key must be a text".into()),
        }
        self.places.entry(self.pointer.clone()).or_insert(at);
        Ok(())
    }

    /// The value that began last is whole.
    fn end(&mut self, value: Value, anchor: usize) {
        self.pointer.truncate(self.steps.pop().unwrap_or_default());
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::Sequence { items, .. }) => items.push(value),
            Some(Open::Mapping { entries, key, .. }) => {
                if let Some(key) = key.take() {
                    entries.insert(key, value);
                }
            }
        }
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values += values;
        if self.values <= VALUES_MAX {
            return Ok(());
        }
        Err(format!("the document holds more than {VALUES_MAX} values, aliases counted as often as used"))
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(weight).sum::<usize>(),
        _ => 1,
    }
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// What a scalar stands for: YAML 1.2, the core schema (§10.3.2).
fn scalar(text: &str, style: ScalarStyle) -> Result<Value, String> {
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.into()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" => {
            return Err(format!("{text} has no place in JSON, and so not here"));
        }
        _ => number(text).map_or_else(|| Value::String(text.into()), Value::Number),
    })
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !numeric {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    let whole = plain.parse::<i64>().map(Number::from).or_else(|_| plain.parse::<u64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(plain.parse().ok()?))
}

/// One step of a JSON pointer (RFC 6901 §3).
pub(crate) fn escaped(step: &str) -> Cow<'_, str> {
    if step.contains(['~', '/']) {
        Cow::Owned(step.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> String {
        Source::read(text).unwrap_err().to_string()
    }

    #[test]
    fn yaml_and_json_read_the_same() {
        let yaml = "a: 1\nb: [x, 'true', true, ~, 1.5, -3]\n\"c/d\": {e: }\nf: |\n  two\n  lines\n";
        let json = r#"{"a":1,"b":["x","true",true,null,1.5,-3],"c/d":{"e":null},"f":"two\nlines\n"}"#;
        let (yaml, json) = (Source::read(yaml).unwrap(), Source::read(json).unwrap());
        assert_eq!(yaml.root, json.root);
        assert_eq!(yaml.place("/b/1"), Place { line: 2, column: 8 });
        assert_eq!(yaml.place("/c~1d/e"), Place { line: 3, column: 9 });
        assert_eq!(yaml.place("/c~1d/nothing"), Place { line: 3, column: 1 });
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        assert_eq!(message("a: 1\na: 2\n"), "2:1: \"a\" stands here twice");
        assert!(message("a: [1\nb: 2\n").contains("this is no YAML"));
        assert!(message("{\"a\": }").starts_with("1:7: this is no JSON"), "{}", message("{\"a\": }"));
        assert!(message("base: &b {x: 1}\nc:\n  <<: *b\n").contains("merge keys"));
        assert_eq!(message(""), "1:1: the file is empty");
        assert!(message("a: 1\n---\nb: 2\n").contains("more than one document"));
        assert!(message(&"[".repeat(200)).contains("deeper"));
    }

    #[test]
    fn a_bomb_of_aliases_is_defused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(message(&text).contains("aliases counted as often as used"));
    }

    #[test]
    fn aliases_stand_for_what_they_name() {
        let source = Source::read("a: &a {x: 1}\nb: *a\nc: [*a]\n").unwrap();
        assert_eq!(source.root, json!({ "a": { "x": 1 }, "b": { "x": 1 }, "c": [{ "x": 1 }] }));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\u{e4}\u{1f600}\n\t]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z/~ ]{1,6}", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_is_read_as_it_is_meant(value in any_json(), pretty in any::<bool>()) {
            let value = json!({ "root": value });
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            prop_assert_eq!(Source::read(&text).unwrap().root, value);
        }

        #[test]
        fn no_text_is_too_much(text in "[-a-z0-9:,\\[\\]{}&*!|>'\"#%@ \n\t~<.]{0,200}") {
            let _ = Source::read(&text);
        }
    }
}

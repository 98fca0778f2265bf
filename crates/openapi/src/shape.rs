//! What a text may stand for: parameters and forms carry no types of their own, so their schemas say.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// How many schemas are looked into for one shape: references can make few lines stand for very many.
const LOOKS_MAX: usize = 4_096;

/// How many references and alternatives are followed one after another.
const HOPS_MAX: usize = 16;

/// Which types a schema takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Types(u8);

impl Types {
    pub(crate) const NULL: Types = Types(1);
    pub(crate) const BOOLEAN: Types = Types(2);
    pub(crate) const INTEGER: Types = Types(4);
    pub(crate) const NUMBER: Types = Types(8);
    pub(crate) const STRING: Types = Types(16);
    pub(crate) const ARRAY: Types = Types(32);
    pub(crate) const OBJECT: Types = Types(64);

    pub(crate) fn has(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }

    fn add(&mut self, other: Types) {
        self.0 |= other.0;
    }

    fn of_word(word: &str) -> Types {
        match word {
            "null" => Types::NULL,
            "boolean" => Types::BOOLEAN,
            "integer" => Types::INTEGER,
            "number" => Types::NUMBER,
            "string" => Types::STRING,
            "array" => Types::ARRAY,
            "object" => Types::OBJECT,
            _ => Types::default(),
        }
    }

    fn of_value(value: &Value) -> Types {
        match value {
            Value::Null => Types::NULL,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Number(_) => Types::NUMBER,
            Value::String(_) => Types::STRING,
            Value::Array(_) => Types::ARRAY,
            Value::Object(_) => Types::OBJECT,
        }
    }
}

/// What a schema takes, as far as its texts need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) types: Types,
    items: Option<Box<Shape>>,
    properties: BTreeMap<String, Shape>,
}

/// The shape of what no schema speaks of: its text is a text.
pub(crate) static TEXT: Shape = Shape { types: Types::STRING, items: None, properties: BTreeMap::new() };

impl Shape {
    /// The shape of `schema`, whose references lead into `all`.
    pub(crate) fn of(schema: &Value, all: &[Value]) -> Shape {
        Look { all, left: LOOKS_MAX }.at(schema, Level::Whole, HOPS_MAX)
    }

    fn join(&mut self, other: Shape) {
        self.types.add(other.types);
        if self.items.is_none() {
            self.items = other.items;
        }
        for (name, property) in other.properties {
            self.properties.entry(name).or_default().join(property);
        }
    }

    /// The names that an object of this shape knows.
    pub(crate) fn property(&self, name: &str) -> Option<&Shape> {
        self.properties.get(name)
    }

    pub(crate) fn items(&self) -> Option<&Shape> {
        self.items.as_deref()
    }

    /// What `text` stands for: the first of the types that takes it. A text that none takes stays a text, and
    /// the schema refuses it.
    pub(crate) fn read(&self, text: &str) -> Value {
        let numeric = self.types.has(Types::INTEGER) || self.types.has(Types::NUMBER);
        if numeric && is_number(text) {
            let whole = text.parse::<i64>().ok().map(Number::from);
            if let Some(number) = whole.or_else(|| Number::from_f64(text.parse().ok()?)) {
                return Value::Number(number);
            }
        }
        match text {
            "true" if self.types.has(Types::BOOLEAN) => Value::Bool(true),
            "false" if self.types.has(Types::BOOLEAN) => Value::Bool(false),
            "" | "null" if self.types.has(Types::NULL) && !self.types.has(Types::STRING) => Value::Null,
            _ => Value::String(text.to_owned()),
        }
    }
}

/// How far within a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The value: it may have members, and items.
    Whole,
    /// A member of it: it may have items.
    Member,
    /// An item.
    Item,
}

struct Look<'a> {
    all: &'a [Value],
    left: usize,
}

impl Look<'_> {
    fn at(&mut self, schema: &Value, level: Level, hops: usize) -> Shape {
        let mut shape = Shape::default();
        if self.left == 0 || hops == 0 {
            return shape;
        }
        self.left -= 1;
        shape.types = own_types(schema);
        if level != Level::Item
            && let Some(items) = schema.get("items")
        {
            shape.items = Some(Box::new(self.at(items, Level::Item, HOPS_MAX)));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten().filter(|_| level == Level::Whole) {
            shape.properties.insert(name.clone(), self.at(property, Level::Member, HOPS_MAX));
        }
        let target = schema.get("$ref").and_then(Value::as_str);
        let target = target.and_then(|target| target.strip_prefix("#/$defs/")?.parse::<usize>().ok());
        let words = ["allOf", "anyOf", "oneOf"];
        let alternatives = words.into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten();
        for part in alternatives.chain(target.and_then(|target| self.all.get(target))) {
            let part = self.at(part, level, hops - 1);
            shape.join(part);
        }
        shape
    }
}

fn own_types(schema: &Value) -> Types {
    let mut types = Types::default();
    match schema.get("type") {
        Some(Value::String(word)) => types.add(Types::of_word(word)),
        Some(Value::Array(words)) => {
            words.iter().filter_map(Value::as_str).for_each(|word| types.add(Types::of_word(word)));
        }
        _ => {
            let options = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
            options.chain(schema.get("const")).for_each(|value| types.add(Types::of_value(value)));
        }
    }
    types
}

/// Whether `text` is a number as JSON writes it (RFC 8259 §6): other forms are read by some and not by
/// others.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = unsigned.starts_with('0') && unsigned[1..].starts_with(|c: char| c.is_ascii_digit());
    !leading_zero
        && unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned.ends_with(|c: char| c.is_ascii_digit())
        && unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_stands_for_what_its_schema_takes() {
        for (schema, text, expected) in [
            (json!({ "type": "integer" }), "7", json!(7)),
            (json!({ "type": "integer" }), "-7", json!(-7)),
            (json!({ "type": "integer" }), "+7", json!("+7")),
            (json!({ "type": "integer" }), "007", json!("007")),
            (json!({ "type": "integer" }), " 7", json!(" 7")),
            (json!({ "type": "integer" }), "0x10", json!("0x10")),
            (json!({ "type": "number" }), "1.5e3", json!(1500.0)),
            (json!({ "type": "number" }), "01.5", json!("01.5")),
            (json!({ "type": "number" }), "inf", json!("inf")),
            (json!({ "type": "string" }), "7", json!("7")),
            (json!({ "type": ["string", "integer"] }), "7", json!(7)),
            (json!({ "type": "boolean" }), "true", json!(true)),
            (json!({ "type": "boolean" }), "True", json!("True")),
            (json!({ "type": ["integer", "null"] }), "", json!(null)),
            (json!({ "anyOf": [{ "type": "integer" }, { "type": "boolean" }] }), "false", json!(false)),
            (json!({ "enum": [1, 2] }), "2", json!(2)),
            (json!({}), "2", json!("2")),
        ] {
            assert_eq!(Shape::of(&schema, &[]).read(text), expected, "{schema} {text}");
        }
    }

    #[test]
    fn a_schema_that_holds_itself_has_an_end() {
        let all = [json!({ "properties": { "next": { "$ref": "#/$defs/0" } }, "type": "object" })];
        assert!(Shape::of(&json!({ "$ref": "#/$defs/0" }), &all).types.has(Types::OBJECT));
    }
}

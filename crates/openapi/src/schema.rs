//! The schemas that a document's requests are checked by: gathered from where they stand, brought to one
//! dialect (JSON Schema 2020-12), and compiled.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::refs::{Refs, join};
use crate::shape::{Shape, Types};
use crate::violation::{Part, VIOLATIONS_MAX, Violation, wanted};

/// A version of OpenAPI, as far as it matters to schemas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// OpenAPI 3.0: a dialect of its own.
    V30,
    /// OpenAPI 3.1: JSON Schema 2020-12.
    V31,
}

/// A schema of the document, by the order in which it was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SchemaId(usize);

/// Every schema met so far. What they refer to is met with them.
#[derive(Debug)]
pub(crate) struct Schemas<'s> {
    refs: &'s Refs<'s>,
    dialect: Dialect,
    ids: HashMap<String, usize>,
    /// Where each stands in the document.
    pointers: Vec<String>,
    converted: Vec<Value>,
    problems: Vec<Problem>,
    checker: Arc<OnceLock<Checker>>,
}

/// All schemas of a document, compiled as one: they share what they refer to.
#[derive(Debug)]
struct Checker {
    /// Checks an object with one member: its name is the number of the schema, and its value what is checked.
    validator: Validator,
    pointers: Vec<String>,
}

/// A compiled schema.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Filled in when the document is read whole.
    checker: Arc<OnceLock<Checker>>,
    id: String,
    /// What the schema lets a text stand for.
    pub(crate) shape: Shape,
}

/// What the schemas of a document are called among themselves.
const BASE: &str = "tieline:document";

/// How large one compiled pattern may be, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl<'s> Schemas<'s> {
    pub(crate) fn new(refs: &'s Refs<'s>, dialect: Dialect) -> Self {
        Schemas {
            refs,
            dialect,
            ids: HashMap::new(),
            pointers: Vec::new(),
            converted: Vec::new(),
            problems: Vec::new(),
            checker: Arc::default(),
        }
    }

    /// Meets the schema at `pointer`, and all that it refers to.
    pub(crate) fn meet(&mut self, pointer: &str) -> SchemaId {
        let id = self.intern(pointer);
        // What is met on the way stands at the end of the list.
        while self.converted.len() < self.pointers.len() {
            let pointer = self.pointers[self.converted.len()].clone();
            let schema = self.refs.at(&pointer).cloned().unwrap_or(Value::Bool(true));
            let converted = self.convert(&schema, &pointer);
            self.converted.push(converted);
        }
        SchemaId(id)
    }

    fn intern(&mut self, pointer: &str) -> usize {
        if let Some(id) = self.ids.get(pointer) {
            return *id;
        }
        let id = self.pointers.len();
        self.ids.insert(pointer.to_owned(), id);
        self.pointers.push(pointer.to_owned());
        id
    }

    /// What the schema lets a text stand for.
    pub(crate) fn shape(&self, id: SchemaId) -> Shape {
        Shape::of(&self.converted[id.0], &self.converted)
    }

    fn problem(&mut self, pointer: &str, message: String) {
        self.problems.push(self.refs.problem(pointer, message));
    }

    fn convert(&mut self, schema: &Value, pointer: &str) -> Value {
        let Value::Object(schema) = schema else {
            if !schema.is_boolean() || self.dialect == Dialect::V30 {
                self.problem(pointer, "a schema must be an object".into());
            }
            return schema.clone();
        };
        let mut out = Map::new();
        for (keyword, value) in schema {
            let below = join(pointer, keyword);
            match keyword.as_str() {
                "$ref" => drop(out.insert("$ref".into(), self.reference(value, &below))),
                "$id" | "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$recursiveRef" | "$schema" => {
                    let message = format!("`{keyword}` is not supported; refer by \"#/...\" within the file");
                    self.problem(&below, message);
                }
                "properties" | "patternProperties" | "dependentSchemas" => {
                    out.insert(keyword.clone(), self.convert_each(value, &below));
                }
                "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                    out.insert(keyword.clone(), self.convert_all(value, &below));
                }
                "items"
                | "additionalProperties"
                | "not"
                | "contains"
                | "if"
                | "then"
                | "else"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties" => {
                    let converted =
                        if value.is_boolean() { value.clone() } else { self.convert(value, &below) };
                    out.insert(keyword.clone(), converted);
                }
                // Reached by references alone, which meet them where they stand.
                "$defs" | "definitions" => {}
                "pattern" => {
                    self.check_pattern(value.as_str().unwrap_or_default(), &below);
                    out.insert(keyword.clone(), value.clone());
                }
                "required" => drop(out.insert(keyword.clone(), self.required(value, schema, pointer))),
                _ if KEPT.contains(&keyword.as_str()) => drop(out.insert(keyword.clone(), value.clone())),
                // Descriptions, examples and what belongs to others.
                _ => {}
            }
        }
        if self.dialect == Dialect::V30 {
            modernise(schema, &mut out);
        }
        bound_whole(&mut out);
        Value::Object(out)
    }

    fn convert_each(&mut self, schemas: &Value, pointer: &str) -> Value {
        let Value::Object(schemas) = schemas else { return schemas.clone() };
        let mut out = Map::new();
        for (name, schema) in schemas {
            let below = join(pointer, name);
            if pointer.ends_with("/patternProperties") {
                self.check_pattern(name, &below);
            }
            out.insert(name.clone(), self.convert(schema, &below));
        }
        Value::Object(out)
    }

    fn convert_all(&mut self, schemas: &Value, pointer: &str) -> Value {
        let Value::Array(schemas) = schemas else { return schemas.clone() };
        let each = schemas.iter().enumerate();
        Value::Array(each.map(|(at, schema)| self.convert(schema, &join(pointer, &at.to_string()))).collect())
    }

    fn reference(&mut self, target: &Value, pointer: &str) -> Value {
        match self.refs.target(target, pointer) {
            Ok(target) => {
                let id = self.intern(&target);
                Value::String(format!("#/$defs/{id}"))
            }
            Err(problem) => {
                self.problems.push(problem);
                Value::String("#/$defs/0".into())
            }
        }
    }

    /// What only answers have is not asked of requests.
    fn required(&mut self, names: &Value, schema: &Map<String, Value>, pointer: &str) -> Value {
        let Value::Array(names) = names else { return names.clone() };
        let properties = join(pointer, "properties");
        let own = schema.get("properties");
        let asked = |name: &&Value| {
            let Some(name) = name.as_str() else { return true };
            let property = own.and_then(|own| own.get(name));
            !property.is_some_and(|property| self.refs.is_read_only(property, &join(&properties, name)))
        };
        Value::Array(names.iter().filter(asked).cloned().collect())
    }

    /// Refuses what could take time without bound, with its place.
    fn check_pattern(&mut self, pattern: &str, pointer: &str) {
        let schema = json!({ "pattern": pattern });
        if options().build(&schema).is_err() {
            let message = format!(
                "the pattern {pattern:?} is not supported: look-around and back-references take time without \
                 bound, or it is no regular expression"
            );
            self.problem(pointer, message);
        }
    }

    /// The rule of a schema that was met; it checks once [`Schemas::compile`] was called.
    pub(crate) fn rule(&self, id: SchemaId) -> Rule {
        Rule { checker: self.checker.clone(), id: id.0.to_string(), shape: self.shape(id) }
    }

    /// Compiles everything that was met.
    pub(crate) fn compile(mut self) -> Vec<Problem> {
        self.check_dialect();
        if !self.problems.is_empty() {
            return self.problems;
        }
        let properties: Map<String, Value> = (0..self.converted.len())
            .map(|id| (id.to_string(), json!({ "$ref": format!("#/$defs/{id}") })))
            .collect();
        let defs: Map<String, Value> =
            self.converted.drain(..).enumerate().map(|(id, schema)| (id.to_string(), schema)).collect();
        let document = json!({ "properties": properties, "$defs": defs });
        match options().with_base_uri(BASE).build(&document) {
            Ok(validator) => drop(self.checker.set(Checker { validator, pointers: self.pointers })),
            Err(error) => {
                let message = format!("the schemas are of no use: {}", error.masked());
                self.problems.push(self.refs.problem("", message));
            }
        }
        self.problems
    }

    /// Compares every schema with what schemas may be.
    fn check_dialect(&mut self) {
        for id in 0..self.converted.len() {
            let (schema, pointer) = (&self.converted[id], &self.pointers[id]);
            let Err(error) = jsonschema::draft202012::meta::validate(schema) else { continue };
            let place = format!("{pointer}{}", error.instance_path());
            let keyword = place.rsplit('/').next().unwrap_or_default();
            let message = format!("`{keyword}` is not what a schema has: it {}", wanted(&error));
            let problem = self.refs.problem(&place, message);
            self.problems.push(problem);
        }
    }
}

/// Keywords that are taken as they are.
const KEPT: [&str; 21] = [
    "type",
    "enum",
    "const",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "format",
    "contentEncoding",
    "contentMediaType",
];

/// From OpenAPI 3.0's dialect to JSON Schema 2020-12.
fn modernise(old: &Map<String, Value>, new: &mut Map<String, Value>) {
    if let Some(target) = new.remove("$ref") {
        // OpenAPI 3.0.3, Reference Object: what stands beside a reference is ignored.
        new.clear();
        new.insert("$ref".into(), target);
        return;
    }
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if let Some(Value::Bool(excludes)) = new.get(exclusive).cloned() {
            new.remove(exclusive);
            if let (true, Some(limit)) = (excludes, old.get(bound)) {
                new.remove(bound);
                new.insert(exclusive.into(), limit.clone());
            }
        }
    }
    if old.get("nullable") == Some(&Value::Bool(true))
        && let Some(Value::String(kind)) = old.get("type")
    {
        new.insert("type".into(), json!([kind, "null"]));
    }
}

/// OpenAPI's formats of whole numbers, which are ranges.
fn bound_whole(schema: &mut Map<String, Value>) {
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some("int64") => (i64::MIN, i64::MAX),
        _ => return,
    };
    if !schema.contains_key("exclusiveMinimum") {
        schema.entry("minimum").or_insert(least.into());
    }
    if !schema.contains_key("exclusiveMaximum") {
        schema.entry("maximum").or_insert(most.into());
    }
}

fn options<'i>() -> jsonschema::ValidationOptions<'i> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        .with_pattern_options(
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX),
        )
        // RFC 3339 and the like are known; these are OpenAPI's own.
        .with_format("byte", is_base64)
}

fn is_base64(text: &str) -> bool {
    let bare = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - bare.len() <= 2
        && bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

impl Rule {
    /// What `value` breaks, told as being at `part` and below `name`.
    pub(crate) fn check(&self, value: Value, part: Part, name: &str, out: &mut Vec<Violation>) {
        // Every rule of a document that loaded is filled in; if not, nothing passes.
        let Some(checker) = self.checker.get() else {
            out.push(Violation::new(part, name, "schema", "", "cannot be checked"));
            return;
        };
        let wrapped = Value::Object(Map::from_iter([(self.id.clone(), value)]));
        if checker.validator.is_valid(&wrapped) {
            return;
        }
        let errors = checker.validator.iter_errors(&wrapped);
        for error in errors.take(VIOLATIONS_MAX.saturating_sub(out.len())) {
            let within = error.instance_path().as_str().get(1 + self.id.len()..).unwrap_or_default();
            let name = format!("{name}{within}");
            out.push(Violation::new(
                part,
                &name,
                error.kind().keyword(),
                &checker.place(&error),
                wanted(&error),
            ));
        }
    }

    pub(crate) fn types(&self) -> Types {
        self.shape.types
    }
}

impl Checker {
    /// Where the document says what `error` is about.
    fn place(&self, error: &jsonschema::ValidationError<'_>) -> String {
        let location = error.absolute_keyword_location().map(|location| location.as_str().to_owned());
        let within = location.as_deref().and_then(|location| location.split_once("#/$defs/"));
        let Some((_, within)) = within else { return String::new() };
        let (id, rest) = within.split_once('/').unwrap_or((within, ""));
        let known = id.parse().ok().and_then(|id: usize| self.pointers.get(id));
        known.map(|pointer| format!("{pointer}/{rest}")).unwrap_or_default()
    }
}

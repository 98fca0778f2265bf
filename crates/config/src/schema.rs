//! `tieline schema`: the JSON Schema (draft 2020-12) of the file, for editors.

use serde_json::{Map, Value, json};

use crate::fields::as_toml;
use crate::key::{Absent, Block, Key, Kind, Of};
use crate::keys::FILE;
use crate::node::{self, Node};
use crate::protocol::SERVED;

/// The JSON Schema of the config file. Editors complete and check by it; `tieline check` knows more, never
/// less.
pub fn schema() -> Value {
    let mut schema = table(&FILE);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Tieline's config file".into();
    schema
}

fn table(block: &Block) -> Value {
    let properties: Map<_, _> = block.keys.iter().map(|key| (key.name.to_string(), property(key))).collect();
    let required = block.keys.iter().filter(|key| key.absent == Absent::Refused);
    let required: Vec<_> = required.map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": block.meaning,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    schema["description"] = key.meaning.into();
    schema["examples"] = json!([as_json(key.example)]);
    match (key.absent, key.kind) {
        (Absent::Is(value), _) => schema["default"] = as_json(value),
        (Absent::Refused, Kind::List(_)) => schema["minItems"] = 1.into(),
        _ => {}
    }
    schema
}

fn kind(it: &Kind) -> Value {
    match it {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Duration { .. } => text("^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"),
        Kind::Size { .. } => text("^[0-9]+ *([KMGT]i)?B$"),
        Kind::Rate => text("^[0-9]+/[smh]$"),
        Kind::ByteRate => text("^[0-9]+ *([KMGT]i)?B/s$"),
        Kind::Percent => text("^([0-9]{1,2}|100)%$"),
        Kind::Name => text("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
        Kind::Path => json!({ "type": "string", "minLength": 1 }),
        Kind::FilePath => text("^file:."),
        Kind::SyslogPath => text("^syslog:."),
        Kind::RequestPath => text("^/[!-~]*$"),
        Kind::Host => text("^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$|^\\[[0-9A-Fa-f:.]+\\]$"),
        Kind::PathPattern => text("^(= *)?/[!$-~]*$"),
        Kind::Method => text("^[!#$%&'*+.^_`|~0-9A-Z-]+$"),
        Kind::Conditions(of) => conditions(*of),
        Kind::RatePer => text("^(ip|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$"),
        Kind::Authority => text("^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$"),
        Kind::FieldValues => conditions(Of::Fields),
        Kind::Token => text("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"),
        Kind::HashBy => text("^(remote|sni|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+)$"),
        Kind::Target => text("^(https?://|/)[!-~]*$"),
        Kind::Text => json!({ "type": "string" }),
        Kind::SqlName => text("^.{1,63}$"),
        Kind::Verifier => text(
            "^(SCRAM-SHA-256[$][0-9]+:[A-Za-z0-9+/=]+[$][A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+|md5[0-9A-Fa-f]{32})$",
        ),
        Kind::Identity => text("^.{1,255}$"),
        Kind::MediaType => text("^[!-~]+/[ -~]+$"),
        Kind::ServerName => text("^[A-Za-z0-9._:-]+$"),
        Kind::Bind => text("^(unix:/.+|.+:[0-9]{1,5})$"),
        Kind::Endpoint => text("^(unix:/.+|.+:[0-9]{1,5}|[hH][tT][tT][pP][sS]?://[^/?#]+/?)$"),
        Kind::Service => text("^(unix:/.+|.+:[0-9]{1,5})$"),
        Kind::Socket { port: None } => text("^.+:[0-9]{1,5}$"),
        Kind::Socket { .. } | Kind::Network => text("^[0-9A-Fa-f:.\\[\\]]+(/[0-9]{1,3})?$"),
        Kind::Sni => text("^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$"),
        Kind::Far => text("^([A-Za-z0-9][A-Za-z0-9._-]{0,62}|\\*)/([A-Za-z0-9][A-Za-z0-9._-]{0,62}|\\*)$"),
        Kind::Schedule => text("[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}"),
        Kind::Mode => text("^[0-7]{1,4}$"),
        Kind::Protocol => json!({ "enum": SERVED.iter().map(|it| it.as_str()).collect::<Vec<_>>() }),
        Kind::Words(words) => {
            let word = |word: &crate::words::Word| json!({ "const": word.word, "description": word.meaning });
            json!({ "oneOf": words.iter().map(word).collect::<Vec<_>>() })
        }
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(kind).collect::<Vec<_>>() }),
        Kind::List(item) => json!({ "type": "array", "items": kind(item) }),
        Kind::OneOrMore(item) => {
            let item = kind(item);
            json!({ "anyOf": [item.clone(), { "type": "array", "items": item, "minItems": 1 }] })
        }
        Kind::Table(block) => table(block),
        Kind::Named(block) => json!({
            "type": "object",
            "patternProperties": { "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": table(block) },
            "additionalProperties": false,
        }),
    }
}

fn conditions(of: Of) -> Value {
    let name = match of {
        Of::Fields => "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        Of::Parameters => ".",
    };
    json!({
        "type": "object",
        "patternProperties": { name: { "type": "string" } },
        "additionalProperties": false,
    })
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// `text`, a value of a description, as JSON.
fn as_json(text: &str) -> Value {
    json_of(&node::parse_value(&as_toml(text)))
}

fn json_of(node: &Node) -> Value {
    match node {
        Node::Text(text) | Node::Other(text) => text.as_str().into(),
        Node::Whole(number) => (*number).into(),
        Node::Flag(flag) => (*flag).into(),
        Node::List(items) => items.iter().map(|item| json_of(&item.value)).collect(),
        Node::Table(entries) => {
            let properties =
                entries.iter().map(|entry| (entry.name.value.clone(), json_of(&entry.value.value)));
            Value::Object(properties.collect())
        }
    }
}

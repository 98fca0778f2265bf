//! JSON as strictly as it can be read: what two readers could understand in two ways is none.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep a body may be nested.
pub const JSON_DEPTH_MAX: usize = 64;

/// Reads the whole of `bytes` as one JSON text (RFC 8259). A name that stands twice in an object is refused:
/// the one that is checked here must be the one that is obeyed behind us.
///
/// # Errors
/// What is wrong and where, without a word of what was sent.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Level(0).deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// A value at this depth.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl Level {
    fn below<E: Error>(self) -> Result<Level, E> {
        if self.0 < JSON_DEPTH_MAX {
            Ok(Level(self.0 + 1))
        } else {
            Err(E::custom(format_args!("nested deeper than {JSON_DEPTH_MAX} levels")))
        }
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number without an end"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(below)?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice in one object"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_two_readings_has_none() {
        for (text, reads) in [
            (r#"{"a":1,"b":[true,null,"x",1.5,-2]}"#, true),
            (r#"{"a":1,"a":2}"#, false),
            (r#"{"x":{"a":1,"\u0061":2}}"#, false),
            ("{} {}", false),
            ("{}x", false),
            ("\u{feff}{}", false),
            ("[1,]", false),
            ("{'a':1}", false),
            ("NaN", false),
            ("1e999", false),
            ("\"\\ud800\"", false),
            ("", false),
        ] {
            assert_eq!(read(text.as_bytes()).is_ok(), reads, "{text}");
        }
        assert!(read(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_has_a_bound() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(read(nested(JSON_DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(read(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        for text in [r#"{"hunter2":1,"hunter2":2}"#, r#"{"password":hunter2}"#, "\"hunter2"] {
            assert!(!read(text.as_bytes()).unwrap_err().to_string().contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_usual_reader(bytes in "[-\\[\\]{}:,\"a-c0-2.e \\\\u]{0,24}") {
            if let Ok(value) = read(bytes.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&bytes).ok(), Some(value));
            }
        }
    }
}

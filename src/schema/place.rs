//! Places in a value, as far as they may stand on record.
//!
//! A record keeps no text of arguments and answers, and the name of a member can be such a text. What the
//! schema itself names is its developer's word; anything else is masked.

use std::{collections::HashSet, fmt::Write as _};

use serde_json::{Map, Value};

/// The names that a schema gives to members.
#[derive(Debug, Default)]
pub(super) struct Declared(HashSet<String>);

/// Longer numbers are no index of an array.
const INDEX_DIGITS_MAX: usize = 6;

impl Declared {
    /// The names under `properties` and in `required`, at every depth.
    pub(super) fn of(schema: &Map<String, Value>) -> Self {
        let mut declared = Self::default();
        declared.collect(schema);
        declared
    }

    fn collect(&mut self, schema: &Map<String, Value>) {
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(members)) => self.0.extend(members.keys().cloned()),
                ("required", Value::Array(names)) => {
                    self.0.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                _ => {}
            }
            self.below(value);
        }
    }

    fn below(&mut self, value: &Value) {
        match value {
            Value::Object(members) => self.collect(members),
            Value::Array(items) => items.iter().for_each(|item| self.below(item)),
            _ => {}
        }
    }

    /// A JSON pointer (RFC 6901) in which each name that the schema does not give is `*`.
    pub(super) fn masked(&self, pointer: &str) -> String {
        pointer.split('/').skip(1).fold(String::new(), |mut masked, token| {
            let is_index = (1..=INDEX_DIGITS_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_digit());
            let name = token.replace("~1", "/").replace("~0", "~");
            // Writing to a string does not fail.
            let _ = write!(masked, "/{}", if is_index || self.0.contains(&name) { token } else { "*" });
            masked
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_the_schema_stay_and_those_of_the_value_are_masked() {
        let schema = json!({ "properties": {
            "lines": { "items": { "properties": { "a/b": { "type": "string" } } } },
            "m": { "additionalProperties": { "required": ["id"] } }
        } });
        let declared = Declared::of(schema.as_object().unwrap());
        for (pointer, masked) in [
            ("", ""),
            ("/lines/3/a~1b", "/lines/3/a~1b"),
            ("/m/alice@example.com/id", "/m/*/id"),
            ("/no-such/4915112345678", "/*/*"),
            ("/m/", "/m/*"),
        ] {
            assert_eq!(declared.masked(pointer), masked);
        }
    }
}

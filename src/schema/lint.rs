//! What a schema lets grow without end.

use serde_json::{Map, Value};

use crate::manifest::join_pointer;

/// A string or an array without an upper bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unbounded {
    /// The JSON pointer into the schema.
    pub at: String,
    /// `string` or `array`.
    pub kind: &'static str,
    /// The keyword that would bound it.
    pub keyword: &'static str,
}

/// The strings and arrays of a schema that have no upper bound, wherever a subschema can stand.
#[must_use]
pub fn unbounded(schema: &Map<String, Value>) -> Vec<Unbounded> {
    let mut found = Vec::new();
    look(schema, "", &mut found);
    found
}

fn look(schema: &Map<String, Value>, pointer: &str, found: &mut Vec<Unbounded>) {
    let has = |keywords: &[&str]| keywords.iter().any(|keyword| schema.contains_key(*keyword));
    if is(schema, "string")
        && !has(&["maxLength", "enum", "const", "format"])
        && !has_anchored_pattern(schema)
    {
        found.push(Unbounded { at: pointer.to_owned(), kind: "string", keyword: "maxLength" });
    }
    if is(schema, "array") && !has(&["maxItems", "enum", "const"]) {
        found.push(Unbounded { at: pointer.to_owned(), kind: "array", keyword: "maxItems" });
    }
    // `not`, `if`, `contains` and `propertyNames` let nothing in, so they need no bound of their own.
    let mut below = |value: &Value, at: String| {
        value.as_object().into_iter().for_each(|schema| look(schema, &at, found));
    };
    for keyword in
        ["items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "then", "else"]
    {
        schema.get(keyword).into_iter().for_each(|value| below(value, join_pointer(pointer, keyword)));
    }
    for keyword in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        let values = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
        values.enumerate().for_each(|(at, value)| {
            below(value, join_pointer(&join_pointer(pointer, keyword), &at.to_string()));
        });
    }
    for keyword in ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"] {
        let values = schema.get(keyword).and_then(Value::as_object).into_iter().flatten();
        values.for_each(|(name, value)| below(value, join_pointer(&join_pointer(pointer, keyword), name)));
    }
}

/// Whether a schema names a type, alone or in a list.
fn is(schema: &Map<String, Value>, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(many)) => many.iter().any(|one| one == kind),
        _ => false,
    }
}

/// A pattern such as `^ord_[a-z0-9]{8}$`, which bounds a string unless it repeats without end.
fn has_anchored_pattern(schema: &Map<String, Value>) -> bool {
    schema.get("pattern").and_then(Value::as_str).is_some_and(|pattern| {
        pattern.starts_with('^')
            && pattern.ends_with('$')
            && !pattern.contains(['*', '+', '|'])
            && !pattern.contains(",}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(schema: Value) -> Vec<String> {
        unbounded(schema.as_object().unwrap())
            .into_iter()
            .map(|it| format!("{} {}", it.kind, it.at))
            .collect()
    }

    #[test]
    fn an_unbounded_string_is_seen_wherever_it_can_stand() {
        let text = json!({ "type": ["string", "null"] });
        for (schema, at) in [
            (json!({ "anyOf": [true, text] }), "/anyOf/1"),
            (json!({ "allOf": [text] }), "/allOf/0"),
            (json!({ "oneOf": [text] }), "/oneOf/0"),
            (json!({ "prefixItems": [text] }), "/prefixItems/0"),
            (json!({ "patternProperties": { "a/b": text } }), "/patternProperties/a~1b"),
            (json!({ "additionalProperties": text }), "/additionalProperties"),
            (json!({ "if": true, "then": text, "else": true }), "/then"),
            (json!({ "else": text }), "/else"),
            (json!({ "$defs": { "t": text } }), "/$defs/t"),
            (json!({ "items": text }), "/items"),
        ] {
            assert_eq!(places(schema), [format!("string {at}")]);
        }
    }

    #[test]
    fn a_bounded_one_is_not_warned_of() {
        let bounded = json!({ "type": ["string", "array"], "maxLength": 3, "maxItems": 2 });
        assert!(places(json!({ "anyOf": [bounded] })).is_empty());
        assert_eq!(places(json!({ "type": ["string", "array"], "maxLength": 3 })), ["array "]);
    }
}

//! What clients see of an output schema, and the labels it carries.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::manifest::Label;

/// The annotation by which a schema puts a label on a value.
pub const LABEL_KEYWORD: &str = "x-label";

/// All labels that a schema puts on anything.
#[must_use]
pub fn labels_of(schema: &Map<String, Value>) -> Vec<Label> {
    fn walk(value: &Value, into: &mut BTreeSet<Label>) {
        match value {
            Value::Object(members) => {
                if let Some(label) = members.get(LABEL_KEYWORD).and_then(Value::as_str) {
                    into.extend(Label::parse(label));
                }
                members.values().for_each(|value| walk(value, into));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, into)),
            _ => {}
        }
    }
    let mut labels = BTreeSet::new();
    if let Some(label) = schema.get(LABEL_KEYWORD).and_then(Value::as_str) {
        labels.extend(Label::parse(label));
    }
    schema.values().for_each(|value| walk(value, &mut labels));
    labels.into_iter().collect()
}

/// The schema, requiring no labelled field, since policy may remove it.
#[must_use]
pub fn without_labelled_requirements(schema: &Map<String, Value>) -> Map<String, Value> {
    let root = Value::Object(schema.clone());
    let mut relaxed = root.clone();
    relax(&mut relaxed, &root);
    match relaxed {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn relax(value: &mut Value, root: &Value) {
    match value {
        Value::Object(members) => {
            let labelled: Vec<String> = members
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .filter(|(_, property)| is_labelled(property, root, 0))
                .map(|(name, _)| name.clone())
                .collect();
            if let Some(required) = members.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| {
                    name.as_str().is_none_or(|name| !labelled.iter().any(|other| other == name))
                });
            }
            members.values_mut().for_each(|value| relax(value, root));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relax(item, root)),
        _ => {}
    }
}

/// References followed before a schema is taken to be labelled: the careful answer.
const REFERENCES_MAX: usize = 32;

/// Whether the value a schema describes carries a label as a whole.
fn is_labelled(schema: &Value, root: &Value, depth: usize) -> bool {
    if depth > REFERENCES_MAX {
        return true;
    }
    if schema.get(LABEL_KEYWORD).is_some() {
        return true;
    }
    let referenced = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)));
    let branches =
        ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array());
    referenced.into_iter().chain(branches.flatten()).any(|schema| is_labelled(schema, root, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_labelled_field_is_never_required() {
        let schema = json!({
            "type": "object",
            "required": ["id", "card", "owner"],
            "properties": {
                "id": { "type": "string" },
                "card": { "type": "string", "x-label": "pii" },
                "owner": { "$ref": "#/$defs/person" },
                "items": { "type": "array", "items": { "type": "object", "required": ["a", "b"], "properties": { "a": { "x-label": "cost" } } } }
            },
            "$defs": { "person": { "type": "object", "x-label": "pii" } }
        });
        let schema = schema.as_object().unwrap();
        let published = without_labelled_requirements(schema);
        assert_eq!(published["required"], json!(["id"]));
        assert_eq!(published["properties"]["items"]["items"]["required"], json!(["b"]));
        assert_eq!(labels_of(schema).iter().map(Label::as_str).collect::<Vec<_>>(), ["cost", "pii"]);
    }
}

//! Arguments that are URLs which a backend will fetch (`x-egress: true`). Pure.
//!
//! The gate does not fetch them, and they are judged all the same, by the rules
//! of the service that will: an agent shall not reach through a backend what it
//! could not reach through the gate.

use serde_json::{Map, Value};

use crate::{manifest::join_pointer, schema::each_schema};

/// The keyword by which a string's schema declares that the backend fetches it.
pub(crate) const EGRESS_KEYWORD: &str = "x-egress";

/// Where the URLs of a tool's arguments stand.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct UrlArguments(Vec<Vec<Step>>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Member(String),
    Items,
}

/// A schema whose `x-egress` cannot be obeyed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Misplaced {
    /// The JSON pointer into the schema.
    pub(crate) at: String,
    /// What is wrong.
    pub(crate) message: &'static str,
}

impl UrlArguments {
    /// Finds them in an input schema, or says where one stands that would not be found in arguments.
    pub(crate) fn find(input: &Map<String, Value>) -> Result<Self, Vec<Misplaced>> {
        let (mut found, mut misplaced) = (Vec::new(), Vec::new());
        let input = Value::Object(input.clone());
        search(&input, "", Some(&[]), &mut found, &mut misplaced);
        if misplaced.is_empty() { Ok(Self(found)) } else { Err(misplaced) }
    }

    /// The URLs among the arguments of a call, each with its JSON pointer.
    pub(crate) fn of<'a>(&self, arguments: &'a Map<String, Value>) -> Vec<(String, &'a str)> {
        let mut urls = Vec::new();
        for path in &self.0 {
            let Some((Step::Member(first), rest)) = path.split_first() else { continue };
            if let Some(value) = arguments.get(first) {
                collect(value, rest, join_pointer("", first), &mut urls);
            }
        }
        urls
    }
}

/// The places of a schema that describe a URL and do not say whether the backend fetches it.
pub(crate) fn unsaid(schema: &Map<String, Value>, pointer: &str) -> Vec<String> {
    let mut found = Vec::new();
    each_schema(schema, pointer, &mut |keywords, pointer| {
        let is_url = matches!(
            keywords.get("format").and_then(Value::as_str),
            Some("uri" | "uri-reference" | "iri" | "iri-reference")
        );
        if is_url && !keywords.contains_key(EGRESS_KEYWORD) {
            found.push(pointer.to_owned());
        }
    });
    found
}

fn collect<'a>(value: &'a Value, path: &[Step], pointer: String, urls: &mut Vec<(String, &'a str)>) {
    match (path.split_first(), value) {
        (None, Value::String(text)) => urls.push((pointer, text)),
        (Some((Step::Member(name), rest)), Value::Object(members)) => {
            if let Some(member) = members.get(name) {
                collect(member, rest, join_pointer(&pointer, name), urls);
            }
        }
        (Some((Step::Items, rest)), Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                collect(item, rest, join_pointer(&pointer, &at.to_string()), urls);
            }
        }
        // The schema has the last word on what else may stand there, and it is no text.
        _ => {}
    }
}

/// Searches a schema. `path` leads to the values it describes, where members and items alone lead there.
fn search(
    schema: &Value,
    pointer: &str,
    path: Option<&[Step]>,
    found: &mut Vec<Vec<Step>>,
    misplaced: &mut Vec<Misplaced>,
) {
    let below = |step: Step| path.map(|path| path.iter().cloned().chain([step]).collect::<Vec<_>>());
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                search(item, &join_pointer(pointer, &at.to_string()), None, found, misplaced);
            }
            return;
        }
        _ => return,
    };
    if let Some(flag) = keywords.get(EGRESS_KEYWORD).filter(|flag| **flag != Value::Bool(false)) {
        let at = join_pointer(pointer, EGRESS_KEYWORD);
        let is = |keyword: &str, word: &str| keywords.get(keyword).and_then(Value::as_str) == Some(word);
        match path {
            _ if *flag != Value::Bool(true) => {
                misplaced.push(Misplaced { at, message: "`x-egress` is `true` or `false`" });
            }
            _ if !is("type", "string") || !is("format", "uri") => {
                misplaced
                    .push(Misplaced { at, message: "`x-egress` goes with `type: string` and `format: uri`" });
            }
            Some(path) if !path.is_empty() => found.push(path.to_vec()),
            _ => misplaced.push(Misplaced {
                at,
                message: "`x-egress` is understood below `properties` and `items` alone, without references",
            }),
        }
    }
    for (keyword, value) in keywords {
        let pointer = join_pointer(pointer, keyword);
        match (keyword.as_str(), value) {
            // Values, not schemas.
            ("const" | "enum" | "default" | "examples", _) => {}
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    let path = below(Step::Member(name.clone()));
                    search(property, &join_pointer(&pointer, name), path.as_deref(), found, misplaced);
                }
            }
            ("items", items) if !keywords.contains_key("prefixItems") => {
                search(items, &pointer, below(Step::Items).as_deref(), found, misplaced);
            }
            (
                "patternProperties" | "$defs" | "definitions" | "dependentSchemas" | "dependencies",
                Value::Object(schemas),
            ) => {
                for (name, schema) in schemas {
                    search(schema, &join_pointer(&pointer, name), None, found, misplaced);
                }
            }
            (_, other) => search(other, &pointer, None, found, misplaced),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(input: Value) -> Result<UrlArguments, Vec<Misplaced>> {
        UrlArguments::find(input.as_object().unwrap())
    }

    #[test]
    fn urls_are_found_below_members_and_items() {
        let url = json!({ "type": "string", "format": "uri", "x-egress": true });
        let urls = find(json!({
            "type": "object",
            "properties": {
                "hook": url,
                "feeds": { "type": "array", "items": { "type": "object", "properties": { "from/to": url } } },
                "home": { "type": "string", "format": "uri", "x-egress": false },
                "x-egress": { "type": "boolean" }
            }
        }))
        .unwrap();
        let arguments = json!({
            "hook": "http://a/", "home": "http://b/", "x-egress": true,
            "feeds": [{ "from/to": "http://c/" }, { "other": "http://d/" }, { "from/to": "http://e/" }]
        });
        let found = urls.of(arguments.as_object().unwrap());
        let mut found: Vec<(&str, &str)> = found.iter().map(|(at, url)| (at.as_str(), *url)).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [("/feeds/0/from~1to", "http://c/"), ("/feeds/2/from~1to", "http://e/"), ("/hook", "http://a/")]
        );
        assert!(urls.of(json!({ "hook": null, "feeds": "x" }).as_object().unwrap()).is_empty());
    }

    #[test]
    fn a_url_that_would_not_be_found_is_refused_at_load() {
        let url = json!({ "type": "string", "format": "uri", "x-egress": true });
        for (input, at) in [
            (
                json!({ "$defs": { "u": url }, "properties": { "a": { "$ref": "#/$defs/u" } } }),
                "/$defs/u/x-egress",
            ),
            (
                json!({ "properties": { "a": { "anyOf": [url, { "type": "null" }] } } }),
                "/properties/a/anyOf/0/x-egress",
            ),
            (json!({ "additionalProperties": url }), "/additionalProperties/x-egress"),
            (
                json!({ "properties": { "a": { "prefixItems": [url] } } }),
                "/properties/a/prefixItems/0/x-egress",
            ),
            (json!({ "patternProperties": { "^u": url } }), "/patternProperties/^u/x-egress"),
            (json!({ "definitions": { "const": url } }), "/definitions/const/x-egress"),
            (json!({ "dependencies": { "enum": url } }), "/dependencies/enum/x-egress"),
            (json!({ "if": { "properties": { "a": url } } }), "/if/properties/a/x-egress"),
            (
                json!({ "properties": { "a": { "type": "string", "x-egress": true } } }),
                "/properties/a/x-egress",
            ),
            (json!({ "properties": { "a": { "x-egress": "yes" } } }), "/properties/a/x-egress"),
        ] {
            let misplaced = find(input.clone()).unwrap_err();
            assert_eq!(misplaced.iter().map(|one| one.at.as_str()).collect::<Vec<_>>(), [at], "{input}");
        }
    }

    #[test]
    fn a_url_that_says_nothing_of_egress_is_pointed_out() {
        let url = |egress: Value| json!({ "type": "string", "format": "uri", "x-egress": egress });
        let input = json!({
            "properties": {
                "a": { "type": "string", "format": "uri" }, "b": url(json!(true)), "c": url(json!(false)),
                "d": { "anyOf": [{ "format": "iri" }, { "const": { "format": "uri" } }] },
                // A member of that name, and not the keyword.
                "default": { "type": "string", "format": "uri" }
            }
        });
        assert_eq!(
            unsaid(input.as_object().unwrap(), "/input"),
            ["/input/properties/a", "/input/properties/d/anyOf/0", "/input/properties/default"]
        );
    }
}

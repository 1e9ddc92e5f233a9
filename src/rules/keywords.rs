//! Our keywords in the schemas of a tool: one that cannot be obeyed would be one that is forgotten.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::{
    manifest::{Place, Problem, Source, ToolManifest, join_pointer},
    schema::each_schema,
};

/// Checks the keywords that begin with `x-` and are ours or the protocol's.
pub(super) fn check(source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) {
    let mut refuse = |pointer: String, message: &str| {
        problems.push(Problem::error(source, Place::Pointer(pointer), message));
    };
    let mut mirrored = Vec::new();
    collect_mirrored(&manifest.input, "/input", &mut mirrored);
    each_schema(&manifest.input, "/input", &mut |schema, pointer| {
        check_schema(schema, pointer, &mut refuse);
        if is_mirrored(schema) && !mirrored.iter().any(|(at, _)| at == pointer) {
            let message =
                "no client would repeat it: `x-mcp-header` belongs on an argument, or on a property of one";
            refuse(format!("{pointer}/x-mcp-header"), message);
        }
    });
    let mut taken = HashSet::new();
    for (pointer, header) in &mirrored {
        if !taken.insert(header.to_ascii_lowercase()) {
            let message = "another argument is repeated in the header of this name: case makes no difference";
            refuse(format!("{pointer}/x-mcp-header"), message);
        }
    }
    let Some(output) = &manifest.output else { return };
    each_schema(output, "/output", &mut |schema, pointer| {
        check_schema(schema, pointer, &mut refuse);
        if is_mirrored(schema) {
            refuse(format!("{pointer}/x-mcp-header"), "headers repeat arguments, and no answers");
        }
        if schema.contains_key("x-egress") {
            refuse(
                format!("{pointer}/x-egress"),
                "nobody judges `x-egress` in an output: it is for arguments",
            );
        }
    });
}

fn check_schema(schema: &Map<String, Value>, pointer: &str, refuse: &mut impl FnMut(String, &str)) {
    if schema.get("x-non-ascii").is_some_and(|value| !value.is_boolean()) {
        refuse(format!("{pointer}/x-non-ascii"), "`x-non-ascii` is `true` or `false`");
    }
    if let Some(header) = schema.get("x-mcp-header") {
        let at = format!("{pointer}/x-mcp-header");
        if !header.as_str().is_some_and(is_header_name) {
            refuse(at, "`x-mcp-header` is the name of a header: letters, digits and `-`");
        } else if has_members(schema) {
            refuse(at, "a header repeats a text, a number or a truth value, and no object or array");
        } else if !matches!(
            schema.get("type").and_then(Value::as_str),
            Some("string" | "integer" | "boolean")
        ) {
            // Clients must not use a tool that says otherwise (MCP 2026-07-28 Streamable HTTP).
            refuse(
                at,
                "a header repeats what is of `type: string`, `integer` or `boolean`, and of one of them only",
            );
        }
    }
}

fn is_mirrored(schema: &Map<String, Value>) -> bool {
    schema.get("x-mcp-header").and_then(Value::as_str).is_some_and(is_header_name)
}

/// The headers of what clients look at: properties of the input, and properties of those (MCP 2026-07-28 Streamable
/// HTTP).
fn collect_mirrored<'a>(schema: &'a Map<String, Value>, pointer: &str, found: &mut Vec<(String, &'a str)>) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    for (name, schema) in properties {
        let Value::Object(schema) = schema else { continue };
        let at = join_pointer(&format!("{pointer}/properties"), name);
        if is_mirrored(schema)
            && let Some(header) = schema.get("x-mcp-header").and_then(Value::as_str)
        {
            found.push((at.clone(), header));
        }
        collect_mirrored(schema, &at, found);
    }
}

/// A token (RFC 9110 §5.6.2).
fn is_header_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn has_members(schema: &Map<String, Value>) -> bool {
    let is_compound = |kind: &Value| matches!(kind.as_str(), Some("object" | "array"));
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(is_compound),
        Some(kind) => is_compound(kind),
        None => ["properties", "items"].iter().any(|keyword| schema.contains_key(*keyword)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::read;

    /// The problems of a tool whose argument `a`, and member `a` of its answer, have these schemas.
    fn problems(argument: Value, member: Value) -> Vec<String> {
        let manifest = json!({
            "tool": "a.b", "description": "d",
            "input": { "type": "object", "properties": { "a": argument } },
            "output": { "type": "object", "properties": { "a": member } },
            "backend": { "http": { "service": "s", "method": "GET", "path": "/" } },
        });
        let source = Source { path: "x.yaml".into(), text: manifest.to_string().into() };
        let mut problems = Vec::new();
        check(&source, &read(&source).unwrap(), &mut problems);
        problems.iter().map(|problem| format!("{:?} {}", problem.place, problem.message)).collect()
    }

    #[test]
    fn keywords_that_can_be_obeyed_are_let_be() {
        for schema in [
            json!({ "type": "string", "x-non-ascii": true }),
            json!({ "type": "string", "x-non-ascii": false, "x-mcp-header": "X-Region_1" }),
            json!({ "type": "integer", "x-mcp-header": "Row" }),
            json!({ "type": "string", "format": "uri", "x-egress": true }),
            json!({ "type": "object", "properties": { "x-non-ascii": { "type": "string" } } }),
            json!({ "const": { "x-non-ascii": 1, "x-mcp-header": 1 } }),
        ] {
            assert_eq!(problems(schema.clone(), json!({})), [""; 0], "{schema}");
        }
    }

    #[test]
    fn a_flag_that_is_no_boolean_is_refused() {
        for flag in [json!("yes"), json!("true"), json!(1), json!(null), json!([true])] {
            assert_eq!(
                problems(json!({ "items": { "x-non-ascii": flag } }), json!({})),
                ["Pointer(\"/input/properties/a/items/x-non-ascii\") `x-non-ascii` is `true` or `false`"]
            );
        }
    }

    #[test]
    fn a_header_is_named_by_a_token() {
        for name in
            [json!(""), json!("a b"), json!("a:b"), json!("a\r\nb"), json!("ä"), json!(1), json!(null)]
        {
            assert_eq!(
                problems(json!({ "anyOf": [{ "x-mcp-header": name }] }), json!({})),
                [
                    "Pointer(\"/input/properties/a/anyOf/0/x-mcp-header\") `x-mcp-header` is the name of a header: letters, digits and `-`"
                ]
            );
        }
    }

    #[test]
    fn a_header_repeats_no_object_and_no_array() {
        for schema in [
            json!({ "type": "object", "x-mcp-header": "A" }),
            json!({ "type": ["string", "array"], "x-mcp-header": "A" }),
            json!({ "items": {}, "x-mcp-header": "A" }),
        ] {
            let problems = problems(schema, json!({}));
            assert!(problems.len() == 1 && problems[0].ends_with("and no object or array"), "{problems:?}");
        }
    }

    #[test]
    fn a_header_repeats_what_clients_agree_to_write_in_one_way() {
        for schema in [
            json!({ "type": "number", "x-mcp-header": "A" }),
            json!({ "type": ["integer", "null"], "x-mcp-header": "A" }),
            json!({ "enum": ["a"], "x-mcp-header": "A" }),
        ] {
            let problems = problems(schema, json!({}));
            assert!(problems.len() == 1 && problems[0].ends_with("and of one of them only"), "{problems:?}");
        }
    }

    #[test]
    fn a_header_repeats_what_is_on_a_chain_of_properties_and_nothing_else() {
        let mirrored = json!({ "type": "string", "x-mcp-header": "Row" });
        let nested =
            json!({ "type": "object", "properties": { "b/c": { "properties": { "d": mirrored } } } });
        assert_eq!(problems(nested, json!({})), [""; 0]);
        for (schema, at) in [
            (json!({ "items": mirrored }), "items"),
            (json!({ "anyOf": [mirrored] }), "anyOf/0"),
            (json!({ "additionalProperties": mirrored }), "additionalProperties"),
        ] {
            let expected = format!(
                "Pointer(\"/input/properties/a/{at}/x-mcp-header\") no client would repeat it: `x-mcp-header` belongs on an argument, or on a property of one"
            );
            assert_eq!(problems(schema, json!({})), [expected]);
        }
        let expected =
            "Pointer(\"/output/properties/a/x-mcp-header\") headers repeat arguments, and no answers";
        assert_eq!(problems(json!({}), mirrored), [expected]);
    }

    #[test]
    fn each_argument_has_a_header_of_its_own() {
        let two = json!({ "type": "object", "properties": {
            "one": { "type": "string", "x-mcp-header": "Row" }, "two": { "type": "string", "x-mcp-header": "rOW" }
        } });
        let expected = "Pointer(\"/input/properties/a/properties/two/x-mcp-header\") another argument is repeated in the header of this name: case makes no difference";
        assert_eq!(problems(two, json!({})), [expected]);
    }

    #[test]
    fn nobody_judges_urls_of_an_output() {
        for flag in [true, false] {
            let url = json!({ "type": "string", "format": "uri", "x-egress": flag });
            assert_eq!(
                problems(url.clone(), url),
                [
                    "Pointer(\"/output/properties/a/x-egress\") nobody judges `x-egress` in an output: it is for arguments"
                ]
            );
        }
    }
}

//! What the protocol wants in each request besides the request: its `_meta`, and header fields that repeat parts
//! of it (MCP 2026-07-28, "Streamable HTTP", "Request metadata").

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

/// The version without sessions that the gate speaks.
pub(super) const STATELESS: &str = "2026-07-28";

/// The versions with sessions that the gate speaks, the preferred one first.
pub(super) const SESSION: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// Header fields for one request.
pub(super) type Fields = Vec<(HeaderName, HeaderValue)>;

/// What the gate calls itself.
pub(super) fn client_info() -> Value {
    json!({ "name": "callgate", "version": env!("CARGO_PKG_VERSION") })
}

/// Puts into a request what it needs. The rest of its `_meta` stays.
pub(super) fn dress(
    mut params: Map<String, Value>,
    progress_token: Option<i64>,
    stateless: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut meta = match params.remove("_meta") {
        Some(Value::Object(meta)) => meta,
        Some(_) | None => Map::new(),
    };
    // Whatever a caller used, its token is not the gate's.
    meta.remove("progressToken");
    if let Some(token) = progress_token {
        meta.insert("progressToken".into(), token.into());
    }
    if let Some(abilities) = stateless {
        meta.insert("io.modelcontextprotocol/protocolVersion".into(), STATELESS.into());
        meta.insert("io.modelcontextprotocol/clientInfo".into(), client_info());
        meta.insert("io.modelcontextprotocol/clientCapabilities".into(), abilities.clone().into());
    }
    if !meta.is_empty() {
        params.insert("_meta".into(), meta.into());
    }
    params
}

/// The header fields that repeat parts of a request.
pub(super) fn fields(
    method: &str,
    params: &Map<String, Value>,
    input_schema: Option<&Map<String, Value>>,
) -> Fields {
    let mut fields = Vec::new();
    push(&mut fields, "mcp-method", method);
    let named = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return fields,
    };
    if let Some(name) = params.get(named).and_then(Value::as_str) {
        push(&mut fields, "mcp-name", name);
    }
    let arguments = params.get("arguments").and_then(Value::as_object);
    if method == "tools/call"
        && let (Some(schema), Some(arguments)) = (input_schema, arguments)
    {
        push_arguments(&mut fields, schema, arguments);
    }
    fields
}

/// The arguments that the tool's schema wants repeated, at any depth of plain objects.
fn push_arguments(fields: &mut Fields, schema: &Map<String, Value>, arguments: &Map<String, Value>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, property) in properties {
        let (Some(property), Some(argument)) = (property.as_object(), arguments.get(name)) else { continue };
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str)
            && let Some(text) = primitive(argument)
        {
            push(fields, &format!("mcp-param-{header}"), &text);
        }
        if let Some(arguments) = argument.as_object() {
            push_arguments(fields, property, arguments);
        }
    }
}

fn primitive(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn push(fields: &mut Fields, name: &str, value: &str) {
    let value = if is_plain(value) {
        HeaderValue::from_str(value)
    } else {
        HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(value)))
    };
    // The annotations of a tool that is exposed are tokens. One that is none makes no field.
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
        fields.push((name, value));
    }
}

/// Whether a value arrives as it is, and is not read as an encoded one.
fn is_plain(value: &str) -> bool {
    let is_visible = value.bytes().all(|byte| matches!(byte, 0x20..=0x7E));
    let has_outer_spaces = value.starts_with(' ') || value.ends_with(' ');
    let looks_encoded = value.starts_with("=?base64?") && value.ends_with("?=");
    is_visible && !has_outer_spaces && !looks_encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn shown(method: &str, params: Value, schema: Value) -> Vec<String> {
        let fields = fields(method, &object(params), schema.as_object());
        let mut shown: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        shown
    }

    #[test]
    fn a_request_says_who_makes_it_and_keeps_what_else_it_says() {
        let params = object(json!({ "a": 1, "_meta": { "progressToken": "theirs", "traceparent": "00" } }));
        let dressed = dress(params.clone(), Some(7), None);
        assert_eq!(
            Value::from(dressed),
            json!({ "a": 1, "_meta": { "progressToken": 7, "traceparent": "00" } })
        );
        let dressed = dress(params, None, Some(&object(json!({ "roots": {} }))));
        assert_eq!(
            dressed.get("_meta").unwrap(),
            &json!({
                "traceparent": "00",
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": client_info(),
                "io.modelcontextprotocol/clientCapabilities": { "roots": {} },
            })
        );
        assert_eq!(dress(Map::new(), None, None), Map::new());
    }

    #[test]
    fn header_fields_repeat_the_method_the_name_and_annotated_arguments() {
        let schema = json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "deep": { "properties": { "n": { "x-mcp-header": "N" } } },
            "list": { "x-mcp-header": "List" },
            "plain": {},
        } });
        let arguments = json!({ "region": "eu west", "deep": { "n": 3 }, "list": [1], "plain": "x" });
        assert_eq!(
            shown("tools/call", json!({ "name": "bücher", "arguments": arguments }), schema),
            [
                "mcp-method: tools/call",
                "mcp-name: =?base64?YsO8Y2hlcg==?=",
                "mcp-param-n: 3",
                "mcp-param-region: eu west"
            ]
        );
        assert_eq!(
            shown("resources/read", json!({ "uri": "file:///a" }), Value::Null),
            ["mcp-method: resources/read", "mcp-name: file:///a"]
        );
        assert_eq!(shown("tools/list", json!({ "name": "x" }), Value::Null), ["mcp-method: tools/list"]);
    }

    #[test]
    fn a_value_that_a_header_would_change_is_encoded() {
        for value in [" a", "a ", "a\tb", "a\r\nb", "ä", "=?base64?YQ==?="] {
            let shown = shown("tools/call", json!({ "name": value }), Value::Null);
            assert_eq!(*shown.last().unwrap(), format!("mcp-name: =?base64?{}?=", STANDARD.encode(value)));
        }
    }
}

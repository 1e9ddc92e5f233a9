//! One message of the client, as far as its headers repeat it and the bridge keeps to it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::{
    catalog::Mirrored,
    strict::{self, Refused},
};

/// The revision from which on there are no sessions, and headers repeat what the body says.
const MODERN_SINCE: &str = "2026-07-28";
/// Where a message of such a revision says which one it is of.
const VERSION_IN_META: &str = "io.modelcontextprotocol/protocolVersion";

pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// A line that is a message. It is passed on as it was written.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) id: Option<Value>,
    /// None in a response.
    pub(super) method: Option<String>,
    pub(super) params: Value,
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is no message, or could be read in two ways.
    pub(super) fn read(line: Vec<u8>) -> Result<Self, Refused> {
        let message = strict::message(&line)?;
        let id = message.id.map(Value::from);
        let method = message.method.map(std::borrow::Cow::into_owned);
        let params =
            message.params.and_then(|params| serde_json::from_slice(params).ok()).unwrap_or_default();
        Ok(Self { bytes: line.into(), id, method, params })
    }

    pub(super) fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// The id of a request.
    pub(super) fn request_id(&self) -> Option<&Value> {
        self.id.as_ref().filter(|_| self.method.is_some())
    }

    /// Which revision it says it is of. Those that begin with `initialize` say so once, not here.
    pub(super) fn version(&self) -> Option<&str> {
        self.params.get("_meta")?.get(VERSION_IN_META)?.as_str()
    }

    /// Whether it stands alone: no session, and headers that repeat what it says.
    pub(super) fn is_modern(&self) -> bool {
        self.version().is_some_and(is_modern)
    }

    /// Whether asking twice does no more than asking once.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.method.as_deref().is_some_and(|method| {
            matches!(method, "initialize" | "ping" | "server/discover") || method.ends_with("/list")
        })
    }

    /// The headers that repeat what it says (MCP 2026-07-28 Streamable HTTP, standard headers).
    pub(super) fn headers(&self, version: &str, mirrored: &[Mirrored]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| {
            // What no header can carry is for the server to miss.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(VERSION, version);
        let Some(method) = self.method.as_deref().filter(|_| is_modern(version)) else { return headers };
        put(METHOD, method);
        if let Some(name) = self.name(method) {
            put(NAME, &encoded(name));
        }
        for Mirrored { path, header } in mirrored {
            let arguments = self.params.get("arguments");
            match arguments.and_then(|arguments| path.iter().try_fold(arguments, |value, key| value.get(key)))
            {
                Some(Value::String(text)) => put(header.clone(), &encoded(text)),
                Some(other @ (Value::Number(_) | Value::Bool(_))) => put(header.clone(), &other.to_string()),
                _ => {}
            }
        }
        headers
    }

    fn name(&self, method: &str) -> Option<&str> {
        let key = match method {
            "tools/call" | "prompts/get" => "name",
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
            "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
            _ => return None,
        };
        self.params.get(key)?.as_str()
    }
}

/// Whether a revision has no sessions.
pub(super) fn is_modern(version: &str) -> bool {
    version >= MODERN_SINCE
}

/// A text as a header carries it: what no header could is in Base64.
fn encoded(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.trim_matches(' ').len() == text.len()
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if is_plain { text.to_owned() } else { format!("=?base64?{}?=", BASE64_STANDARD.encode(text)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::mirrored;

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn headers_of_a_modern_message_repeat_what_it_says() {
        let schema = json!({ "properties": {
            "at": { "properties": { "row": { "x-mcp-header": "Row" } } },
            "city": { "x-mcp-header": "City" }, "none": { "x-mcp-header": "None" }
        } });
        let mirrored = mirrored(schema.as_object().unwrap());
        let line = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":" a","arguments":
            {"at":{"row":7},"city":"Köln"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let message = Message::read(line.into()).unwrap();
        assert!(message.is_modern());
        assert_eq!(
            shown(&message.headers("2026-07-28", &mirrored)),
            [
                "mcp-method: tools/call",
                "mcp-name: =?base64?IGE=?=",
                "mcp-param-city: =?base64?S8O2bG4=?=",
                "mcp-param-row: 7",
                "mcp-protocol-version: 2026-07-28",
            ]
        );
        assert_eq!(shown(&message.headers("2025-11-25", &mirrored)), ["mcp-protocol-version: 2025-11-25"]);
    }

    #[test]
    fn what_only_looks_encoded_is_encoded() {
        assert_eq!(encoded("=?base64?YQ==?="), "=?base64?PT9iYXNlNjQ/WVE9PT89?=");
        assert_eq!(encoded("a b"), "a b");
        assert_eq!(encoded("a\nb"), "=?base64?YQpi?=");
        assert_eq!(encoded("a\t"), "=?base64?YQk=?=");
    }

    #[test]
    fn only_what_changes_nothing_is_asked_again() {
        let may = |method: &str| {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
            Message::read(line.into_bytes()).unwrap().may_be_repeated()
        };
        assert!(may("tools/list") && may("initialize") && !may("tools/call") && !may("tasks/cancel"));
    }
}

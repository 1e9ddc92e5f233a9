//! What of a message's parameters is looked at before the protocol reads them.

use std::sync::LazyLock;

use rmcp::model::ProtocolVersion;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::{CallKind, Era};

/// The revisions that are spoken here.
pub(super) fn known_versions() -> &'static [&'static str] {
    static KNOWN: LazyLock<Vec<&str>> =
        LazyLock::new(|| ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str).collect());
    &KNOWN
}

/// The parts of the parameters that headers repeat.
#[derive(Deserialize)]
pub(super) struct Peek {
    #[serde(default)]
    pub(super) name: Value,
    #[serde(default)]
    uri: Value,
    #[serde(default, rename = "taskId")]
    task: Value,
    #[serde(default, rename = "protocolVersion")]
    version: Value,
    #[serde(default, rename = "_meta")]
    meta: Value,
}

/// The call that a method makes, with what it names and no arguments, where it makes one.
pub(super) fn asked(
    method: &str,
    name: impl FnOnce() -> String,
    uri: impl FnOnce() -> String,
) -> Option<CallKind> {
    match method {
        "tools/call" => Some(CallKind::Tool { name: name(), arguments: Map::new().into() }),
        "prompts/get" => Some(CallKind::Prompt { name: name(), arguments: Map::new().into() }),
        "resources/read" => Some(CallKind::resource(uri())),
        // What is asked about a call names no tool.
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some(nameless()),
        _ => None,
    }
}

/// A call of which nothing can be said.
pub(super) fn nameless() -> CallKind {
    CallKind::Tool { name: String::new(), arguments: Map::new().into() }
}

/// The URI that parameters name; none where they cannot be read.
pub(super) fn uri_of(params: &[u8]) -> String {
    let peek: Option<Peek> = serde_json::from_slice(params).ok();
    peek.and_then(|peek| peek.uri.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The era of a request: a newer one says of itself that it is.
pub(super) fn era(method: &str, params: &[u8]) -> Era {
    let is_newer = serde_json::from_slice(params).is_ok_and(|peek: Peek| peek.version(method).is_some());
    if is_newer { Era::Stateless } else { Era::Session }
}

/// The arguments of a tool call.
#[derive(Deserialize)]
pub(super) struct Arguments {
    #[serde(default)]
    pub(super) arguments: Value,
}

impl Peek {
    /// Whether what is said beside the parameters has the form that it has for all methods.
    pub(super) fn has_fitting_meta(&self) -> bool {
        self.meta.is_object() || self.meta.is_null()
    }

    pub(super) fn name(&self, method: &str) -> Option<&str> {
        match method {
            "tools/call" | "prompts/get" => self.name.as_str(),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => self.uri.as_str(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.task.as_str(),
            _ => None,
        }
    }

    pub(super) fn version(&self, method: &str) -> Option<&str> {
        match method {
            "initialize" => self.version.as_str(),
            _ => self.meta.get("io.modelcontextprotocol/protocolVersion").and_then(Value::as_str),
        }
    }
}

//! What of a message's parameters is looked at before the protocol reads them.

use std::sync::LazyLock;

use rmcp::model::ProtocolVersion;
use serde::Deserialize;
use serde_json::Value;

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

/// The arguments of a tool call.
#[derive(Deserialize)]
pub(super) struct Arguments {
    #[serde(default)]
    pub(super) arguments: Value,
}

impl Peek {
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

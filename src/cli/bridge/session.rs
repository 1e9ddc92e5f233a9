//! What the bridge remembers between messages: the session, and what the tools want repeated in headers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::message::{Message, is_modern};
use crate::catalog::{Mirrored, mirrored};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// How many tools' headers are remembered.
const TOOLS_MAX: usize = 10_000;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    session: Mutex<Session>,
    tools: Mutex<HashMap<String, Arc<[Mirrored]>>>,
}

/// A session of the older revisions, as far as it has begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    /// The server's id for it; servers may do without.
    pub(super) id: Option<HeaderValue>,
    /// What was agreed on, or the client named last.
    version: Option<String>,
    /// The client's `initialize`, with which a new one can be begun in its place.
    pub(super) begun: Option<Bytes>,
    /// Grows with each session.
    pub(super) generation: u64,
}

impl Memory {
    pub(super) fn session(&self) -> Session {
        lock(&self.session).clone()
    }

    /// Remembers what an `initialize` led to.
    pub(super) fn begin(&self, initialize: &Bytes, headers: &HeaderMap, result: &Value) {
        let mut session = lock(&self.session);
        *session = Session {
            id: headers.get(SESSION).cloned(),
            version: result.get("protocolVersion").and_then(Value::as_str).map(str::to_owned),
            begun: Some(initialize.clone()),
            generation: session.generation + 1,
        };
    }

    /// Forgets the session, which is to be ended.
    pub(super) fn end(&self) -> Session {
        std::mem::take(&mut lock(&self.session))
    }

    /// The headers of a message.
    pub(super) fn headers(&self, message: &Message, session: &Session) -> HeaderMap {
        if message.is("initialize") {
            return HeaderMap::new();
        }
        if let Some(version) = message.version().filter(|version| is_modern(version)) {
            if session.version.is_none() {
                // Notifications of such a client need not say their version.
                lock(&self.session).version = Some(version.to_owned());
            }
            return message.headers(version, &self.mirrored(message));
        }
        match message.version().or(session.version.as_deref()) {
            Some(version) if is_modern(version) => message.headers(version, &[]),
            Some(version) => {
                let mut headers = message.headers(version, &[]);
                headers.extend(session.headers());
                headers
            }
            None => HeaderMap::new(),
        }
    }

    fn mirrored(&self, message: &Message) -> Arc<[Mirrored]> {
        let name = message.params.get("name").and_then(Value::as_str).filter(|_| message.is("tools/call"));
        name.and_then(|name| lock(&self.tools).get(name).cloned()).unwrap_or_default()
    }

    /// Remembers a page of a list of tools.
    pub(super) fn learn(&self, list: &Value, is_first_page: bool) {
        let mut tools = lock(&self.tools);
        if is_first_page {
            tools.clear();
        }
        for tool in list.get("tools").and_then(Value::as_array).into_iter().flatten() {
            let name = tool.get("name").and_then(Value::as_str);
            let schema = tool.get("inputSchema").and_then(Value::as_object);
            if let (Some(name), Some(schema)) = (name, schema)
                && tools.len() < TOOLS_MAX
            {
                let mirrored = mirrored(schema);
                if !mirrored.is_empty() {
                    tools.insert(name.to_owned(), mirrored.into());
                }
            }
        }
    }
}

impl Session {
    /// The headers that name it.
    pub(super) fn headers(&self) -> HeaderMap {
        self.id.iter().map(|id| (SESSION, id.clone())).collect()
    }

    /// The same, and the revision that was agreed on.
    pub(super) fn all_headers(&self) -> HeaderMap {
        let mut headers = self.headers();
        let version = self.version.as_deref().and_then(|version| HeaderValue::from_str(version).ok());
        headers.extend(version.map(|version| (super::message::VERSION, version)));
        headers
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CALL: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":"1"}}}"#;

    fn names(memory: &Memory, line: &str) -> Vec<String> {
        let message = Message::read(line.into()).unwrap();
        let mut names: Vec<_> =
            memory.headers(&message, &memory.session()).keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_session_is_named_by_messages_of_its_revision_alone() {
        let memory = Memory::default();
        assert!(names(&memory, CALL).is_empty());
        let headers = [(SESSION, HeaderValue::from_static("s1"))].into_iter().collect();
        memory.begin(&Bytes::new(), &headers, &json!({ "protocolVersion": "2025-11-25" }));
        assert_eq!(names(&memory, CALL), ["mcp-protocol-version", "mcp-session-id"]);
        let modern = CALL.replace(
            r#""arguments""#,
            r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"arguments""#,
        );
        assert_eq!(names(&memory, &modern), ["mcp-method", "mcp-name", "mcp-protocol-version"]);
        let page = |name: &str| {
            json!({ "tools": [{ "name": name,
                "inputSchema": { "properties": { "x": { "x-mcp-header": "X" } } } }] })
        };
        memory.learn(&page("b"), true);
        assert_eq!(names(&memory, &modern).len(), 3);
        memory.learn(&page("a"), false);
        assert_eq!(names(&memory, &modern).len(), 4);
        memory.learn(&page("b"), true);
        assert_eq!(names(&memory, &modern).len(), 3);
        assert_eq!(names(&memory, r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#), [""; 0]);
    }
}

//! The first words: which version is spoken, and what the upstream says of itself.

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Bounds, Exchange, Hello, ServerFacts, UpstreamError,
    links::{Link, Wire},
    message::{self, malformed},
    meta::{self, SESSION, STATELESS},
};
use crate::call::Era;

/// The JSON-RPC error codes of MCP 2026-07-28 that only a server of that version answers.
const HEADER_MISMATCH: i64 = -32020;
const MISSING_CAPABILITY: i64 = -32021;
const UNSUPPORTED_VERSION: i64 = -32022;

/// Where an upstream's name stands in its answers, in the era without sessions.
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// Agrees on a version: the preferred era's, or the other's where the upstream speaks only that.
pub(super) async fn agree(link: &Link, hello: &Hello, bounds: &Bounds) -> Result<ServerFacts, UpstreamError> {
    let deadline = Instant::now() + bounds.connect_timeout;
    let discover_by = deadline.min(Instant::now() + bounds.discover_timeout);
    let agreed = match hello.era {
        Era::Stateless => match discover(link, hello, discover_by).await? {
            Some(facts) => Some(facts),
            None => initialize(link, hello, deadline).await?,
        },
        Era::Session => match initialize(link, hello, deadline).await? {
            Some(facts) => Some(facts),
            None => discover(link, hello, deadline).await?,
        },
    };
    agreed.ok_or(UpstreamError::Version)
}

/// Begins a session; none where the upstream has no sessions.
async fn initialize(
    link: &Link,
    hello: &Hello,
    deadline: Instant,
) -> Result<Option<ServerFacts>, UpstreamError> {
    let [preferred, ..] = SESSION;
    speak(link, None);
    let params = object(json!({
        "protocolVersion": preferred,
        "capabilities": hello.abilities,
        "clientInfo": meta::client_info(),
    }));
    let answer = ask(link, "initialize", params, deadline).await;
    let mut result = match answer {
        Ok(result) => result,
        Err(UpstreamError::Refused { .. }) => return Ok(None),
        Err(UpstreamError::Status { code }) if is_unknown(code) => return Ok(None),
        Err(error) => return Err(error),
    };
    let version = match result.get("protocolVersion").and_then(Value::as_str) {
        Some(STATELESS) => return Ok(None),
        Some(version) => SESSION.into_iter().find(|known| *known == version),
        None => return Err(malformed("the answer to `initialize` has no version")),
    };
    let version = version.ok_or(UpstreamError::Version)?;
    speak(link, Some(version));
    let info = take_object(&mut result, "serverInfo")?;
    let facts = facts(Era::Session, version, info, result)?;
    link.wire.deliver(message::notice("notifications/initialized", &Map::new())).await;
    Ok(Some(facts))
}

/// Asks what the upstream is, without a session; none where it does not know that question.
async fn discover(
    link: &Link,
    hello: &Hello,
    deadline: Instant,
) -> Result<Option<ServerFacts>, UpstreamError> {
    speak(link, Some(STATELESS));
    let params = meta::dress(Map::new(), None, Some(&hello.abilities));
    let mut result = match ask(link, "server/discover", params, deadline).await {
        Ok(result) => result,
        Err(UpstreamError::Refused { code: UNSUPPORTED_VERSION, data, .. }) => {
            let supported = data.as_ref().and_then(|data| data.get("supported"));
            return if supported.is_none_or(has_session_version) {
                Ok(None)
            } else {
                Err(UpstreamError::Version)
            };
        }
        Err(error @ UpstreamError::Refused { code: HEADER_MISMATCH | MISSING_CAPABILITY, .. }) => {
            return Err(error);
        }
        Err(UpstreamError::Refused { .. }) => return Ok(None),
        Err(UpstreamError::Status { code }) if is_unknown(code) => return Ok(None),
        // Old programs may not answer what they do not know.
        Err(UpstreamError::TimedOut { .. }) if matches!(*link.wire, Wire::Stdio(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let supported = result.get("supportedVersions").cloned();
    let supported = supported.ok_or_else(|| malformed("the answer to `server/discover` has no versions"))?;
    if !supported.as_array().is_some_and(|versions| versions.iter().any(|version| version == STATELESS)) {
        return if has_session_version(&supported) { Ok(None) } else { Err(UpstreamError::Version) };
    }
    let mut meta = take_object(&mut result, "_meta")?;
    let info = take_object(&mut meta, SERVER_INFO)?;
    facts(Era::Stateless, STATELESS, info, result).map(Some)
}

fn facts(
    era: Era,
    version: &'static str,
    info: Map<String, Value>,
    mut result: Map<String, Value>,
) -> Result<ServerFacts, UpstreamError> {
    let capabilities = take_object(&mut result, "capabilities")?;
    let instructions = match result.remove("instructions") {
        None => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err(malformed("`instructions` is not a text")),
    };
    Ok(ServerFacts { era, version, capabilities, instructions, info })
}

async fn ask(
    link: &Link,
    method: &str,
    params: Map<String, Value>,
    deadline: Instant,
) -> Result<Map<String, Value>, UpstreamError> {
    let cancel = CancellationToken::new();
    let answer = link.exchange(method, |_| params, &Exchange::new(deadline, &cancel)).await?;
    Ok(answer.result)
}

fn speak(link: &Link, version: Option<&'static str>) {
    if let Wire::Http(http) = link.wire.as_ref() {
        http.speak(version);
    }
}

/// Whether a status can mean that a server does not know what it was asked.
const fn is_unknown(code: u16) -> bool {
    matches!(code, 400..=499) && !matches!(code, 401 | 403 | 429)
}

fn has_session_version(versions: &Value) -> bool {
    let versions = versions.as_array().map(Vec::as_slice).unwrap_or_default();
    versions.iter().filter_map(Value::as_str).any(|version| SESSION.contains(&version))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// A member that is an object, if it is there at all.
fn take_object(members: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, UpstreamError> {
    match members.remove(name) {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(malformed("what an upstream says of itself is not an object")),
    }
}

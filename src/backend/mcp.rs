//! Calls of tools of other MCP servers.
//!
//! A call leaves over a connection on which the tool is what was reviewed. What the server may ask the caller
//! during it is what the manifest lets it ask, and the caller can answer.

mod tasks;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Answer, BackendError, Body, PromptResult, Questions, TimeLimit, ToolResult};
use crate::{
    audit::Committed,
    call::{Era, Relay},
    credential::Lease,
    egress::Departure,
    manifest::{Ask, McpBackend, UpstreamKind},
    plan::{OutgoingCall, Resumed},
    upstream::{self, Asks, Exchange, NotReady, Taken, UpstreamError, Upstreams, Want},
};

use tasks::{Follower, Theirs};

/// How often a server may ask a caller in band, who cannot be asked by a result.
const ROUNDS_MAX: usize = 8;

/// The JSON-RPC error of a server that has to ask a client what that cannot answer (MCP 2026-07-28).
const MISSING_CAPABILITY: i64 = -32021;

/// What one call leaves on.
pub(super) struct Leaving<'a> {
    pub(super) committed: &'a Committed,
    pub(super) lease: Option<&'a Arc<Lease>>,
    pub(super) departure: &'a Arc<Departure>,
    pub(super) timeout: Duration,
}

/// Calls a tool once.
pub(super) async fn call(
    upstreams: &Upstreams,
    backend: &McpBackend,
    outgoing: &OutgoingCall,
    leaving: &Leaving<'_>,
) -> Result<Answer, BackendError> {
    let deadline = Instant::now() + leaving.timeout;
    let relay = leaving.committed.relay.as_ref();
    let mut abilities = abilities(relay, &backend.asks);
    if leaving.committed.outlives.is_some() {
        tasks::declare(&mut abilities);
    }
    let want = Want {
        era: relay.map_or(Era::Stateless, Relay::era),
        abilities: &abilities,
        lease: leaving.lease.cloned(),
        deadline,
    };
    let ready = tokio::select! {
        biased;
        () = leaving.committed.cancel.cancelled() => return Err(BackendError::Cancelled { sent: false }),
        ready = upstreams.ready_for(&backend.upstream, (backend.kind, &backend.tool), backend.definition, want) => ready,
    };
    let connection = ready.map_err(|error| not_ready(error, leaving.timeout))?;
    let mut resumed = outgoing.resumed().cloned();
    let follower = Follower { connection: &connection, backend, leaving, deadline };
    for _ in 0..ROUNDS_MAX {
        let answer = match Theirs::resumed(resumed.as_ref()) {
            Some((task, responses)) => {
                follower.answer(&task, responses).await?;
                follower.follow(task).await?
            }
            None => {
                let params = params(backend, leaving.committed, resumed.as_ref());
                let answer =
                    follower.first(exchange(&connection, params, backend, leaving, deadline)).await?;
                match Theirs::of(&answer.result).filter(|_| leaving.committed.outlives.is_some()) {
                    Some(task) => follower.follow(task).await?,
                    None => answer,
                }
            }
        };
        let (bytes, peer) = (answer.bytes, answer.peer);
        let body = read(backend.kind, answer.result).ok_or(BackendError::NotMcp)?;
        match (body, relay) {
            (Body::Questions(questions), Some(relay)) if relay.era() == Era::Session => {
                allowed(&questions, &abilities)?;
                resumed = Some(ask(relay, questions, deadline, leaving).await?);
            }
            (Body::Questions(questions), Some(_)) => {
                allowed(&questions, &abilities)?;
                return Ok(Answer { status: None, body: Body::Questions(questions), bytes, peer });
            }
            // Nobody is there who could be asked.
            (Body::Questions(_), None) => return Err(BackendError::Asks),
            (body, _) => return Ok(Answer { status: None, body, bytes, peer }),
        }
    }
    Err(BackendError::Asks)
}

async fn exchange(
    connection: &Taken,
    params: Map<String, Value>,
    backend: &McpBackend,
    leaving: &Leaving<'_>,
    deadline: Instant,
) -> Result<upstream::Answer, BackendError> {
    let exchange = exchange_of(backend, leaving, deadline);
    let answered = connection.request(backend.kind.method(), params, exchange).await;
    answered.map_err(|error| match needs(&error, &backend.asks, leaving.committed.relay.as_ref()) {
        Some(needs) => BackendError::Unable { needs },
        None => of_upstream(error, leaving.timeout),
    })
}

fn exchange_of<'a>(backend: &McpBackend, leaving: &'a Leaving<'_>, deadline: Instant) -> Exchange<'a> {
    Exchange {
        deadline,
        cancel: &leaving.committed.cancel,
        relay: leaving.committed.relay.as_ref(),
        asks: Asks {
            sampling: backend.asks.contains(&Ask::Sampling),
            elicitation: backend.asks.contains(&Ask::Elicitation),
            roots: backend.asks.contains(&Ask::Roots),
        },
        input_schema: Some(leaving.committed.tool().input_schema()),
        departure: Some(leaving.departure),
    }
}

/// What of the caller's abilities the manifest lets the server use.
fn abilities(relay: Option<&Relay>, asks: &[Ask]) -> Map<String, Value> {
    let Some(relay) = relay else { return Map::new() };
    let of_ask = |ask: &Ask| {
        let name = ability(*ask);
        relay.abilities().get(name).map(|ability| (name.to_owned(), ability.clone()))
    };
    asks.iter().filter_map(of_ask).collect()
}

/// The abilities for want of which a server refuses a call, where the caller can be told so: those that the manifest
/// lets the server use, and the caller lacks. One that the caller does not lack, or that would not help it, is none.
fn needs(error: &UpstreamError, asks: &[Ask], relay: Option<&Relay>) -> Option<Vec<&'static str>> {
    let UpstreamError::Refused { code: MISSING_CAPABILITY, data: Some(data), .. } = error else {
        return None;
    };
    let relay = relay.filter(|relay| relay.era() == Era::Stateless)?; // the older era has no such error
    let wanted = data.get("requiredCapabilities")?.as_object()?;
    let mut lacking: Vec<&'static str> = asks.iter().map(|ask| ability(*ask)).collect();
    lacking.retain(|name| !relay.abilities().contains_key(*name));
    let needs: Option<Vec<_>> =
        wanted.keys().map(|name| lacking.iter().copied().find(|one| name == one)).collect();
    needs.filter(|needs| !needs.is_empty())
}

const ASKS: [Ask; 3] = [Ask::Sampling, Ask::Elicitation, Ask::Roots];

const fn ability(ask: Ask) -> &'static str {
    match ask {
        Ask::Sampling => "sampling",
        Ask::Elicitation => "elicitation",
        Ask::Roots => "roots",
    }
}

const fn method(ask: Ask) -> &'static str {
    match ask {
        Ask::Sampling => "sampling/createMessage",
        Ask::Elicitation => "elicitation/create",
        Ask::Roots => "roots/list",
    }
}

fn params(backend: &McpBackend, committed: &Committed, resumed: Option<&Resumed>) -> Map<String, Value> {
    let mut params = Map::new();
    let arguments = committed.arguments();
    match backend.kind {
        // The URI is the one argument that there is.
        UpstreamKind::Resource | UpstreamKind::Template => params.extend(arguments.as_map().clone()),
        UpstreamKind::Tool | UpstreamKind::Prompt => {
            params.insert("name".into(), Value::String(backend.tool.clone()));
            params.insert("arguments".into(), arguments.as_value().clone());
        }
    }
    if let Some(Resumed { responses, state }) = resumed {
        params.insert("inputResponses".into(), Value::Object(responses.clone()));
        params.extend(state.clone().map(|state| ("requestState".to_owned(), Value::String(state))));
    }
    params
}

/// Reads a result (MCP 2026-07-28 and 2025-11-25: tools, "Tool Result"; resources, "Reading Resources"; prompts,
/// "Getting a Prompt").
fn read(kind: UpstreamKind, mut result: Map<String, Value>) -> Option<Body> {
    match result.get("resultType").map(Value::as_str) {
        None | Some(Some("complete")) => complete(kind, result),
        Some(Some("input_required")) => {
            let requests = match result.remove("inputRequests") {
                None => Map::new(),
                Some(Value::Object(requests)) => requests,
                Some(_) => return None,
            };
            let state = match result.remove("requestState") {
                None => None,
                Some(Value::String(state)) => Some(state),
                Some(_) => return None,
            };
            Some(Body::Questions(Questions { requests, state }))
        }
        Some(_) => None,
    }
}

fn complete(kind: UpstreamKind, mut result: Map<String, Value>) -> Option<Body> {
    match kind {
        UpstreamKind::Resource | UpstreamKind::Template => match result.remove("contents") {
            Some(Value::Array(contents)) => Some(Body::Contents(contents)),
            _ => None,
        },
        UpstreamKind::Prompt => {
            let Some(Value::Array(messages)) = result.remove("messages") else { return None };
            let description = match result.remove("description") {
                None => None,
                Some(Value::String(description)) => Some(description),
                Some(_) => return None,
            };
            Some(Body::Prompt(PromptResult { description, messages }))
        }
        UpstreamKind::Tool => {
            let content = match result.remove("content") {
                None => Vec::new(), // older servers leave it out beside structured content
                Some(Value::Array(content)) => content,
                Some(_) => return None,
            };
            let is_error = match result.remove("isError") {
                None => false,
                Some(Value::Bool(is_error)) => is_error,
                Some(_) => return None,
            };
            Some(Body::Tool(ToolResult { content, structured: result.remove("structuredContent"), is_error }))
        }
    }
}

/// Whether all that is asked is what the server was told that it can ask.
fn allowed(questions: &Questions, told: &Map<String, Value>) -> Result<(), BackendError> {
    let is_allowed = |question: &Value| {
        let asked = question.get("method").and_then(Value::as_str);
        ASKS.into_iter().any(|ask| asked == Some(method(ask)) && told.contains_key(ability(ask)))
    };
    if questions.requests.values().all(is_allowed) { Ok(()) } else { Err(BackendError::Asks) }
}

/// Asks a caller in band what the server asks by a result.
async fn ask(
    relay: &Relay,
    questions: Questions,
    deadline: Instant,
    leaving: &Leaving<'_>,
) -> Result<Resumed, BackendError> {
    let Questions { requests, state } = questions;
    let mut responses = Map::new();
    for (key, question) in requests {
        let asked = question.get("method").and_then(Value::as_str).unwrap_or_default();
        let asked = ASKS.map(method).into_iter().find(|m| *m == asked);
        let asked = asked.ok_or(BackendError::Asks)?;
        let params = question.get("params").and_then(Value::as_object).cloned().unwrap_or_default();
        let answered = tokio::select! {
            biased;
            () = leaving.committed.cancel.cancelled() => return Err(BackendError::Cancelled { sent: true }),
            answered = tokio::time::timeout_at(deadline, relay.ask(asked, params)) => answered,
        };
        let answered = answered.map_err(|_| timed_out(true, leaving.timeout))?;
        responses.insert(key, answered.map_err(|_| BackendError::Asks)?);
    }
    Ok(Resumed { responses, state })
}

const fn timed_out(sent: bool, after: Duration) -> BackendError {
    BackendError::TimedOut { limit: TimeLimit::Total, after, sent }
}

pub(super) fn not_ready(error: NotReady, timeout: Duration) -> BackendError {
    match error {
        NotReady::Failed(error) if error.sent() => BackendError::NotReady(Box::new(NotReady::Failed(error))),
        NotReady::Failed(error) => of_upstream(error, timeout),
        NotReady::TimedOut => timed_out(false, timeout),
        NotReady::Unknown | NotReady::Quarantined(_) => BackendError::NotReady(Box::new(error)),
    }
}

pub(super) fn of_upstream(error: UpstreamError, timeout: Duration) -> BackendError {
    match error {
        UpstreamError::Egress { refusal, sent } => BackendError::Egress { refusal, sent },
        UpstreamError::Unreachable => BackendError::Unreachable,
        UpstreamError::TimedOut { sent } => timed_out(sent, timeout),
        UpstreamError::Cancelled { sent } => BackendError::Cancelled { sent },
        UpstreamError::Fallen { sent } => BackendError::Fallen { sent },
        UpstreamError::TooLarge { bytes_max } => BackendError::TooLarge { limit: bytes_max },
        UpstreamError::NotStrict { rule, offset } => BackendError::NotStrict { rule, offset },
        UpstreamError::Encoded => BackendError::Encoded,
        UpstreamError::Status { code } => BackendError::Status { code },
        UpstreamError::Redirected { code } => BackendError::Redirected { code },
        UpstreamError::Closed { sent: true } => BackendError::Interrupted,
        other => BackendError::Upstream(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_of(result: Value) -> Option<Body> {
        let Value::Object(result) = result else { panic!("no result") };
        read(UpstreamKind::Tool, result)
    }

    #[test]
    fn what_is_read_is_what_was_asked_for() {
        let contents = json!({ "contents": [{ "uri": "a:b", "text": "t" }] });
        let messages = json!({ "messages": [], "description": "d" });
        let read_as = |kind, result: &Value| read(kind, result.as_object().unwrap().clone());
        for kind in [UpstreamKind::Resource, UpstreamKind::Template] {
            assert!(matches!(read_as(kind, &contents), Some(Body::Contents(all)) if all.len() == 1));
            assert!(read_as(kind, &messages).is_none());
            assert!(read_as(kind, &json!({ "contents": {} })).is_none());
        }
        assert!(matches!(read_as(UpstreamKind::Prompt, &messages), Some(Body::Prompt(_))));
        assert!(read_as(UpstreamKind::Prompt, &contents).is_none());
        assert!(read_as(UpstreamKind::Prompt, &json!({ "messages": [], "description": 7 })).is_none());
    }

    #[test]
    fn results_of_both_eras_are_read_and_others_are_none() {
        let Some(Body::Tool(plain)) = read_of(json!({ "content": [{ "type": "text", "text": "a" }] })) else {
            panic!("no result")
        };
        assert_eq!((plain.content.len(), plain.structured, plain.is_error), (1, None, false));
        let Some(Body::Tool(failed)) =
            read_of(json!({ "content": [], "isError": true, "resultType": "complete" }))
        else {
            panic!("no result")
        };
        assert!(failed.is_error);
        let Some(Body::Tool(bare)) = read_of(json!({ "structuredContent": { "a": 1 } })) else {
            panic!("no result")
        };
        assert_eq!(bare.structured, Some(json!({ "a": 1 })));
        let asked = json!({
            "resultType": "input_required",
            "inputRequests": { "k": { "method": "roots/list" } },
            "requestState": "s",
        });
        let Some(Body::Questions(questions)) = read_of(asked) else { panic!("no questions") };
        assert_eq!((questions.requests.len(), questions.state.as_deref()), (1, Some("s")));
        for odd in [
            json!({ "resultType": "task" }),
            json!({ "resultType": 7 }),
            json!({ "content": "text" }),
            json!({ "content": [], "isError": "no" }),
            json!({ "resultType": "input_required", "inputRequests": [] }),
            json!({ "resultType": "input_required", "requestState": 7 }),
        ] {
            assert!(read_of(odd.clone()).is_none(), "{odd}");
        }
    }

    #[test]
    fn a_server_asks_what_it_was_told_that_it_may_and_no_more() {
        let ask = |method: &str| Questions {
            requests: json!({ "k": { "method": method } }).as_object().unwrap().clone(),
            state: None,
        };
        let told = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        assert!(allowed(&ask("elicitation/create"), &told(&["roots", "elicitation"])).is_ok());
        for method in ["sampling/createMessage", "tools/call", ""] {
            assert_eq!(allowed(&ask(method), &told(&["elicitation"])), Err(BackendError::Asks), "{method}");
        }
        assert_eq!(allowed(&ask("roots/list"), &Map::new()), Err(BackendError::Asks));
    }

    #[test]
    fn a_caller_is_told_what_it_lacks_where_its_having_it_would_help() {
        let refused =
            |code, data: Value| UpstreamError::Refused { code, message: "m".into(), data: Some(data) };
        let wants = |data: Value| refused(MISSING_CAPABILITY, json!({ "requiredCapabilities": data }));
        let (caller, _passing) =
            Relay::new(Era::Stateless, json!({ "roots": {} }).as_object().unwrap().clone(), false);
        let needs = |error| needs(&error, &[Ask::Sampling, Ask::Roots], Some(&caller));
        assert_eq!(needs(wants(json!({ "sampling": { "tools": {} } }))), Some(vec!["sampling"]));
        for (error, why) in [
            (wants(json!({ "elicitation": {} })), "its manifest does not let the server ask for it"),
            (wants(json!({ "sampling": {}, "elicitation": {} })), "nor for both"),
            (wants(json!({ "roots": {} })), "the caller has it"),
            (wants(json!({})), "nothing is wanted"),
            (refused(-32602, json!({ "requiredCapabilities": { "sampling": {} } })), "another error"),
            (refused(MISSING_CAPABILITY, json!(["sampling"])), "no list of abilities"),
        ] {
            assert_eq!(needs(error), None, "{why}");
        }
        let (older, _passing) = Relay::new(Era::Session, Map::new(), false);
        assert_eq!(super::needs(&wants(json!({ "sampling": {} })), &[Ask::Sampling], Some(&older)), None);
    }

    #[test]
    fn a_server_is_told_of_the_abilities_that_both_have() {
        let can = json!({ "sampling": {}, "elicitation": { "form": {} } });
        let (relay, _passing) = Relay::new(Era::Session, can.as_object().unwrap().clone(), false);
        let told = abilities(Some(&relay), &[Ask::Elicitation, Ask::Roots]);
        assert_eq!(Value::Object(told), json!({ "elicitation": { "form": {} } }));
        assert!(abilities(Some(&relay), &[]).is_empty() && abilities(None, &[Ask::Sampling]).is_empty());
    }
}

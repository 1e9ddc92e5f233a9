//! What is asked of another MCP server besides calls: what an argument could be, and to hear of a resource.

use serde_json::{Map, Value, json};
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, BackendError, Body, CompletionResult,
    mcp::{Leaving, not_ready, of_upstream},
};
use crate::{
    call::{Completed, Completion, Era, Relay, Updates},
    manifest::McpBackend,
    upstream::{Asks, Exchange, Taken, UpstreamError, Upstreams, Want, Watch},
};

/// How long to wait before an upstream that went away is asked again, and how long it may take then.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// JSON-RPC 2.0 §5.1: there is no such method.
const METHOD_NOT_FOUND: i64 = -32601;

/// Asks what an argument could be. A server that knows nothing of that is not asked.
pub(super) async fn complete(
    upstreams: &Upstreams,
    backend: &McpBackend,
    completion: &Completion,
    leaving: &Leaving<'_>,
) -> Result<Answer, BackendError> {
    let deadline = Instant::now() + leaving.timeout;
    let connection = connection(upstreams, backend, leaving, deadline).await?;
    let nothing =
        || Answer { status: None, body: Body::Completion(CompletionResult::default()), bytes: 0, peer: None };
    if !connection.server().capabilities.contains_key("completions") {
        return Ok(nothing());
    }
    let params = params(backend, completion, leaving);
    let answered = connection.request("completion/complete", params, exchange(leaving, deadline)).await;
    let answer = match answered {
        Err(UpstreamError::Refused { code: METHOD_NOT_FOUND, .. }) => return Ok(nothing()),
        answered => answered.map_err(|error| of_upstream(error, leaving.timeout))?,
    };
    let completion = read(answer.result).ok_or(BackendError::NotMcp)?;
    Ok(Answer { status: None, body: Body::Completion(completion), bytes: answer.bytes, peer: answer.peer })
}

/// Asks to hear of a resource, and passes on what is heard until nobody wants to hear it.
pub(super) async fn subscribe(
    upstreams: &Upstreams,
    backend: &McpBackend,
    updates: &Updates,
    leaving: &Leaving<'_>,
) -> Result<Answer, BackendError> {
    let deadline = Instant::now() + leaving.timeout;
    let connection = connection(upstreams, backend, leaving, deadline).await?;
    let watch = connection.watch(updates.uri(), exchange(leaving, deadline)).await;
    let watch = watch.map_err(|error| of_upstream(error, leaving.timeout))?;
    let (upstreams, backend, updates) = (upstreams.clone(), backend.clone(), updates.clone());
    // Whose credential it was is not asked for again: that is done by calls.
    let is_open = leaving.lease.is_none();
    let era = era(leaving);
    tokio::spawn(async move {
        let over = updates.over().clone();
        let pass_on = async {
            let mut held = Some((connection, watch));
            while let Some((_connection, mut watch)) = held.take() {
                while watch.heard().await {
                    updates.tell();
                }
                // What changes from now on is missed: the subscriber looks once more when it is heard again.
                if is_open {
                    held = Some(again(&upstreams, &backend, updates.uri(), era).await);
                }
                updates.tell();
            }
        };
        tokio::select! {
            () = over.cancelled() => {}
            () = pass_on => {}
        }
    });
    Ok(Answer { status: None, body: Body::Done, bytes: 0, peer: None })
}

/// Asks anew, until the server is there again and what it has is what was reviewed.
async fn again(upstreams: &Upstreams, backend: &McpBackend, uri: &str, era: Era) -> (Taken, Watch) {
    let cancel = CancellationToken::new();
    loop {
        sleep(AGAIN_AFTER).await;
        let deadline = Instant::now() + AGAIN_TIMEOUT;
        let want = Want { era, abilities: &Map::new(), lease: None, deadline };
        let tool = (backend.kind, backend.tool.as_str());
        if let Ok(connection) = upstreams.ready_for(&backend.upstream, tool, backend.definition, want).await
            && let Ok(watch) = connection.watch(uri, Exchange::new(deadline, &cancel)).await
        {
            return (connection, watch);
        }
    }
}

fn era(leaving: &Leaving<'_>) -> Era {
    leaving.committed.relay.as_ref().map_or(Era::Stateless, Relay::era)
}

/// A connection on which what is asked about is what was reviewed. Nobody can be asked on it.
async fn connection(
    upstreams: &Upstreams,
    backend: &McpBackend,
    leaving: &Leaving<'_>,
    deadline: Instant,
) -> Result<Taken, BackendError> {
    let want = Want { era: era(leaving), abilities: &Map::new(), lease: leaving.lease.cloned(), deadline };
    let ready = tokio::select! {
        biased;
        () = leaving.committed.cancel.cancelled() => return Err(BackendError::Cancelled { sent: false }),
        ready = upstreams.ready_for(&backend.upstream, (backend.kind, &backend.tool), backend.definition, want) => ready,
    };
    ready.map_err(|error| not_ready(error, leaving.timeout))
}

fn exchange<'a>(leaving: &Leaving<'a>, deadline: Instant) -> Exchange<'a> {
    Exchange {
        deadline,
        cancel: &leaving.committed.cancel,
        relay: leaving.committed.relay.as_ref(),
        asks: Asks::default(),
        input_schema: None,
        departure: Some(leaving.departure),
    }
}

/// What has been written of a prompt's arguments goes along as the guards saw it.
fn params(backend: &McpBackend, completion: &Completion, leaving: &Leaving<'_>) -> Map<String, Value> {
    let seen = leaving.committed.arguments().as_map();
    let value = |name: &String| match completion.of {
        Completed::Prompt(_) => seen.get(name).cloned(),
        Completed::Template(_) => completion.written.get(name).map(|value| Value::String(value.clone())),
    };
    let reference = match completion.of {
        Completed::Prompt(_) => json!({ "type": "ref/prompt", "name": backend.tool }),
        Completed::Template(_) => json!({ "type": "ref/resource", "uri": backend.tool }),
    };
    let written = value(&completion.argument).unwrap_or_else(|| "".into());
    let argument = json!({ "name": completion.argument, "value": written });
    let others = completion.written.keys().filter(|name| **name != completion.argument);
    let others: Map<_, _> = others.filter_map(|name| Some((name.clone(), value(name)?))).collect();
    let mut params = Map::from_iter([("ref".to_owned(), reference), ("argument".to_owned(), argument)]);
    if !others.is_empty() {
        params.insert("context".into(), json!({ "arguments": others }));
    }
    params
}

/// Reads a completion (MCP 2026-07-28 and 2025-11-25 completion, "Requesting Completions").
fn read(mut result: Map<String, Value>) -> Option<CompletionResult> {
    if !matches!(result.get("resultType").map(Value::as_str), None | Some(Some("complete"))) {
        return None;
    }
    let Some(Value::Object(mut completion)) = result.remove("completion") else { return None };
    let Some(Value::Array(values)) = completion.remove("values") else { return None };
    let total = match completion.remove("total") {
        None | Some(Value::Null) => None,
        Some(total) => Some(total.as_u64()?),
    };
    let has_more = match completion.remove("hasMore") {
        None | Some(Value::Null) => None,
        Some(more) => Some(more.as_bool()?),
    };
    Some(CompletionResult { values, total, has_more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_is_read_in_its_own_form_and_in_no_other() {
        let read = |result: Value| read(result.as_object().unwrap().clone());
        let whole =
            read(json!({ "completion": { "values": ["a", "b"], "total": 7, "hasMore": true }, "x": 1 }));
        let whole = whole.unwrap();
        assert_eq!((whole.values.len(), whole.total, whole.has_more), (2, Some(7), Some(true)));
        assert!(read(json!({ "completion": { "values": [] }, "resultType": "complete" })).is_some());
        for odd in [
            json!({ "completion": {} }),
            json!({ "values": [] }),
            json!({ "completion": { "values": "a" } }),
            json!({ "completion": { "values": [], "total": -1 } }),
            json!({ "completion": { "values": [], "hasMore": "no" } }),
            json!({ "completion": { "values": [] }, "resultType": "input_required" }),
        ] {
            assert!(read(odd.clone()).is_none(), "{odd}");
        }
    }
}

//! Sessions of older revisions, over the wire: whose they are, how many there may be, and what they have seen.

use serde_json::{Value, json};

use crate::{
    gate::{Answer, Era},
    project::{Project, key, tool},
    wire::{Wire, answer, visible},
};

fn project() -> Project {
    let mut personal = tool("get", "read", "personal");
    personal["output"]["properties"]["card"] = json!({ "type": "string", "maxLength": 50, "x-label": "pii" });
    Project::new()
        .tool(personal)
        .tool(tool("put", "write", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .client("thief", json!({ "tools": ["*"] }))
        .policy(
            r#"
            permit (principal, action, resource);
            forbid (principal, action == Action::"put", resource)
            when { context.run.labels.contains("pii") };
            "#,
        )
}

async fn begin(gate: &Wire, client: &str) -> Answer {
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" }
    });
    answer(gate.request(Era::Legacy, "initialize", params).bearer_auth(key(client))).await
}

async fn session(gate: &Wire, client: &str) -> String {
    let begun = begin(gate, client).await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    begun.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn within(gate: &Wire, client: &str, session: Option<&str>, tool: &str) -> Answer {
    let params = json!({ "name": tool, "arguments": { "id": "1" } });
    let mut request = gate.request(Era::Legacy, "tools/call", params).bearer_auth(key(client));
    if let Some(session) = session {
        request = request.header("Mcp-Session-Id", session);
    }
    answer(request).await
}

async fn end(gate: &Wire, client: &str, session: &str) -> Answer {
    let request = gate.http.delete(gate.url("/mcp")).bearer_auth(key(client));
    answer(request.header("Mcp-Session-Id", session)).await
}

#[tokio::test]
async fn a_stolen_session_is_unknown_to_the_thief_and_goes_on_for_its_owner() {
    let gate = Wire::serve(project(), json!({})).await;
    let own = session(&gate, "bot").await;
    assert!(own.bytes().all(|byte| byte.is_ascii_graphic()) && own.len() >= 32, "{own}");
    let nowhere = "0".repeat(own.len());
    let unknown = within(&gate, "thief", Some(&nowhere), "get").await;
    let not_ended = end(&gate, "thief", &nowhere).await;
    assert_eq!(not_ended.status, 404);
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert_eq!(visible(&within(&gate, "thief", Some(&own), "get").await), visible(&unknown));
    assert_eq!(visible(&end(&gate, "thief", &own).await), visible(&not_ended));
    assert_eq!(gate.backend.hits(), 0);

    assert_eq!(within(&gate, "bot", Some(&own), "get").await.status, 200);
    let [seen] = <[_; 1]>::try_from(gate.backend.seen()).unwrap();
    assert!(seen.get("mcp-session-id").is_none(), "it is the gate's own");
    let ended = end(&gate, "bot", &own).await;
    assert_eq!((ended.status, ended.body.len()), (204, 0));
    assert_eq!(visible(&within(&gate, "bot", Some(&own), "get").await), visible(&unknown));
    assert_eq!(visible(&end(&gate, "bot", &own).await), visible(&not_ended));
    // And two ids are none.
    let request = gate.request(Era::Legacy, "tools/list", json!({})).bearer_auth(key("bot"));
    let two = answer(request.header("Mcp-Session-Id", "a").header("Mcp-Session-Id", "b")).await;
    assert_eq!(two.status, 400);
    // Without a proof, no session helps.
    let request = gate.request(Era::Legacy, "tools/list", json!({}));
    assert_eq!(answer(request.header("Mcp-Session-Id", &own)).await.status, 401);
}

#[tokio::test]
async fn there_are_as_many_sessions_as_there_may_be_of_a_client_and_in_all() {
    let runs = json!({ "sessions": 2, "sessions-in-all": 3 });
    let gate = Wire::serve(project(), json!({ "runs": runs })).await;
    let first = session(&gate, "bot").await;
    session(&gate, "bot").await;
    let full = begin(&gate, "bot").await;
    assert_eq!(full.status, 503, "{}", full.text());
    assert!(full.headers.get("mcp-session-id").is_none());
    assert_eq!(full.json()["error"]["code"], -32000);
    session(&gate, "thief").await;
    assert_eq!(begin(&gate, "thief").await.status, 503);
    // One that ends makes room.
    assert_eq!(end(&gate, "bot", &first).await.status, 204);
    session(&gate, "thief").await;
    assert_eq!(begin(&gate, "bot").await.status, 503);
}

#[tokio::test]
async fn many_that_begin_at_once_get_no_more_sessions_than_there_may_be() {
    let gate = Wire::serve(project(), json!({ "runs": { "sessions": 5 } })).await;
    let begun = futures::future::join_all((0..40).map(|_| begin(&gate, "bot"))).await;
    let statuses: Vec<u16> = begun.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 35, "{statuses:?}");
}

#[tokio::test]
async fn what_a_session_has_seen_stays_with_it_and_with_all_that_begins_while_it_lives() {
    let gate = Wire::serve(project(), json!({})).await;
    let (one, two) = (session(&gate, "bot").await, session(&gate, "bot").await);
    let is_refused = async |client: &str, session: Option<&str>| -> bool {
        within(&gate, client, session, "put").await.json()["result"]["isError"] == true
    };
    for session in [Some(one.as_str()), Some(&two), None] {
        assert!(!is_refused("bot", session).await);
    }
    let seen: Value = within(&gate, "bot", Some(&one), "get").await.json();
    assert!(seen["result"]["structuredContent"]["card"].is_string(), "{seen}");
    let later = session(&gate, "bot").await;
    assert!(is_refused("bot", Some(&one)).await);
    assert!(!is_refused("bot", Some(&two)).await, "a session that was there before has seen nothing");
    assert!(is_refused("bot", Some(&later)).await, "a new session sheds nothing");
    assert!(is_refused("bot", None).await, "nor does a call without one");
    assert!(!is_refused("thief", None).await);
    for session in [&one, &later] {
        assert_eq!(end(&gate, "bot", session).await.status, 204);
    }
    assert!(is_refused("bot", None).await, "hanging up sheds nothing");
    let anew = session(&gate, "bot").await;
    assert!(is_refused("bot", Some(&anew)).await, "nor does beginning anew");
    assert!(!is_refused("bot", Some(&two)).await);
}

#[tokio::test]
async fn a_message_in_a_session_that_is_not_its_callers_is_on_record() {
    let gate = Wire::serve(project(), json!({})).await;
    let own = session(&gate, "bot").await;
    assert_eq!(within(&gate, "thief", Some(&own), "get").await.status, 404);
    assert_eq!(within(&gate, "thief", Some(&"0".repeat(32)), "get").await.status, 404);
    let params = json!({ "name": "get", "arguments": { "id": "1" } });
    let request = gate.request(Era::Legacy, "tools/call", params).bearer_auth(key("thief"));
    let doubled = answer(request.header("Mcp-Session-Id", &own).header("Mcp-Session-Id", &own)).await;
    assert_eq!(doubled.status, 400);
    // What is no message leaves none: a stream that is asked for, or the end of a session.
    assert_eq!(end(&gate, "thief", &own).await.status, 404);
    let outcomes = gate.records_of("outcome");
    let told: Vec<[&str; 4]> = outcomes
        .iter()
        .map(|record| {
            let (caller, call) = (&record["caller"], &record["call"]);
            [
                caller["client"].as_str().unwrap(),
                call["kind"].as_str().unwrap(),
                record["stage"].as_str().unwrap(),
                record["code"].as_str().unwrap(),
            ]
        })
        .collect();
    let unknown = ["thief", "message", "edge", "unknown_session"];
    assert_eq!(told, [unknown, unknown, ["thief", "message", "edge", "session_id"]], "{outcomes:#?}");
}

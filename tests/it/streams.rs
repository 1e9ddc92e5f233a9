//! Streams of sessions, over the wire: whose they are, how they end, and what sessions leave behind.

use std::time::{Duration, Instant};

use callgate::{manifest::ClientName, runs::Revocation};
use futures::StreamExt as _;
use jiff::Timestamp;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    backend::Backend,
    gate::{Era, Gate},
    project::{Project, key, tool},
    wire::{Wire, answer},
};

const CALLS_TOO: &str = "permit (principal, action, resource);";

fn project() -> Project {
    Project::new()
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .client("thief", json!({ "tools": ["*"] }))
        .policy(CALLS_TOO)
}

async fn session(gate: &Wire, client: &str) -> String {
    // So that a session that is not forgotten weighs something.
    let large = json!({ "large": { "text": "x".repeat(8 << 10) } });
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": { "elicitation": {}, "sampling": {}, "experimental": large },
        "clientInfo": { "name": "it", "version": "1" }
    });
    let begun = answer(gate.request(Era::Legacy, "initialize", params).bearer_auth(key(client))).await;
    assert_eq!(begun.status, 200, "{}", begun.text());
    assert_eq!(
        begun.json()["result"]["capabilities"],
        json!({ "logging": {}, "tools": { "listChanged": true } })
    );
    begun.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

fn get(gate: &Wire, client: &str, session: &str) -> RequestBuilder {
    gate.http
        .get(gate.url("/mcp"))
        .bearer_auth(key(client))
        .header("Accept", "text/event-stream")
        .header("MCP-Protocol-Version", "2025-11-25")
        .header("Mcp-Session-Id", session)
}

async fn delete(gate: &Wire, session: &str) -> u16 {
    let request = gate.http.delete(gate.url("/mcp")).bearer_auth(key("bot"));
    answer(request.header("Mcp-Session-Id", session)).await.status
}

/// What is left of a stream, which has to end.
async fn rest(stream: Response) -> String {
    let whole = timeout(Duration::from_secs(20), stream.text()).await;
    whole.expect("the stream does not end").unwrap_or_default()
}

#[tokio::test]
async fn a_session_has_a_stream_for_its_owner_alone_which_ends_with_it() {
    let gate = Wire::serve(project(), json!({})).await;
    let own = session(&gate, "bot").await;
    let stream = get(&gate, "bot", &own).send().await.unwrap();
    assert_eq!(
        (stream.status().as_u16(), &stream.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(answer(get(&gate, "thief", &own)).await.status, 404);
    let without =
        gate.http.get(gate.url("/mcp")).bearer_auth(key("bot")).header("Accept", "text/event-stream");
    assert_eq!(answer(without).await.status, 405);
    let of_version = |version: &str| {
        let request = gate.http.get(gate.url("/mcp")).bearer_auth(key("bot")).header("Mcp-Session-Id", &own);
        request.header("Accept", "text/event-stream").header("MCP-Protocol-Version", version)
    };
    assert_eq!(answer(of_version("2026-07-28")).await.status, 405, "that revision knows no sessions");
    assert_eq!(answer(of_version("2020-01-01")).await.status, 400);
    let doubled = of_version("2025-11-25").header("MCP-Protocol-Version", "2025-06-18");
    assert_eq!(answer(doubled).await.status, 400);
    let json_only = gate.http.get(gate.url("/mcp")).bearer_auth(key("bot")).header("Mcp-Session-Id", &own);
    assert_eq!(answer(json_only.header("Accept", "application/json")).await.status, 406);

    let resumed = get(&gate, "bot", &own).header("Last-Event-ID", "77-1").send().await.unwrap();
    assert_eq!(rest(resumed).await, "", "a stream that never was ends at once");
    assert_eq!(delete(&gate, &own).await, 204);
    assert_eq!(rest(stream).await, "id: 0-0\nretry: 1000\ndata: \n\n");
    assert_eq!(answer(get(&gate, "bot", &own)).await.status, 404);
}

#[tokio::test]
async fn a_later_stream_takes_over_and_an_idle_session_takes_its_stream_with_it() {
    let gate = Wire::serve(project(), json!({ "runs": { "idle": "2s" } })).await;
    let own = session(&gate, "bot").await;
    let first = get(&gate, "bot", &own).send().await.unwrap();
    let second = get(&gate, "bot", &own).send().await.unwrap();
    rest(first).await;
    rest(second).await; // nobody calls
    assert_eq!(answer(get(&gate, "bot", &own)).await.status, 404);
}

#[tokio::test]
async fn a_stream_takes_no_place_of_a_request() {
    let gate = Wire::serve(project().listener(json!({ "in-flight": 2 })), json!({})).await;
    let own = session(&gate, "bot").await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let another = session(&gate, "bot").await;
        streams.push(get(&gate, "bot", &another).send().await.unwrap());
    }
    let params = json!({ "name": "get", "arguments": { "id": "1" } });
    let call = gate.request(Era::Legacy, "tools/call", params).bearer_auth(key("bot"));
    let called = answer(call.header("Mcp-Session-Id", &own)).await;
    assert_eq!(called.status, 200, "{}", called.text());
    assert_eq!(called.headers["content-type"], "application/json");
    assert_eq!(called.json()["result"]["structuredContent"]["id"], "1");
}

#[tokio::test]
async fn a_stream_keeps_no_listener_from_stopping() {
    let mut gate = Gate::serve(project()).await;
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" }
    });
    let begun = gate.send(Era::Legacy, Some(&key("bot")), "initialize", params).await;
    let request = reqwest::Client::new().get(format!("http://{}/mcp", gate.address)).bearer_auth(key("bot"));
    let request = request.header("Accept", "text/event-stream");
    let stream = request.header("Mcp-Session-Id", &begun.headers["mcp-session-id"]).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    gate.stop.cancel();
    timeout(Duration::from_secs(5), &mut gate.serving).await.expect("it drains").unwrap();
    assert_eq!(rest(stream).await, "id: 0-0\nretry: 1000\ndata: \n\n");
}

#[tokio::test]
async fn a_stream_falls_with_the_right_of_its_owner_within_100_ms_and_its_connection_with_it() {
    let gate = Gate::serve(project()).await;
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" }
    });
    let mut streams = Vec::new();
    for client in ["bot", "thief"] {
        let begun = gate.send(Era::Legacy, Some(&key(client)), "initialize", params.clone()).await;
        let session = begun.headers["mcp-session-id"].to_str().unwrap();
        let head = format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\nMcp-Session-Id: {session}\r\n\r\n",
            key(client)
        );
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        streams.push(stream);
    }
    let mut other = streams.pop().unwrap();
    let (what, mut rest) = (Revocation::Client(ClientName::parse("bot").unwrap()), Vec::new());
    gate.app.runs.revoke(&what, "it", "a test", None, Timestamp::now()).await.unwrap();
    let revoked = Instant::now();
    timeout(Duration::from_secs(5), streams[0].read_to_end(&mut rest))
        .await
        .expect("it does not end")
        .unwrap();
    assert!(revoked.elapsed() < Duration::from_millis(100), "{:?}", revoked.elapsed());
    let others = timeout(Duration::from_millis(300), other.read_to_end(&mut rest)).await;
    assert!(others.is_err(), "others' streams go on");
}

#[tokio::test]
async fn the_stream_of_an_answer_falls_with_the_right_of_who_asked() {
    let backend = Backend::start().await;
    let mut slow = tool("slow", "read", "slow");
    (slow["limits"], slow["backend"]["http"]["service"]) = (json!({ "timeout": "50s" }), json!("patient"));
    let patient = json!({
        "url": format!("http://{}/", backend.address), "egress": { "loopback": true }, "timeout": "50s"
    });
    let gate = Gate::serve(project().service("patient", patient).tool(slow)).await;
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" }
    });
    let begun = gate.send(Era::Legacy, Some(&key("bot")), "initialize", params).await;
    let asked = reqwest::Client::new().post(format!("http://{}/mcp", gate.address)).bearer_auth(key("bot"));
    let asked = asked.header("Mcp-Session-Id", &begun.headers["mcp-session-id"]);
    let params = json!({ "name": "slow", "arguments": { "id": "1" } });
    // After ten seconds a client is shown that somebody works on it.
    let answer = Era::Legacy.request(asked, "tools/call", params).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let what = Revocation::Client(ClientName::parse("bot").unwrap());
    gate.app.runs.revoke(&what, "it", "a test", None, Timestamp::now()).await.unwrap();
    let revoked = Instant::now();
    rest(answer).await;
    assert!(revoked.elapsed() < Duration::from_millis(100), "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn a_session_takes_what_the_protocol_lets_a_client_send() {
    let gate = Wire::serve(project(), json!({})).await;
    let own = session(&gate, "bot").await;
    let post = async |body: Value| {
        let request = gate.http.post(gate.url("/mcp")).bearer_auth(key("bot"));
        let request = request.header("Accept", "application/json, text/event-stream");
        let request = request.header("MCP-Protocol-Version", "2025-11-25").header("Mcp-Session-Id", &own);
        answer(request.json(&body)).await
    };
    for taken in [
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" }),
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 99 } }),
        json!({ "jsonrpc": "2.0", "id": 7, "result": {} }),
        json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -1, "message": "no" } }),
    ] {
        let answer = post(taken.clone()).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{taken}");
    }
    let pong = post(json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert_eq!(pong.json(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    let level =
        json!({ "jsonrpc": "2.0", "id": 2, "method": "logging/setLevel", "params": { "level": "error" } });
    assert_eq!(post(level).await.json(), json!({ "jsonrpc": "2.0", "id": 2, "result": {} }));
    let level =
        json!({ "jsonrpc": "2.0", "id": 2, "method": "logging/setLevel", "params": { "level": "loud" } });
    assert_eq!(post(level).await.json()["error"]["code"], -32602);
    let cursor =
        json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": { "cursor": "made up" } });
    assert_eq!(post(cursor).await.json()["error"]["code"], -32602);
    let unknown = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/sing" });
    assert_eq!(post(unknown).await.json()["error"]["code"], -32601);
    let batch = post(json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }])).await;
    assert_eq!((batch.status, &batch.json()["error"]["code"]), (400, &json!(-32600)));
}

#[tokio::test]
async fn a_thousand_sessions_that_are_dropped_leave_their_memory_behind() {
    const SESSIONS: usize = 1_000;
    let runs = json!({ "idle": "3s", "sessions": 5_000 });
    let gate = Wire::serve(project(), json!({ "runs": runs })).await;
    let wave = async || {
        futures::stream::iter(0..SESSIONS)
            .for_each_concurrent(16, |_| async {
                let own = session(&gate, "bot").await;
                drop(get(&gate, "bot", &own).send().await.unwrap()); // no DELETE
            })
            .await;
        let full = gate.memory_kib();
        tokio::time::sleep(Duration::from_secs(6)).await; // beyond the idle limit
        (full, gate.memory_kib())
    };
    let fresh = gate.memory_kib();
    let levels = [wave().await, wave().await, wave().await, wave().await, wave().await];
    eprintln!("{fresh} KiB, then {levels:?}");
    // The first wave warms up pools and caches. What later ones leave is that a run is remembered to have ended.
    let last = levels[3].1.min(levels[4].1);
    let grown = last.saturating_sub(levels[0].1);
    assert!(grown < 4_096, "{fresh} KiB, then {levels:?}");
}

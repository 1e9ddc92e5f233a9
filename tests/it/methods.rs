//! Methods that are not spoken here, of HTTP and of the protocol: what is said of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    bare::{project, request, talk},
    gate::{ERAS, Era, Gate},
    project::key,
};

#[tokio::test]
async fn who_asks_for_a_stream_or_an_end_without_a_session_is_told_what_is_missing() {
    let gate = Gate::serve(project()).await;
    for (line, headers, said, allowed) in [
        ("GET /mcp HTTP/1.1", vec![], "a stream is opened in a session", "post"),
        ("DELETE /mcp HTTP/1.1", vec![], "a session is ended by its id", "post"),
        ("GET /mcp HTTP/1.1", vec!["MCP-Protocol-Version: 2026-07-28"], "knows no streams", "post"),
        ("DELETE /mcp HTTP/1.1", vec!["MCP-Protocol-Version: 2026-07-28"], "knows no sessions", "post"),
        ("PUT /mcp HTTP/1.1", vec![], "the endpoint takes `POST`", "post, get, delete"),
        ("HEAD /mcp HTTP/1.1", vec![], "", "post, get, delete"),
    ] {
        let answer = talk(gate.address, &request(line, &headers, b"")).await;
        assert_eq!(answer.status, 405, "{line} {answer:?}");
        assert!(answer.head.contains(&format!("\r\nallow: {allowed}\r\n")), "{line} {answer:?}");
        if !said.is_empty() {
            let message = answer.json()["error"]["message"].clone();
            assert!(message.as_str().unwrap().contains(said), "{line} {message}");
        }
    }
}

#[tokio::test]
async fn an_unknown_method_is_called_that_and_repeated_clean() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        // Ours alone, one of the library's, and one of what this release has none of.
        for method in ["tools/sing", "completion/complete", "tasks/get", "resources/list"] {
            let mut params = json!({ "ref": { "type": "ref/prompt", "name": "p" }, "argument": { "name": "a", "value": "b" } });
            if matches!(era, Era::Legacy) {
                params["taskId"] = json!("1");
            }
            let answer = gate.send(era, Some(&key("bot")), method, params).await;
            let error = json!({ "code": -32601, "message": format!("unknown method `{method}`") });
            assert_eq!(answer.json()["error"], error, "{era:?} {} {}", answer.status, answer.text());
            assert_eq!(answer.json()["id"], 1);
            let status = if matches!(era, Era::Modern) { 404 } else { 200 };
            assert_eq!(answer.status, status, "{era:?} {method}");
        }
    }
    assert_eq!(gate.records_of("outcome").len(), 0);
}

#[tokio::test]
async fn a_call_that_is_answered_by_a_stream_is_on_record_once_whoever_refuses_it() {
    let gate = Gate::serve(project()).await;
    let call = |version: &str| {
        let post = gate.http.post(&gate.url).bearer_auth(key("bot")).header("MCP-Protocol-Version", version);
        let post = post.header("Accept", "text/event-stream, application/json");
        let post = post.header("Mcp-Method", "tools/call").header("Mcp-Name", "get");
        let params = json!({ "name": "get", "arguments": { "id": "nobody's" } });
        post.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
    };
    for _ in 0..50 {
        let answer = call("2025-11-25").send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.bytes().await.unwrap();
    }
    assert_eq!(gate.records_of("outcome").len(), 50);
    // It does not say what a call of this revision says of itself: the library refuses it, and no handler sees it.
    let text = call("2026-07-28").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("-32602"), "{text}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while gate.records_of("outcome").len() < 51 {
        assert!(Instant::now() < deadline, "{text}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_id_may_only_be_so_long() {
    let gate = Gate::serve(project()).await;
    let of = |bytes: usize| {
        json!({ "jsonrpc": "2.0", "id": "i".repeat(bytes), "method": "tools/call",
        "params": { "name": "get", "arguments": { "id": "1" } } })
    };
    let post = async |body: &Value| {
        talk(gate.address, &request("POST /mcp HTTP/1.1", &[], body.to_string().as_bytes())).await
    };
    let longest = post(&of(256)).await;
    assert_eq!((longest.status, &longest.json()["id"]), (200, &json!("i".repeat(256))));
    let refused = post(&of(257)).await;
    assert_eq!((refused.status, &refused.json()["id"]), (400, &Value::Null), "{refused:?}");
    let error = json!({ "code": -32600, "message": "`id` is longer than 256 bytes, at byte 22" });
    assert_eq!(refused.json()["error"], error);
}

//! What one client, one run or one address may have of what there is only so much of.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    bare::{CALL, POST, request, talk},
    gate::{Era, Gate},
    project::{Project, key, tool},
};

fn project() -> Project {
    Project::new()
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .client("other", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
}

fn identity(runs: Value) -> Value {
    json!({ "resource": "https://gate.example.com/mcp", "tokens": {}, "runs": runs })
}

/// A token that is bound to a run of its own.
async fn token(gate: &Gate, client: &str) -> String {
    let request = reqwest::Client::new()
        .post(format!("http://{}/oauth/token", gate.address))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .basic_auth(client, Some(key(client)))
        .body("grant_type=client_credentials");
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    made["access_token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

/// A connection on which a stream was asked for, and what it was told.
async fn stream(address: SocketAddr, path: &str, bearer: &str, headers: &str) -> (TcpStream, u16) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {bearer}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    timeout(Duration::from_secs(5), stream.read_exact(&mut start)).await.unwrap().unwrap();
    let status = std::str::from_utf8(&start[9..]).unwrap().parse().unwrap();
    (stream, status)
}

async fn session(gate: &Gate, client: &str) -> String {
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" }
    });
    let begun = gate.send(Era::Legacy, Some(&key(client)), "initialize", params).await;
    begun.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_has_no_more_streams_by_tokens_than_it_may_have_sessions() {
    let gate = Gate::serve(project().server("identity", identity(json!({ "sessions": 3 })))).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let token = token(&gate, "bot").await;
        open.push(stream(gate.address, "/sse", &token, "").await);
    }
    assert!(open.iter().all(|(_, status)| *status == 200));
    let more = token(&gate, "bot").await;
    assert_eq!(stream(gate.address, "/sse", &more, "").await.1, 503);
    assert_eq!(stream(gate.address, "/sse", &key("bot"), "").await.1, 503, "by whatever it shows");
    assert_eq!(stream(gate.address, "/sse", &token(&gate, "other").await, "").await.1, 200);
    let ready = talk(gate.address, &request("GET /readyz HTTP/1.1", &[], b"")).await;
    assert_eq!(ready.status, 200);
    open.clear();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(stream(gate.address, "/sse", &more, "").await.1, 200, "one that hangs up makes room");
}

#[tokio::test]
async fn a_client_has_half_of_the_connections_for_streams_at_most() {
    let server = project().listener(json!({ "connections": 8 })).server("identity", identity(json!({})));
    let gate = Gate::serve(server).await;
    let mut open = Vec::new();
    for at in 0..5 {
        open.push(stream(gate.address, "/sse", &key("bot"), "").await);
        assert_eq!(open[at].1, if at < 4 { 200 } else { 503 });
    }
}

#[tokio::test]
async fn a_run_has_only_so_many_streams_of_either_kind() {
    let gate = Gate::serve(project().server("identity", identity(json!({})))).await;
    let one = token(&gate, "bot").await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(stream(gate.address, "/sse", &one, "").await);
    }
    assert!(open.iter().all(|(_, status)| *status == 200));
    assert_eq!(stream(gate.address, "/sse", &one, "").await.1, 503);
    assert_eq!(stream(gate.address, "/sse", &token(&gate, "bot").await, "").await.1, 200, "another run");

    // A later stream takes over from an earlier one, whose client has only not noticed yet.
    let header = format!("Mcp-Session-Id: {}\r\n", session(&gate, "bot").await);
    for _ in 0..40 {
        let (stream, status) = stream(gate.address, "/mcp", &key("bot"), &header).await;
        assert_eq!(status, 200);
        open.push((stream, status));
        sleep(Duration::from_millis(5)).await;
    }
}

/// A request whose body never comes.
async fn slow(address: SocketAddr, line: &str, headers: &[&str]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let whole = request(line, headers, CALL.as_bytes());
    stream.write_all(&whole[..whole.len() - 10]).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    stream
}

#[tokio::test]
async fn the_slow_bodies_of_one_client_leave_room_for_others() {
    let gate = Gate::serve(project().listener(json!({ "in-flight": 4 }))).await;
    let held = [slow(gate.address, POST, &[]).await, slow(gate.address, POST, &[]).await];
    let own = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
    assert_eq!((own.status, &own.json()["error"]["code"]), (503, &json!(-32000)), "{own:?}");
    let other = format!("Authorization: Bearer {}", key("other"));
    let served = talk(gate.address, &request(POST, &[&other], CALL.as_bytes())).await;
    assert_eq!(served.status, 200, "{served:?}");
    drop(held);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(talk(gate.address, &request(POST, &[], CALL.as_bytes())).await.status, 200);
}

#[tokio::test]
async fn the_slow_bodies_of_strangers_leave_room_for_those_who_are_known() {
    let project = project().listener(json!({ "in-flight": 8 }));
    let gate = Gate::serve(project.server("identity", identity(json!({})))).await;
    let form = ["Authorization: -", "Content-Type: application/x-www-form-urlencoded"];
    let ask = "POST /oauth/token HTTP/1.1";
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(slow(gate.address, ask, &form).await);
    }
    let refused = talk(gate.address, &request(ask, &form, b"grant_type=client_credentials")).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    for _ in 0..8 {
        held.push(slow(gate.address, ask, &form).await);
    }
    let served = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
    assert_eq!(served.status, 200, "{served:?}");
}

//! Requests that were let in just before their right was taken away, and are answered after that.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use callgate::{
    manifest::ClientName,
    runs::Revocation,
    store::{StateFolder, Store},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::sleep};

use crate::{
    bare::{CALL, POST, Raw, read, request, talk},
    gate::Gate,
    project::{Project, key, tool},
};

const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"it","version":"1"}}}"#;
const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":7,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"it","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

fn project() -> Project {
    ["a", "b", "c", "d", "e"]
        .into_iter()
        .fold(Project::new().tool(tool("get", "read", "ok")), |project, name| {
            project.client(name, json!({ "tools": ["*"] }))
        })
        .policy("permit (principal, action, resource);")
}

/// A request whose body has come but for its last bytes, and those.
async fn held(address: SocketAddr, bytes: Vec<u8>) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (most, rest) = bytes.split_at(bytes.len() - 10);
    stream.write_all(most).await.unwrap();
    sleep(Duration::from_millis(100)).await; // so that it is known whose it is
    (stream, rest.to_vec())
}

async fn revoke(gate: &Gate, client: &str) {
    let gone = Revocation::Client(ClientName::parse(client).unwrap());
    gate.app.runs.revoke(&gone, "it", "", None, Timestamp::now()).await.unwrap();
}

fn visible(answer: &Raw) -> (u16, String, &str) {
    let lines = answer.head.lines().filter(|line| !line.starts_with("date:"));
    (answer.status, lines.collect::<Vec<_>>().join("\n"), &answer.body)
}

/// What is on record of a client: of what kind, its target, stage and code.
fn on_record(gate: &Gate, client: &str) -> Vec<Value> {
    let outcomes = gate.records_of("outcome");
    let of_client = outcomes.iter().filter(|one| one["caller"]["client"] == client);
    of_client.map(|one| json!([one["call"]["target"], one["outcome"], one["stage"], one["code"]])).collect()
}

#[tokio::test]
async fn a_message_whose_client_is_revoked_while_it_arrives_is_refused_like_any_later_one() {
    let gate = Gate::serve(project()).await;
    let discover = ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: server/discover"];
    let cases: [(&str, &[&str], &str, bool); 4] = [
        ("a", &[], PING, false),
        ("b", &[], INITIALIZE, false),
        ("c", &discover, DISCOVER, false),
        ("d", &[], CALL, true),
    ];
    for (client, headers, body, is_call) in cases {
        let key = format!("Authorization: Bearer {}", key(client));
        let headers = [&[key.as_str()], headers].concat();
        let bytes = request(POST, &headers, body.as_bytes());
        let (mut stream, rest) = held(gate.address, bytes.clone()).await;
        revoke(&gate, client).await;
        stream.write_all(&rest).await.unwrap();
        let (answer, later) = (read(stream).await, talk(gate.address, &bytes).await);
        assert_eq!(visible(&answer), visible(&later), "{client}");
        assert_eq!(answer.status, 401, "{answer:?}");
        let expected = is_call.then(|| json!(["get", "denied", "identity", "revoked"]));
        assert_eq!(on_record(&gate, client), Vec::from_iter(expected), "{client}");
    }
    assert_eq!((gate.app.runs.sessions(), gate.backend.hits()), (0, 0));
}

#[tokio::test]
async fn a_call_posted_beside_a_stream_whose_client_is_revoked_while_it_arrives_is_on_record() {
    let gate = Gate::serve(project()).await;
    let url = format!("http://{}/sse", gate.address);
    let mut events = reqwest::Client::new().get(url).bearer_auth(key("e")).send().await.unwrap();
    let first = events.chunk().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    let endpoint = first.split_once("data: ").unwrap().1.trim();
    let (line, key) = (format!("POST {endpoint} HTTP/1.1"), format!("Authorization: Bearer {}", key("e")));
    let (mut stream, rest) = held(gate.address, request(&line, &[&key], CALL.as_bytes())).await;
    let run = gate.app.runs.list().first().unwrap().id.to_string();
    revoke(&gate, "e").await;
    while events.chunk().await.ok().flatten().is_some() {}
    stream.write_all(&rest).await.unwrap();
    let answer = read(stream).await;
    assert!(answer.status == 401 && !answer.body.contains("callgate/record"), "{answer:?}");
    assert_eq!(on_record(&gate, "e"), [json!(["get", "denied", "identity", "revoked"])]);
    assert_eq!(gate.records_of("outcome")[0]["caller"]["run"], run);
    assert_eq!(gate.backend.hits(), 0);
}

#[tokio::test]
async fn a_stream_whose_client_is_revoked_before_it_has_begun_is_not_opened() {
    let gate = Gate::serve(project()).await;
    // Changes of the state are made in the order in which they were asked for, once nobody else makes one.
    let state = StateFolder::prepare(&gate.state()).unwrap();
    let others = Store::open(&state).await.unwrap().change().await.unwrap();
    let key = format!("Authorization: Bearer {}", key("a"));
    let open = request("GET /sse HTTP/1.1", &[&key], b"");
    let (later, address) = (open.clone(), gate.address);
    let opening = async {
        sleep(Duration::from_millis(100)).await;
        let opening = tokio::spawn(async move { talk(address, &open).await });
        sleep(Duration::from_millis(200)).await;
        others.cancel().await.unwrap();
        opening.await.unwrap()
    };
    let (answer, ()) = tokio::join!(opening, revoke(&gate, "a"));
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(visible(&answer), visible(&talk(address, &later).await));
    let began = Instant::now();
    while gate.app.runs.sessions() > 0 {
        assert!(began.elapsed() < Duration::from_secs(3), "its run goes on");
        sleep(Duration::from_millis(10)).await;
    }
}

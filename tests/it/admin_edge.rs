//! The edge of the admin listener: heads and bodies that could be read in two ways.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use callgate::admin::{AdminServer, NewAdminKey};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bare::{read, request, talk},
    gate::Gate,
    project::{Project, key},
};

async fn listener(gate: &Gate) -> (SocketAddr, CancellationToken) {
    listener_for(gate, "k", &"0".repeat(64)).await
}

async fn listener_for(gate: &Gate, id: &str, sha256: &str) -> (SocketAddr, CancellationToken) {
    let keys = json!([{ "id": id, "name": "dana", "sha256": sha256, "expires": "2100-01-01" }]);
    let settings = serde_json::from_value(json!({ "address": "127.0.0.1:0", "keys": keys })).unwrap();
    let server = AdminServer::bind(&settings).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let upstreams = gate.app.upstreams.clone();
    tokio::spawn(server.serve(gate.app.gateway.clone(), gate.app.runs.clone(), upstreams, stop.clone()));
    (address, stop)
}

#[tokio::test]
async fn a_request_to_the_admin_listener_that_can_be_read_in_two_ways_is_refused() {
    let gate = Gate::serve(Project::new()).await;
    let (address, _stop) = listener(&gate).await;
    let bearer = format!("Authorization: Bearer {}", key("k"));
    let line = "POST /v1/revoke HTTP/1.1";
    let asked = |headers: &[&str], body: &[u8]| request(line, &[&[bearer.as_str()], headers].concat(), body);
    let plain = talk(address, &asked(&[], b"{}")).await;
    assert_eq!(plain.status, 401, "{plain:?}");
    for body in [&b"0\r\n\r\n"[..], b"2\r\n{}\r\n0\r\n\r\n"] {
        let two_lengths = talk(address, &asked(&["Transfer-Encoding: chunked"], body)).await;
        assert_eq!(
            (two_lengths.status, &two_lengths.json()["error"]["code"]),
            (400, &json!("framing")),
            "{two_lengths:?}"
        );
    }
}

#[tokio::test]
async fn a_head_at_the_admin_listener_has_an_exact_limit() {
    let gate = Gate::serve(Project::new()).await;
    let (address, _stop) = listener(&gate).await;
    let head = |bytes: usize| {
        let bare = request("GET /v1/runs HTTP/1.1", &["X: "], b"").len();
        request("GET /v1/runs HTTP/1.1", &[&format!("X: {}", "x".repeat(bytes - bare))], b"")
    };
    for (bytes, status) in [(16 << 10, 401), ((16 << 10) + 1, 431), (20 << 10, 431), (64 << 10, 431)] {
        let whole = head(bytes);
        assert_eq!(whole.len(), bytes);
        assert_eq!(talk(address, &whole).await.status, status, "{bytes}");
        // In two parts, of which the first is nearly all of it.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (first, second) = whole.split_at(bytes.min(16 << 10) - 3);
        stream.write_all(first).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        stream.write_all(second).await.unwrap();
        assert_eq!(read(stream).await.status, status, "{bytes} in two parts");
    }
}

/// Whoever is on the machine can open connections, and may not keep anybody from revoking by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_keep_a_revocation_waiting() {
    let gate = Gate::serve(Project::new().client("bot", json!({ "tools": ["*"] }))).await;
    let made = NewAdminKey::random().unwrap();
    let (address, _stop) = listener_for(&gate, &made.id, &made.sha256).await;
    let idlers: JoinSet<()> = (0..300)
        .map(|_| async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                let _ = stream.read(&mut [0; 1]).await; // until it is hung up on
            }
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    for round in 0..10 {
        let headers = [format!("Authorization: Bearer {}", made.key)];
        let headers: Vec<&str> =
            headers.iter().map(String::as_str).chain(["Content-Type: application/json"]).collect();
        let body = json!({ "kind": "client", "name": format!("bot{round}") }).to_string();
        let answer = talk(address, &request("POST /v1/revoke HTTP/1.1", &headers, body.as_bytes())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "ten revocations took {took:?}");
    drop(idlers);
}

//! HTTP+SSE over the wire: whose streams are, what is refused beside them, and how they end.

use std::time::{Duration, Instant};

use callgate::{
    manifest::KeyId,
    runs::{EndReason, Revocation},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    backend::Backend,
    bare::{CALL, Raw, request, talk},
    gate::Gate,
    project::{Project, key, tool},
};

fn project() -> Project {
    let mut scoped = tool("scoped", "read", "ok");
    scoped["scopes"] = json!(["things:read"]);
    Project::new()
        .tool(tool("get", "read", "ok"))
        .tool(tool("echo", "read", "echo/x"))
        .tool(tool("slow", "read", "slow"))
        .tool(scoped)
        .client("bot", json!({ "tools": ["*"] }))
        .client("thief", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
}

/// A stream, as its client reads it.
struct Stream {
    response: reqwest::Response,
    text: String,
    endpoint: String,
    url: String,
    http: reqwest::Client,
    client: &'static str,
}

impl Stream {
    async fn try_open(gate: &Gate, client: &'static str) -> Result<Self, reqwest::Response> {
        let (http, url) = (reqwest::Client::new(), format!("http://{}", gate.address));
        let response = http.get(format!("{url}/sse")).bearer_auth(key(client)).send().await.unwrap();
        if response.status() != 200 {
            return Err(response);
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, text: String::new(), endpoint: String::new(), url, http, client };
        let (event, endpoint) = stream.next().await.unwrap();
        assert_eq!(event, "endpoint");
        stream.endpoint = endpoint;
        Ok(stream)
    }

    async fn open(gate: &Gate, client: &'static str) -> Self {
        Self::try_open(gate, client).await.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    /// One with which the protocol has begun.
    async fn begun(gate: &Gate, client: &'static str) -> Self {
        let mut stream = Self::open(gate, client).await;
        let params = json!({
            "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "it", "version": "1" }
        });
        let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        assert_eq!(stream.post(&begin).await.status(), 202);
        assert_eq!(stream.message().await["result"]["protocolVersion"], "2024-11-05");
        let begun = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(stream.post(&begun).await.status(), 202);
        stream
    }

    /// The next event and its data, or none at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let (name, data) = event.split_once('\n').unwrap();
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                return Some((name, data.strip_prefix("data: ").unwrap().to_owned()));
            }
            let chunk = timeout(Duration::from_secs(20), self.response.chunk()).await.expect("no event");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    async fn message(&mut self) -> Value {
        let (event, data) = self.next().await.expect("the stream has ended");
        assert_eq!(event, "message");
        serde_json::from_str(&data).unwrap()
    }

    async fn post_as(&self, client: &str, message: &Value) -> reqwest::Response {
        let url = format!("{}{}", self.url, self.endpoint);
        self.http.post(url).bearer_auth(key(client)).json(message).send().await.unwrap()
    }

    async fn post(&self, message: &Value) -> reqwest::Response {
        self.post_as(self.client, message).await
    }
}

fn call(id: u64, tool: &str, argument: &str) -> Value {
    let params = json!({ "name": tool, "arguments": { "id": argument } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

/// How many sessions are live, once that is as many as are expected or too much time has gone by.
async fn sessions(gate: &Gate, expected: usize) -> usize {
    let began = Instant::now();
    while gate.app.runs.sessions() != expected && began.elapsed() < Duration::from_secs(3) {
        sleep(Duration::from_millis(10)).await;
    }
    gate.app.runs.sessions()
}

#[tokio::test]
async fn what_is_posted_is_answered_on_the_stream_in_a_run_of_its_own() {
    let gate = Gate::serve(project()).await;
    let mut stream = Stream::begun(&gate, "bot").await;
    let id = stream.endpoint.strip_prefix("/messages?sessionId=").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(
        stream.post(&json!({ "jsonrpc": "2.0", "id": "l", "method": "tools/list" })).await.status(),
        202
    );
    let list = stream.message().await;
    assert_eq!((&list["id"], list["result"]["tools"].as_array().unwrap().len()), (&json!("l"), 4), "{list}");
    let posted = stream.post(&call(7, "get", "1")).await;
    assert_eq!((posted.status().as_u16(), posted.text().await.unwrap().as_str()), (202, ""));
    let answer = stream.message().await;
    assert_eq!((&answer["id"], &answer["result"]["structuredContent"]["id"]), (&json!(7), &json!("1")));
    let outcomes = gate.records_of("outcome");
    let [outcome] = outcomes.as_slice() else { panic!("{outcomes:#?}") };
    let runs = gate.app.runs.list();
    let [run] = runs.as_slice() else { panic!("{runs:#?}") };
    assert_eq!(outcome["caller"]["run"], run.id.to_string());
}

#[tokio::test]
async fn a_stream_is_unknown_to_everybody_but_its_principal() {
    let gate = Gate::serve(project()).await;
    let mut stream = Stream::begun(&gate, "bot").await;
    let visible = async |client: &str, path: &str| {
        let line = format!("POST {path} HTTP/1.1");
        let key = format!("Authorization: Bearer {}", key(client));
        let Raw { status, head, body } = talk(gate.address, &request(&line, &[&key], CALL.as_bytes())).await;
        let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("date:")).collect();
        (status, head.join("\n"), body)
    };
    let nowhere = format!("/messages?sessionId={}", "0".repeat(32));
    let unknown = visible("bot", &nowhere).await;
    assert_eq!(unknown.0, 404, "{unknown:?}");
    assert_eq!(visible("thief", &stream.endpoint).await, unknown);
    assert_eq!(visible("thief", &nowhere).await, unknown);
    assert_eq!(visible("bot", "/messages?sessionId=").await, unknown);
    assert_eq!(gate.backend.hits(), 0);
    assert_eq!(stream.post(&call(1, "get", "1")).await.status(), 202);
    assert_eq!(stream.message().await["id"], 1, "it goes on for its owner, who sees nothing of it");
    let outcomes = gate.records_of("outcome");
    let unknown = outcomes.iter().filter(|one| one["stage"] == "edge" && one["code"] == "unknown_session");
    let clients: Vec<&Value> = unknown.map(|one| &one["caller"]["client"]).collect();
    assert_eq!(clients, ["bot", "thief", "thief", "bot"], "{outcomes:#?}");
}

#[tokio::test]
async fn what_is_refused_at_the_other_endpoint_is_refused_here() {
    let gate = Gate::serve(project().listener(json!({ "body": "8KiB" }))).await;
    let stream = Stream::begun(&gate, "bot").await;
    let post = format!("POST {} HTTP/1.1", stream.endpoint);
    let (with_token, twice) = (
        format!("POST {}&access_token=a HTTP/1.1", stream.endpoint),
        format!("POST {}&sessionId=a HTTP/1.1", stream.endpoint),
    );
    let large = format!("{CALL}{}", " ".repeat(8 << 10));
    let get = "GET /sse HTTP/1.1";
    let cases: [(&str, &[&str], &str, u16); 23] = [
        (get, &["Authorization: -"], "", 401),
        (get, &["Authorization: Bearer cg_bot_wrong"], "", 401),
        (get, &["Host: evil.example.com"], "", 403),
        (get, &["Origin: https://evil.example.com"], "", 403),
        ("GET /sse?access_token=a HTTP/1.1", &[], "", 400),
        ("POST /sse HTTP/1.1", &[], CALL, 405),
        ("GET /messages HTTP/1.1", &[], "", 405),
        ("POST /messages HTTP/1.1", &[], CALL, 400),
        (&twice, &[], CALL, 400),
        (&with_token, &[], CALL, 400),
        (&post, &["Authorization: -"], CALL, 401),
        (&post, &["Authorization: Bearer cg_bot_wrong"], CALL, 401),
        (&post, &["Host: evil.example.com"], CALL, 403),
        (&post, &["Origin: https://evil.example.com"], CALL, 403),
        (&post, &["Content-Type: text/plain"], CALL, 415),
        (&post, &["Content-Encoding: gzip"], CALL, 415),
        (&post, &["Mcp-Method: tools/list"], CALL, 400),
        (&post, &[], &large, 413),
        (&post, &[], "{", 400),
        (&post, &[], "[]", 400),
        (&post, &[], &format!("[{CALL}]"), 400),
        (&post, &[], &CALL.replace("\"id\":7", "\"id\":7,\"id\":8"), 400),
        (&post, &[], &CALL.replace("\"name\":", "\"name\":\"put\",\"name\":"), 400),
    ];
    for (line, headers, body, status) in cases {
        let answer = talk(gate.address, &request(line, headers, body.as_bytes())).await;
        assert_eq!(answer.status, status, "{line} {headers:?} {answer:?}");
        assert!(answer.json()["error"]["code"].is_i64(), "{answer:?}");
        if status == 405 {
            let allowed = if line.starts_with("GET") { "\r\nallow: post" } else { "\r\nallow: get" };
            assert!(answer.head.contains(allowed), "{answer:?}");
        }
    }
    assert_eq!(gate.backend.hits(), 0);
    let words: Vec<String> = gate
        .records_of("outcome")
        .iter()
        .map(|record| format!("{} {}", record["stage"].as_str().unwrap(), record["code"].as_str().unwrap()))
        .collect();
    assert_eq!(words.len(), 11, "what a known caller's message was refused for is on record: {words:#?}");
    assert!(words.iter().all(|word| word.starts_with("edge ")), "{words:#?}");
}

#[tokio::test]
async fn a_lack_of_scopes_is_said_where_the_message_is_posted() {
    let gate = Gate::serve(project()).await;
    let stream = Stream::begun(&gate, "bot").await;
    let refused = stream.post(&call(1, "scoped", "1")).await;
    assert_eq!(refused.status(), 403);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("things:read"), "{challenge}");
}

#[tokio::test]
async fn there_are_as_many_streams_as_sessions_and_one_that_hangs_up_makes_room() {
    let gate = Gate::serve(project().server("identity", json!({ "runs": { "sessions": 2 } }))).await;
    let first = Stream::begun(&gate, "bot").await;
    let second = Stream::open(&gate, "bot").await;
    let refused = Stream::try_open(&gate, "bot").await.err().unwrap();
    assert_eq!((refused.status().as_u16(), gate.app.runs.sessions()), (503, 2));
    drop(first);
    assert_eq!(sessions(&gate, 1).await, 1, "the run ends with the connection");
    // The record of it follows.
    let (began, has_ended) = (Instant::now(), |change: &Value| change["change"]["act"] == "end-run");
    while !gate.records_of("change").iter().any(has_ended) {
        assert!(began.elapsed() < Duration::from_secs(3), "{:#?}", gate.records_of("change"));
        sleep(Duration::from_millis(10)).await;
    }
    let third = Stream::begun(&gate, "bot").await;
    drop((second, third));
    assert_eq!(sessions(&gate, 0).await, 0);
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    let gate = Gate::serve(project()).await;
    let (mut stream, mut other) = (Stream::begun(&gate, "bot").await, Stream::begun(&gate, "thief").await);
    let what = Revocation::Key(KeyId::parse("bot").unwrap());
    gate.app.runs.revoke(&what, "it", "a test", None, Timestamp::now()).await.unwrap();
    let revoked = Instant::now();
    assert_eq!(stream.post(&call(1, "get", "1")).await.status(), 401);
    assert_eq!(stream.next().await, None);
    assert!(revoked.elapsed() < Duration::from_secs(2), "{:?}", revoked.elapsed());
    assert_eq!(sessions(&gate, 1).await, 1);
    assert_eq!(other.post(&call(1, "get", "1")).await.status(), 202);
    assert_eq!(other.message().await["id"], 1);
}

#[tokio::test]
async fn the_connection_of_a_stream_that_falls_is_closed_with_it_at_once() {
    let gate = Gate::serve(project()).await;
    let open =
        format!("GET /sse HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", key("bot"));
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(open.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let run = gate.app.runs.list()[0].id;
    gate.app.runs.end(&run, EndReason::Asked, Timestamp::now()).await.unwrap();
    let (ended, mut rest) = (Instant::now(), Vec::new());
    timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("it stays open").unwrap();
    assert!(ended.elapsed() < Duration::from_millis(100), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn a_stream_whose_answers_are_not_read_is_ended() {
    let backend = Backend::start().await;
    let mut large = tool("large", "read", "megabyte");
    (large["limits"], large["backend"]["http"]["service"]) = (json!({ "response": "2MiB" }), json!("roomy"));
    let roomy = json!({
        "url": format!("http://{}/", backend.address), "egress": { "loopback": true }, "response": "2MiB"
    });
    let gate = Gate::serve(project().service("roomy", roomy).tool(large)).await;
    let stream = Stream::begun(&gate, "bot").await;
    let asked = Instant::now();
    for id in 1..40 {
        let status = stream.post(&call(id, "large", "1")).await.status();
        assert!(status == 202 || id > 8, "{id}: {status}"); // slow machines get no further
    }
    while gate.app.runs.sessions() > 0 && asked.elapsed() < Duration::from_secs(25) {
        sleep(Duration::from_millis(50)).await;
    }
    // An answer may take 30 seconds to be read, but not with more than a mebibyte behind it.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(stream.post(&call(99, "get", "1")).await.status(), 404);
}

#[tokio::test]
async fn answers_that_come_all_at_once_reach_a_client_that_reads() {
    let backend = Backend::start().await;
    let mut large = tool("large", "read", "megabyte");
    (large["limits"], large["backend"]["http"]["service"]) = (json!({ "response": "2MiB" }), json!("roomy"));
    let roomy = json!({
        "url": format!("http://{}/", backend.address), "egress": { "loopback": true }, "response": "2MiB"
    });
    let gate = Gate::serve(project().service("roomy", roomy).tool(large)).await;
    let mut stream = Stream::begun(&gate, "bot").await;
    for id in 0..6 {
        assert_eq!(stream.post(&call(id, "large", "1")).await.status(), 202);
    }
    for _ in 0..6 {
        let answer = stream.message().await;
        assert_eq!(answer["result"]["structuredContent"]["id"].as_str().map(str::len), Some(1_000_000));
    }
}

#[tokio::test]
async fn a_method_that_is_not_spoken_here_is_said_to_be_so_on_the_stream() {
    let gate = Gate::serve(project()).await;
    let mut stream = Stream::begun(&gate, "bot").await;
    for method in ["tools/sing", "completion/complete", "tasks/get", "prompts/list"] {
        let params = json!({
            "taskId": "1", "ref": { "type": "ref/prompt", "name": "p" }, "argument": { "name": "a", "value": "b" }
        });
        let asked = json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params });
        assert_eq!(stream.post(&asked).await.status(), 202);
        let error = json!({ "code": -32601, "message": format!("unknown method `{method}`") });
        assert_eq!(stream.message().await, json!({ "jsonrpc": "2.0", "id": method, "error": error }));
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_run_does() {
    let gate = Gate::serve(project()).await;
    let mut stream = Stream::begun(&gate, "bot").await;
    let run = gate.app.runs.list()[0].id;
    gate.app.runs.end(&run, EndReason::Asked, Timestamp::now()).await.unwrap();
    let ended = Instant::now();
    assert_eq!(stream.post(&call(1, "get", "1")).await.status(), 404);
    assert_eq!(stream.next().await, None);
    assert!(ended.elapsed() < Duration::from_secs(2), "{:?}", ended.elapsed());
    assert_eq!(gate.backend.hits(), 0);
}

#[tokio::test]
async fn streams_end_when_the_listener_stops_and_what_was_asked_is_answered_first() {
    let gate = Gate::serve(project().tool(tool("later", "read", "later"))).await;
    let (mut stream, mut idle) = (Stream::begun(&gate, "bot").await, Stream::begun(&gate, "bot").await);
    assert_eq!(stream.post(&call(1, "later", "1")).await.status(), 202);
    gate.stop.cancel();
    let stopped = Instant::now();
    assert_eq!(idle.next().await, None);
    assert!(stopped.elapsed() < Duration::from_millis(500), "{:?}", stopped.elapsed());
    assert_eq!(stream.message().await["result"]["structuredContent"]["id"], "1");
    assert_eq!(stream.next().await, None);
    gate.serving.await.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    assert_eq!(gate.app.runs.sessions(), 0);
}

#[tokio::test]
async fn no_stream_carries_the_answers_of_another() {
    let gate = Gate::serve(project()).await;
    let mut streams = Vec::new();
    for client in ["bot", "bot", "thief"] {
        streams.push(Stream::begun(&gate, client).await);
    }
    // The same ids everywhere, and an argument that tells whose each is.
    for round in 0..20_u64 {
        for (at, stream) in streams.iter().enumerate() {
            assert_eq!(stream.post(&call(round, "echo", &format!("{at}-{round}"))).await.status(), 202);
        }
    }
    for (at, stream) in streams.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for _ in 0..20 {
            let answer = stream.message().await;
            let round = answer["id"].as_u64().unwrap();
            assert_eq!(answer["result"]["structuredContent"]["id"], format!("{at}-{round}"), "{answer}");
            seen.push(round);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let backend = Backend::start().await;
    let mut large = tool("large", "read", "megabyte");
    (large["limits"], large["backend"]["http"]["service"]) = (json!({ "response": "2MiB" }), json!("roomy"));
    let roomy = json!({
        "url": format!("http://{}/", backend.address), "egress": { "loopback": true }, "response": "2MiB"
    });
    let gate = Gate::serve(project().service("roomy", roomy).tool(large)).await;
    let mut stream = Stream::begun(&gate, "bot").await;
    assert_eq!(stream.post(&call(1, "large", "1")).await.status(), 202);
    let answer = stream.message().await;
    let id = answer["result"]["structuredContent"]["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(id.len() == 1_000_000 && id.bytes().all(|byte| byte == b'x'));
}

#[tokio::test]
async fn a_call_that_the_protocol_refuses_is_on_record() {
    let gate = Gate::serve(project()).await;
    let mut stream = Stream::open(&gate, "bot").await;
    assert_eq!(stream.post(&call(1, "get", "1")).await.status(), 202, "before anything has begun");
    assert!(stream.message().await["error"]["code"].is_i64());
    let outcomes = gate.records_of("outcome");
    let [outcome] = outcomes.as_slice() else { panic!("{outcomes:#?}") };
    assert_eq!((&outcome["stage"], &outcome["code"]), (&json!("edge"), &json!("protocol")));
    assert_eq!(gate.backend.hits(), 0);
}

#[tokio::test]
async fn one_stream_may_leave_only_so_much_unanswered() {
    let gate = Gate::serve(project()).await;
    let stream = Stream::begun(&gate, "bot").await;
    for id in 0..64 {
        assert_eq!(stream.post(&call(id, "slow", "1")).await.status(), 202, "{id}");
        if id == 0 {
            assert_eq!(stream.post(&call(id, "slow", "1")).await.status(), 400, "an id that is in use");
        }
    }
    assert_eq!(stream.post(&call(64, "slow", "1")).await.status(), 503);
    let cancelled = json!({ "requestId": 3 });
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled });
    assert_eq!(stream.post(&cancel).await.status(), 202);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(stream.post(&call(65, "slow", "1")).await.status(), 202, "what is cancelled makes room");
    drop(stream);
    assert_eq!(sessions(&gate, 0).await, 0);
}

#[tokio::test]
async fn there_are_no_streams_where_they_are_switched_off() {
    let gate = Gate::serve(project().listener(json!({ "sse": false }))).await;
    assert_eq!(Stream::try_open(&gate, "bot").await.err().unwrap().status(), 404);
}

//! Scripted servers.

use std::sync::atomic::AtomicUsize;

use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    call::{Era, Passing, Relay},
    strict::Rule,
    upstream::{
        Asks, Connection, Endpoint, Exchange,
        fixture::{
            Said, Sent, Server, ask, events, hello, json_result, object, result, soon, status, typed, way,
        },
    },
};

/// What comes of one request in a session, when it is answered like this.
async fn outcome(answer: impl Fn(&Sent) -> Said + Send + Sync + 'static) -> Result<Value, UpstreamError> {
    outcome_within(answer, Bounds::default()).await
}

async fn outcome_within(
    answer: impl Fn(&Sent) -> Said + Send + Sync + 'static,
    bounds: Bounds,
) -> Result<Value, UpstreamError> {
    let server = Server::with_session(move |sent| {
        if sent.is("tools/list") { answer(sent) } else { status("405 Method Not Allowed") }
    })
    .await;
    let connection = server.open_with(hello(Era::Session, json!({})), bounds).await.unwrap();
    let answer = ask(&connection, "tools/list", json!({})).await.unwrap()?;
    assert!(answer.peer.is_some());
    Ok(answer.result.into())
}

#[tokio::test]
async fn a_session_is_begun_used_and_ended() {
    let server = Server::with_session(|sent| json_result(sent, json!({ "tools": [{ "x": 1 }] }))).await;
    let connection = server.open(Era::Session).await.unwrap();
    let tools = connection.list("tools/list", "tools").await.unwrap();
    assert_eq!(tools, [object(json!({ "x": 1 }))]);
    connection.close().await;
    let sent = server.all();
    let first = sent.first().unwrap();
    assert_eq!((first.header("mcp-session-id"), first.header("mcp-protocol-version")), (None, None));
    assert_eq!(first.header("accept"), Some("application/json, text/event-stream"));
    for sent in &sent[1..] {
        assert_eq!(sent.header("mcp-session-id"), Some("s-1"), "{sent:?}");
        assert_eq!(sent.header("mcp-protocol-version"), Some("2025-11-25"), "{sent:?}");
        assert_eq!(sent.header("mcp-method"), None, "{sent:?}");
    }
    assert_eq!(sent.last().unwrap().method, "DELETE");
}

#[tokio::test]
async fn a_session_whose_connection_is_dropped_is_ended_too() {
    let server = Server::with_session(|_| status("405 Method Not Allowed")).await;
    drop(server.open(Era::Session).await.unwrap());
    server.until(|sent| sent.method == "DELETE").await;
}

#[tokio::test]
async fn an_answer_may_come_as_an_event_after_others() {
    let answer = outcome(|sent| {
        let notice = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
        let answer = result(sent, json!({ "ok": 1 }));
        events(&format!(
            ": ping\n\nid: 0\ndata:\n\ndata: {notice}\n\nevent: other\ndata: {{\n\nid: 1\ndata: {answer}\n\n"
        ))
    });
    assert_eq!(answer.await.unwrap(), json!({ "ok": 1 }));
}

#[tokio::test]
async fn a_stream_that_ends_before_the_answer_is_resumed_where_it_ended() {
    let asked = std::sync::Mutex::new(None);
    let server = Server::with_session(move |sent| {
        let mut asked = asked.lock().unwrap();
        match sent.header("last-event-id") {
            None if sent.method == "GET" => status("405 Method Not Allowed"),
            None => {
                *asked = Some(sent.clone());
                events("id: e-7\nretry: 20\ndata:\n\ndata: {\"not\": \"finished")
            }
            Some("e-7") => {
                let other = r#"{"jsonrpc":"2.0","id":77,"result":{"is":"another's"}}"#;
                let answer = result(asked.as_ref().unwrap(), json!({ "ok": 1 }));
                events(&format!("id: e-8\ndata: {other}\n\nid: e-9\ndata: {answer}\n\n"))
            }
            Some(_) => status("400 Bad Request"),
        }
    })
    .await;
    let connection = server.open(Era::Session).await.unwrap();
    let answer = ask(&connection, "tools/list", json!({})).await.unwrap().unwrap();
    assert_eq!(answer.result, object(json!({ "ok": 1 })));
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    let long = "x".repeat(3_000);
    let bounds = Bounds { message_bytes_max: 2_000, messages_max: 3, ..Bounds::default() };
    let too_large = UpstreamError::TooLarge { bytes_max: 2_000 };
    let duplicate = UpstreamError::NotStrict { rule: Rule::DuplicateKey, offset: 24 };
    let others = UpstreamError::Malformed { what: "a response on the stream of another request" };
    let wrong_id = r#"{"jsonrpc":"2.0","id":999,"result":{}}"#;
    let twice = r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#;
    let told = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let notice = format!("data: {told}\n\n");
    let json = |body: &str| typed("200 OK", "application/json", body);
    let cases: Vec<(Said, UpstreamError)> = vec![
        (json(&long), too_large.clone()),
        (events(&format!("data: {long}\n\n")), too_large),
        (json(twice), duplicate.clone()),
        (events(&format!("data: {twice}\n\n")), duplicate),
        (json(wrong_id), others.clone()),
        (events(&format!("data: {wrong_id}\n\n")), others),
        (json("garbage"), UpstreamError::NotStrict { rule: Rule::Syntax, offset: 0 }),
        (json(told), UpstreamError::Malformed { what: "a request is not answered" }),
        (events(&notice.repeat(9)), UpstreamError::TooMany { things: "messages", max: 3 }),
        (events(&notice), UpstreamError::Closed { sent: true }),
        (typed("200 OK", "text/html", "{}"), UpstreamError::ContentType),
        (status("200 OK"), UpstreamError::ContentType),
        (status("202 Accepted"), UpstreamError::Malformed { what: "a request is accepted and not answered" }),
        (typed("200 OK", "application/json\r\nContent-Encoding: gzip", "{}"), UpstreamError::Encoded),
        (status("500 Internal Server Error"), UpstreamError::Status { code: 500 }),
        (typed("401 Unauthorized", "application/json", "{}"), UpstreamError::Status { code: 401 }),
        (
            Said::Bytes(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{".into(),
            ),
            UpstreamError::Closed { sent: true },
        ),
        (Said::Bytes(String::new()), UpstreamError::Closed { sent: true }),
    ];
    for (said, expected) in cases {
        let said = std::sync::Mutex::new(Some(said));
        let shown = format!("{expected}");
        let answer = move |_: &Sent| said.lock().unwrap().take().unwrap_or_else(|| status("410 Gone"));
        let error = outcome_within(answer, bounds).await.unwrap_err();
        assert_eq!((error.sent(), error), (true, expected), "{shown}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Server::answering(|_| status("200 OK")).await;
    let location = target.url.clone();
    let error = outcome(move |_| {
        Said::Bytes(format!("HTTP/1.1 307 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    });
    assert_eq!(error.await.unwrap_err(), UpstreamError::Redirected { code: 307 });
    assert!(target.all().is_empty());
}

#[tokio::test]
async fn a_failure_that_is_a_json_rpc_error_is_the_upstreams_refusal() {
    for (status, id) in [("400 Bad Request", "null"), ("404 Not Found", "0"), ("200 OK", "0")] {
        let server = Server::answering(move |sent| match () {
            () if sent.is("server/discover") => discovered(sent),
            () => {
                let own = sent.body["id"].to_string();
                let id = if id == "null" { id } else { own.as_str() };
                let error = r#"{"code":-32602,"message":"bad","data":1}"#;
                let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
                typed(status, "application/json", &body)
            }
        })
        .await;
        let connection = server.open(Era::Stateless).await.unwrap();
        let error = ask(&connection, "tools/list", json!({})).await.unwrap().unwrap_err();
        let refused = UpstreamError::Refused { code: -32602, message: "bad".into(), data: Some(json!(1)) };
        assert_eq!(error, refused, "{status}");
        assert_eq!(error.to_string(), "the upstream refused the request with JSON-RPC error -32602");
    }
}

#[tokio::test]
async fn a_session_that_is_gone_closes_the_connection_and_nothing_was_done() {
    let server = Server::with_session(|sent| match sent.method.as_str() {
        "GET" => status("405 Method Not Allowed"),
        _ => status("404 Not Found"),
    })
    .await;
    let connection = server.open(Era::Session).await.unwrap();
    let error = ask(&connection, "tools/list", json!({})).await.unwrap().unwrap_err();
    assert_eq!(error, UpstreamError::Closed { sent: false });
    assert!(connection.is_closed());
}

fn discovered(sent: &Sent) -> Said {
    json_result(sent, json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} }))
}

#[tokio::test]
async fn without_sessions_each_request_says_all_there_is_to_know() {
    let server = Server::answering(|sent| match () {
        () if sent.is("server/discover") => discovered(sent),
        () => json_result(sent, json!({ "resultType": "input_required", "requestState": "s" })),
    })
    .await;
    let connection = server.open_with(hello(Era::Stateless, json!({ "roots": {} })), Bounds::default());
    let connection = connection.await.unwrap();
    let schema = object(json!({ "properties": { "region": { "x-mcp-header": "Region" } } }));
    let cancel = CancellationToken::new();
    let exchange = Exchange { input_schema: Some(&schema), ..Exchange::new(soon(), &cancel) };
    let params = object(json!({ "name": "t", "arguments": { "region": "eu" } }));
    let answer = connection.request("tools/call", params, exchange).await.unwrap();
    assert_eq!(answer.result, object(json!({ "resultType": "input_required", "requestState": "s" })));
    connection.close().await;
    let [first, call] = &server.all()[..] else { panic!("{:#?}", server.all()) };
    assert_eq!(first.header("mcp-method"), Some("server/discover"));
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(call.header("mcp-method"), Some("tools/call"));
    assert_eq!(call.header("mcp-name"), Some("t"));
    assert_eq!(call.header("mcp-param-region"), Some("eu"));
    assert_eq!(call.header("mcp-session-id"), None);
    for sent in [first, call] {
        let meta = &sent.body["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({ "roots": {} }));
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "callgate");
    }
}

#[tokio::test]
async fn a_server_with_sessions_alone_is_spoken_to_with_a_session() {
    for refusal in ["400 Bad Request", "404 Not Found", "405 Method Not Allowed"] {
        let server = Server::with_session(move |sent| {
            if sent.is("server/discover") { status(refusal) } else { json_result(sent, json!({})) }
        })
        .await;
        let connection = server.open(Era::Stateless).await.unwrap();
        assert_eq!(connection.server().era, Era::Session, "{refusal}");
        ask(&connection, "tools/list", json!({})).await.unwrap().unwrap();
        assert_eq!(server.all().last().unwrap().header("mcp-session-id"), Some("s-1"));
    }
    for refusal in ["401 Unauthorized", "403 Forbidden", "500 Internal Server Error"] {
        let server = Server::answering(move |_| status(refusal)).await;
        let error = server.open(Era::Stateless).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Status { .. }), "{error}");
        assert_eq!(server.all().len(), 1, "{refusal}");
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled_in_a_session_and_dropped_without() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n";
    for era in [Era::Session, Era::Stateless] {
        let server = Server::with_session(move |sent| match () {
            () if sent.is("server/discover") => discovered(sent),
            () if sent.method == "GET" => status("405 Method Not Allowed"),
            () => Said::Silence(head.to_owned()),
        })
        .await;
        let connection = server.open(era).await.unwrap();
        let cancel = CancellationToken::new();
        let deadline = Instant::now() + Duration::from_millis(300);
        let answer = connection.request("tools/list", Map::new(), Exchange::new(deadline, &cancel)).await;
        assert_eq!(answer, Err(UpstreamError::TimedOut { sent: true }));
        let id = server.until(|sent| sent.is("tools/list")).await.body["id"].clone();
        if era == Era::Session {
            let cancelled = server.until(|sent| sent.is("notifications/cancelled")).await;
            assert_eq!(cancelled.body["params"]["requestId"], id);
        } else {
            time::sleep(Duration::from_millis(100)).await;
            assert!(!server.all().iter().any(|sent| sent.is("notifications/cancelled")));
        }
    }
}

#[tokio::test]
async fn a_question_on_a_requests_stream_is_answered_by_a_message_of_its_own() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let question = r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#;
    let server = Server::with_session(move |sent| match sent.method.as_str() {
        "GET" => status("405 Method Not Allowed"),
        _ => Said::Silence(format!("{head}data: {question}\n\n")),
    })
    .await;
    let connection = server.open(Era::Session).await.unwrap();
    let (relay, mut passing) = Relay::new(Era::Session, object(json!({ "roots": {} })), false);
    tokio::spawn(async move {
        let cancel = CancellationToken::new();
        let asks = Asks { roots: true, ..Asks::default() };
        let exchange = Exchange { relay: Some(&relay), asks, ..Exchange::new(soon(), &cancel) };
        connection.request("tools/call", Map::new(), exchange).await
    });
    let Some(Passing::Question { answer, .. }) = passing.recv().await else { panic!("no question") };
    answer.send(Ok(json!({ "roots": [] }))).unwrap();
    let sent = server.until(|sent| sent.body["id"] == "q").await;
    assert_eq!(sent.body["result"], json!({ "roots": [] }));
}

#[tokio::test]
async fn what_a_server_says_unasked_is_heard() {
    let opened = AtomicUsize::new(0);
    let server = Server::with_session(move |_| match opened.fetch_add(1, Ordering::SeqCst) {
        0 => events("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n"),
        _ => status("405 Method Not Allowed"),
    })
    .await;
    let (events, mut heard) = mpsc::channel(8);
    let hello = hello(Era::Session, json!({}));
    let connection =
        Connection::open(&server.endpoint(), hello, Bounds::default(), None, events).await.unwrap();
    let event = time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap();
    assert_eq!(event, Some(crate::upstream::Event::ListChanged("tools")));
    drop(connection);
}

#[tokio::test]
async fn an_address_that_egress_does_not_allow_is_not_connected_to() {
    let server = Server::answering(|_| status("200 OK")).await;
    let endpoint = Endpoint::Http(HttpEndpoint { url: server.url.clone(), way: way(false) });
    let (events, _) = mpsc::channel(1);
    let opened =
        Connection::open(&endpoint, hello(Era::Session, json!({})), Bounds::default(), None, events).await;
    let error = opened.unwrap_err();
    assert!(matches!(error, UpstreamError::Egress { sent: false, .. }), "{error}");
    assert!(server.all().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_was_sent_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let endpoint = Endpoint::Http(HttpEndpoint { url, way: way(true) });
    let (events, _) = mpsc::channel(1);
    let opened =
        Connection::open(&endpoint, hello(Era::Session, json!({})), Bounds::default(), None, events).await;
    let error = opened.unwrap_err();
    assert_eq!((error.sent(), error), (false, UpstreamError::Unreachable));
}

#[tokio::test]
async fn a_request_whose_right_has_fallen_is_not_sent() {
    let server = Server::with_session(|sent| json_result(sent, json!({}))).await;
    let connection = server.open(Era::Session).await.unwrap();
    let cancel = CancellationToken::new();
    let departure = Departure::new(|| false);
    let exchange = Exchange { departure: Some(&departure), ..Exchange::new(soon(), &cancel) };
    let refused = connection.request("tools/call", Map::new(), exchange).await;
    assert_eq!(refused, Err(UpstreamError::Fallen { sent: false }));
    assert!(!server.all().iter().any(|sent| sent.is("tools/call")));
}

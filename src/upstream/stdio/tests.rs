//! A fake upstream at the other end of the line.

use std::{sync::atomic::AtomicBool, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    call::{Era, Passing, Relay},
    strict::Rule,
    upstream::{
        Asks, Bounds, Event, Exchange,
        fixture::{Fake, ask, hello, object, soon},
    },
};

fn small() -> Bounds {
    Bounds { message_bytes_max: 1_000, ..Bounds::default() }
}

#[tokio::test]
async fn each_request_gets_its_own_answer_in_whatever_order_they_come() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let first = ask(&connection, "tools/call", json!({ "name": "a" }));
    let one = fake.next().await;
    let second = ask(&connection, "tools/call", json!({ "name": "b" }));
    let other = fake.next().await;
    assert_eq!(one["params"], json!({ "name": "a" }));
    fake.answer(&other, json!({ "is": "b", "unknown": [1] })).await;
    fake.answer(&one, json!({ "is": "a" })).await;
    assert_eq!(second.await.unwrap().unwrap().result, object(json!({ "is": "b", "unknown": [1] })));
    assert_eq!(first.await.unwrap().unwrap().result, object(json!({ "is": "a" })));
}

#[tokio::test]
async fn a_message_that_is_refused_fails_what_waits_and_the_line_lives_on() {
    let (mut fake, connection, _events) = Fake::connected(small()).await;
    let cases: [(String, UpstreamError); 4] = [
        (format!("{{{}", "x".repeat(2_000)), UpstreamError::TooLarge { bytes_max: 1_000 }),
        (
            r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#.into(),
            UpstreamError::NotStrict { rule: Rule::DuplicateKey, offset: 24 },
        ),
        ("{garbage".into(), UpstreamError::NotStrict { rule: Rule::Syntax, offset: 1 }),
        (
            r#"{"jsonrpc":"2.0","id":"x","result":{}}"#.into(),
            UpstreamError::Malformed { what: "a response has an id that was not given out" },
        ),
    ];
    for (line, expected) in cases {
        let asked = ask(&connection, "tools/list", json!({}));
        fake.next().await;
        fake.write_line(&line).await;
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!((error.sent(), error), (true, expected), "{line}");
    }
    let asked = ask(&connection, "tools/list", json!({}));
    let request = fake.next().await;
    fake.write_line("starting up").await;
    fake.answer(&request, json!({})).await;
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_answer_to_something_else_answers_nothing_and_the_time_runs_out() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let asking = connection.clone();
    let asked = tokio::spawn(async move {
        let cancel = CancellationToken::new();
        let deadline = Instant::now() + Duration::from_millis(200);
        asking.request("tools/list", Map::new(), Exchange::new(deadline, &cancel)).await
    });
    let request = fake.next().await;
    fake.say(json!({ "jsonrpc": "2.0", "id": 999, "result": {} })).await;
    assert_eq!(asked.await.unwrap(), Err(UpstreamError::TimedOut { sent: true }));
    let cancelled = fake.next().await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], request["id"]);
}

#[tokio::test]
async fn a_line_that_is_closed_midway_fails_what_waits() {
    let (mut fake, connection, mut events) = Fake::connected(Bounds::default()).await;
    let asked = ask(&connection, "tools/list", json!({}));
    fake.next().await;
    drop(fake);
    assert_eq!(asked.await.unwrap(), Err(UpstreamError::Closed { sent: true }));
    assert!(connection.is_closed());
    let after = ask(&connection, "tools/list", json!({})).await.unwrap();
    assert_eq!(after, Err(UpstreamError::Closed { sent: false }));
    assert_eq!(events.recv().await, Some(Event::Closed));
}

#[tokio::test]
async fn a_request_that_is_given_up_is_cancelled_and_a_late_answer_ignored() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let cancel = CancellationToken::new();
    let asked = tokio::spawn({
        let (connection, cancel) = (connection.clone(), cancel.clone());
        async move { connection.request("tools/list", Map::new(), Exchange::new(soon(), &cancel)).await }
    });
    let request = fake.next().await;
    cancel.cancel();
    assert_eq!(asked.await.unwrap(), Err(UpstreamError::Cancelled { sent: true }));
    assert_eq!(fake.next().await["params"]["requestId"], request["id"]);
    fake.answer(&request, json!({ "late": true })).await;

    let dropped = ask(&connection, "tools/list", json!({}));
    let request = fake.next().await;
    dropped.abort();
    assert_eq!(fake.next().await["params"]["requestId"], request["id"]);
    fake.answer(&request, json!({ "late": true })).await;

    let asked = ask(&connection, "tools/list", json!({}));
    let request = fake.next().await;
    fake.answer(&request, json!({ "mine": true })).await;
    assert_eq!(asked.await.unwrap().unwrap().result, object(json!({ "mine": true })));
}

#[tokio::test]
async fn a_request_whose_right_has_fallen_is_not_written() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let cancel = CancellationToken::new();
    for may_leave in [false, true] {
        let departure = Departure::new(move || may_leave);
        let exchange = Exchange {
            departure: Some(&departure),
            ..Exchange::new(Instant::now() + Duration::from_millis(300), &cancel)
        };
        let asked = connection.request("tools/list", Map::new(), exchange);
        if may_leave {
            assert_eq!(asked.await, Err(UpstreamError::TimedOut { sent: true }));
            assert_eq!(fake.next().await["method"], "tools/list");
        } else {
            assert_eq!(asked.await, Err(UpstreamError::Fallen { sent: false }));
            assert!(fake.is_silent().await);
        }
    }
}

#[tokio::test]
async fn a_request_is_refused_when_too_many_wait() {
    let bounds = Bounds { requests_max: 1, ..Bounds::default() };
    let (mut fake, connection, _events) = Fake::connected(bounds).await;
    let _waiting = ask(&connection, "tools/list", json!({}));
    fake.next().await;
    let refused = ask(&connection, "tools/list", json!({})).await.unwrap();
    assert_eq!(refused, Err(UpstreamError::Crowded { requests_max: 1 }));
}

const ALL: Asks = Asks { sampling: true, elicitation: true, roots: true };

/// What the upstream is answered that asks this during a request.
async fn answered(method: &str, asks: Asks, abilities: Value, others: usize) -> Value {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let (relay, mut passing) = Relay::new(Era::Session, object(abilities), false);
    tokio::spawn(async move {
        while let Some(passing) = passing.recv().await {
            if let Passing::Question { answer, params, .. } = passing {
                answer.send(Ok(json!({ "asked": params }))).unwrap();
            }
        }
    });
    let asking = connection.clone();
    tokio::spawn(async move {
        let cancel = CancellationToken::new();
        let exchange = Exchange { relay: Some(&relay), asks, ..Exchange::new(soon(), &cancel) };
        asking.request("tools/call", Map::new(), exchange).await
    });
    fake.next().await;
    for _ in 0..others {
        ask(&connection, "tools/call", json!({}));
        fake.next().await;
    }
    fake.say(json!({ "jsonrpc": "2.0", "id": "q-1", "method": method, "params": { "p": 1 } })).await;
    let answer = fake.next().await;
    assert_eq!(answer["id"], "q-1");
    answer
}

#[tokio::test]
async fn what_the_upstream_asks_is_passed_on_only_where_it_may_be() {
    let all = json!({ "sampling": {}, "elicitation": {}, "roots": {} });
    for (method, asks) in [
        ("sampling/createMessage", Asks { sampling: true, ..Asks::default() }),
        ("elicitation/create", Asks { elicitation: true, ..Asks::default() }),
        ("roots/list", Asks { roots: true, ..Asks::default() }),
    ] {
        let answer = answered(method, asks, all.clone(), 0).await;
        assert_eq!(answer["result"], json!({ "asked": { "p": 1 } }), "{method}");
        let others = Asks { sampling: !asks.sampling, elicitation: !asks.elicitation, roots: !asks.roots };
        assert_eq!(answered(method, others, all.clone(), 0).await["error"]["code"], -32601, "{method}");
        assert_eq!(answered(method, ALL, json!({}), 0).await["error"]["code"], -32601, "{method}");
        assert_eq!(answered(method, ALL, all.clone(), 1).await["error"]["code"], -32601, "{method}");
    }
    assert_eq!(answered("tasks/get", ALL, all.clone(), 0).await["error"]["code"], -32601);
    assert_eq!(answered("ping", Asks::default(), json!({}), 3).await["result"], json!({}));
}

#[tokio::test]
async fn progress_and_logs_reach_the_caller_whose_request_they_are_about() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let (relay, mut passing) = Relay::new(Era::Session, Map::new(), true);
    let asked = tokio::spawn(async move {
        let cancel = CancellationToken::new();
        let exchange = Exchange { relay: Some(&relay), ..Exchange::new(soon(), &cancel) };
        let params = object(json!({ "_meta": { "progressToken": "theirs", "x": 1 } }));
        connection.request("tools/call", params, exchange).await
    });
    let request = fake.next().await;
    let token = &request["params"]["_meta"]["progressToken"];
    assert_eq!((token, &request["params"]["_meta"]["x"]), (&request["id"], &json!(1)));
    for token in [json!("theirs"), json!(999), token.clone()] {
        let params = json!({ "progressToken": token, "progress": 1, "total": 2 });
        fake.say(json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })).await;
    }
    let params = json!({ "level": "info", "data": "x" });
    fake.say(json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params })).await;
    fake.answer(&request, json!({})).await;
    asked.await.unwrap().unwrap();
    let Some(Passing::Progress(progress)) = passing.recv().await else { panic!("no progress") };
    assert_eq!(progress, object(json!({ "progress": 1, "total": 2 })));
    let Some(Passing::Log(log)) = passing.recv().await else { panic!("no log") };
    assert_eq!(log, object(params));
    assert!(passing.recv().await.is_none());
}

#[tokio::test]
async fn no_change_of_a_list_is_lost_when_nobody_listens_for_a_while() {
    let (mut fake, connection, mut events) = Fake::connected(Bounds::default()).await;
    for list in ["tools", "prompts", "resources", "tools"] {
        let method = format!("notifications/{list}/list_changed");
        fake.say(json!({ "jsonrpc": "2.0", "method": method })).await;
    }
    let asked = ask(&connection, "tools/list", json!({}));
    let request = fake.next().await;
    fake.answer(&request, json!({})).await;
    asked.await.unwrap().unwrap();
    let mut heard = Vec::new();
    while let Ok(Some(Event::ListChanged(list))) =
        tokio::time::timeout(Duration::from_millis(200), events.recv()).await
    {
        heard.push(list);
    }
    assert_eq!(heard.first(), Some(&"tools"));
    for list in ["prompts", "resources", "tools"] {
        assert!(heard[1..].contains(&list), "{heard:?}");
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_no_further_than_the_bounds() {
    let bounds = Bounds { pages_max: 3, items_max: 4, ..Bounds::default() };
    let cases = [
        (2, 2, Ok(4)),
        (3, 2, Err(UpstreamError::TooMany { things: "items in a list", max: 4 })),
        (9, 1, Err(UpstreamError::TooMany { things: "pages in a list", max: 3 })),
    ];
    for (pages, items, expected) in cases {
        let (mut fake, connection, _events) = Fake::connected(bounds).await;
        let listed = tokio::spawn(async move { connection.list("tools/list", "tools").await });
        for page in 1..=pages.min(3) {
            let request = fake.next().await;
            let cursor = request["params"].get("cursor").cloned();
            assert_eq!(cursor, (page > 1).then(|| json!(format!("c{}", page - 1))));
            let mut answer = json!({ "tools": vec![json!({ "name": "t", "extra": page }); items] });
            if page < pages {
                answer["nextCursor"] = json!(format!("c{page}"));
            }
            fake.answer(&request, answer).await;
        }
        assert_eq!(listed.await.unwrap().map(|items| items.len()), expected);
    }
}

#[tokio::test]
async fn an_upstream_is_spoken_to_as_it_speaks() {
    // Asked for the era without sessions, it knows only the other.
    for error in [
        json!({ "code": -32601, "message": "" }),
        json!({ "code": -32022, "message": "", "data": { "supported": ["2025-06-18"] } }),
    ] {
        let (mut fake, opening, _events) = Fake::begin(hello(Era::Stateless, json!({})), Bounds::default());
        let request = fake.next().await;
        assert_eq!(request["method"], "server/discover");
        fake.refuse(&request, error).await;
        fake.greet().await;
        let connection = opening.await.unwrap().unwrap();
        assert_eq!((connection.server().era, connection.server().version), (Era::Session, "2025-06-18"));
    }
    // And the other way round.
    let (mut fake, opening, _events) =
        Fake::begin(hello(Era::Session, json!({ "roots": {} })), Bounds::default());
    let request = fake.next().await;
    assert_eq!(request["params"]["capabilities"], json!({ "roots": {} }));
    fake.refuse(&request, json!({ "code": -32022, "message": "" })).await;
    let request = fake.next().await;
    let abilities = &request["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(abilities, &json!({ "roots": {} }));
    let meta = json!({ "io.modelcontextprotocol/serverInfo": { "name": "new" } });
    let capabilities = json!({ "tools": { "listChanged": true } });
    let facts = json!({
        "supportedVersions": ["2026-07-28"], "capabilities": capabilities, "instructions": "be kind", "_meta": meta,
    });
    fake.answer(&request, facts).await;
    let connection = opening.await.unwrap().unwrap();
    let server = connection.server();
    assert_eq!((server.era, server.version), (Era::Stateless, "2026-07-28"));
    assert_eq!(server.instructions.as_deref(), Some("be kind"));
    assert_eq!(server.info, object(json!({ "name": "new" })));
    let listen = fake.next().await;
    assert_eq!(listen["method"], "subscriptions/listen");
    assert_eq!(listen["params"]["notifications"], json!({ "toolsListChanged": true }));
}

#[tokio::test]
async fn an_upstream_of_an_unknown_version_is_not_spoken_to() {
    let (mut fake, opening, _events) = Fake::begin(hello(Era::Session, json!({})), Bounds::default());
    let request = fake.next().await;
    fake.answer(&request, json!({ "protocolVersion": "1999-01-01", "capabilities": {} })).await;
    assert_eq!(opening.await.unwrap().unwrap_err(), UpstreamError::Version);
    let (mut fake, opening, _events) = Fake::begin(hello(Era::Stateless, json!({})), Bounds::default());
    let request = fake.next().await;
    let data = json!({ "supported": ["2099-01-01"] });
    fake.refuse(&request, json!({ "code": -32022, "message": "", "data": data })).await;
    assert_eq!(opening.await.unwrap().unwrap_err(), UpstreamError::Version);
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_given_up() {
    let bounds = Bounds {
        connect_timeout: Duration::from_millis(200),
        discover_timeout: Duration::from_millis(50),
        ..Bounds::default()
    };
    let (mut fake, opening, _events) = Fake::begin(hello(Era::Stateless, json!({})), bounds);
    assert_eq!(opening.await.unwrap().unwrap_err(), UpstreamError::TimedOut { sent: true });
    assert_eq!(fake.next().await["method"], "server/discover");
    assert_eq!(fake.next().await["method"], "notifications/cancelled");
    assert_eq!(fake.next().await["method"], "initialize");
}

#[tokio::test]
async fn a_request_that_could_not_be_written_was_not_sent() {
    let (gate, _fake) = tokio::io::duplex(16);
    let (events, _heard) = mpsc::channel(1);
    let desk = Desk::new(Bounds::default(), events);
    let stdio = Stdio::new(gate, &desk);
    stdio.tell(vec![b'x'; 100]); // fills the line for good
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ticket = desk.begin(None, Asks::default()).unwrap();
    let sent = Arc::new(AtomicBool::new(false));
    let departure = Departure::new(|| true);
    stdio.send(ticket.id, b"{}".to_vec(), departure, Arc::clone(&sent)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!sent.load(Ordering::Acquire));
}

#[tokio::test]
async fn progress_on_the_stream_of_a_request_is_about_no_other() {
    let (events, _heard) = mpsc::channel(1);
    let desk = Desk::new(Bounds::default(), events);
    let wire = Arc::new(Wire::Stdio(Stdio::new(tokio::io::sink(), &desk)));
    let (relay, mut passing) = Relay::new(Era::Session, Map::new(), true);
    let ticket = desk.begin(Some(&relay), Asks::default()).unwrap();
    let id = ticket.id;
    let params = json!({ "progressToken": id, "progress": 1 });
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
    for (source, is_told) in
        [(Source::Own(id + 1), false), (Source::Resumed(id + 1), false), (Source::Own(id), true)]
    {
        desk.receive(progress.to_string().as_bytes(), source, None, &wire).unwrap();
        assert_eq!(passing.try_recv().is_ok(), is_told, "{source:?}");
    }
}

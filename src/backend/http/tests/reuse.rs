//! A connection that misbehaves is not used again, and what is left on it is never read.

use super::*;

/// What a server might slip in, for the next call to take for its own.
const STOLEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"stolen\":true}";

fn at_once(bytes: impl Into<Vec<u8>>) -> Vec<(Duration, Vec<u8>)> {
    vec![(Duration::ZERO, bytes.into())]
}

fn good() -> String {
    format!("{JSON}Content-Length: 13\r\n\r\n{{\"good\":true}}")
}

fn json(head: &str, body: &str) -> String {
    format!("{JSON}{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// What two calls to a server get, and how many connections they took.
async fn twice(
    first: Vec<(Duration, Vec<u8>)>,
    pause: Duration,
) -> (Result<Answer, BackendError>, Result<Answer, BackendError>, usize) {
    let (base, connections) = raw::misbehaves_once(first).await;
    let (backends, plan) = (backends(), plan(&base, json!({})));
    let limits = CallLimits { idle_timeout: Duration::from_millis(200), ..LIMITS };
    let (none, never) = (Map::new(), CancellationToken::new());
    let one = backends.send(&plan, &none, None, limits, &never).await;
    tokio::time::sleep(pause).await;
    let two = backends.send(&plan, &none, None, limits, &never).await;
    (one, two, connections.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_connection_that_behaves_is_used_again() {
    let (one, two, connections) = twice(at_once(good()), Duration::from_millis(50)).await;
    assert_eq!(one.unwrap().json(), two.unwrap().json());
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn a_second_answer_to_one_request_is_never_read() {
    let later = |pause| vec![(Duration::ZERO, good().into_bytes()), (pause, STOLEN.as_bytes().to_vec())];
    let together = || at_once([good().as_bytes(), STOLEN.as_bytes()].concat());
    for (first, pause) in [
        (together(), Duration::ZERO),
        (together(), Duration::from_millis(50)),
        (later(Duration::from_millis(20)), Duration::from_millis(80)),
    ] {
        let (one, two, connections) = twice(first, pause).await;
        for answer in [one, two] {
            assert_eq!(answer.unwrap().json(), &json!({ "good": true }), "{pause:?}");
        }
        assert_eq!(connections, 2, "{pause:?}");
    }
}

#[tokio::test]
async fn bytes_after_a_body_end_the_connection() {
    let no_content = "HTTP/1.1 204 No Content\r\n";
    for (head, rest) in [
        (good(), "x".to_owned()),
        (good(), "\r\n".to_owned()),
        (format!("{no_content}\r\n"), STOLEN.to_owned()),
        (format!("{JSON}Content-Length: 0\r\n\r\n"), STOLEN.to_owned()),
        (format!("{JSON}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"), STOLEN.to_owned()),
    ] {
        let (one, two, connections) =
            twice(at_once(format!("{head}{rest}")), Duration::from_millis(50)).await;
        assert!(one.is_ok(), "{head}");
        assert_eq!(two.unwrap().json(), &json!({ "good": true }), "{head}");
        assert_eq!(connections, 2, "{head}");
    }
}

#[tokio::test]
async fn a_head_request_has_no_body_and_what_comes_after_it_is_dropped() {
    let (head, body) = (format!("{JSON}Content-Length: {}\r\n\r\n", STOLEN.len()), STOLEN.as_bytes());
    let late = vec![(Duration::ZERO, head.into_bytes()), (Duration::from_millis(100), body.to_vec())];
    for first in [at_once(good()), late] {
        let (base, connections) = raw::misbehaves_once(first).await;
        let (backends, none, never) = (backends(), Map::new(), CancellationToken::new());
        let head = plan(&base, json!({ "method": "HEAD" }));
        let one = backends.send(&head, &none, None, LIMITS, &never).await.unwrap();
        assert_eq!((one.json(), one.bytes), (&Value::Null, 0));
        let two = backends.send(&plan(&base, json!({})), &none, None, LIMITS, &never).await.unwrap();
        assert_eq!(two.json(), &json!({ "good": true }));
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

/// Calls twice, once refused; says how many connections that took.
async fn connections_after(code: &str, first: Vec<(Duration, Vec<u8>)>) -> usize {
    let (one, two, connections) = twice(first, Duration::from_millis(200)).await;
    assert_eq!(one.unwrap_err().code(), code);
    assert_eq!(two.unwrap().json(), &json!({ "good": true }), "{code}");
    connections
}

#[tokio::test]
async fn a_connection_whose_answer_is_not_over_is_not_used_again() {
    let stated = |length: usize| format!("{JSON}Content-Length: {length}\r\n\r\n{{\"good\"").into_bytes();
    let chunked = |body: &str| at_once(format!("{JSON}Transfer-Encoding: chunked\r\n\r\n{body}"));
    let late = || vec![(Duration::ZERO, stated(13)), (Duration::from_millis(300), b":true}".to_vec())];
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    for (code, first) in [
        ("backend_too_large", at_once(stated(1_000_000))),
        ("backend_too_large", chunked(&format!("1001\r\n{}", " ".repeat(5_000)))),
        ("backend_malformed", chunked("zz\r\n{}\r\n")),
        ("backend_malformed", chunked("2\r\n{}xx0\r\n\r\n")),
        ("backend_malformed", at_once(json("Content-Length: 3\r\n", "{}"))),
        ("backend_malformed", at_once("nonsense\r\n\r\n")),
        ("backend_idle_timed_out", late()),
        ("backend_not_json", at_once(format!("{JSON}\r\n").replace("application/json", "text/event-stream"))),
        ("backend_encoded", at_once(format!("{JSON}Content-Encoding: br\r\n\r\n"))),
        ("backend_status", at_once(upgrade)),
    ] {
        assert_eq!(connections_after(code, first).await, 2, "{code}");
    }
}

#[tokio::test]
async fn a_connection_whose_whole_answer_is_refused_is_not_used_again() {
    for (code, first) in [
        ("backend_too_large", json("", &" ".repeat(5_000))),
        ("backend_not_json", good().replace("application/json", "text/html")),
        ("backend_encoded", json("Content-Encoding: br\r\n", "{}")),
        ("backend_undecodable", json("Content-Encoding: gzip\r\n", "{\"id\":\"not gzip\"}")),
        ("backend_malformed", json("Content-Length: 2\r\n", "{}")),
        ("backend_malformed", "HTTP/1.1 204 No Content\r\nContent-Length: 95\r\n\r\n".to_owned()),
        ("backend_not_strict", json("", "{\"a\":1,\"a\":2}")),
        ("backend_not_strict", json("", "{")),
    ] {
        for first in [first.clone(), format!("{first}{STOLEN}")] {
            assert_eq!(connections_after(code, at_once(first)).await, 2, "{code}");
        }
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_error_that_keeps_the_rules_and_its_connection_is_kept() {
    let oops = "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(connections_after("backend_status", at_once(oops)).await, 1);
    assert_eq!(connections_after("backend_status", at_once(format!("{oops}{STOLEN}"))).await, 2);
}

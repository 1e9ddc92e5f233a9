//! Servers that misbehave, each with its exact typed error.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::strict::Rule;

fn json_answer(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{JSON}{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

async fn get_gzip(body: &[u8]) -> Result<Answer, BackendError> {
    get_raw(json_answer("Content-Encoding: gzip\r\n", body)).await
}

#[tokio::test]
async fn one_gzip_is_decoded_though_it_was_not_asked_for() {
    let plain = br#"{"id":"1"}"#;
    for coding in ["gzip", "x-gzip", "GZip"] {
        let answer =
            get_raw(json_answer(&format!("Content-Encoding: {coding}\r\n"), &gzip(plain))).await.unwrap();
        assert_eq!((answer.json(), answer.bytes), (&json!({ "id": "1" }), plain.len()), "{coding}");
    }
    assert_eq!(get_gzip(b"").await.unwrap().json(), &Value::Null);
    assert_eq!(get_gzip(&gzip(b"")).await.unwrap().json(), &Value::Null);
}

#[tokio::test]
async fn gzip_is_one_whole_member_and_nothing_else() {
    let whole = gzip(br#"{"id":"1"}"#);
    for cut in [9, 12, whole.len() - 9] {
        assert_eq!(get_gzip(&whole[..cut]).await, Err(BackendError::Interrupted), "{cut}");
    }
    let changed = |at: usize| {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        changed
    };
    for (what, body) in [
        ("plain JSON", b"{\"id\":\"1\"}".to_vec()),
        ("another magic number", changed(0)),
        ("another checksum", changed(whole.len() - 8)),
        ("another length", changed(whole.len() - 1)),
        ("half a trailer", whole[..whole.len() - 3].to_vec()),
        ("one byte after it", [&whole[..], b"\0"].concat()),
        ("a second member", [&whole[..], &whole[..]].concat()),
    ] {
        assert_eq!(get_gzip(&body).await, Err(BackendError::Undecodable), "{what}");
    }
}

#[tokio::test]
async fn the_cap_is_on_decoded_bytes_too() {
    let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
    assert_eq!(get_gzip(&gzip(text(4096).as_bytes())).await.unwrap().bytes, 4096);
    let too_large = Err(BackendError::TooLarge { limit: 4096 });
    assert_eq!(get_gzip(&gzip(text(4097).as_bytes())).await, too_large);
    assert_eq!(get_gzip(&gzip(&vec![b' '; 10_000_000])).await, Err(BackendError::TooLarge { limit: 4096 }));
}

#[tokio::test]
async fn gzip_that_decodes_to_nothing_without_an_end_is_cut_off_by_what_arrives() {
    // An empty stored block (RFC 1951 §3.2.4), again and again.
    let empty_gzip = &gzip(b"")[..10];
    let head = [format!("{JSON}Content-Encoding: gzip\r\n\r\n").as_bytes(), empty_gzip].concat();
    let base = raw::floods(head, b"\0\0\0\xff\xff").await;
    assert_eq!(get(&base).await, Err(BackendError::TooLarge { limit: 4096 }));
}

#[tokio::test]
async fn gzip_within_gzip_is_not_decoded_twice() {
    let twice = gzip(&gzip(br#"{"id":"1"}"#));
    for coding in ["gzip, gzip", "gzip\r\nContent-Encoding: gzip", "gzip\r\nContent-Encoding: identity"] {
        let answer = json_answer(&format!("Content-Encoding: {coding}\r\n"), &twice);
        assert_eq!(get_raw(answer).await, Err(BackendError::Encoded), "{coding}");
    }
    let error = get_gzip(&twice).await.unwrap_err();
    assert_eq!(error.code(), "backend_not_strict", "what it says to be one coding is decoded once");
}

#[tokio::test]
async fn json_that_readers_differ_on_is_refused_by_its_rule() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let values = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
    for text in [nested(64), values(100), "\"\u{fc}\\ud83d\\ude00\"".to_owned()] {
        assert!(get_raw(json_answer("", text.as_bytes())).await.is_ok(), "{text}");
    }
    for (rule, offset, text) in [
        (Rule::DuplicateKey, 7, r#"{"a":1,"a":2}"#.to_owned()),
        (Rule::DuplicateKey, 7, r#"{"a":1,"\u0061":2}"#.to_owned()),
        (Rule::Bom, 0, "\u{feff}{}".to_owned()),
        (Rule::Surrogate, 1, r#""\ud800""#.to_owned()),
        (Rule::Depth, 64, nested(65)),
        (Rule::Nodes, 199, values(101)),
        (Rule::Number, 0, "123456789012345678901234567890".to_owned()),
        (Rule::Syntax, 1, "{".to_owned()),
        (Rule::Syntax, 8, r#"{"a":1} trailing"#.to_owned()),
        (Rule::Syntax, 0, "<html>".to_owned()),
    ] {
        let outcome = get_raw(json_answer("", text.as_bytes())).await;
        assert_eq!(outcome, Err(BackendError::NotStrict { rule, offset }), "{text}");
    }
    let not_utf8 = get_raw(json_answer("", b"\"\xff\"")).await;
    assert_eq!(not_utf8, Err(BackendError::NotStrict { rule: Rule::Utf8, offset: 1 }));
}

#[tokio::test]
async fn an_answer_that_readers_could_end_elsewhere_is_malformed() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    for fields in [
        format!("Content-Length: 2\r\n{chunked}"),
        format!("{chunked}Content-Length: 2\r\n"),
        "Content-Length: 2\r\nContent-Length: 2\r\n".to_owned(),
        "Content-Length: 2\r\nContent-Length: 3\r\n".to_owned(),
        "Content-Length: 2, 3\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: +2\r\n".to_owned(),
        "Content-Length: 99999999999999999999\r\n".to_owned(),
        format!("{chunked}{chunked}"),
        "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "X: a\r\n folded\r\n".to_owned(),
        "X : a\r\n".to_owned(),
    ] {
        let answer = format!("{JSON}{fields}\r\n2\r\n{{}}\r\n0\r\n\r\n");
        assert_eq!(get_raw(answer).await, Err(BackendError::Malformed), "{fields}");
    }
    let reset = "HTTP/1.1 205 Reset Content\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(get_raw(reset).await, Err(BackendError::Malformed));
    assert_eq!(get_raw("nonsense\r\n\r\n").await, Err(BackendError::Malformed));
}

#[tokio::test]
async fn broken_or_endless_chunking_is_malformed() {
    let chunked = |body: &str| format!("{JSON}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    for body in ["zz\r\n", "-2\r\n{}\r\n", "0x2\r\n{}\r\n", "fffffffffffffffff\r\n", "2\r\n{}xx0\r\n\r\n"] {
        assert_eq!(get_raw(chunked(body)).await, Err(BackendError::Malformed), "{body}");
    }
    for (endless, head) in [("extension", chunked("2;a=")), ("trailers", chunked("2\r\n{}\r\n0\r\nX: "))] {
        let base = raw::floods(head, b"aaaaaaaaaaaaaaaa").await;
        assert_eq!(get(&base).await, Err(BackendError::Malformed), "{endless}");
    }
    let base = raw::floods(chunked("2\r\n{}\r\n0\r\n"), b"X: a\r\n").await;
    assert_eq!(get(&base).await, Err(BackendError::Malformed));
}

#[tokio::test]
async fn a_head_has_a_size() {
    let with = |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    assert!(get_raw(with("X: a\r\n".repeat(90))).await.is_ok());
    assert!(get_raw(with(format!("X: {}\r\n", "a".repeat(60_000)))).await.is_ok());
    let too_large = Err(BackendError::HeadTooLarge);
    assert_eq!(get_raw(with("X: a\r\n".repeat(200))).await, too_large);
    assert_eq!(get_raw(with(format!("X: {}\r\n", "a".repeat(66_000)))).await, too_large);
    for drop in [&b"X: a\r\n"[..], b"aaaaaaaaaaaaaaaa"] {
        let base = raw::floods(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), drop).await;
        assert_eq!(get(&base).await, too_large);
    }
}

async fn get_within(base: &BaseUrl, limits: CallLimits) -> Result<Answer, BackendError> {
    backends().send(&plan(base, json!({})), &Map::new(), None, limits, &CancellationToken::new()).await
}

#[tokio::test]
async fn the_limit_that_ran_out_is_named() {
    let millis = Duration::from_millis;
    let limits = CallLimits { head_timeout: millis(300), idle_timeout: millis(200), ..LIMITS };
    let timed_out = |limit, after| Err(BackendError::TimedOut { limit, after, sent: true });

    let silent = raw::trickles(Vec::new(), b"", Duration::from_secs(60)).await;
    let slow_head = raw::trickles(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X", millis(50)).await;
    for base in [silent, slow_head] {
        assert_eq!(get_within(&base, limits).await, timed_out(TimeLimit::Head, millis(300)));
    }
    let head = format!("{JSON}Content-Length: 100\r\n\r\n").into_bytes();
    let stalled = raw::trickles(head.clone(), b"", Duration::from_secs(60)).await;
    assert_eq!(get_within(&stalled, limits).await, timed_out(TimeLimit::Idle, millis(200)));
    let trickle = raw::trickles(head, b" ", millis(50)).await;
    let limits = CallLimits { timeout: millis(600), ..limits };
    assert_eq!(get_within(&trickle, limits).await, timed_out(TimeLimit::Total, millis(600)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_without_an_end_are_ended_by_the_deadline_and_cut_off() {
    // The client looks up from reading after 128 reads of 400 KiB at most; as much again is on its way.
    const TAKEN_LATE_BYTES_MAX: usize = 2 * 128 * 400 * 1024;
    let limits = CallLimits { head_timeout: Duration::from_millis(300), ..LIMITS };
    for interim in [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"] {
        let (base, closed, taken) = raw::floods_and_counts(Vec::new(), interim).await;
        let error = get_within(&base, limits).await.unwrap_err();
        assert_eq!(error.code(), "backend_head_timed_out");
        let taken_by_then = taken.load(Ordering::SeqCst);
        let begun = Instant::now();
        let waited = tokio::time::timeout(Duration::from_secs(180), closed).await;
        waited.expect("the connection is dropped").unwrap();
        let late = taken.load(Ordering::SeqCst) - taken_by_then;
        eprintln!("taken after the deadline: {late} bytes of {taken_by_then}, {:?}", begun.elapsed());
        assert!(late <= TAKEN_LATE_BYTES_MAX, "{late} bytes");
    }
}

#[tokio::test]
async fn an_upgrade_is_not_honoured() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (base, closed) = raw::floods_until_closed(head.into(), b"frame").await;
    assert_eq!(get(&base).await, Err(BackendError::Status { code: 101 }));
    tokio::time::timeout(Duration::from_secs(3), closed).await.expect("the connection is dropped").unwrap();
}

#[tokio::test]
async fn events_are_refused_before_the_first_of_them() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let silent = raw::trickles(head.into(), b"", Duration::from_secs(60)).await;
    let (endless, closed) = raw::floods_until_closed(head.into(), b"data: {}\n\n").await;
    for base in [silent, endless] {
        let begun = Instant::now();
        assert_eq!(get(&base).await, Err(BackendError::NotJson));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    tokio::time::timeout(Duration::from_secs(3), closed).await.expect("the connection is dropped").unwrap();
}

#[tokio::test]
async fn another_kind_of_body_is_refused_at_its_first_byte() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\na";
    let base = raw::trickles(head.into(), b"", Duration::from_secs(60)).await;
    assert_eq!(get(&base).await, Err(BackendError::NotJson));
}

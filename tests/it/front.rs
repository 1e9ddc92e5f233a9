//! The edge over the wire: what is refused before the protocol, how it says so, and what is on record.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    bare::{CALL, POST, Raw, call, modern, project, request, talk},
    gate::{ERAS, Era, Gate},
    project::key,
};

/// Refused before anybody knows whose request it is: no key, and no record of its own.
#[tokio::test]
async fn hosts_and_origins_come_before_identity() {
    let listener = json!({ "hosts": ["gate.example.com:443"], "origins": ["https://app.example.com"] });
    let gate = Gate::serve(project().listener(listener)).await;
    let key = format!("Authorization: Bearer {}", key("bot"));
    let cases: [(&str, &[&str], u16); 16] = [
        (POST, &["Host: -"], 400),
        (POST, &["Host: localhost", "Host: localhost"], 400),
        (POST, &["Host: "], 400),
        (POST, &["Host: a@localhost"], 400),
        (POST, &["Host: evil.example.com"], 403),
        (POST, &["Host: gate.example.com:8443"], 403),
        (POST, &["Host: localhost.evil.example.com"], 403),
        ("POST http://evil.example.com/mcp HTTP/1.1", &["Host: evil.example.com"], 403),
        ("POST http://evil.example.com/mcp HTTP/1.1", &["Host: localhost"], 400),
        (POST, &["Origin: null"], 403),
        (POST, &["Origin: https://evil.example.com"], 403),
        (POST, &["Origin: http://app.example.com"], 403),
        (POST, &["Origin: https://app.example.com:8443"], 403),
        (POST, &["Origin: https://app.example.com", "Origin: https://app.example.com"], 403),
        ("GET / HTTP/1.1", &["Host: evil.example.com"], 403),
        ("OPTIONS /mcp HTTP/1.1", &["Origin: http://localhost"], 403),
    ];
    for (line, headers, status) in cases {
        for key in ["Authorization: -", &key] {
            let headers = [headers, &[key]].concat();
            let answer = talk(gate.address, &request(line, &headers, CALL.as_bytes())).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["code"]), (status, &json!(-32600)), "{line} {headers:?}");
        }
    }
    assert_eq!((gate.backend.hits(), gate.records_of("outcome").len()), (0, 0));
    gate.app.gateway.audit().close();
    let counted: u64 = gate.records_of("summary").iter().map(|one| one["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 32);
}

#[tokio::test]
async fn listed_hosts_and_origins_pass() {
    let listener = json!({ "hosts": ["gate.example.com:443"], "origins": ["https://app.example.com"] });
    let gate = Gate::serve(project().listener(listener)).await;
    let cases: [(&str, &[&str]); 5] = [
        (POST, &["Host: LOCALHOST:1"]),
        (POST, &["Host: [::1]"]),
        (POST, &["Host: gate.example.com:443"]),
        (POST, &["Origin: https://app.example.com:443"]),
        ("POST http://localhost/mcp HTTP/1.1", &[]),
    ];
    for (line, headers) in cases {
        let answer = talk(gate.address, &request(line, headers, CALL.as_bytes())).await;
        assert_eq!(answer.json()["result"]["isError"], false, "{line} {headers:?} {answer:?}");
    }
}

/// What is refused, and what is then on record: one outcome of stage `edge`, with this word.
struct Case {
    request: Vec<u8>,
    status: u16,
    code: i32,
    id: Value,
    word: &'static str,
    target: &'static str,
}

async fn refused(gate: &Gate, case: &Case) -> Raw {
    let (hits, before) = (gate.backend.hits(), gate.records_of("outcome").len());
    let answer = talk(gate.address, &case.request).await;
    let shown = format!("{}\n→ {answer:?}", String::from_utf8_lossy(&case.request));
    assert_eq!(answer.status, case.status, "{shown}");
    assert!(answer.head.contains("content-type: application/json"), "{shown}");
    let body = answer.json();
    assert_eq!((&body["jsonrpc"], &body["error"]["code"]), (&json!("2.0"), &json!(case.code)), "{shown}");
    assert_eq!(body["id"], case.id, "{shown}");
    assert_eq!(gate.backend.hits(), hits, "{shown}");
    let outcomes = gate.records_of("outcome").split_off(before);
    let [record] = outcomes.as_slice() else { panic!("{shown}\n{outcomes:#?}") };
    assert_eq!(
        (&record["stage"], &record["code"], &record["outcome"], &record["call"]["target"]),
        (&json!("edge"), &json!(case.word), &json!("denied"), &json!(case.target)),
        "{shown}\n{record}"
    );
    assert_eq!(record["caller"]["client"], "bot");
    answer
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_an_error_and_a_record() {
    let gate = Gate::serve(project().listener(json!({ "body": "8KiB" }))).await;
    let large = format!("{}{}", CALL, " ".repeat(8 << 10));
    let far_too_large = format!("{}{}", CALL, " ".repeat(8 << 20));
    let case = |line: &str, headers: &[&str], body: &str, status, word| Case {
        request: request(line, headers, body.as_bytes()),
        status,
        code: -32600,
        id: Value::Null,
        word,
        target: "",
    };
    let coded = |codings: &[&str]| {
        let headers: Vec<String> =
            codings.iter().map(|coding| format!("Transfer-Encoding: {coding}")).collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let text =
            String::from_utf8(request(POST, &headers, b"")).unwrap().replace("Content-Length: 0\r\n", "");
        format!("{text}{:x}\r\n{CALL}\r\n0\r\n\r\n", CALL.len()).into_bytes()
    };
    let mut chunked = request(POST, &["Transfer-Encoding: chunked"], b"");
    let text = String::from_utf8(chunked).unwrap().replace("Content-Length: 0\r\n", "");
    chunked = format!("{text}{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).into_bytes();
    let cases = [
        case(POST, &["Content-Type: text/plain"], CALL, 415, "content_type"),
        case(POST, &["Content-Type: -"], CALL, 415, "content_type"),
        case(POST, &["Content-Type: application/json; charset=utf-16"], CALL, 415, "content_type"),
        case(
            POST,
            &["Content-Type: application/json", "Content-Type: application/json"],
            CALL,
            415,
            "content_type",
        ),
        case(POST, &["Content-Encoding: gzip"], CALL, 415, "content_encoding"),
        Case { request: coded(&["gzip, chunked"]), ..case(POST, &[], "", 400, "framing") },
        Case { request: coded(&["chunked", "chunked"]), ..case(POST, &[], "", 400, "framing") },
        case(POST, &["Accept: application/json"], CALL, 406, "accept"),
        case(POST, &["Accept: -"], CALL, 406, "accept"),
        case(POST, &[], &large, 413, "too_large"),
        case(POST, &[], &far_too_large, 413, "too_large"),
        Case { request: chunked, ..case(POST, &[], "", 413, "too_large") },
    ];
    for case in &cases {
        refused(&gate, case).await;
    }
}

#[tokio::test]
async fn what_is_no_post_to_the_endpoint_is_refused_with_an_error() {
    let gate = Gate::serve(project()).await;
    for (line, status) in [
        ("POST / HTTP/1.1", 404),
        ("POST /mcp/ HTTP/1.1", 404),
        ("GET /favicon.ico HTTP/1.1", 404),
        ("GET /mcp HTTP/1.1", 405),
        ("DELETE /mcp HTTP/1.1", 405),
        ("OPTIONS /mcp HTTP/1.1", 405),
        ("PRI /mcp HTTP/1.1", 405),
    ] {
        let answer = talk(gate.address, &request(line, &[], CALL.as_bytes())).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &json!(-32600)), "{answer:?}");
        assert_eq!(answer.head.contains("\r\nallow: post"), status == 405, "{answer:?}");
        let stranger = talk(gate.address, &request(line, &["Authorization: -"], b"")).await;
        assert_eq!(stranger.status, 401, "identity comes first");
        // Whatever is asked for in it: a session that is not the caller's own is not there.
        let elsewhere = talk(gate.address, &request(line, &["Mcp-Session-Id: 1"], CALL.as_bytes())).await;
        assert_eq!(
            (elsewhere.status, &elsewhere.json()["error"]["code"]),
            (404, &json!(-32600)),
            "{elsewhere:?}"
        );
    }
    assert_eq!((gate.backend.hits(), gate.records_of("outcome").len()), (0, 0));
}

#[tokio::test]
async fn what_is_no_message_is_refused_with_an_error_and_a_record() {
    let gate = Gate::serve(project()).await;
    let case = |body: &[u8], code, word| Case {
        request: request(POST, &[], body),
        status: 400,
        code,
        id: Value::Null,
        word,
        target: "",
    };
    let twice = CALL.replace(r#""id":"1""#, r#""id":"1","id":"2""#);
    let twice_named = CALL.replace(r#""name":"get""#, r#""name":"get","\u006eame":"hidden""#);
    let cases = [
        case(b"", -32700, "syntax"),
        case(b"{\"jsonrpc\":", -32700, "syntax"),
        case(b"hello", -32700, "syntax"),
        case(format!("[{CALL}]").as_bytes(), -32600, "batch"),
        case(b"7", -32600, "not_an_object"),
        case(twice.as_bytes(), -32700, "duplicate_key"),
        case(twice_named.as_bytes(), -32700, "duplicate_key"),
        case(CALL.replace("\"1\"", "\"\u{1}\"").as_bytes(), -32700, "syntax"),
        case(CALL.replace("\"1\"", "123456789012345678901234567890").as_bytes(), -32700, "number"),
        case(CALL.replace("\"1\"", r#""\ud800""#).as_bytes(), -32700, "surrogate"),
        case(&[b"\xef\xbb\xbf", CALL.as_bytes()].concat(), -32700, "bom"),
        case(&[b"{\"a\":\"\xff\"}".as_slice(), b""].concat(), -32700, "utf8"),
        case(
            CALL.replace("\"1\"", &format!("{}{}", "[".repeat(70), "]".repeat(70))).as_bytes(),
            -32600,
            "depth",
        ),
    ];
    for case in &cases {
        refused(&gate, case).await;
    }
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_invalid_and_not_an_unknown_method() {
    let gate = Gate::serve(project()).await;
    for (params, target) in [
        (r#"{"name":7}"#, ""),
        (r#"{"arguments":{}}"#, ""),
        (r#"{"name":"get","arguments":[]}"#, "get"),
        (r#"{"name":"get","arguments":"x"}"#, "get"),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#);
        for era in ERAS {
            let (headers, body) = match era {
                Era::Legacy => (vec!["MCP-Protocol-Version: 2025-11-25"], body.clone()),
                Era::Modern => modern(&body),
            };
            let request = request(POST, &headers, body.as_bytes());
            let before = gate.records_of("outcome").len();
            let answer = talk(gate.address, &request).await;
            assert_eq!(
                (&answer.json()["error"]["code"], &answer.json()["id"]),
                (&json!(-32602), &json!(7)),
                "{answer:?}"
            );
            let outcomes = gate.records_of("outcome").split_off(before);
            let [record] = outcomes.as_slice() else { panic!("{params} {outcomes:#?}") };
            assert_eq!(
                (&record["code"], &record["call"]["target"]),
                (&json!("params"), &json!(target)),
                "{record}"
            );
        }
    }
    assert_eq!(gate.backend.hits(), 0);
}

fn without<'a>(headers: &[&'a str], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|header| !header.starts_with(name)).copied().collect()
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused_in_both_eras() {
    let gate = Gate::serve(project()).await;
    let (headers, body) = modern(CALL);
    let old = ["MCP-Protocol-Version: 2025-11-25"];
    let case = |headers: Vec<&str>, body: &str, code, word, target| Case {
        request: request(POST, &headers, body.as_bytes()),
        status: 400,
        code,
        id: json!(7),
        word,
        target,
    };
    let mismatch = |headers, body| case(headers, body, -32020, "header_mismatch", "get");
    let with = |more: &[&'static str]| [headers.as_slice(), more].concat();
    let swap = |name: &str, header: &'static str| [without(&headers, name), vec![header]].concat();
    let mut cases = vec![
        mismatch(without(&headers, "MCP-Protocol"), &body),
        mismatch(without(&headers, "Mcp-Method"), &body),
        mismatch(without(&headers, "Mcp-Name"), &body),
        mismatch(swap("MCP-Protocol", old[0]), &body),
        mismatch(swap("Mcp-Method", "Mcp-Method: tools/list"), &body),
        mismatch(swap("Mcp-Method", "Mcp-Method: TOOLS/CALL"), &body),
        mismatch(swap("Mcp-Name", "Mcp-Name: mirrored"), &body),
        mismatch(swap("Mcp-Name", "Mcp-Name: =?base64?bWlycm9yZWQ=?="), &body),
        mismatch(swap("Mcp-Name", "Mcp-Name: =?base64?*?="), &body),
        mismatch(swap("Mcp-Name", "Mcp-Name: g\u{e9}t"), &body),
        mismatch(with(&["MCP-Protocol-Version: 2026-07-28"]), &body),
        mismatch(with(&["Mcp-Method: tools/call"]), &body),
        mismatch(with(&["Mcp-Name: get"]), &body),
        mismatch(with(&["Mcp-Param-Any: 1", "Mcp-Param-Any: 1"]), &body),
        mismatch(vec![old[0], "Mcp-Method: tools/list"], CALL),
        mismatch(vec![old[0], "Mcp-Name: mirrored"], CALL),
        mismatch(vec![old[0], old[0]], CALL),
        mismatch(vec!["Mcp-Method: tools/list"], CALL),
        case(vec!["MCP-Protocol-Version: 1999-01-01"], CALL, -32022, "unsupported_version", "get"),
        case(
            vec!["MCP-Protocol-Version: 2026-07-28", headers[1], headers[2]],
            CALL,
            -32602,
            "protocol",
            "get",
        ),
    ];
    let future = body.replace("/protocolVersion\":\"2026-07-28", "/protocolVersion\":\"2999-01-01");
    let ahead = swap("MCP-Protocol", "MCP-Protocol-Version: 2999-01-01");
    cases.push(case(ahead, &future, -32022, "protocol", "get"));
    for case in &cases {
        refused(&gate, case).await;
    }
    let accepted = talk(gate.address, &request(POST, &headers, body.as_bytes())).await;
    assert_eq!(accepted.json()["result"]["isError"], false, "{accepted:?}");
    let encoded = swap("Mcp-Name", "Mcp-Name: =?base64?Z2V0?=");
    let accepted = talk(gate.address, &request(POST, &encoded, body.as_bytes())).await;
    assert_eq!(accepted.json()["result"]["isError"], false, "{accepted:?}");
}

#[tokio::test]
async fn arguments_that_headers_repeat_have_to_agree() {
    let gate = Gate::serve(project()).await;
    let (headers, body) = modern(&call("mirrored"));
    let with = |more: &[&'static str]| [headers.as_slice(), more].concat();
    let old = "MCP-Protocol-Version: 2025-11-25";
    let bare = body.replace(r#""id":"1""#, "");
    let legacy = call("mirrored");
    for (headers, body) in [
        (with(&[]), &body),
        (with(&["Mcp-Param-Id: 2"]), &body),
        (with(&["Mcp-Param-Id: =?base64?Mg==?="]), &body),
        (with(&["Mcp-Param-Id: 1", "mcp-param-id: 1"]), &body),
        (with(&["Mcp-Param-Id: \u{e9}"]), &body),
        (with(&["Mcp-Param-Id: 1"]), &bare),
        (vec![old, "Mcp-Param-Id: 2"], &legacy),
    ] {
        let case = Case {
            request: request(POST, &headers, body.as_bytes()),
            status: 400,
            code: -32020,
            id: json!(7),
            word: "header_mismatch",
            target: "mirrored",
        };
        refused(&gate, &case).await;
    }
    let accepted = [
        (with(&["Mcp-Param-Id: 1"]), &body),
        (with(&["MCP-PARAM-ID: =?base64?MQ==?="]), &body),
        (vec![old], &legacy),
    ];
    for (headers, body) in accepted {
        let answer = talk(gate.address, &request(POST, &headers, body.as_bytes())).await;
        assert_eq!(answer.json()["result"]["isError"], false, "{answer:?}");
    }
}

#[tokio::test]
async fn a_hidden_tool_answers_like_an_unknown_one_whatever_its_headers_say() {
    let gate = Gate::serve(project()).await;
    let lines: [&[&str]; 5] = [
        &[],
        &["Mcp-Param-Id: 1"],
        &["Mcp-Param-Id: 2"],
        &["Mcp-Param-Id: 1", "Mcp-Param-Id: 1"],
        &["Mcp-Param-Id: \u{e9}"],
    ];
    for more in lines {
        for era in ERAS {
            let mut bodies = Vec::new();
            for name in ["hidden", "absent"] {
                let (headers, body) = match era {
                    Era::Legacy => (vec!["MCP-Protocol-Version: 2025-11-25"], call(name)),
                    Era::Modern => modern(&call(name)),
                };
                let bytes = request(POST, &[headers.as_slice(), more].concat(), body.as_bytes());
                let answer = talk(gate.address, &bytes).await;
                bodies.push((answer.status, answer.body.replace(name, "NAME")));
            }
            assert_eq!(bodies[0], bodies[1], "{more:?}");
        }
    }
    assert_eq!(gate.backend.hits(), 0);
}

#[tokio::test]
async fn no_header_of_a_client_reaches_a_backend() {
    let gate = Gate::serve(project()).await;
    let planted = [
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Host: planted.example.com",
        "X-Forwarded-Proto: planted",
        "Forwarded: for=203.0.113.9",
        "Via: 1.1 planted",
        "Cookie: planted=1",
        "Proxy-Authorization: Basic planted",
        "Keep-Alive: planted",
        "TE: trailers",
        "Upgrade: planted",
        "Connection: close, X-Planted",
        "X-Planted: planted",
        "Traceparent: 00-planted",
        "User-Agent: planted",
    ];
    let answer = talk(gate.address, &request(POST, &planted, CALL.as_bytes())).await;
    assert_eq!(answer.json()["result"]["isError"], false, "{answer:?}");
    let seen = gate.backend.seen();
    let [headers] = seen.as_slice() else { panic!("{seen:?}") };
    let mut names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let allowed = ["accept", "accept-encoding", "host", "user-agent"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{headers:?}");
    let text = format!("{headers:?}");
    for mark in ["planted", "203.0.113.9", "bot", "event-stream"] {
        assert!(!text.contains(mark), "{mark} in {text}");
    }
}

/// RFC 9112 §6.1: two readers could end such a body at different places.
#[tokio::test]
async fn a_length_beside_a_transfer_coding_is_refused_in_any_order_and_spelling() {
    let gate = Gate::serve(project()).await;
    let head = String::from_utf8(request(POST, &[], b"")).unwrap().replace("Content-Length: 0\r\n\r\n", "");
    let chunked = format!("{:x}\r\n{CALL}\r\n0\r\n\r\n", CALL.len());
    let framed = |framing: &str| format!("{head}{framing}\r\n\r\n{chunked}");
    let length = format!("Content-Length: {}", chunked.len());
    let both = [
        format!("{length}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\n{length}"),
        "content-length:4\r\nTRANSFER-ENCODING:chunked".to_owned(),
        format!("Transfer-Encoding: chunked\n{length}"),
    ];
    for framing in &both {
        let answer = talk(gate.address, framed(framing).as_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &json!(-32600)),
            "{framing} {answer:?}"
        );
        assert!(answer.head.contains("connection: close"), "{answer:?}");
    }
    assert_eq!(gate.backend.hits(), 0);
    let whole = talk(gate.address, framed("Transfer-Encoding: chunked").as_bytes()).await;
    assert_eq!(whole.json()["result"]["isError"], false, "{whole:?}");

    // Also after other requests on the same connection, however they were sent.
    let open = |text: &str| text.replace("Connection: close\r\n", "");
    for first in [
        open(&framed("Transfer-Encoding: chunked")),
        open(&format!("{head}Content-Length: {}\r\n\r\n{CALL}", CALL.len())),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ] {
        let hits = gate.backend.hits();
        let answer = talk(gate.address, format!("{first}{}", framed(&both[0])).as_bytes()).await;
        let all = format!("{}\r\n\r\n{}", answer.head, answer.body).to_lowercase();
        let last = all.rsplit("http/1.1 ").next().unwrap();
        assert!(last.starts_with("400 "), "{answer:?}");
        assert!(gate.backend.hits() <= hits + 1, "only the first");
    }
}

#[tokio::test]
async fn a_head_has_32_kib_and_not_a_byte_more() {
    let gate = Gate::serve(project()).await;
    let bare = request(POST, &["X-Filler: "], CALL.as_bytes()).len() - CALL.len();
    for (bytes, status) in [(32 << 10, 200), ((32 << 10) + 1, 431), (36 << 10, 431), (40 << 10, 431)] {
        let filler = format!("X-Filler: {}", "a".repeat(bytes - bare));
        let whole = request(POST, &[&filler], CALL.as_bytes());
        assert_eq!(whole.len() - CALL.len(), bytes);
        let answer = talk(gate.address, &whole).await;
        assert_eq!(answer.status, status, "{bytes} bytes");
        // In two parts, of which the first is nearly all of it.
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let (first, second) = whole.split_at(bytes.min(32 << 10) - 3);
        stream.write_all(first).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(second).await.unwrap();
        assert_eq!(crate::bare::read(stream).await.status, status, "{bytes} bytes in two parts");
    }
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed_by_their_deadlines() {
    let listener = json!({ "header-timeout": "400ms", "idle-timeout": "800ms" });
    let gate = Gate::serve(project().listener(listener)).await;
    let closes = |mut stream: TcpStream| async move {
        let (began, mut rest) = (Instant::now(), Vec::new());
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
        (began.elapsed().as_millis(), String::from_utf8(rest).unwrap())
    };
    // Nothing at all, and half a head.
    for start in ["", "POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let (millis, rest) = closes(stream).await;
        assert!((300..700).contains(&millis) && rest.is_empty(), "{start:?} {millis} {rest}");
    }
    // One byte after the other does not move the deadline.
    let (mut from, mut to) = TcpStream::connect(gate.address).await.unwrap().into_split();
    let dripping = tokio::spawn(async move {
        for byte in request(POST, &[], b"") {
            if to.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let (began, mut rest) = (Instant::now(), Vec::new());
    let _ = timeout(Duration::from_secs(5), from.read_to_end(&mut rest)).await.unwrap();
    assert!((300..700).contains(&began.elapsed().as_millis()) && rest.is_empty(), "{:?}", began.elapsed());
    dripping.abort();
    // A connection that has had its answer may wait for longer, and serves another request.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    let again = request(POST, &["Connection: keep-alive"], CALL.as_bytes());
    for _ in 0..2 {
        stream.write_all(&again).await.unwrap();
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..count].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&buffer));
        tokio::time::sleep(Duration::from_millis(500)).await; // longer than a head may take
    }
    let (millis, rest) = closes(stream).await;
    assert!((100..700).contains(&millis) && rest.is_empty(), "{millis} {rest}");
}

#[tokio::test]
async fn a_slow_body_is_refused_by_its_deadline() {
    let gate = Gate::serve(project().listener(json!({ "body-timeout": "1500ms" }))).await;
    let whole = request(POST, &[], CALL.as_bytes());
    let (head, body) = whole.split_at(whole.len() - CALL.len());
    let (from, mut to) = TcpStream::connect(gate.address).await.unwrap().into_split();
    to.write_all(head).await.unwrap();
    let body = body.to_vec();
    let dripping = tokio::spawn(async move {
        for byte in body {
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        to
    });
    let began = Instant::now();
    let mut from = BufReader::new(from);
    let mut line = String::new();
    timeout(Duration::from_secs(5), from.read_line(&mut line)).await.unwrap().unwrap();
    assert!(line.starts_with("HTTP/1.1 408"), "{line}");
    assert!((1400..1800).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    let outcomes = gate.records_of("outcome");
    let [record] = outcomes.as_slice() else { panic!("{outcomes:#?}") };
    assert_eq!((&record["stage"], &record["code"]), (&json!("edge"), &json!("body_timeout")));
    dripping.abort();
}

#[tokio::test]
async fn connections_beyond_the_cap_are_answered_503_at_once() {
    let gate = Gate::serve(project().listener(json!({ "connections": 2, "header-timeout": "60s" }))).await;
    let one = TcpStream::connect(gate.address).await.unwrap();
    let _two = TcpStream::connect(gate.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    for _ in 0..20 {
        let answer = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!(-32000)), "{answer:?}");
        assert!(answer.head.contains("\r\nretry-after: 1"), "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(gate.backend.hits(), 0);
    drop(one);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A connection on which a request was answered, and no other has come.
async fn idle(gate: &Gate) -> TcpStream {
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let read = timeout(Duration::from_secs(5), stream.read(&mut [0; 4096])).await.unwrap().unwrap();
    assert!(read > 0);
    stream
}

#[tokio::test]
async fn a_connection_that_is_idle_makes_way_and_none_that_is_being_answered() {
    let gate = Gate::serve(project().listener(json!({ "connections": 4, "idle-timeout": "600s" }))).await;
    let busy = tokio::spawn({
        let (address, bytes) = (gate.address, request(POST, &[], call("later").as_bytes()));
        async move { talk(address, &bytes).await }
    });
    while gate.backend.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(idle(&gate).await); // more than there may be connections, and each is answered
    }
    let mut open = 0;
    for stream in &mut held {
        let read = timeout(Duration::from_millis(20), stream.read(&mut [0; 1])).await;
        open += usize::from(read.is_err());
        assert!(open == 0 || read.is_err(), "the oldest made way");
    }
    assert_eq!(open, 3);
    let answer = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(busy.await.unwrap().status, 200, "what was being answered is answered");
}

#[tokio::test]
async fn requests_beyond_the_cap_are_answered_503_at_once() {
    let gate = Gate::serve(project().listener(json!({ "in-flight": 1 }))).await;
    let busy = tokio::spawn({
        let (address, bytes) = (gate.address, request(POST, &[], call("later").as_bytes()));
        async move { talk(address, &bytes).await }
    });
    while gate.backend.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    let answer = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!(-32000)), "{answer:?}");
    assert!(answer.head.contains("\r\nretry-after: 1"), "{answer:?}");
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    // Who proves nothing takes no place, and is told so even now.
    let stranger = talk(gate.address, &request(POST, &["Authorization: -"], CALL.as_bytes())).await;
    assert_eq!(stranger.status, 401);
    assert_eq!(busy.await.unwrap().status, 200);
    let answer = talk(gate.address, &request(POST, &[], CALL.as_bytes())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_listener_that_stops_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let gate = Gate::serve(project()).await;
    let mut idle = TcpStream::connect(gate.address).await.unwrap();
    let busy = tokio::spawn({
        let bytes = request(POST, &["Connection: keep-alive"], call("later").as_bytes());
        let address = gate.address;
        async move { talk(address, &bytes).await }
    });
    while gate.backend.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    gate.stop.cancel();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_millis(500), idle.read_to_end(&mut rest)).await.unwrap();
    assert!(TcpStream::connect(gate.address).await.is_err(), "the listener is closed");
    gate.serving.await.unwrap();
    assert!((500..2000).contains(&began.elapsed().as_millis()), "it waited: {:?}", began.elapsed());
    assert_eq!(busy.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_headers_is_refused() {
    let gate = Gate::serve(project()).await;
    let large = format!("X: {}", "x".repeat(64 << 10));
    assert_eq!(talk(gate.address, &request(POST, &[&large], b"")).await.status, 431);
    let many: Vec<String> = (0..200).map(|at| format!("X-{at}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(talk(gate.address, &request(POST, &many, b"")).await.status, 431);
}

#[tokio::test]
async fn a_message_whose_meta_is_no_object_is_told_so() {
    let gate = Gate::serve(project()).await;
    for meta in ["5", "\"a\"", "[]", "[{}]", "true"] {
        for method in ["tools/call", "tools/list"] {
            let params = format!(r#"{{"name":"get","arguments":{{"id":"1"}},"_meta":{meta}}}"#);
            let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#);
            let answer = talk(gate.address, &request(POST, &[], body.as_bytes())).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["code"]), (400, &json!(-32602)), "{answer:?}");
            assert_eq!(error["message"], "`_meta` must be an object", "{meta}");
        }
    }
    let outcomes = gate.records_of("outcome");
    let of_calls = outcomes.iter().filter(|one| one["stage"] == "edge" && one["call"]["target"] == "get");
    assert_eq!((outcomes.len(), of_calls.count()), (5, 5), "{outcomes:#?}");
    let body = CALL.replace("\"name\"", "\"_meta\":null,\"name\"");
    let answer = talk(gate.address, &request(POST, &[], body.as_bytes())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

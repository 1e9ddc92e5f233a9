//! Arguments that would get past a guard if it were less strict: each is denied for one exact reason,
//! the backend sees nothing, and one outcome is on record.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use callgate::hygiene;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    backend::Backend,
    gate::{ERAS, Era, Gate},
    naughty::naughty_strings,
    project::{Project, tool},
};

/// A tool that sends its `text` to one place and gets it back.
fn echo(name: &str, http: Value) -> Value {
    let mut echo = tool(name, "write", "echo");
    let text = json!({ "type": "string", "maxLength": 10_000 });
    echo["input"]["required"] = json!(["text"]);
    echo["input"]["properties"] = json!({ "text": text });
    echo["backend"]["http"] = json!({ "service": "api", "method": "POST", "path": "/echo" });
    echo["backend"]["http"].as_object_mut().unwrap().extend(http.as_object().unwrap().clone());
    echo
}

/// A tool whose arguments hold URLs that the service `far` would fetch.
fn fetch() -> Value {
    let url = json!({ "type": "string", "format": "uri", "maxLength": 1000, "x-egress": true });
    let mut fetch = echo("fetch", json!({ "service": "far", "body": ["url", "more"] }));
    fetch["input"]["required"] = json!(["url"]);
    fetch["input"]["properties"] =
        json!({ "url": url, "more": { "type": "array", "maxItems": 100, "items": url } });
    fetch
}

fn project() -> Project {
    let mut unicode = echo("unicode", json!({ "path": "/echo/x/{text}" }));
    unicode["input"]["properties"]["text"]["x-non-ascii"] = json!(true);
    let mut near = fetch();
    near["tool"] = json!("near");
    near["backend"]["http"]["service"] = json!("api");
    near["backend"]["http"]["path"] = json!("/ok");
    let mut cleaned = echo("cleaned", json!({ "body": ["text"] }));
    cleaned["text"] = json!({ "arguments": "remove" });
    let mut naughty = tool("naughty", "read", "naughty");
    naughty["yields"] = json!("trusted");
    let mut prim = naughty.clone();
    prim["tool"] = json!("prim");
    prim["text"] = json!({ "answers": "refuse" });
    Project::new()
        .tool(echo("slot", json!({ "path": "/echo/x/{text}" })))
        .tool(unicode)
        .tool(echo("query", json!({ "query": { "q": "text" } })))
        .tool(echo("header", json!({ "headers": { "X-Text": "text" } })))
        .tool(echo("body", json!({ "body": ["text"] })))
        .tool(cleaned)
        .tool(fetch())
        .tool(near)
        .tool(naughty)
        .tool(prim)
        .service("far", json!({ "url": "http://far.invalid/" }))
        .client("bot", json!({ "tools": ["*"], "limits": { "rate": "100000/s" } }))
        .policy("permit (principal, action, resource);")
}

struct Bypass {
    tool: &'static str,
    arguments: Value,
    stage: &'static str,
    code: &'static str,
    message: &'static str,
}

fn text(
    tool: &'static str,
    text: &str,
    stage: &'static str,
    code: &'static str,
    message: &'static str,
) -> Bypass {
    Bypass { tool, arguments: json!({ "text": text }), stage, code, message }
}

const CLIMBS: &str = "argument `/text` is a `.` or `..` segment";
const DIVIDES: &str = r"argument `/text` holds one of `/ \ ? # % ;`, which a path segment may not";
const CONTROL: &str = "argument `/text` holds a control character, which a path segment may not";
const EMPTY: &str = "argument `/text` is empty, and the path needs it";
const NON_ASCII: &str =
    "argument `/text` holds other than ASCII, which the schema does not declare for this path segment";
const FOLDS: &str =
    "argument `/text` holds characters that some servers take for `/`, `..` or another delimiter";
const HEADER: &str = "argument `/text` is not visible ASCII with spaces only inside, and a header needs that";

fn slots() -> Vec<Bypass> {
    let mut bypasses = Vec::new();
    for (texts, message) in [
        (vec!["", " ", "   "], EMPTY),
        (
            vec![".", "..", " ..", ".. ", "%2e", "%2E%2e", ".%2e", "%252e%252e", "%25252e%25252E", "%20.."],
            CLIMBS,
        ),
        (
            vec![
                "../../admin",
                "a/b",
                "a\\b",
                "a?b",
                "a#b",
                "100%",
                "%2f",
                "%5c",
                "a;b",
                "..;",
                "..%2f",
                "%00",
            ],
            DIVIDES,
        ),
        (vec!["\t", ".\t.", ".\n.", "a\r\nb"], CONTROL),
        (vec!["é", "\u{ff0e}\u{ff0e}", "\u{2025}", "漢"], NON_ASCII),
    ] {
        bypasses
            .extend(texts.into_iter().map(|one| text("slot", one, "plan", "argument_unsendable", message)));
    }
    for one in
        ["\u{ff0e}\u{ff0e}", "\u{2025}", "a\u{ff0f}b", "a\u{ff3c}b", "\u{ff05}2e", "a\u{ff1b}", "\u{3000}"]
    {
        bypasses.push(text("unicode", one, "plan", "argument_unsendable", FOLDS));
    }
    for one in ["é", "a\r\nX-Admin: 1", "a\nb", "a\tb", " a", "a ", ""] {
        bypasses.push(text("header", one, "plan", "argument_unsendable", HEADER));
    }
    bypasses
}

fn hidden() -> Vec<Bypass> {
    let mut bypasses = Vec::new();
    for (one, message) in [
        ("hi\u{e0069}\u{e0067}\u{e006e}", "3 tag characters"),
        ("a\u{202e}txt.exe", "1 bidi control"),
        ("a\u{2066}b\u{2069}", "2 bidi controls"),
        ("pass\u{200b}word", "1 zero-width character"),
        ("a\u{feff}b\u{2060}", "2 zero-width characters"),
        ("\u{1b}[2Jgone", "1 escape sequence"),
        ("\u{9b}31mred", "1 escape sequence"),
        ("a\u{0}b", "1 control character"),
        ("a\u{8}\u{7f}\u{85}", "3 control characters"),
    ] {
        for tool in ["slot", "query", "header", "body"] {
            let message: &'static str = Box::leak(
                format!("arguments do not fit: the text at `/text` holds {message}; send it without them")
                    .into_boxed_str(),
            );
            bypasses.push(text(tool, one, "schema", "hidden_text", message));
        }
    }
    bypasses
}

fn urls(canary: u16) -> Vec<Bypass> {
    let no = "argument `/url` is a URL that may not be called";
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00::1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "[2001:db8::1]",
        "[ff02::1]",
        "198.18.0.1",
    ];
    let mut bypasses: Vec<Bypass> = hosts
        .iter()
        .map(|host| Bypass {
            tool: "fetch",
            arguments: json!({ "url": format!("http://{host}:{canary}/") }),
            stage: "plan",
            code: "egress_refused",
            message: no,
        })
        .collect();
    for url in [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://u:p@example.com/",
        "mailto:a@b.c",
    ] {
        bypasses.push(Bypass {
            tool: "fetch",
            arguments: json!({ "url": url }),
            stage: "plan",
            code: "egress_refused",
            message: no,
        });
    }
    bypasses.push(Bypass {
        tool: "fetch",
        arguments: json!({ "url": format!("http://127.0.0.1:{canary}/"), "more": [] }),
        stage: "plan",
        code: "egress_refused",
        message: no,
    });
    bypasses.push(Bypass {
        tool: "near", // its own service may be on loopback, and metadata is still not
        arguments: json!({ "url": "http://127.0.0.1:9/", "more": ["http://127.0.0.1:9/", "http://169.254.169.254/"] }),
        stage: "plan",
        code: "egress_refused",
        message: "argument `/more/1` is a URL that may not be called",
    });
    bypasses
}

/// A listener that nobody may reach, and how many have.
async fn canary() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (port, connections) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, connections)
}

#[tokio::test]
async fn what_would_get_past_a_laxer_guard_is_denied_for_its_exact_reason_and_on_record() {
    let (port, connections) = canary().await;
    let gate = Gate::serve(project()).await;
    let mut count = 0;
    for era in ERAS {
        for Bypass { tool, arguments, stage, code, message } in
            slots().into_iter().chain(hidden()).chain(urls(port))
        {
            let before = gate.log_size();
            let answer = gate.call(era, "bot", tool, arguments.clone()).await;
            let case = format!("{era:?} {tool} {arguments}: {}", answer.text());
            assert_eq!(answer.message(), message, "{case}");
            assert_eq!(gate.backend.hits(), 0, "{case}");
            let records = gate.records_from(before);
            let [record] = records.as_slice() else { panic!("{case}: {records:#?}") };
            assert_eq!(
                (&record["record"], &record["outcome"], &record["stage"], &record["code"]),
                (&json!("outcome"), &json!("denied"), &json!(stage), &json!(code)),
                "{case}: {record}"
            );
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
    assert_eq!(connections.load(Ordering::SeqCst), 0, "nothing was called");
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    while connections.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await; // the canary does count
    }
    let near = json!({ "url": "http://127.0.0.1:9/" });
    assert!(!gate.call(Era::Modern, "bot", "near", near).await.is_error(), "what egress allows passes");
}

#[tokio::test]
async fn hidden_characters_are_removed_where_a_tool_says_so_and_counted_on_record() {
    let gate = Gate::serve(project()).await;
    let answer =
        gate.call(Era::Modern, "bot", "cleaned", json!({ "text": "pass\u{200b}word\u{202e}" })).await;
    assert_eq!(answer.json()["result"]["structuredContent"]["id"], "password", "{}", answer.text());
    let outcome = gate.records_of("outcome").pop().unwrap();
    assert_eq!(outcome["hygiene"], json!({ "arguments": { "bidi": 1, "zero_width": 1 } }), "{outcome}");
}

/// Whether a naughty string passed, and otherwise why not.
async fn verdict(gate: &Gate, backend: &Backend, tool: &str, string: &str) -> String {
    let (hits, before) = (backend.hits(), gate.log_size());
    let answer = gate.call(Era::Modern, "bot", tool, json!({ "text": string })).await;
    let records = gate.records_from(before);
    let json = answer.json();
    if answer.is_error() {
        assert_eq!((backend.hits(), records.len()), (hits, 1), "{tool} {string:?}: {records:#?}");
        assert_eq!(records[0]["outcome"], "denied");
        assert!(hygiene::inspect(&answer.message()).is_clean(), "{tool} {string:?}");
        return records[0]["code"].as_str().unwrap().to_owned();
    }
    assert_eq!(json["result"]["structuredContent"]["id"], string, "{tool}");
    assert_eq!((backend.hits(), records.len()), (hits + 1, 2), "{tool} {string:?}: {records:#?}");
    "passed".to_owned()
}

#[tokio::test]
async fn a_naughty_string_arrives_whole_in_every_place_or_is_denied() {
    let gate = Gate::serve(project()).await;
    let mut counts = std::collections::BTreeMap::<(&str, String), usize>::new();
    for string in naughty_strings() {
        for tool in ["slot", "unicode", "query", "header", "body"] {
            *counts.entry((tool, verdict(&gate, &gate.backend, tool, &string).await)).or_default() += 1;
        }
    }
    let lines: Vec<String> =
        counts.iter().map(|((tool, verdict), count)| format!("{tool} {verdict} {count}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    body hidden_text 14
    body passed 471
    header argument_unsendable 81
    header hidden_text 14
    header passed 390
    query hidden_text 14
    query passed 471
    slot argument_unsendable 340
    slot hidden_text 14
    slot passed 131
    unicode argument_unsendable 272
    unicode hidden_text 14
    unicode passed 199
    ");
}

#[tokio::test]
async fn a_naughty_answer_leaves_without_what_no_reader_sees_or_not_at_all() {
    let gate = Gate::serve(project()).await;
    let (mut changed, mut withheld) = (0, 0);
    for (index, string) in naughty_strings().iter().enumerate() {
        let (cleaned, findings) = hygiene::clean(string);
        let before = gate.log_size();
        let answer = gate.call(Era::Modern, "bot", "naughty", json!({ "id": index.to_string() })).await;
        assert_eq!(answer.json()["result"]["structuredContent"]["id"], cleaned.as_ref(), "{index}");
        let records = gate.records_from(before);
        assert_eq!(records[0]["hygiene"].is_object(), !findings.is_clean(), "{index}: {records:#?}");
        changed += usize::from(!findings.is_clean());
        let answer = gate.call(Era::Modern, "bot", "prim", json!({ "id": index.to_string() })).await;
        assert_eq!(answer.is_error(), !findings.is_clean(), "{index}");
        if answer.is_error() {
            assert_eq!(answer.message(), "answer withheld (rule `hidden_text`)");
            withheld += 1;
        }
    }
    assert_eq!((changed, withheld), (14, 14));
}

#[tokio::test]
async fn a_naughty_name_of_a_tool_is_unknown_in_clean_words_and_one_line_of_the_log() {
    let gate = Gate::serve(project()).await;
    let strings = naughty_strings();
    for string in &strings {
        let answer = gate.call(Era::Legacy, "bot", string, json!({})).await;
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(hygiene::inspect(&message).is_clean(), "{string:?}: {message:?}");
    }
    // Each record is a line, and each line is JSON: `records` would fail otherwise.
    let outcomes = gate.records_of("outcome");
    assert_eq!(outcomes.len(), strings.len());
    assert!(outcomes.iter().all(|record| record["outcome"] == "denied"));
}

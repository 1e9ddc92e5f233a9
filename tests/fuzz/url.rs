//! The URL builder: whatever a manifest, a base URL and arguments say, a request stays where it belongs.

use callgate::{
    manifest::{BaseUrl, HttpBackend, Segment},
    plan::{HttpPlan, OutgoingRequest, Unsendable},
    strict::{Bounds, scan},
};
use serde_json::{Map, Value, json};

use crate::choices::{Choices, samples};

/// What arguments, parameters and members are called.
const NAMES: [&str; 16] = [
    "id",
    "line",
    "q",
    "q[]",
    "a/b",
    "~",
    "é",
    "a&b=c#d",
    "id",
    "line",
    "q",
    "\0",
    " ",
    "__proto__",
    "id",
    "",
];

const HEADERS: [&str; 10] = [
    "X-Tenant",
    "If-Match",
    "X-Tenant",
    "x-a!#$%&'*+-.^_`|~",
    "Accept-Language",
    "x-tenant",
    "Host",
    "content_length",
    "a b",
    "",
];

/// Pieces of base URLs: any of them after any other.
const BASES: [&[&str]; 4] = [
    &["https://", "http://", "HTTP://", "ftp://", "//"],
    &[
        "api.example.com",
        "127.0.0.1",
        "[::1]",
        "2130706433",
        "bücher.example",
        "xn--nxasmq6b",
        "user:pw@h",
        "h%2fevil",
        "",
    ],
    &["", ":8080", ":443", ":80", ":0", ":99999"],
    &[
        "",
        "/",
        "/a",
        "/a/b/",
        "/a//b",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a;b",
        "//",
        "/%2f",
        "/é",
        "/a?b",
        "/a#b",
        "\\x",
        "/a b",
    ],
];

const SEGMENTS: [&str; 16] = [
    "v1",
    "{id}",
    "{id}",
    "{id}",
    "{line}",
    "{a/b}",
    "a:b@c!$'()*+,=~",
    "...",
    "{é}",
    "..",
    "",
    "%2e",
    "a;b",
    "{",
    "x{id}",
    "{}",
];

/// A plan and a call that it is for.
struct Case {
    backend: HttpBackend,
    base: BaseUrl,
    plan: HttpPlan,
    arguments: Map<String, Value>,
}

#[test]
fn fuzz_url() {
    bolero::check!().with_max_len(256).for_each(|bytes: &[u8]| {
        if let Some(case) = case(&mut Choices::new(bytes)) {
            judge(&case);
        }
    });
}

#[test]
fn many_inputs_make_a_request_and_many_a_refusal() {
    let cases: Vec<Case> = samples(20_000).filter_map(|bytes| case(&mut Choices::new(&bytes))).collect();
    let made = cases.iter().filter(|case| judge(case)).count();
    assert!(made > 1_000 && cases.len() - made > 1_000, "{made} of {}", cases.len());
}

fn case(choices: &mut Choices<'_>) -> Option<Case> {
    let base: String = BASES.iter().map(|pieces| piece(choices, pieces)).collect();
    let segments: Vec<&str> = (0..choices.below(5)).map(|_| piece(choices, &SEGMENTS)).collect();
    let binding = |choices: &mut Choices<'_>, names: &[&'static str]| {
        let pairs =
            (0..choices.below(4)).map(|_| (piece(choices, names).to_owned(), json!(choices.of(&NAMES))));
        Value::Object(pairs.collect())
    };
    let backend = json!({
        "service": "s",
        "method": choices.of(&["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
        "path": format!("/{}", segments.join("/")),
        "query": binding(choices, &NAMES),
        "headers": if choices.one_in(2) { binding(choices, &HEADERS) } else { json!({ "X-Tenant": "line" }) },
        "body": if choices.one_in(2) { binding(choices, &NAMES) } else { json!([]) },
    });
    let input = json!({ "properties": {
        "id": choices.of(&[r#"{ "x-non-ascii": true }"#, r#"{}"#, r#"{ "enum": ["é"] }"#, r#"{ "x-egress": true }"#])
            .parse::<Value>().unwrap(),
        "line": choices.value(),
    } });
    let mut arguments: Map<String, Value> =
        (0..choices.below(5)).map(|_| (choices.of(&NAMES).to_owned(), choices.value())).collect();
    if choices.one_in(2) {
        arguments.insert("id".to_owned(), json!("ord_1")); // so that the others count
    }
    let backend: HttpBackend = serde_json::from_value(backend).ok()?;
    let base = BaseUrl::parse(&base).ok()?;
    match HttpPlan::compile(&backend, &base, input.as_object()?) {
        Ok(plan) => Some(Case { backend, base, plan, arguments }),
        Err(errors) => {
            assert!(!errors.is_empty());
            let places = ["/backend/http/query", "/backend/http/headers", "/backend/http/body"];
            for error in errors {
                assert!(
                    places.contains(&error.at().as_str()) || error.at().starts_with("/input/"),
                    "{error:?}"
                );
            }
            None
        }
    }
}

/// Mostly one of the first half, which are in order, so that much is wrong in one place alone.
fn piece(choices: &mut Choices<'_>, pieces: &[&'static str]) -> &'static str {
    if choices.one_in(8) { choices.of(pieces) } else { choices.of(&pieces[..pieces.len().div_ceil(2)]) }
}

/// Whether a request is made; panics if it is not the one that should be.
fn judge(case: &Case) -> bool {
    match case.plan.request(&case.arguments) {
        Ok(request) => {
            judge_url(case, &request);
            judge_headers(case, &request);
            judge_body(case, &request);
            true
        }
        Err(Unsendable::Argument { pointer, .. }) => {
            let bound =
                pointer.is_empty() || bound(&case.backend).any(|name| pointer_is_below(&pointer, name));
            assert!(bound, "`{pointer}` takes no part in the request");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

fn bound(backend: &HttpBackend) -> impl Iterator<Item = &str> {
    let bindings = [&backend.query, &backend.headers, &backend.body];
    bindings
        .into_iter()
        .flat_map(|binding| binding.iter().map(|(_, argument)| argument))
        .chain(backend.path.slots())
}

fn pointer_is_below(pointer: &str, name: &str) -> bool {
    let name = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    pointer.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn judge_url(case: &Case, request: &OutgoingRequest) {
    let (url, base) = (request.url(), case.base.url());
    assert_eq!(url.origin(), base.origin());
    assert_eq!((url.scheme(), url.host(), url.port()), (base.scheme(), base.host(), base.port()));
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
    assert!(url.as_str().len() <= 8_000 && url.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{url}");
    assert!(!url.as_str().contains(['\\', '#']), "{url}");
    assert_eq!(request.method().as_str(), case.backend.method.as_str());

    let below =
        url.path().strip_prefix(base.path().strip_suffix('/').unwrap_or_else(|| base.path())).unwrap();
    let sent: Vec<&str> = below.strip_prefix('/').unwrap().split('/').collect();
    let template = case.backend.path.segments();
    if template.is_empty() {
        assert_eq!(sent, [""], "{url}");
    } else {
        assert_eq!(sent.len(), template.len(), "{url}");
    }
    for (segment, sent) in template.iter().zip(sent) {
        match segment {
            Segment::Fixed(text) => assert_eq!(text, sent),
            Segment::Slot(argument) => judge_slot(sent, &case.arguments[argument]),
        }
    }
    assert_eq!(url.query().map_or_else(Vec::new, form), pairs(case), "{url}");
}

/// What a server reads, however often it decodes, is the argument and one segment.
fn judge_slot(sent: &str, argument: &Value) {
    let mut read = decoded(sent, false);
    assert_eq!(read, text(argument).unwrap());
    for _ in 0..3 {
        assert!(!matches!(read.trim(), "" | "." | ".."), "{sent}");
        assert!(!read.contains(['/', '\\', '?', '#', '%', ';']), "{sent}");
        assert!(!read.chars().any(char::is_control), "{sent}");
        read = decoded(&read, false);
    }
}

/// The pairs that should be in the query, worked out from the arguments.
fn pairs(case: &Case) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, argument) in case.backend.query.iter() {
        let values = match case.arguments.get(argument) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(items)) => items.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        pairs.extend(values.iter().map(|value| (name.to_owned(), text(value).unwrap())));
    }
    pairs
}

fn judge_headers(case: &Case, request: &OutgoingRequest) {
    let mut expected = vec![
        ("accept".to_owned(), "application/json".to_owned()),
        ("accept-encoding".to_owned(), "identity".to_owned()),
    ];
    for (name, argument) in case.backend.headers.iter() {
        if let Some(value) = case.arguments.get(argument).filter(|value| !value.is_null()) {
            expected.push((name.to_ascii_lowercase(), text(value).unwrap()));
        }
    }
    if request.body().is_some() {
        expected.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let mut sent = Vec::new();
    for (name, value) in request.headers() {
        assert!(value.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~')), "{name}: {value:?}");
        assert!(!value.is_empty(), "{name}");
        sent.push((name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
    }
    sent.sort();
    expected.sort();
    assert_eq!(sent, expected);
}

fn judge_body(case: &Case, request: &OutgoingRequest) {
    let expected: Map<String, Value> = case
        .backend
        .body
        .iter()
        .filter_map(|(name, argument)| Some((name.to_owned(), case.arguments.get(argument)?.clone())))
        .collect();
    match request.body() {
        None => assert!(case.backend.body.is_empty()),
        Some(body) => {
            scan(body, Bounds::REQUEST).unwrap_or_else(|fault| panic!("{fault}"));
            assert_eq!(serde_json::from_slice::<Value>(body).unwrap(), Value::Object(expected));
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The pairs of a query, as servers read forms.
fn form(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (decoded(name, true), decoded(value, true))
    };
    query.split('&').map(pair).collect()
}

fn decoded(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

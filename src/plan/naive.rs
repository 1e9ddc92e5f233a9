//! A second, naive implementation of the path and URL rule, compared with the first on generated cases.
//!
//! It shares no code with the first: it knows nothing of URL parsers, and writes
//! the URL down character by character.

use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization as _;

use super::HttpPlan;
use crate::manifest::{BaseUrl, HttpBackend};

/// How many cases are compared.
const CASES: u64 = 1_000_000;

const BASES: [(&str, &str); 4] = [
    ("https://api.example.com", "https://api.example.com"),
    ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
    ("http://[::1]:8080/a/b", "http://[::1]:8080/a/b"),
    ("https://h/a/", "https://h/a"),
];

/// Pieces that texts are made of: what separates, what encodes, what normalises to it, and plain letters.
const PIECES: [&str; 64] = [
    ".",
    "..",
    "/",
    "\\",
    "?",
    "#",
    "%",
    ";",
    ":",
    "@",
    "&",
    "=",
    "+",
    "~",
    "'",
    "(",
    "%2e",
    "%2E",
    "%252e",
    "%2f",
    "%5c",
    "%00",
    "%25",
    "\t",
    "\n",
    "\r",
    "\0",
    " ",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "é",
    "ü",
    "漢",
    "\u{ff0e}",
    "\u{ff0f}",
    "\u{ff3c}",
    "\u{2024}",
    "\u{2025}",
    "\u{2215}",
    "\u{fe68}",
    "\u{ff05}",
    "\u{ff1b}",
    "\u{ff03}",
    "\u{ff1f}",
    "\u{3000}",
    "\u{200b}",
    "\u{202e}",
    "👩",
    "\u{10ffff}",
    "a",
    "b",
    "Z",
    "0",
    "9",
    "ord_",
    "//evil.example",
    "@evil.example",
    "http://",
    "..;",
    "[",
    "]",
    "{id}",
    "",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*: the cases are the same in every run.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    fn text(&mut self) -> String {
        if self.below(3) == 0 {
            return "ord_1".to_owned(); // so that many cases hang on one argument alone
        }
        let pieces = self.below(3);
        (0..=pieces).map(|_| PIECES[usize::try_from(self.below(64)).unwrap()]).collect()
    }

    fn value(&mut self) -> Value {
        match self.below(24) {
            0 => Value::Null,
            1 => json!(self.next().cast_signed()),
            2 => json!(self.next()),
            3 => json!(f64::from_bits(self.next())),
            4 => json!(self.below(2) == 0),
            5 => json!([self.text()]),
            6 => json!({ "a": self.text() }),
            _ => json!(self.text()),
        }
    }
}

/// The segment that a value makes, by the rule as it is written down.
fn segment(value: Option<&Value>, non_ascii: bool) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "true".to_owned(),
        Value::Bool(false) => "false".to_owned(),
        Value::Number(number) if number.is_i64() || number.is_u64() => format!("{number}"),
        _ => return None,
    };
    let forbidden = |c: char| "/\\?#%;".contains(c);
    let mut bare = text.clone();
    while bare.starts_with(' ') {
        bare.remove(0);
    }
    while bare.ends_with(' ') {
        bare.pop();
    }
    if bare.is_empty() || bare == "." || bare == ".." || text.chars().any(forbidden) {
        return None;
    }
    if text.chars().any(|c| (c as u32) < 0x20 || (0x7f..0xa0).contains(&(c as u32))) {
        return None;
    }
    if text.chars().any(|c| c as u32 > 0x7e) {
        let folded: String = text.nfkc().collect();
        let bare = folded.trim();
        if !non_ascii || folded.chars().any(forbidden) || bare.is_empty() || bare == "." || bare == ".." {
            return None;
        }
    }
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(encoded)
}

/// One parameter of a query, as forms are written (URL Standard, application/x-www-form-urlencoded).
fn parameter(value: Option<&Value>) -> Result<Option<String>, ()> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(truth)) => format!("{truth}"),
        Some(Value::Number(number)) => format!("{number}"),
        Some(Value::Array(items)) => match items.as_slice() {
            [Value::String(text)] => text.clone(),
            _ => return Err(()),
        },
        Some(Value::Object(_)) => return Err(()),
    };
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(Some(encoded))
}

fn naive(base: &str, arguments: &Map<String, Value>, non_ascii: bool) -> Option<String> {
    let id = segment(arguments.get("id"), non_ascii)?;
    let line = segment(arguments.get("line"), false)?;
    let query = match parameter(arguments.get("q")).ok()? {
        Some(value) => format!("?q={value}"),
        None => String::new(),
    };
    Some(format!("{base}/v1/{id}/x/{line}{query}"))
}

fn plan(base: &str, non_ascii: bool) -> HttpPlan {
    let backend = json!({ "service": "s", "method": "GET", "path": "/v1/{id}/x/{line}", "query": ["q"] });
    let backend: HttpBackend = serde_json::from_value(backend).unwrap();
    let input = json!({ "properties": { "id": { "x-non-ascii": non_ascii } } });
    HttpPlan::compile(&backend, &BaseUrl::parse(base).unwrap(), input.as_object().unwrap()).unwrap()
}

#[test]
fn both_implementations_of_the_url_rule_agree_and_no_argument_moves_a_request() {
    let plans: Vec<(&str, bool, HttpPlan)> = BASES
        .iter()
        .flat_map(|(base, written)| {
            [true, false].map(|non_ascii| (*written, non_ascii, plan(base, non_ascii)))
        })
        .collect();
    let mut random = Random(0x5eed_cafe_f00d_0001);
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    for case in 0..CASES {
        let (base, non_ascii, plan) = &plans[usize::try_from(random.below(8)).unwrap()];
        let mut arguments = Map::new();
        for name in ["id", "line", "q"] {
            if random.below(16) > 0 {
                arguments.insert(name.to_owned(), random.value());
            }
        }
        let expected = naive(base, &arguments, *non_ascii);
        let sent = plan.request(&arguments).ok().map(|request| request.url().as_str().to_owned());
        assert_eq!(sent, expected, "case {case}: {arguments:?}");
        let Some(url) = sent else {
            refused += 1;
            continue;
        };
        accepted += 1;
        // Everything that comes after the base is four segments and at most one query.
        let rest = url.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')).unwrap();
        let path = rest.split_once('?').map_or(rest, |(path, _)| path);
        let segments: Vec<&str> = path.split('/').collect();
        assert_eq!(segments.len(), 4, "case {case}: {url}");
        assert!(segments.iter().all(|segment| !matches!(*segment, "" | "." | "..")), "case {case}: {url}");
        assert!(rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\'), "{url}");
    }
    assert!(accepted > CASES / 20 && refused > CASES / 20, "{accepted} accepted, {refused} refused");
}

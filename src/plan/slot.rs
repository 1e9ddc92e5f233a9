//! A slot of a path: one argument, one segment, whoever decodes it. Pure.
//!
//! Percent-encoding alone cannot make a value safe: a URL parser takes `%2e%2e`
//! for a dot segment and deletes TAB and LF, and servers behind proxies decode
//! more than once. So what a segment cannot hold is refused, not encoded.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization as _;

use super::{Unsendable, request::refusal};

/// How often a value is decoded in search of `..`: proxies and servers each may.
const DECODINGS: usize = 3;

/// What no segment holds: the ends of a segment, a path and a query (RFC 3986 §3),
/// the backslash that some servers take for a slash, and what could be decoded again.
const FORBIDDEN: [char; 6] = ['/', '\\', '?', '#', '%', ';'];

/// An argument that fills one segment of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Slot {
    pub(super) argument: String,
    /// Whether the schema declares that the argument holds other than ASCII.
    pub(super) non_ascii: bool,
}

/// The keyword by which a string's schema declares that it may hold other than ASCII in a path.
pub(super) const NON_ASCII_KEYWORD: &str = "x-non-ascii";

impl Slot {
    /// The slot of an argument of the given input schema.
    pub(super) fn new(argument: &str, input: &Map<String, Value>) -> Self {
        let schema = input.get("properties").and_then(|properties| properties.get(argument));
        let flag = schema.and_then(|schema| schema.get(NON_ASCII_KEYWORD)).and_then(Value::as_bool);
        let non_ascii = flag.unwrap_or_else(|| schema.is_some_and(lists_non_ascii));
        Self { argument: argument.to_owned(), non_ascii }
    }

    /// The text of the slot: one segment, and nothing that any server could take for more.
    pub(super) fn text(&self, arguments: &Map<String, Value>) -> Result<String, Unsendable> {
        let refuse = |reason| Err(refusal(&self.argument, reason));
        let text = match arguments.get(&self.argument) {
            None => return refuse("is missing, and the path needs it"),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(truth)) => truth.to_string(),
            Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
            Some(_) => {
                return refuse("is neither a text, a whole number nor a truth value, and the path needs one");
            }
        };
        match judge(&text, self.non_ascii) {
            None => Ok(text),
            Some(reason) => refuse(reason),
        }
    }
}

/// Whether a schema names its values, and one of them is not ASCII.
fn lists_non_ascii(schema: &Value) -> bool {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    listed.chain(schema.get("const")).filter_map(Value::as_str).any(|text| !text.is_ascii())
}

/// What is wrong with the text of a slot, as the end of a sentence.
fn judge(text: &str, non_ascii: bool) -> Option<&'static str> {
    if text.trim_matches(' ').is_empty() {
        return Some("is empty, and the path needs it");
    }
    if climbs(text) {
        return Some("is a `.` or `..` segment");
    }
    if text.contains(FORBIDDEN) {
        return Some(r"holds one of `/ \ ? # % ;`, which a path segment may not");
    }
    if text.chars().any(char::is_control) {
        return Some("holds a control character, which a path segment may not");
    }
    if text.is_ascii() {
        return None;
    }
    if !non_ascii {
        return Some("holds other than ASCII, which the schema does not declare for this path segment");
    }
    // A full-width solidus or a one-dot leader, to a server that normalises.
    let folded: String = text.nfkc().collect();
    (folded.contains(FORBIDDEN) || climbs(&folded) || folded.trim().is_empty())
        .then_some("holds characters that some servers take for `/`, `..` or another delimiter")
}

/// Whether a text is a dot segment (RFC 3986 §3.3), as it stands or encoded up
/// to three times. Spaces around it do not count, since some servers drop them.
fn climbs(text: &str) -> bool {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=DECODINGS {
        if matches!(bytes.trim_ascii(), b"." | b"..") {
            return true;
        }
        if !bytes.contains(&b'%') {
            return false;
        }
        let decoded = String::from_utf8_lossy(&bytes).into_owned();
        bytes = percent_decode_str(&decoded).collect();
    }
    false
}

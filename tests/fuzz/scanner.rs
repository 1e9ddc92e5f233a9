//! The strict scanner, a naive second one and `serde_json`.

use callgate::strict::{Bounds, message, scan};
use serde_json::Value;

#[allow(dead_code, reason = "here only the verdict counts, and not the tree")]
#[path = "../../src/strict/naive.rs"]
mod naive;

/// Pieces of JSON that often make something valid, or nearly so.
const PIECES: [&str; 32] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\":",
    "\"\\u0061\":",
    "\"b\":1,",
    "null",
    "true",
    "1",
    "-",
    "0",
    ".5",
    "e1",
    "e-320",
    "e400",
    "18446744073709551615",
    "9007199254740993.0",
    "\\ud83d",
    "\\ude00",
    "\\n",
    "\u{e9}",
    " ",
    "\n",
    "{}",
    "[]",
    "\"jsonrpc\":\"2.0\"",
    "\"id\":1",
    "\"method\":\"ping\"",
];

#[test]
fn fuzz_scanner() {
    bolero::check!().with_max_len(512).for_each(|bytes: &[u8]| {
        agree(bytes);
        let text: String = bytes.iter().map(|byte| PIECES[usize::from(*byte) % PIECES.len()]).collect();
        agree(text.as_bytes());
        // Closed where it is opened, so that more of it is valid.
        agree(format!("[{}]", text.replace('{', "{}").replace('[', "[]").replace("]]", "]")).as_bytes());
    });
}

fn agree(bytes: &[u8]) {
    let Bounds { depth_max, nodes_max } = Bounds::REQUEST;
    let strict = scan(bytes, Bounds::REQUEST).map_err(|fault| fault.rule.word());
    let naive = naive::read(bytes, depth_max, nodes_max).map(drop);
    assert_eq!(strict, naive, "{:?}", String::from_utf8_lossy(bytes));
    let message = message(bytes).map_err(|refused| refused.word);
    match strict {
        Ok(()) => drop(serde_json::from_slice::<Value>(bytes).unwrap()),
        Err(word) => assert_eq!(message.err(), Some(word)),
    }
}

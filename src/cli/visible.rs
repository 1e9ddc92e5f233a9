//! Text that a terminal shows and does not obey, and that no reader takes for another.

use serde_json::Value;

use crate::hygiene::inspect;

/// Text in which each character that a reader would not see, or that a terminal would obey, is
/// written as its number; and a line break as well, since this is for one line.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

/// JSON over several lines in which such characters are escaped the way JSON does it.
pub(super) fn visible_json(bytes: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return visible(&String::from_utf8_lossy(bytes));
    };
    escaped_json(&serde_json::to_string_pretty(&value).unwrap_or_default())
}

/// JSON in which such characters are escaped: the same value, since they stand in its strings alone.
pub(super) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || is_plain(character) {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

fn is_plain(character: char) -> bool {
    // Some readers end a line at U+2028 and U+2029, too.
    let is_break = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    matches!(character, ' '..='~') || (!is_break && inspect(character.encode_utf8(&mut [0; 4])).is_clean())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_as_its_number() {
        assert_eq!(
            visible("a\u{1b}[2J\r\nb\u{202e}c\u{9b}d\u{7f}é\t"),
            "a\\u{1b}[2J\\u{d}\\u{a}b\\u{202e}c\\u{9b}d\\u{7f}é\\u{9}"
        );
        let json = visible_json("{\"a\":\"\\u001b[2J \u{202e}\u{e0041}\u{9b}\"}".as_bytes());
        assert_eq!(json, "{\n  \"a\": \"\\u001b[2J \\u202e\\udb40\\udc41\\u009b\"\n}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["a"], "\u{1b}[2J \u{202e}\u{e0041}\u{9b}");
    }
}

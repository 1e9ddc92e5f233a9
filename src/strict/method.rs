//! The methods of MCP, and names that could be taken for one of them.

use icu_properties::{CodePointSetData, CodePointSetDataBorrowed, props::DefaultIgnorableCodePoint};
use unicode_normalization::UnicodeNormalization;

/// Requests and notifications of MCP 2024-11-05 to 2026-07-28 and its published extensions, in
/// both directions, sorted.
const KNOWN: &[&str] = &[
    "completion/complete",
    "elicitation/create",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/elicitation/complete",
    "notifications/elicitation/response",
    "notifications/initialized",
    "notifications/message",
    "notifications/progress",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/roots/list_changed",
    "notifications/subscriptions/acknowledged",
    "notifications/tasks",
    "notifications/tasks/status",
    "notifications/tools/list_changed",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/directory/read",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "roots/list",
    "sampling/createMessage",
    "server/discover",
    "skills/get",
    "skills/list",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tools/call",
    "tools/list",
];

/// What Unicode says to show as nothing: zero-width characters, bidi controls, tags, fillers.
const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();

/// Whether a method is not one of MCP's, but is told from one only by case, by compatibility
/// forms such as full-width letters, or by characters that nobody sees.
pub(super) fn is_lookalike(method: &str) -> bool {
    if KNOWN.contains(&method) {
        return false;
    }
    if method.is_ascii() {
        return KNOWN.iter().any(|known| known.eq_ignore_ascii_case(method));
    }
    KNOWN.iter().any(|known| folded(method).eq(known.chars().flat_map(fold)))
}

/// Whether a text is made as the names of methods are: a lookalike of another script is none.
pub(super) fn is_name(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./$-".contains(&byte))
}

/// The characters of a text in NFKC, without default-ignorable ones and without case.
fn folded(text: &str) -> impl Iterator<Item = char> {
    text.nfkc().filter(|character| !IGNORABLE.contains(*character)).flat_map(fold)
}

/// Folds case at least as far as Unicode's full case folding, as far as ASCII is concerned:
/// `ẞ` and `ß` give `ss`. The dotless `ı` gives `i`, too.
fn fold(character: char) -> impl Iterator<Item = char> {
    character.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_method_and_one_that_differs_in_a_letter_pass() {
        for known in KNOWN {
            assert!(!is_lookalike(known), "{known}");
            assert!(!is_lookalike(&format!("{known}x")), "{known}");
            assert!(!is_lookalike(&format!("é{known}")), "{known}");
        }
        assert!(!is_lookalike("") && !is_lookalike("\u{200b}") && !is_lookalike("acme/call"));
    }

    #[test]
    fn each_known_method_has_lookalikes() {
        for known in KNOWN {
            let wide = |character: char| match character {
                '!'..='~' => char::from_u32(u32::from(character) + 0xFEE0).unwrap(),
                _ => character,
            };
            for lookalike in [
                known.to_uppercase(),
                known.chars().map(wide).collect(),
                format!("\u{feff}{known}"),
                format!("{known}\u{e0061}"),
                known.chars().flat_map(|character| [character, '\u{200d}']).collect(),
            ] {
                assert!(is_lookalike(&lookalike), "{lookalike}");
            }
        }
    }

    #[test]
    fn letters_that_fold_to_ascii_make_lookalikes() {
        for lookalike in [
            "Tools/Call",
            "tools/ｃall",
            "tools\u{200b}/call",
            "tool\u{17f}/call",
            "tas\u{212a}s/get",
            "pıng",
            "notifications/progreß",
            "notifications/progreẞ",
            "𝐩𝐢𝐧𝐠",
            "pro\u{34f}mpts/list",
            "prompts/list\u{fe0f}",
            "\u{202e}ping",
            "logging/setlevel",
            "ⓟing",
            "noti\u{fb01}cations/message",
        ] {
            assert!(is_lookalike(lookalike), "{lookalike}");
        }
    }

    #[test]
    fn every_single_character_swap_that_nfkc_and_lower_case_undo_is_caught() {
        for character in ('\u{80}'..=char::MAX).filter(|character| character.is_alphanumeric()) {
            let plain: String = character.to_string().nfkc().flat_map(char::to_lowercase).collect();
            if let [letter @ b'a'..=b'z'] = plain.as_bytes() {
                let letter = char::from(*letter);
                let known = KNOWN.iter().find(|known| known.contains(letter));
                assert!(known.is_none_or(|known| is_lookalike(&known.replacen(
                    letter,
                    &character.to_string(),
                    1
                ))));
            }
        }
    }
}

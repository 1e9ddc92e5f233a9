//! U+200C: where it goes, and its rule written a second time.

use std::sync::LazyLock;

use icu_properties::{
    CodePointMapData,
    props::{IndicSyllabicCategory, JoiningType},
};
use proptest::prelude::*;
use regex::Regex;

use super::{cleaned, inspect, texts};

#[test]
fn a_non_joiner_goes_where_it_serves_no_letter() {
    // What it is, the text, what stays, what was found.
    let cases = [
        (
            "non-joiners in a row at the end of a Persian word",
            "می\u{200C}\u{200C} خواهم\u{200C}\u{200C}\u{200C}",
            "می\u{200C} خواهم\u{200C}",
            "3 zero-width characters",
        ),
        (
            "non-joiners in a row between Latin and Persian",
            "PDF\u{200C}\u{200C}ها",
            "PDF\u{200C}ها",
            "1 zero-width character",
        ),
        ("a non-joiner between Latin letters", "می P\u{200C}D ها", "می PD ها", "1 zero-width character"),
        ("a non-joiner at the end of a Latin word", "PDF\u{200C}", "PDF", "1 zero-width character"),
        (
            "a non-joiner between a Latin word and a space",
            "PDF\u{200C} ها",
            "PDF ها",
            "1 zero-width character",
        ),
        (
            "a non-joiner between a space and a Latin word",
            "ها \u{200C}PDF",
            "ها PDF",
            "1 zero-width character",
        ),
        ("non-joiners between digits", "۶\u{200C}۰ 6\u{200C}0", "۶۰ 60", "2 zero-width characters"),
        ("a non-joiner after a number", "سال ۶۰\u{200C} ها", "سال ۶۰ ها", "1 zero-width character"),
        ("a non-joiner between punctuation", "(ها)\u{200C}.", "(ها).", "1 zero-width character"),
        ("a non-joiner between spaces", "ها \u{200C} ها", "ها  ها", "1 zero-width character"),
        ("a non-joiner between Hebrew letters", "ש\u{200C}ל", "של", "1 zero-width character"),
        ("a non-joiner after a last Hindi letter", "क\u{200C} क", "क क", "1 zero-width character"),
        (
            "non-joiners on both sides of one Persian letter",
            "1\u{200C}ا\u{200C}1\u{200C}ا\u{200C}",
            "1\u{200C}ا1\u{200C}ا",
            "2 zero-width characters",
        ),
        (
            "non-joiners among the points of one Persian letter",
            "ب\u{200C}\u{64E}\u{200C}\u{651}\u{200C}.",
            "ب\u{64E}\u{651}\u{200C}.",
            "2 zero-width characters",
        ),
        (
            "joiners among flags of tags after a Persian letter",
            "ب🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}\u{200C}\
             🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}\u{200D}",
            "ب🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}\
             🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "2 zero-width characters",
        ),
        (
            "a non-joiner after a joiner or a mark in Persian",
            "ه\u{200D}\u{200C}ها می\u{200F}\u{200C}ها",
            "ه\u{200D}ها می\u{200F}ها",
            "2 zero-width characters",
        ),
        (
            "a non-joiner and a mark at the end of a Persian word",
            "می\u{200C}\u{200F}.",
            "می\u{200F}.",
            "1 zero-width character",
        ),
        (
            "non-joiners beside what is always removed",
            "a\u{200C}\u{E0041}b ب\u{200C}\u{1B}[m.",
            "ab ب\u{200C}.",
            "1 tag character, 1 zero-width character, 1 escape sequence",
        ),
    ];
    for (name, text, kept, found) in cases {
        assert_eq!(cleaned(text).escape_unicode().to_string(), kept.escape_unicode().to_string(), "{name}");
        assert_eq!(inspect(text).to_string(), found, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_naive_filter_agrees_on_non_joiners(text in texts_with_non_joiners()) {
        prop_assert_eq!(cleaned(&text), naive_non_joiners(&text), "{}", text.escape_unicode());
    }

    #[test]
    fn each_non_joiner_that_stays_has_a_letter_of_its_own(text in prop_oneof![texts(), texts_with_non_joiners()]) {
        let kept = cleaned(&text);
        let letters = kept.chars().filter(|character| takes_non_joiners(*character)).count();
        let non_joiners = kept.matches('\u{200C}').count();
        prop_assert!(non_joiners <= letters, "{non_joiners} on {letters}: {}", kept.escape_unicode());
        let in_a_row = kept.contains("\u{200C}\u{200C}");
        prop_assert!(!in_a_row);
    }
}

/// The non-joiners of a text without any other hidden character, judged a second time.
fn naive_non_joiners(text: &str) -> String {
    static STARTS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[\p{Arabic}\p{Syriac}&&\p{L}]").unwrap());
    static ENDS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(^|[^\u{200C}])[\p{Arabic}\p{Syriac}&&\p{L}]\p{Mn}*$").unwrap());
    let mut kept = String::new();
    for (at, character) in text.char_indices() {
        let (_, after) = text.split_at(at + character.len_utf8());
        let stays = character != '\u{200C}'
            || !kept.ends_with('\u{200C}')
                && (STARTS.is_match(after)
                    || ENDS.is_match(&kept) && !after.starts_with(is_mark_or_non_joiner));
        kept.extend(stays.then_some(character));
    }
    kept
}

fn is_mark_or_non_joiner(character: char) -> bool {
    matches!(character, '\u{64E}' | '\u{301}' | '\u{20DD}' | '\u{200C}')
}

/// A letter of a script whose letters join, or a letter or mark of the Indic kind.
fn takes_non_joiners(character: char) -> bool {
    static LETTER_OR_MARK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{L}\p{M}]").unwrap());
    static ARABIC: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{Arabic}&&\p{L}]").unwrap());
    let joining = CodePointMapData::<JoiningType>::new().get(character);
    let indic = CodePointMapData::<IndicSyllabicCategory>::new().get(character);
    let text = character.to_string();
    matches!(joining, JoiningType::DualJoining | JoiningType::RightJoining | JoiningType::LeftJoining)
        || ARABIC.is_match(&text)
        || indic != IndicSyllabicCategory::Other && LETTER_OR_MARK.is_match(&text)
}

/// Texts of letters, digits and signs about non-joiners.
fn texts_with_non_joiners() -> impl Strategy<Value = String> {
    let others =
        vec!['ب', 'ا', 'ܫ', '\u{64E}', '\u{301}', '\u{20DD}', '۶', '6', 'a', 'א', ' ', '\n', '»', '.'];
    let character = prop_oneof![Just('\u{200C}'), prop::sample::select(others)];
    prop::collection::vec(character, 0..24).prop_map(String::from_iter)
}

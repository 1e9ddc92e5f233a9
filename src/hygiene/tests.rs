use std::sync::LazyLock;

use icu_properties::{
    CodePointSetData,
    props::{BidiControl, DefaultIgnorableCodePoint, NoncharacterCodePoint},
};
use proptest::prelude::*;
use regex::Regex;
use serde_json::json;

use super::*;
use class::Class;

mod non_joiners;
mod ordinary;

fn cleaned(text: &str) -> String {
    clean(text).0.into_owned()
}

#[test]
fn ordinary_text_stays_byte_for_byte() {
    for (name, text) in ordinary::TEXTS {
        assert_eq!(inspect(text), Findings::default(), "{name}: {}", text.escape_unicode());
        assert!(matches!(clean(text), (Cow::Borrowed(kept), _) if kept == *text), "{name}");
    }
}

#[test]
fn ordinary_texts_stay_side_by_side() {
    for (left_name, left) in ordinary::TEXTS {
        for (right_name, right) in ordinary::TEXTS {
            let text = format!("{left}\n{right}");
            assert_eq!(inspect(&text), Findings::default(), "{left_name} and {right_name}");
        }
    }
}

#[test]
fn each_hidden_thing_is_counted_and_removed() {
    // What it is, the text, what stays, what was found.
    let cases = [
        ("tags", "hi\u{E0001}\u{E0068}\u{E007F}", "hi", "3 tag characters"),
        (
            "a flag with more tags",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}\u{E0061}",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "1 tag character",
        ),
        ("a flag of no country", "🏴\u{E0075}\u{E0073}\u{E0074}\u{E0078}\u{E007F}", "🏴", "5 tag characters"),
        (
            "flag tags without a flag",
            "\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "",
            "6 tag characters",
        ),
        (
            "flag tags apart from their flag",
            "🏴\u{200B}\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "🏴",
            "6 tag characters, 1 zero-width character",
        ),
        (
            "a selector after a flag of tags",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}\u{FE0F}\u{200D}☠",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}☠",
            "1 zero-width character, 1 stray variation selector",
        ),
        ("an override", "user\u{202E}txt.exe\u{202C}", "usertxt.exe", "2 bidi controls"),
        ("an override in Hebrew", "שלום\u{202D}עולם\u{202C}", "שלוםעולם", "2 bidi controls"),
        ("isolates", "\u{2066}a\u{2067}b\u{2068}c\u{2069}", "abc", "4 bidi controls"),
        ("marks in Latin text", "a\u{200E}b\u{200F}c\u{61C}d", "abcd", "3 bidi controls"),
        ("marks in a row", "שלום\u{200F}\u{200F}\u{200F}", "שלום\u{200F}", "2 bidi controls"),
        ("a mark a line away from Hebrew", "שלום\nabc\u{200F}", "שלום\nabc", "1 bidi control"),
        (
            "a mark far from Hebrew",
            "שלום                 \u{200F}.",
            "שלום                 .",
            "1 bidi control",
        ),
        ("a zero-width space in a word", "ig\u{200B}nore", "ignore", "1 zero-width character"),
        ("two in Thai", "ภาษา\u{200B}\u{200B}ไทย", "ภาษา\u{200B}ไทย", "1 zero-width character"),
        ("joiners in a word", "i\u{200C}g\u{200D}n", "ign", "2 zero-width characters"),
        (
            "non-joiners in a row in Persian",
            "می\u{200C}\u{200C}خواهم",
            "می\u{200C}خواهم",
            "1 zero-width character",
        ),
        (
            "bits of joiners after emoji",
            "😀\u{200D}\u{200C}\u{200D}\u{200D}",
            "😀",
            "4 zero-width characters",
        ),
        ("bits of joiners between emoji", "😀\u{200D}\u{200D}😀", "😀\u{200D}😀", "1 zero-width character"),
        ("joiners in Hindi in a row", "क्\u{200D}\u{200C}\u{200D}ष", "क्\u{200D}ष", "2 zero-width characters"),
        ("word joiner, byte order mark", "\u{FEFF}a\u{2060}b", "ab", "2 zero-width characters"),
        ("invisible operators", "f\u{2061}x\u{2062}y\u{2063}z\u{2064}", "fxyz", "4 zero-width characters"),
        ("deprecated formats", "a\u{206A}\u{206F}", "a", "2 zero-width characters"),
        ("a soft hyphen", "ig\u{AD}nore", "ignore", "1 zero-width character"),
        ("a grapheme joiner in Latin", "c\u{34F}h", "ch", "1 zero-width character"),
        ("Hangul fillers", "\u{115F}\u{1160}\u{3164}\u{FFA0}", "", "4 zero-width characters"),
        ("Khmer inherent vowels", "ក\u{17B4}\u{17B5}", "ក", "2 zero-width characters"),
        ("a Mongolian separator in Latin", "a\u{180E}b", "ab", "1 zero-width character"),
        ("Mongolian selectors in Latin", "a\u{180B}\u{180F}b", "ab", "2 stray variation selectors"),
        ("annotations", "\u{FFF9}a\u{FFFA}b\u{FFFB}", "ab", "3 zero-width characters"),
        ("musical formats", "\u{1D173}𝄞\u{1D17A}", "𝄞", "2 zero-width characters"),
        ("shorthand formats", "\u{1BCA0}\u{1BCA3}", "", "2 zero-width characters"),
        (
            "bytes as selectors after an emoji",
            "😀\u{E0158}\u{E0155}\u{FE01}\u{FE0C}",
            "😀",
            "4 stray variation selectors",
        ),
        (
            "bytes as selectors after a letter",
            "a\u{FE00}\u{FE0F}\u{E0100}",
            "a",
            "3 stray variation selectors",
        ),
        (
            "selectors in a row after an ideograph",
            "葛\u{E0100}\u{E0101}",
            "葛\u{E0100}",
            "1 stray variation selector",
        ),
        ("a selector after a digit that is no keycap", "1\u{FE0F}2", "12", "1 stray variation selector"),
        ("a selector at the start", "\u{FE0F}a", "a", "1 stray variation selector"),
        (
            "unassigned ignorable code points",
            "a\u{2065}\u{FFF0}\u{E0FFF}\u{E0080}",
            "a",
            "4 zero-width characters",
        ),
        ("noncharacters", "a\u{FFFE}\u{FFFF}\u{FDD0}\u{FDEF}\u{1FFFE}\u{10FFFF}", "a", "6 noncharacters"),
        ("controls", "a\0\u{8}\u{B}\u{C}\u{7F}\u{85}\u{9C}b", "ab", "7 control characters"),
        ("colours", "\u{1B}[1;31mred\u{1B}[0m", "red", "2 escape sequences"),
        ("colours in eight bits", "\u{9B}38:5:1mred\u{9B}m", "red", "2 escape sequences"),
        ("a screen erased", "secret\u{1B}[2J\u{1B}[Hhello", "secrethello", "2 escape sequences"),
        ("a title", "\u{1B}]0;title\u{7}text", "text", "1 escape sequence"),
        ("a link", "\u{1B}]8;;http://x\u{1B}\\link\u{1B}]8;;\u{1B}\\", "link", "2 escape sequences"),
        ("a link in eight bits", "\u{9D}8;;http://x\u{9C}link", "link", "1 escape sequence"),
        ("device control", "\u{1B}P1$r0m\u{1B}\\a\u{90}q\u{9C}b", "ab", "2 escape sequences"),
        (
            "APC, PM, SOS",
            "\u{1B}_a\u{1B}\\\u{1B}^b\u{1B}\\\u{1B}Xc\u{1B}\\\u{9F}d\u{9C}\u{9E}e\u{9C}\u{98}f\u{9C}.",
            ".",
            "6 escape sequences",
        ),
        ("a character set, a reset", "\u{1B}(0a\u{1B}cb\u{1B}7", "ab", "3 escape sequences"),
        ("a sequence cut off", "text\u{1B}[31", "text31", "1 escape sequence"),
        ("an escape at the end", "text\u{1B}", "text", "1 escape sequence"),
        ("escape before a letter of another script", "\u{1B}é", "é", "1 escape sequence"),
        (
            "a title without an end",
            "\u{1B}]0;the rest stays in sight",
            "0;the rest stays in sight",
            "1 escape sequence",
        ),
        (
            "a title that ends on another line",
            "\u{1B}]0;one\ntwo\u{7}",
            "0;one\ntwo",
            "1 escape sequence, 1 control character",
        ),
        (
            "device control and a bell",
            "\u{1B}Pone\u{7}two",
            "onetwo",
            "1 escape sequence, 1 control character",
        ),
        ("escapes that hide escapes", "\u{1B}\u{1B}[\u{1B}[31mm", "m", "3 escape sequences"),
        (
            "hidden characters in a sequence",
            "\u{1B}[\u{200B}31m",
            "31m",
            "1 zero-width character, 1 escape sequence",
        ),
        ("hidden characters in a title", "\u{1B}]0;\u{200B}\u{E0041}\u{7}", "", "1 escape sequence"),
        (
            "a joiner made by removal",
            "👩\u{200B}\u{200D}\u{E0041}💻",
            "👩\u{200D}💻",
            "1 tag character, 1 zero-width character",
        ),
    ];
    for (name, text, kept, found) in cases {
        assert_eq!(cleaned(text).escape_unicode().to_string(), kept.escape_unicode().to_string(), "{name}");
        assert_eq!(inspect(text).to_string(), found, "{name}");
    }
}

#[test]
fn text_behind_a_string_that_is_too_long_stays_in_sight() {
    let text = |length: usize| format!("\u{1B}]{}\u{7}.", "x".repeat(length));
    assert_eq!(cleaned(&text(4095)), ".");
    assert_eq!(cleaned(&text(4096)), format!("{}.", "x".repeat(4096)));
    let text = |length: usize| format!("\u{1B}[{}m.", "1".repeat(length));
    assert_eq!(cleaned(&text(128)), ".");
    assert_eq!(cleaned(&text(129)), format!("{}m.", "1".repeat(129)));
}

#[test]
fn a_hostile_text_makes_work_in_proportion_to_its_length() {
    // Each of these would be quadratic if a look ahead went on to the end of the text.
    for piece in [
        "\u{1B}]",
        "\u{1B}[1",
        "\u{200F}",
        "\u{200D}",
        "א\u{200F} ",
        "\u{1B}Px\u{200F}",
        "\u{200F}\u{200B}",
        "\u{200F}\u{E0041}",
        "\u{200F}\u{1B}[1m",
        "\u{200C}\u{E0041}",
        "ب\u{200C}\u{1B}[1m",
    ] {
        let work = |repeats: usize| {
            work::DONE.set(0);
            let text = piece.repeat(repeats);
            assert_eq!(inspect(&text), clean(&text).1);
            work::DONE.get()
        };
        let (one, ten) = (work(1_000), work(10_000));
        let shown = piece.escape_unicode();
        assert!(one >= 2_000, "{shown}: {one} steps are fewer than it takes");
        assert!(ten <= one * 11, "{shown}: {one} steps grew to {ten}");
    }
}

#[test]
fn every_ignorable_code_point_of_unicode_has_a_rule() {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let bidi = CodePointSetData::new::<BidiControl>();
    let noncharacter = CodePointSetData::new::<NoncharacterCodePoint>();
    for character in '\0'..=char::MAX {
        let control = character.is_control() && !matches!(character, '\t' | '\n' | '\r');
        // Outside ASCII-like letters, these are all that a reader does not see.
        let hidden = control
            || ignorable.contains(character)
            || bidi.contains(character)
            || noncharacter.contains(character)
            || matches!(character, '\u{FFF9}'..='\u{FFFB}');
        assert_eq!(class::of(character) != Class::Plain, hidden, "{}", character.escape_unicode());
    }
}

/// The always-forbidden, written a second time: by regular expression and by Unicode's properties.
fn naive_plain(text: &str) -> String {
    static SEQUENCES: LazyLock<Regex> = LazyLock::new(|| {
        let payload = r"[^\x00-\x1F\x7F-\u{9F}]*";
        let st = r"(?:\x1B\\|\u{9C})";
        Regex::new(&format!(
            r"(?:\x1B\[|\u{{9B}})(?:[0-?]*[ -/]*[@-~])?|(?:\x1B\]|\u{{9D}})(?:{payload}(?:\x07|{st}))?|(?:\x1B[PX^_]|[\u{{90}}\u{{98}}\u{{9E}}\u{{9F}}])(?:{payload}{st})?|\x1B(?:[ -/]{{0,4}}[0-~])?"
        ))
        .unwrap()
    });
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let bidi = CodePointSetData::new::<BidiControl>();
    let noncharacter = CodePointSetData::new::<NoncharacterCodePoint>();
    let is_plain = |character: &char| {
        let control = character.is_control() && !matches!(character, '\t' | '\n' | '\r');
        let annotation = ('\u{FFF9}'..='\u{FFFB}').contains(character);
        !(control
            || annotation
            || ignorable.contains(*character)
            || bidi.contains(*character)
            || noncharacter.contains(*character))
    };
    SEQUENCES.replace_all(text, "").chars().filter(is_plain).collect()
}

/// What may stay although it is not plain: what is judged by its neighbours, and the tags of flags.
fn without_judged(text: &str) -> String {
    let judged = |character: &char| {
        matches!(*character,
            '\u{34F}' | '\u{61C}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
    };
    let flags = ["gbeng", "gbsct", "gbwls"].map(|name| {
        let tags = name.chars().map(|letter| char::from_u32(0xE0000 + letter as u32).unwrap());
        format!("🏴{}\u{E007F}", tags.collect::<String>())
    });
    let text = flags.iter().fold(text.to_owned(), |text, flag| text.replace(flag, "🏴"));
    text.chars().filter(|character| !judged(character)).collect()
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut whole = whole.chars();
    part.chars().all(|wanted| whole.any(|character| character == wanted))
}

/// Texts in which what matters is frequent and close together.
fn texts() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "\u{1B}",
        "\u{1B}[",
        "\u{1B}]",
        "\u{1B}P",
        "\u{1B}\\",
        "\u{7}",
        "\u{9B}",
        "\u{9D}",
        "\u{9C}",
        "\u{90}",
        "\u{98}",
        "[",
        "]",
        "\\",
        "m",
        "1",
        ";",
        " ",
        "\n",
        "\u{200B}",
        "\u{200C}",
        "\u{200D}",
        "\u{200E}",
        "\u{200F}",
        "\u{61C}",
        "\u{202E}",
        "\u{2069}",
        "\u{FE0E}",
        "\u{FE0F}",
        "\u{FE00}",
        "\u{E0100}",
        "\u{E0101}",
        "\u{180B}",
        "\u{180E}",
        "\u{34F}",
        "\u{AD}",
        "\u{FEFF}",
        "\u{FFFE}",
        "🏴",
        "\u{E0067}",
        "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        "\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        "\u{E007F}",
        "a",
        "é",
        "א",
        "\u{5B8}",
        "\u{5B4}",
        "ب",
        "ه",
        "\u{64E}",
        "١",
        "क",
        "\u{94D}",
        "ส",
        "ក",
        "\u{17D2}",
        "ᠨ",
        "葛",
        "≨",
        "😀",
        "👩",
        "💻",
        "🏽",
        "\u{20E3}",
        "❤",
        "\u{301}",
        "𓂀",
        "-",
    ]);
    let piece = prop_oneof![
        8 => special.prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => prop::sample::select(ordinary::TEXTS).prop_map(|(_, text)| text.to_owned()),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_cleaned_text_is_clean_and_part_of_the_text(text in texts()) {
        let (kept, findings) = clean(&text);
        prop_assert_eq!(findings, inspect(&text));
        prop_assert_eq!(inspect(&kept), Findings::default(), "{}", kept.escape_unicode());
        prop_assert!(matches!(clean(&kept), (Cow::Borrowed(again), _) if again == kept));
        prop_assert!(is_subsequence(&kept, &text));
        prop_assert_eq!(findings.total() == 0, matches!(kept, Cow::Borrowed(_)));
        prop_assert_eq!(findings.total() == 0, kept == text);
    }

    #[test]
    fn a_naive_filter_agrees_on_what_is_always_removed(text in texts()) {
        prop_assert_eq!(without_judged(&cleaned(&text)), naive_plain(&text), "{}", text.escape_unicode());
    }

    #[test]
    fn what_people_cannot_see_never_stands_in_a_row(text in texts()) {
        // A selector may stand before a joiner or a mark; nothing else follows what is not seen.
        let hidden: Vec<bool> = cleaned(&text)
            .chars()
            .map(|character| matches!(class::of(character), Class::Contextual(_)))
            .collect();
        prop_assert!(!hidden.windows(4).any(|run| run.iter().all(|hidden| *hidden)));
    }
}

#[test]
fn strings_and_names_of_a_value_are_inspected_at_every_depth() {
    assert_eq!(inspect_value(&json!({"a": ["ordinary", 1, null, true, {"b": "שלום"}]})), None);
    let value = json!({"a": ["x", {"b/~\u{200B}": "c\u{202E}", "d": "\u{1B}[m"}], "z\0": 1});
    let (pointer, findings) = inspect_value(&value).unwrap();
    assert_eq!(pointer, "/a/1/b~1~0");
    assert_eq!(
        findings.to_string(),
        "1 bidi control, 1 zero-width character, 1 escape sequence, 1 control character"
    );
    assert_eq!(
        inspect_value(&json!("\0")),
        Some((String::new(), Findings { controls: 1, ..Findings::default() }))
    );
}

#[test]
fn a_value_is_cleaned_in_place() {
    let mut value = json!({"a": ["x", {"b\u{200B}": "c\u{202E}", "d": "\u{1B}[m."}], "z\0": 1});
    let (_, found) = inspect_value(&value).unwrap();
    assert_eq!(clean_value(&mut value), Ok(found));
    assert_eq!(value, json!({"a": ["x", {"b": "c", "d": "."}], "z": 1}));
    assert_eq!(clean_value(&mut value), Ok(Findings::default()));
}

#[test]
fn names_that_become_one_are_refused_and_nothing_is_changed() {
    let value = json!({"list": [{"admin": false, "ad\u{200B}min": true, "text": "\0"}]});
    let mut changed = value.clone();
    let collision = clean_value(&mut changed).unwrap_err();
    assert_eq!(
        collision.to_string(),
        "two members of the object at `/list/0` are both called `admin` once hidden characters are removed"
    );
    assert_eq!(changed, value);
}

#[test]
fn a_record_names_only_what_was_found() {
    let findings = inspect("\u{E0041}\u{E0042}\u{1B}[m");
    assert_eq!(serde_json::to_value(findings).unwrap(), json!({"tags": 2, "escapes": 1}));
    assert_eq!(serde_json::to_value(Findings::default()).unwrap(), json!({}));
}

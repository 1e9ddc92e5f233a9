//! The scanner against JSONTestSuite (Nicolas Seriot's "Parsing JSON is a minefield").

use std::{collections::BTreeMap, fs, path::Path};

use callgate::strict::{Bounds, Rule, scan};

/// Valid JSON that we refuse all the same, and why.
const REFUSED_BY_DESIGN: &[(&str, Rule)] = &[
    ("y_object_duplicated_key.json", Rule::DuplicateKey),
    ("y_object_duplicated_key_and_value.json", Rule::DuplicateKey),
];

/// What RFC 8259 leaves open: all refused, and why.
const UNDEFINED: &[(&str, Rule)] = &[
    ("i_number_double_huge_neg_exp.json", Rule::Number),
    ("i_number_huge_exp.json", Rule::Number),
    ("i_number_neg_int_huge_exp.json", Rule::Number),
    ("i_number_pos_double_huge_exp.json", Rule::Number),
    ("i_number_real_neg_overflow.json", Rule::Number),
    ("i_number_real_pos_overflow.json", Rule::Number),
    ("i_number_real_underflow.json", Rule::Number),
    ("i_number_too_big_neg_int.json", Rule::Number),
    ("i_number_too_big_pos_int.json", Rule::Number),
    ("i_number_very_big_negative_int.json", Rule::Number),
    ("i_object_key_lone_2nd_surrogate.json", Rule::Surrogate),
    ("i_string_1st_surrogate_but_2nd_missing.json", Rule::Surrogate),
    ("i_string_1st_valid_surrogate_2nd_invalid.json", Rule::Surrogate),
    ("i_string_UTF-16LE_with_BOM.json", Rule::Utf8),
    ("i_string_UTF-8_invalid_sequence.json", Rule::Utf8),
    ("i_string_UTF8_surrogate_U+D800.json", Rule::Utf8),
    ("i_string_incomplete_surrogate_and_escape_valid.json", Rule::Surrogate),
    ("i_string_incomplete_surrogate_pair.json", Rule::Surrogate),
    ("i_string_incomplete_surrogates_escape_valid.json", Rule::Surrogate),
    ("i_string_invalid_lonely_surrogate.json", Rule::Surrogate),
    ("i_string_invalid_surrogate.json", Rule::Surrogate),
    ("i_string_invalid_utf-8.json", Rule::Utf8),
    ("i_string_inverted_surrogates_U+1D11E.json", Rule::Surrogate),
    ("i_string_iso_latin_1.json", Rule::Utf8),
    ("i_string_lone_second_surrogate.json", Rule::Surrogate),
    ("i_string_lone_utf8_continuation_byte.json", Rule::Utf8),
    ("i_string_not_in_unicode_range.json", Rule::Utf8),
    ("i_string_overlong_sequence_2_bytes.json", Rule::Utf8),
    ("i_string_overlong_sequence_6_bytes.json", Rule::Utf8),
    ("i_string_overlong_sequence_6_bytes_null.json", Rule::Utf8),
    ("i_string_truncated-utf-8.json", Rule::Utf8),
    ("i_string_utf16BE_no_BOM.json", Rule::Utf8),
    ("i_string_utf16LE_no_BOM.json", Rule::Utf8),
    ("i_structure_500_nested_arrays.json", Rule::Depth),
    ("i_structure_UTF-8_BOM_empty_object.json", Rule::Bom),
];

/// The files whose names start so, and the scanner's verdicts.
fn verdicts(kind: &str) -> BTreeMap<String, Option<Rule>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/suites/json");
    let Ok(files) = fs::read_dir(&folder) else {
        panic!("JSONTestSuite is not in {}: run ./test, which installs it", folder.display());
    };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let verdict = |name: &String| scan(&fs::read(folder.join(name)).unwrap(), Bounds::REQUEST).err();
    names
        .filter(|name| name.starts_with(kind) && name.ends_with(".json"))
        .map(|name| (verdict(&name).map(|fault| fault.rule), name))
        .map(|(rule, name)| (name, rule))
        .collect()
}

#[test]
fn all_valid_json_is_accepted_but_equal_keys() {
    let verdicts = verdicts("y_");
    assert_eq!(verdicts.len(), 95);
    let refused: Vec<_> =
        verdicts.iter().filter_map(|(name, rule)| rule.map(|rule| (name.as_str(), rule))).collect();
    assert_eq!(refused, REFUSED_BY_DESIGN);
}

#[test]
fn all_malformed_json_is_refused() {
    let verdicts = verdicts("n_");
    assert_eq!(verdicts.len(), 188);
    let accepted: Vec<_> = verdicts.iter().filter(|(_, rule)| rule.is_none()).collect();
    assert!(accepted.is_empty(), "{accepted:?}");
    // Refused for what they are, and not for a limit or a number that is none of their point.
    let mut counts = BTreeMap::new();
    for rule in verdicts.values().flatten() {
        *counts.entry(rule.word()).or_insert(0) += 1;
    }
    let expected = [("bom", 1), ("depth", 2), ("number", 1), ("surrogate", 6), ("syntax", 166), ("utf8", 12)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn what_the_rfc_leaves_open_has_one_answer_each() {
    let verdicts = verdicts("i_");
    assert_eq!(verdicts.len(), 35);
    let listed: BTreeMap<_, _> =
        UNDEFINED.iter().map(|(name, rule)| ((*name).to_owned(), Some(*rule))).collect();
    assert_eq!(verdicts, listed);
}

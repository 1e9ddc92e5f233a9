use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;
use crate::credential::{LiveSecret, LiveSecrets};

const SECRETS: [&str; 7] = [
    "12345678",
    "canary-0123456789-secret",
    "with \"quotes\" \\ back/slash",
    "p%41ss+word? & more>>>",
    "schlüssel-文字-🔑",
    "line one\nline two\ttab",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJnYXRlIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg",
];

const RESERVED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b'/').add(b'?').add(b'&').add(b'>');

fn holding(secrets: &[&str]) -> (LiveSecrets, Vec<LiveSecret>) {
    let live = LiveSecrets::default();
    let held = secrets.iter().map(|secret| live.insert("orders", &(*secret).into())).collect();
    (live, held)
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted.trim_start_matches('"').strip_suffix('"').unwrap().to_owned()
}

fn all_escaped(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn percent(text: &str, byte: impl Fn(u8) -> String) -> String {
    text.bytes().map(byte).collect()
}

/// Every form, with what it is called.
fn forms(secret: &str) -> Vec<(String, String)> {
    let mut forms = vec![
        ("raw".into(), secret.to_owned()),
        ("hex".into(), hex::encode(secret)),
        ("HEX".into(), hex::encode_upper(secret)),
        ("json".into(), json(secret)),
        ("json in json".into(), json(&json(secret))),
        ("json in json in json".into(), json(&json(&json(secret)))),
        ("\\u of every character".into(), all_escaped(secret)),
        ("debug".into(), format!("{secret:?}")),
        ("debug of bytes".into(), secret.as_bytes().escape_ascii().to_string()),
        ("percent, reserved".into(), utf8_percent_encode(secret, RESERVED).to_string()),
        ("percent, not letters".into(), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()),
        ("percent, all".into(), percent(secret, |byte| format!("%{byte:02X}"))),
        ("percent, all, lower".into(), percent(secret, |byte| format!("%{byte:02x}"))),
        ("percent twice".into(), percent(secret, |byte| format!("%25{byte:02x}"))),
        ("form".into(), url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()),
        ("percent in json".into(), json(&percent(&json(secret), |byte| format!("%{byte:02X}")))),
    ];
    let engines =
        [("std", STANDARD), ("std-", STANDARD_NO_PAD), ("url", URL_SAFE), ("url-", URL_SAFE_NO_PAD)];
    for (name, engine) in engines {
        for before in ["", "a", "ab", "user:", "gate:", "Aladdin:"] {
            for after in ["", "!", "!!"] {
                let text = engine.encode(format!("{before}{secret}{after}"));
                forms.push((
                    format!("{name} {before:?} {after:?}, percent"),
                    percent(&text, |byte| format!("%{byte:02x}")),
                ));
                forms.push((format!("{name} {before:?} {after:?}"), text));
            }
        }
    }
    forms
}

#[test]
fn every_form_is_found_alone_at_the_borders_and_between_anything() {
    for secret in SECRETS {
        let (live, _held) = holding(&[secret]);
        for (name, form) in forms(secret) {
            for (before, after) in
                [("", ""), ("x", "y"), ("文", "字"), ("% ", "%"), ("+/=", "=+/"), ("{\"a\": \"", "\"}")]
            {
                let text = format!("{before}{form}{after}");
                assert!(live.find(text.as_bytes()).is_some(), "{secret:?} {name}: {text}");
            }
        }
    }
}

#[test]
fn what_is_left_after_scrubbing_holds_no_form() {
    for secret in SECRETS {
        let (live, _held) = holding(&[secret]);
        for (name, form) in forms(secret) {
            let text = format!("before {form} between {form} after");
            let scrubbed = String::from_utf8(live.scrub(text.as_bytes()).unwrap()).unwrap();
            assert!(live.find(scrubbed.as_bytes()).is_none(), "{secret:?} {name}: {scrubbed}");
            assert_eq!(scrubbed.matches("[secret of orders]").count(), 2, "{secret:?} {name}: {scrubbed}");
            assert!(scrubbed.starts_with("before ") && scrubbed.ends_with(" after"), "{name}: {scrubbed}");
        }
    }
}

#[test]
fn half_a_secret_or_one_with_a_byte_changed_is_none() {
    for secret in SECRETS {
        let (live, _held) = holding(&[secret]);
        let half: String = secret.chars().take(secret.chars().count() / 2).collect();
        for (_, form) in forms(&half) {
            assert_eq!(live.find(form.as_bytes()), None, "{form}");
        }
        for at in 0..secret.chars().count() {
            let changed: String =
                secret.chars().enumerate().map(|(i, c)| if i == at { '~' } else { c }).collect();
            // Where other bytes take part in a character of Base64, up to four bits of the secret's ends are not compared.
            let is_end = at == 0 || at + 1 == secret.chars().count();
            let told_apart = |name: &str| !is_end || !(name.starts_with("std") || name.starts_with("url"));
            for (name, form) in forms(&changed).into_iter().filter(|(name, _)| told_apart(name)) {
                assert_eq!(live.find(form.as_bytes()), None, "{name}: {form}");
            }
        }
        for at in 0..secret.len() {
            let mut changed = secret.as_bytes().to_vec();
            changed.remove(at);
            assert_eq!(live.find(&changed), None);
        }
    }
}

#[test]
fn a_short_secret_is_not_looked_for_and_is_named() {
    let live = LiveSecrets::default();
    let _held = [live.insert("short", &"1234567".into()), live.insert("long", &"12345678".into())];
    assert_eq!(live.too_short(), ["short"]);
    assert_eq!(live.find(b"1234567"), None);
    assert_eq!(live.find(b"12345678").unwrap().name, "long");
}

#[test]
fn a_secret_is_found_for_as_long_as_it_is_held() {
    let live = LiveSecrets::default();
    assert!(live.is_empty());
    let (one, other) =
        (live.insert("a", &"the same secret".into()), live.insert("b", &"the same secret".into()));
    drop(one);
    assert_eq!(live.find(b"the same secret").unwrap().name, "b");
    drop(other);
    assert!(live.is_empty() && live.find(b"the same secret").is_none());
}

#[test]
fn secrets_come_and_go_by_thousands_and_each_is_found() {
    let live = LiveSecrets::default();
    let name = |number: usize| format!("secret-number-{number:07}-of-many");
    let mut held = std::collections::VecDeque::new();
    for number in 0..3_000 {
        held.push_back(live.insert("orders", &name(number).into()));
        if held.len() > 500 {
            held.pop_front();
        }
    }
    for number in 0..3_000 {
        assert_eq!(live.find(name(number).as_bytes()).is_some(), number >= 2_500, "{number}");
    }
}

#[test]
fn a_secret_is_found_across_the_border_of_a_turn() {
    let secret = SECRETS[1];
    let (live, _held) = holding(&[secret]);
    for before in TURN_BYTES - 30..TURN_BYTES + 10 {
        let text = format!("{}{secret}", "x".repeat(before));
        assert_eq!(live.find(text.as_bytes()).unwrap().range, before..before + secret.len());
    }
}

#[test]
fn the_longer_of_two_secrets_is_replaced_as_a_whole() {
    let (live, _held) = holding(&["middle-of-it", "aaaaaaaa-middle-of-it-aaaaaaaa"]);
    let scrubbed = live.scrub(b"<aaaaaaaa-middle-of-it-aaaaaaaa>").unwrap();
    assert_eq!(String::from_utf8(scrubbed).unwrap(), "<[secret of orders]>");
}

#[test]
fn a_hostile_text_of_escapes_ends_soon() {
    let (live, _held) = holding(&SECRETS);
    for text in ["\\", "%", "+", "\\\\u0025", "%25", "%5c%5C", "5678", "2345678"] {
        let text = text.repeat(200_000 / text.len());
        let started = std::time::Instant::now();
        let _ = live.find(text.as_bytes());
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

proptest::proptest! {
    #[test]
    fn anything_between_anything_is_found_in_each_form(
        secret in "\\PC{8,40}", before in "[ -~]{0,9}", after in "[ -~]{0,9}", form in 0_usize..88,
    ) {
        let (live, _held) = holding(&[&secret]);
        let forms = forms(&secret);
        let (name, form) = &forms[form % forms.len()];
        // What stands before must not begin an escape that takes the form's first characters in.
        let before = before.replace(['\\', '%'], "_");
        let text = format!("{before}{form}{after}");
        proptest::prop_assert!(live.find(text.as_bytes()).is_some(), "{name}: {text}");
    }

    #[test]
    fn any_text_is_looked_at_without_a_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), escapes in "[\\\\u%+0-9a-fxX{}\"d8D]{0,60}") {
        let (live, _held) = holding(&SECRETS);
        for text in [text, escapes.into_bytes()] {
            let scrubbed = live.scrub(&text);
            proptest::prop_assert_eq!(scrubbed.is_some(), live.find(&text).is_some());
        }
    }
}

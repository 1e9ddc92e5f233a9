//! Claims: which are taken, and for which reason the others are not.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Algorithm, Confirmation, Expect, JwkSet, Signing, Unverified,
    fixture::{AUDIENCE, Draft, KEYS, now, set},
    object::encode,
    verify,
};

fn seconds() -> i64 {
    now().as_second()
}

#[track_caller]
fn refused(name: &str, value: Value, code: &str) {
    Draft::es256().refused(&format!("{name} {value}"), |draft| draft.claim(name, value), code);
}

#[track_caller]
fn taken(name: &str, value: Value) {
    let draft = Draft::es256().claim(name, value.clone());
    assert!(draft.check().is_ok(), "{name} {value}: {:?}", draft.check());
}

#[test]
fn an_audience_is_compared_character_by_character() {
    for audience in [
        "",
        "https://gate.example",
        "https://gate.example/",
        "https://gate.example/mc",
        "https://gate.example/mcp/",
        "https://gate.example/mcp/x",
        "https://gate.example/mcp?x",
        "https://gate.example/mcp#",
        "https://gate.example/MCP",
        "https://gate.example:443/mcp",
        "HTTPS://gate.example/mcp",
        "https://gate.example/%6Dcp",
        "https://gate.example.evil.example/mcp",
        " https://gate.example/mcp",
        "https://gate.example/mcp https://elsewhere.example",
        "*",
    ] {
        refused("aud", json!(audience), "audience");
        refused("aud", json!([audience]), "audience");
    }
    refused("aud", json!([]), "audience");
    refused("aud", json!(null), "claim_kind");
    refused("aud", json!(7), "claim_kind");
    refused("aud", json!({ AUDIENCE: true }), "claim_kind");
    refused("aud", json!([AUDIENCE, 7]), "claim_kind");
    refused("aud", json!([[AUDIENCE]]), "claim_kind");
    refused("aud", json!(vec![AUDIENCE; 65]), "claim_kind");
    taken("aud", json!([AUDIENCE]));
    taken("aud", json!(["https://a.example", AUDIENCE]));
}

#[test]
fn a_time_is_a_number_that_a_clock_can_show() {
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("1795435500"), json!(null), json!(true), json!([seconds() + 60]), json!({})] {
            refused(name, value, "claim_kind");
        }
        for value in [
            json!(-1),
            json!(-1.5),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(i64::MAX),
            json!(99_999_999_999_999_i64),
            json!(1e300),
        ] {
            refused(name, value, "claim_time");
        }
    }
    for name in ["iss", "sub", "aud", "exp"] {
        let what = format!("without {name}");
        Draft::es256().refused(&what, |draft| draft.without_claim(name), "claim_missing");
    }
    for name in ["nbf", "iat", "jti", "client_id", "scope"] {
        Draft::es256().without_claim(name).check().unwrap();
    }
}

#[test]
fn a_token_is_good_between_its_times_and_by_a_leeway_around_them() {
    let leeway = Expect::LEEWAY.as_secs() as i64;
    let day = 24 * 60 * 60;
    for (name, last_good, first_bad, code) in [
        ("exp", seconds() - leeway + 1, seconds() - leeway, "expired"),
        ("nbf", seconds() + leeway, seconds() + leeway + 1, "not_yet_valid"),
        ("iat", seconds() + leeway, seconds() + leeway + 1, "issued_in_future"),
        ("exp", seconds() + day + leeway, seconds() + day + leeway + 1, "lifetime"),
    ] {
        taken(name, json!(last_good));
        refused(name, json!(first_bad), code);
    }
    taken("exp", json!((seconds() - leeway) as f64 + 0.5));
    refused("exp", json!((seconds() - leeway) as f64 - 0.5), "expired");
    refused("exp", json!(0), "expired");
    refused("nbf", json!(seconds() as f64 + leeway as f64 + 0.5), "not_yet_valid");
}

#[test]
fn a_leeway_without_end_does_not_overflow() {
    let draft = Draft::es256();
    let token = draft.token();
    let expect = Expect { leeway: Duration::MAX, lifetime_max: Duration::MAX, ..draft.expect() };
    verify(Unverified::parse(&token).unwrap(), &KEYS, &expect).unwrap();
}

#[test]
fn a_name_is_short_and_can_be_printed() {
    for name in ["sub", "jti", "client_id", "azp"] {
        let draft = Draft::es256().without_claim("client_id").claim(name, json!("x".repeat(256)));
        draft.check().unwrap();
        for text in [String::new(), "x".repeat(257), "a\nb".into(), "a\0".into(), "\u{9B}31m".into()] {
            draft.refused(name, |draft| draft.claim(name, json!(text)), "claim_text");
        }
        for value in [json!(null), json!(7), json!(["x"])] {
            draft.refused(name, |draft| draft.claim(name, value), "claim_kind");
        }
    }
    // Characters, not bytes.
    taken("sub", json!("é".repeat(256)));
    taken("azp", json!("finance-bot"));
    refused("azp", json!("another"), "client");
}

#[test]
fn scopes_are_read_from_a_text_or_an_array() {
    let scopes = |draft: Draft| draft.check().unwrap().scopes().iter().cloned().collect::<Vec<_>>().join(",");
    let draft = Draft::es256();
    assert_eq!(scopes(draft.clone()), "orders:read,orders:write");
    assert_eq!(scopes(draft.clone().claim("scope", json!(""))), "");
    assert_eq!(scopes(draft.clone().without_claim("scope")), "");
    for scp in [json!("b a"), json!(["b", "a", "b"])] {
        assert_eq!(scopes(draft.clone().without_claim("scope").claim("scp", scp)), "a,b");
    }
    assert_eq!(
        scopes(draft.claim("scp", json!(["orders:write", "orders:read"]))),
        "orders:read,orders:write"
    );
    for value in
        [json!("a  b"), json!(" "), json!("a\tb"), json!("a\\b"), json!("a\"b"), json!("é"), json!(["a b"])]
    {
        refused("scope", value, "scope");
    }
    refused("scope", json!(vec!["a"; 257]), "scope");
    refused("scope", json!(null), "claim_kind");
    refused("scope", json!(["a", 1]), "claim_kind");
    refused("scp", json!(["orders:read", "orders:write", "admin"]), "scope");
}

#[test]
fn a_token_that_is_bound_is_not_taken_for_one_that_is_not() {
    let certificate = Draft::es256().claim("cnf", json!({"x5t#S256": encode([7; 32])}));
    let claims = certificate.check().unwrap();
    assert_eq!(claims.confirmation(), Some(Confirmation::Certificate([7; 32])));
    assert_eq!(Draft::es256().check().unwrap().confirmation(), None);
    for value in [
        json!({"jkt": encode([7; 32])}),
        json!({"jwk": {"kty": "OKP"}}),
        json!({"kid": "x"}),
        json!({"x5t#S256": encode([7; 32]), "jkt": encode([7; 32])}),
        json!({"x5t#S256": encode([7; 31])}),
        json!({"x5t#S256": format!("{}=", encode([7; 32]))}),
        json!({"x5t#S256": null}),
        json!({}),
    ] {
        refused("cnf", value, "confirmation");
    }
    refused("cnf", json!(null), "claim_kind");
    refused("cnf", json!("x"), "claim_kind");
}

#[test]
fn other_claims_are_kept_as_they_are() {
    let claims = Draft::es256().claim("roles", json!(["clerk"])).check().unwrap();
    assert_eq!(claims.all()["roles"], json!(["clerk"]));
    assert_eq!((claims.id(), claims.client()), (Some("t-1"), Some("finance-bot")));
    assert_eq!(claims.not_before(), claims.issued());
}

#[test]
fn a_client_asserts_itself_and_nobody_else() {
    let key = Signing::generate(Algorithm::ES256).unwrap().signing;
    let keys = set(vec![key.public_jwk()]);
    let audiences = ["https://gate.example/token".to_owned()];
    let good = json!({
        "iss": "bot", "sub": "bot", "aud": "https://gate.example/token", "exp": seconds() + 60, "jti": "j",
    });
    let check = |name: &str, value: Value| {
        let mut claims = good.as_object().unwrap().clone();
        if value.is_null() {
            claims.remove(name)
        } else {
            claims.insert(name.into(), value)
        };
        let token = key.sign("JWT", &claims).unwrap();
        let expect = Expect::client_assertion("bot", &audiences, now());
        verify(Unverified::parse(&token).unwrap(), &keys, &expect)
            .map_or_else(|error| error.code(), |_| "taken")
    };
    assert_eq!(check("jti", json!("j")), "taken");
    assert_eq!(check("jti", json!(null)), "claim_missing");
    assert_eq!(check("sub", json!("other")), "subject");
    assert_eq!(check("iss", json!("other")), "issuer");
    assert_eq!(check("aud", json!("https://gate.example/mcp")), "audience");
    assert_eq!(check("exp", json!(seconds() + 631)), "lifetime");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        let _ = Unverified::parse(&text);
        let _ = Unverified::parse(&parts.join("."));
        let _ = JwkSet::parse(text.as_bytes(), &Algorithm::ALL);
    }

    #[test]
    fn no_signed_claims_make_the_check_panic(name in "iss|sub|aud|exp|nbf|iat|jti|scope|scp|cnf|azp|client_id", text in ".{0,40}", number in any::<f64>(), kind in 0..5) {
        let value = match kind {
            0 => json!(text),
            1 => json!(number),
            2 => json!([text, number]),
            3 => json!({ text: number }),
            _ => json!(null),
        };
        let _ = Draft::eddsa().claim(&name, value).check();
    }
}

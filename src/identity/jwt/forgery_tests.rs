//! Forged, damaged and confused tokens. Each differs in one thing from one that passes, and
//! each has to be refused for its own reason.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Expect, Unverified,
    fixture::{
        AUDIENCE, Draft, FOREIGN, ISSUER, KEYS, P256, RSA, ec_jwk, ec_signature, modulus, now, rsa_signature,
        set,
    },
    object::encode,
    verify,
};

#[test]
fn a_good_token_of_each_algorithm_is_taken() {
    for draft in Draft::all() {
        let claims = draft.check().unwrap();
        assert_eq!((claims.issuer(), claims.subject()), (ISSUER, "alice"));
        assert_eq!(claims.audiences(), [AUDIENCE]);
        assert_eq!(claims.expires().as_second(), now().as_second() + 300);
    }
}

#[test]
fn no_signature_is_no_token() {
    for name in ["none", "None", "NONE", "nOnE"] {
        let unsigned = |draft: Draft| draft.header("alg", json!(name));
        Draft::es256().refused(name, unsigned, "alg_none");
        // As an attacker would send it, without the signature that nobody could make.
        let text = unsigned(Draft::es256()).token();
        let bare = text.rsplit_once('.').unwrap().0;
        Draft::es256().refused_text(name, |_| format!("{bare}."), "empty_part");
    }
    for draft in Draft::all() {
        let cut = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
        draft.refused_text("the signature taken off", |token| cut(token) + ".", "empty_part");
        draft.refused_text("its dot too", cut, "parts");
        let length = draft.check().map(|_| (draft.sign)(b"").len()).unwrap();
        draft.refused("all zeros", |draft| draft.signed_by(move |_| vec![0; length]), "signature");
        draft.refused("all ones", |draft| draft.signed_by(move |_| vec![0xFF; length]), "signature");
        draft.refused("one byte", |draft| draft.signed_by(|_| vec![1]), "signature_length");
        let sign = draft.sign.clone();
        let longer = move |text: &[u8]| [sign(text), vec![0]].concat();
        draft.refused("a zero behind it", |draft| draft.signed_by(longer), "signature_length");
        let sign = draft.sign.clone();
        let of_another = move |text: &[u8]| sign(&[text, b" "].concat());
        draft.refused("of another text", |draft| draft.signed_by(of_another), "signature");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let der: PublicKeyX509Der<'_> = RSA.public_key().as_der().unwrap();
    let der = der.as_ref().to_vec();
    let lines: Vec<String> = STANDARD
        .encode(&der)
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap().into())
        .collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    let secrets: [(&str, Vec<u8>); 5] = [
        ("PEM", pem.clone().into_bytes()),
        ("PEM without its last newline", pem.trim_end().into()),
        ("DER", der),
        ("PKCS#1 DER", RSA.public_key().as_ref().to_vec()),
        ("modulus", modulus().to_vec()),
    ];
    for (what, secret) in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let sign = move |text: &[u8]| hmac::sign(&key, text).as_ref().to_vec();
        let rs256 = Draft::rs256();
        rs256.refused(
            what,
            |draft| draft.header("alg", json!("HS256")).signed_by(sign.clone()),
            "alg_refused",
        );
        rs256.refused(what, |draft| draft.signed_by(sign), "signature_length");
    }
}

#[test]
fn the_key_decides_on_the_algorithm() {
    let pss = |text: &[u8]| rsa_signature(&RSA_PSS_SHA256, text);
    let pkcs1 = |text: &[u8]| rsa_signature(&RSA_PKCS1_SHA256, text);
    let rs256 = Draft::rs256();
    rs256.refused("PS256", |draft| draft.header("alg", json!("PS256")).signed_by(pss), "alg_mismatch");
    rs256.refused("PS256 as RS256", |draft| draft.signed_by(pss), "signature");
    let ps256 = Draft::ps256();
    ps256.refused("RS256", |draft| draft.header("alg", json!("RS256")).signed_by(pkcs1), "alg_mismatch");
    ps256.refused("RS256 as PS256", |draft| draft.signed_by(pkcs1), "signature");
    rs256.refused("RS512", |draft| draft.header("alg", json!("RS512")), "alg_mismatch");
    rs256.refused("another key's kid", |draft| draft.header("kid", json!("ps")), "alg_mismatch");
    Draft::es256().refused("ES384", |draft| draft.header("alg", json!("ES384")), "alg_mismatch");
    for name in ["rs256", "RS256 ", "RS1", "HS384", "ES256K", "", "dir", "Ed448"] {
        rs256.refused(name, |draft| draft.header("alg", json!(name)), "alg_refused");
    }
    rs256.refused("no algorithm", |draft| draft.without_header("alg"), "no_alg");
    for value in [json!(null), json!(256), json!(["RS256"]), json!({"RS256": true})] {
        rs256.refused(&value.to_string(), |draft| draft.header("alg", value.clone()), "header_kind");
    }
    // Two names of one algorithm.
    Draft::eddsa().header("alg", json!("Ed25519")).check().unwrap();
}

#[test]
fn a_kid_is_a_key_of_a_map_and_nothing_else() {
    let es256 = Draft::es256();
    for value in [json!(null), json!(0), json!(["es"]), json!({}), json!(true)] {
        es256.refused(&value.to_string(), |draft| draft.header("kid", value.clone()), "header_kind");
    }
    for kid in [
        "",
        "../../dev/null",
        "/dev/null",
        "es\0",
        "es ",
        "ES",
        "x' UNION SELECT 'es' --",
        "' OR 1=1 --",
        "es\nrs",
        "|id",
        "https://evil.example/jwks.json",
        "*",
        "%65%73",
    ] {
        es256.refused(kid, |draft| draft.header("kid", json!(kid)), "unknown_kid");
    }
    es256.refused("none of several", |draft| draft.without_header("kid"), "no_kid");
    // With one key there is nothing to choose.
    let one = set(vec![ec_jwk("es", &P256)]);
    let token = es256.clone().without_header("kid").token();
    verify(Unverified::parse(&token).unwrap(), &one, &es256.expect()).unwrap();
    assert_eq!(
        verify(Unverified::parse(&token).unwrap(), &set(vec![]), &es256.expect()).unwrap_err().code(),
        "no_kid"
    );
}

#[test]
fn a_key_that_comes_with_the_token_is_not_looked_at() {
    let jwk = ec_jwk("es", &FOREIGN);
    let certificate = json!([STANDARD.encode(FOREIGN.public_key())]);
    for (name, value) in [
        ("jwk", jwk),
        ("x5c", certificate),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5t", json!(encode([7; 20]))),
        ("x5t#S256", json!(encode([7; 32]))),
    ] {
        // It does no harm, and it does no good.
        let honest = Draft::es256().header(name, value);
        honest.refused(name, |draft| draft.signed_by(|text| ec_signature(&FOREIGN, text)), "signature");
    }
}

#[test]
fn a_header_that_asks_for_more_is_refused() {
    let es256 = Draft::es256();
    let refused = |name: &str, value: Value, code: &str| {
        es256.refused(name, |draft| draft.header(name, value), code);
    };
    refused("crit", json!(["exp"]), "crit");
    refused("crit", json!(["https://evil.example/ext"]), "crit");
    refused("crit", json!([]), "crit");
    refused("crit", json!(null), "crit");
    refused("b64", json!(false), "b64");
    refused("b64", json!(true), "b64");
    refused("zip", json!("DEF"), "zip");
    refused("cty", json!("JWT"), "nested");
    refused("cty", json!("application/jwt"), "nested");
    refused("cty", json!(1), "header_kind");
    refused("typ", json!(null), "header_kind");
    for typ in ["JWT", "id+jwt", "logout+jwt", "", "at+jwt ", "text/at+jwt", "application/application/at+jwt"]
    {
        refused("typ", json!(typ), "typ");
    }
    es256.refused("no type", |draft| draft.without_header("typ"), "no_typ");
    for typ in ["AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        es256.clone().header("typ", json!(typ)).check().unwrap();
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let es256 = Draft::es256();
    let header = |from: &str, to: &str| {
        assert!(es256.header.contains(from), "{from}");
        let text = es256.header.replace(from, to);
        es256.refused(to, |draft| Draft { header: text, ..draft }, "json");
    };
    header(r#""alg":"ES256""#, r#""alg":"ES256","alg":"none""#);
    header(r#""alg":"ES256""#, r#""alg":"ES256","\u0061lg":"ES256""#);
    header(r#""alg":"ES256""#, r#""alg":"ES256",/**/"#);
    header(r#""es""#, r#""\ud800""#);
    header("{", "\u{FEFF}{");
    header("}", "} {}");
    let payload = |from: &str, to: &str| {
        assert!(es256.payload.contains(from), "{from}");
        let text = es256.payload.replacen(from, to, 1);
        es256.refused(to, |draft| Draft { payload: text, ..draft }, "json");
    };
    payload(r#""exp":"#, r#""exp":99999999999,"exp":"#);
    payload(r#""sub":"alice""#, r#""sub":"alice","sub":"root""#);
    payload(r#""exp":"#, r#""exp":1e400,"x":"#);
    payload(r#""exp":"#, r#""exp":NaN,"x":"#);
    for text in ["[]", "\"x\"", "7", "null"] {
        es256.refused(text, |draft| Draft { payload: text.into(), ..draft }, "not_object");
        es256.refused(text, |draft| Draft { header: text.into(), ..draft }, "not_object");
    }
    let deep = format!("{}{}", "[".repeat(16), "]".repeat(16));
    es256.refused("depth", |draft| draft.claim("x", serde_json::from_str(&deep).unwrap()), "json");
    es256.refused("nodes", |draft| draft.claim("x", json!(vec![0; 2_000])), "json");
}

#[test]
fn a_token_has_one_spelling() {
    for draft in Draft::all() {
        let part = |token: &str, index: usize, change: &dyn Fn(&str) -> String| {
            let parts = token.split('.').enumerate();
            let parts: Vec<_> =
                parts.map(|(at, part)| if at == index { change(part) } else { part.into() }).collect();
            parts.join(".")
        };
        for index in 0..3 {
            let refused = |what: &str, change: &dyn Fn(&str) -> String| {
                draft.refused_text(what, |token| part(token, index, change), "encoding");
            };
            refused("padding", &|part| format!("{part}="));
            refused("two", &|part| format!("{part}=="));
            refused("a blank before", &|part| format!(" {part}"));
            refused("a newline behind", &|part| format!("{part}\n"));
            refused("a blank inside", &|part| {
                let (a, b) = part.split_at(4);
                format!("{a} {b}")
            });
            refused("a NUL", &|part| format!("{part}\0"));
            refused("a plus", &|part| format!("+{}", part.split_at(1).1));
            refused("a letter that is none of ASCII", &|part| format!("{part}é"));
            draft.refused_text("empty", |token| part(token, index, &|_| String::new()), "empty_part");
        }
        draft.refused_text("a fourth part", |token| format!("{token}.x"), "parts");
        draft.refused_text("an empty fourth part", |token| format!("{token}."), "parts");
        draft.refused_text("a dot before", |token| format!(".{token}"), "parts");
        draft.refused_text("all spaces", |_| " ".repeat(9), "parts");
        draft.refused_text("nothing", |_| String::new(), "parts");
        draft.refused_text("JSON", |_| r#"{"payload":"","signatures":[]}"#.into(), "parts");
        draft.refused_text("the scheme", |token| format!("Bearer {token}"), "encoding");
    }
    let es256 = Draft::es256();
    let stray = |token: &str| {
        // 64 bytes leave four bits over in the last character.
        let mut token = token.to_owned();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".as_bytes();
        let last = token.pop().unwrap();
        let index = alphabet.iter().position(|byte| char::from(*byte) == last).unwrap();
        assert_eq!(index % 16, 0);
        token.push(alphabet[index + 1].into());
        token
    };
    es256.refused_text("stray bits", stray, "encoding");
    es256.refused("too long", |draft| draft.claim("x", json!("x".repeat(16 * 1024))), "too_long");
}

#[test]
fn a_signature_in_der_is_refused() {
    let der = |text: &[u8]| {
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            P256.to_pkcs8v1().unwrap().as_ref(),
        );
        ec_signature(&pair.unwrap(), text)
    };
    Draft::es256().refused("DER", |draft| draft.signed_by(der), "signature_length");
}

#[test]
fn an_issuer_signs_for_itself_only() {
    const OTHER: &str = "https://id.example/realms/b";
    let others = set(vec![ec_jwk("b1", &FOREIGN)]);
    let audiences = [AUDIENCE.to_owned()];
    let expect = Expect::access_token(OTHER, &audiences, now());
    let of_b = Draft::es256().claim("iss", json!(OTHER));
    let good = of_b.clone().header("kid", json!("b1")).signed_by(|text| ec_signature(&FOREIGN, text));
    let token = good.token();
    let unverified = Unverified::parse(&token).unwrap();
    assert_eq!(unverified.issuer_hint(), Some(OTHER));
    verify(unverified, &others, &expect).unwrap();

    let code = |draft: &Draft, keys, expect: &Expect<'_>| {
        let token = draft.token();
        verify(Unverified::parse(&token).unwrap(), keys, expect).unwrap_err().code()
    };
    // A signs a token that says it is from B: B's keys are asked.
    assert_eq!(code(&of_b, &others, &expect), "unknown_kid");
    assert_eq!(code(&of_b.clone().header("kid", json!("b1")), &others, &expect), "signature");
    // And if A's keys were asked, it would still not be from A, nor would B's be.
    assert_eq!(code(&of_b, &KEYS, &of_b.expect()), "issuer");
    assert_eq!(code(&good, &others, &good.expect()), "issuer");
    for issuer in
        ["", "https://id.example/realms/a/", "https://ID.example/realms/a", "https://id.example/realms"]
    {
        Draft::es256().refused(issuer, |draft| draft.claim("iss", json!(issuer)), "issuer");
    }
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    const TRIED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0~";
    for draft in [Draft::eddsa(), Draft::es256(), Draft::rs256()] {
        let token = draft.token();
        draft.check_text(&token).unwrap();
        let mut tried = 0;
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            let written = bytes[at];
            // All characters at the ends of the parts, where bits may be left over.
            let at_end = at + 3 > token.len() || token.as_bytes()[at..at + 3].contains(&b'.');
            let candidates = TRIED.iter().filter(|byte| **byte != written);
            for byte in candidates.skip(if at_end { 0 } else { at % 9 }).step_by(if at_end { 1 } else { 9 }) {
                bytes[at] = *byte;
                let changed = String::from_utf8(bytes.clone()).unwrap();
                assert!(draft.check_text(&changed).is_err(), "{at} to {byte}");
                tried += 1;
            }
            let mut shorter = token.clone();
            shorter.remove(at);
            assert!(draft.check_text(&shorter).is_err(), "without {at}");
        }
        assert!(tried > 7 * token.len());
    }
}

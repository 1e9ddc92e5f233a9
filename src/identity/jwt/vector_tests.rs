//! Vectors that others made: Wycheproof's for JWS and JWK, and those of the RFCs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wycheproof_ng_kdf_jose::json_web::{TestGroup, TestName, TestSet};

use super::{
    Algorithm, JwkSet, Signing, TokenError,
    fixture::{KEYS, RSA, modulus},
    jws::Jws,
    object::{decode, encode},
};

/// How many vectors were taken, or refused for which reason.
type Tally = BTreeMap<&'static str, usize>;

/// Runs all vectors of a file; gives what became of the invalid and of the valid ones.
/// Panics if an invalid one is taken, whichever algorithms are allowed.
fn run(file: TestName) -> (Tally, Tally) {
    let mut invalid = Tally::new();
    let mut valid = Tally::new();
    for group in TestSet::load(file).unwrap().test_groups {
        for test in &group.tests {
            let Some(token) = &test.jws else {
                continue; // an encrypted one
            };
            let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
            let outcome = |allowed: &[Algorithm]| {
                check(&token, &keys(&group, allowed)).map_or_else(|error| error.code(), |()| "taken")
            };
            let tally = if test.result.must_fail() {
                for algorithm in Algorithm::ALL {
                    assert_ne!(outcome(&[algorithm]), "taken", "{file:?} {} {}", test.tc_id, test.comment);
                }
                &mut invalid
            } else {
                &mut valid
            };
            *tally.entry(outcome(&Algorithm::ALL)).or_default() += 1;
        }
    }
    assert!(!invalid.contains_key("taken"), "{invalid:?}");
    (invalid, valid)
}

fn check(token: &str, keys: &JwkSet) -> Result<(), TokenError> {
    Jws::parse(token)?.authenticate(keys)
}

fn keys(group: &TestGroup, allowed: &[Algorithm]) -> JwkSet {
    let published = group.public_key.as_ref().or(group.private_key.as_ref()).unwrap();
    let set = if published.get("keys").is_some() { published.clone() } else { json!({"keys": [published]}) };
    JwkSet::parse(set.to_string().as_bytes(), allowed).unwrap().0
}

#[test]
fn no_invalid_signature_of_wycheproof_is_taken() {
    let (invalid, valid) = run(TestName::JsonWebSignature);
    let refused = [
        ("parts", 18),
        ("empty_part", 17),
        ("encoding", 12),
        ("alg_refused", 6),
        ("unknown_kid", 6),
        ("alg_mismatch", 5),
        ("signature_length", 11),
        ("signature", 280),
    ];
    assert_eq!(invalid, Tally::from(refused));
    let expected = [
        ("taken", 26),
        // Eight of HS256, and two of ES512.
        ("alg_refused", 10),
        // HS256 with a character in it that base64url does not have.
        ("encoding", 2),
        // An empty payload is good JWS, and no token.
        ("empty_part", 6),
        // PS384 with a key that is for PS256.
        ("alg_mismatch", 2),
    ];
    assert_eq!(valid, Tally::from(expected));
}

#[test]
fn no_key_that_wycheproof_rejects_is_used() {
    let total = |(invalid, valid): (Tally, Tally)| (invalid.values().sum::<usize>(), valid);
    // All the valid ones but these are of HMACs.
    let taken = |taken, hmacs| Tally::from([("taken", taken), ("alg_refused", hmacs)]);
    assert_eq!(total(run(TestName::JsonWebKey)), (21, taken(1, 4)));
    assert_eq!(total(run(TestName::JsonWebCrypto)), (45, taken(2, 2)));
}

#[test]
fn a_key_that_cannot_be_trusted_is_skipped_with_a_reason() {
    let rsa = json!({"kty": "RSA", "kid": "k", "alg": "RS256", "n": encode(modulus()), "e": "AQAB"});
    let okp = json!({"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": encode([1; 32])});
    let roca = TestSet::load(TestName::JsonWebKey).unwrap().test_groups;
    let roca = roca.iter().find(|group| group.group_comment == "jws_rsa_roca_key").unwrap();
    let roca = decode(roca.public_key.as_ref().unwrap()["keys"][0]["n"].as_str().unwrap()).unwrap();
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let even = {
        let mut n = modulus().to_vec();
        n[255] &= 0xFE;
        n
    };
    let cases = [
        (json!("x"), "key 1: not an object"),
        (json!({}), "key 1: `kty` is missing or malformed"),
        (json!({"kty": "oct", "k": "AAAA", "kid": "k\n"}), "key 1 (`k?`): a symmetric key"),
        (json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"}), "key 1: unknown kind of key `AKP`"),
        (with(&rsa, "d", json!("AA")), "key 1 (`k`): holds the private member `d`"),
        (with(&rsa, "use", json!("enc")), "key 1 (`k`): not for checking signatures"),
        (with(&rsa, "use", json!(null)), "key 1 (`k`): `use` is missing or malformed"),
        (with(&rsa, "key_ops", json!(["sign"])), "key 1 (`k`): not for checking signatures"),
        (with(&rsa, "kid", json!("")), "key 1 (``): `kid` is missing or malformed"),
        (with(&rsa, "kid", json!(7)), "key 1: `kid` is missing or malformed"),
        (with(&rsa, "alg", json!("none")), "key 1 (`k`): unknown algorithm `none`"),
        (with(&rsa, "alg", json!("RSA-OAEP")), "key 1 (`k`): unknown algorithm `RSA-OAEP`"),
        (with(&rsa, "alg", json!("HS256")), "key 1 (`k`): unknown algorithm `HS256`"),
        (with(&rsa, "alg", json!("ES256")), "key 1 (`k`): `ES256` is not for a key of this kind"),
        (with(&rsa, "alg", json!("RS512")), "key 1 (`k`): algorithm `RS512` is not allowed"),
        (with(&rsa, "alg", json!(null)), "key 1 (`k`): `alg` is missing or malformed"),
        (
            with(&rsa, "n", json!(encode([&[0x80], &modulus()[2..]].concat()))),
            "key 1 (`k`): a modulus of 2040 bits, not of 2048 to 8192",
        ),
        (
            with(&rsa, "n", json!(encode(vec![0xFF; 1025]))),
            "key 1 (`k`): a modulus of 8200 bits, not of 2048 to 8192",
        ),
        (
            with(&rsa, "n", json!(encode([&[0], modulus()].concat()))),
            "key 1 (`k`): a modulus that is even or has leading zeros",
        ),
        (with(&rsa, "n", json!(encode(even))), "key 1 (`k`): a modulus that is even or has leading zeros"),
        (with(&rsa, "n", json!(encode(roca))), "key 1 (`k`): a modulus from a broken generator"),
        (
            with(&rsa, "n", json!(format!("{}=", encode(modulus())))),
            "key 1 (`k`): `n` is missing or malformed",
        ),
        (with(&rsa, "e", json!("AQ")), "key 1 (`k`): an exponent that is even, 1 or over 32 bits"),
        (with(&rsa, "e", json!("Ag")), "key 1 (`k`): an exponent that is even, 1 or over 32 bits"),
        (with(&rsa, "e", json!("AAEAAQ")), "key 1 (`k`): an exponent that is even, 1 or over 32 bits"),
        (with(&rsa, "e", json!("AQAAAAE")), "key 1 (`k`): an exponent that is even, 1 or over 32 bits"),
        (with(&okp, "crv", json!("Ed448")), "key 1 (`k`): unknown kind of key `Ed448`"),
        (with(&okp, "x", json!(encode([1; 31]))), "key 1 (`k`): `x` is missing or malformed"),
        (
            json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""}),
            "key 1: unknown kind of key `secp256k1`",
        ),
        (
            json!({"kty": "EC", "crv": "P-256", "x": encode([1; 32]), "y": encode([1; 32])}),
            "key 1: a point that is not on the curve",
        ),
    ];
    let allowed = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
    for (key, expected) in cases {
        // The sound key beside it stays.
        let text = json!({"keys": [key, with(&rsa, "kid", json!("sound"))]}).to_string();
        let (set, skipped) = JwkSet::parse(text.as_bytes(), &allowed).unwrap();
        let skipped: Vec<_> = skipped.iter().map(ToString::to_string).collect();
        assert_eq!((skipped, set.len(), set.contains("sound")), (vec![expected.to_owned()], 1, true));
    }
    let mut bare = rsa;
    bare.as_object_mut().unwrap().remove("alg");
    let parse = |keys: Value, allowed: &[Algorithm]| {
        JwkSet::parse(json!({ "keys": keys }).to_string().as_bytes(), allowed)
    };
    let (set, skipped) = parse(json!([bare]), &allowed).unwrap();
    assert!(set.is_empty());
    assert_eq!(skipped[0].to_string(), "key 1 (`k`): names no algorithm, and its kind does not determine it");
    let (set, _) = parse(json!([bare]), &[Algorithm::PS384, Algorithm::ES256]).unwrap();
    assert_eq!(set.named("k").unwrap().algorithm(), Algorithm::PS384);
    let (set, skipped) =
        parse(json!([bare, with(&bare, "kid", json!("other")), bare]), &[Algorithm::RS256]).unwrap();
    let skipped: Vec<_> = skipped.iter().map(ToString::to_string).collect();
    assert_eq!((set.len(), set.contains("other"), set.contains("k")), (1, true, false));
    assert_eq!(
        skipped,
        ["key 1 (`k`): another key has the same `kid`", "key 3 (`k`): another key has the same `kid`"]
    );
}

#[test]
fn a_text_that_is_no_key_set_is_an_error() {
    let error = |text: &str| JwkSet::parse(text.as_bytes(), &Algorithm::ALL).unwrap_err().to_string();
    assert_eq!(error("[]"), "the key set has no array `keys`");
    assert_eq!(error(r#"{"keys":{}}"#), "the key set has no array `keys`");
    assert_eq!(error(r#"{"keys":[],"keys":[]}"#), "the key set is not strict JSON: duplicate key at byte 11");
    assert_eq!(error(&json!({"keys": vec![1; 101]}).to_string()), "a key set of more than 100 keys");
    assert_eq!(error(&" ".repeat(65 * 1024)), "a key set of more than 65536 bytes");
    assert_eq!(JwkSet::parse(br#"{"keys":[]}"#, &[]).unwrap().0.len(), 0);
    assert_eq!(KEYS.len(), 5);
    assert_eq!(RSA.public_modulus_len(), 256);
}

#[test]
fn our_own_keys_are_named_and_sign_as_rfc_8037_shows() {
    // RFC 8037 A.1 to A.4, and RFC 5958's wrapping of a seed.
    let seed = decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let pkcs8 = [hex("302e020100300506032b657004220420"), seed].concat();
    let signing = Signing::from_pkcs8(&pkcs8).unwrap();
    assert_eq!(signing.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(signing.public_jwk()["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                 hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let keys = super::fixture::set(vec![signing.public_jwk()]);
    check(token, &keys).unwrap();
    assert_eq!(
        check(&token.replace("eyJhbGciOiJFZERTQSJ9", "eyJhbGciOiJFZERTQSJ_"), &keys).unwrap_err().code(),
        "json"
    );
}

#[test]
fn a_key_survives_being_kept() {
    use secrecy::ExposeSecret as _;
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256] {
        let made = Signing::generate(algorithm).unwrap();
        let read = Signing::from_pkcs8(made.pkcs8.expose_secret()).unwrap();
        assert_eq!((read.algorithm(), read.kid()), (algorithm, made.signing.kid()));
        assert_eq!(read.public_jwk(), made.signing.public_jwk());
        let keys = super::fixture::set(vec![made.signing.public_jwk()]);
        check(&read.sign("at+jwt", &serde_json::Map::new()).unwrap(), &keys).unwrap();
        assert_eq!(format!("{made:?}"), format!("Signing {{ kid: {:?}, .. }}", read.kid()));
    }
    assert!(Signing::generate(Algorithm::RS256).is_err());
    assert!(Signing::from_pkcs8(b"x").is_err());
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

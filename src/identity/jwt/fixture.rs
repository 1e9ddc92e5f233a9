//! Keys, and tokens to change one thing in.

use std::{rc::Rc, sync::LazyLock};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
        RsaKeyPair,
    },
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Algorithm, Claims, Expect, JwkSet, TokenError, Unverified, object::encode, verify};

pub(super) const ISSUER: &str = "https://id.example/realms/a";
pub(super) const AUDIENCE: &str = "https://gate.example/mcp";

pub(super) static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
pub(super) static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());
pub(super) static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| ec(&ECDSA_P256_SHA256_FIXED_SIGNING));
pub(super) static P384: LazyLock<EcdsaKeyPair> = LazyLock::new(|| ec(&ECDSA_P384_SHA384_FIXED_SIGNING));
/// Another issuer's, or an attacker's.
pub(super) static FOREIGN: LazyLock<EcdsaKeyPair> = LazyLock::new(|| ec(&ECDSA_P256_SHA256_FIXED_SIGNING));

/// The issuer's keys.
pub(super) static KEYS: LazyLock<JwkSet> = LazyLock::new(|| {
    set(vec![
        rsa_jwk("rs", "RS256"),
        rsa_jwk("ps", "PS256"),
        ec_jwk("es", &P256),
        ec_jwk("es3", &P384),
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(ED25519.public_key())}),
    ])
});

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

/// A set of which each key can be used.
pub(super) fn set(keys: Vec<Value>) -> JwkSet {
    let text = json!({"keys": keys}).to_string();
    let (set, skipped) = JwkSet::parse(text.as_bytes(), &Algorithm::ALL).unwrap();
    assert_eq!(skipped, []);
    set
}

pub(super) fn rsa_jwk(kid: &str, algorithm: &str) -> Value {
    json!({"kty": "RSA", "kid": kid, "alg": algorithm, "n": encode(modulus()), "e": "AQAB"})
}

/// The modulus, from where it is in the key's DER (RFC 8017 A.1.1).
pub(super) fn modulus() -> &'static [u8] {
    let der = RSA.public_key().as_ref();
    assert_eq!((der.len(), &der[4..9], &der[265..]), (270, &[2, 0x82, 1, 1, 0][..], &[2, 3, 1, 0, 1][..]));
    &der[9..265]
}

pub(super) fn ec_jwk(kid: &str, pair: &EcdsaKeyPair) -> Value {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let curve = if x.len() == 32 { "P-256" } else { "P-384" };
    json!({"kty": "EC", "crv": curve, "kid": kid, "x": encode(x), "y": encode(y)})
}

pub(super) fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

type Sign = Rc<dyn Fn(&[u8]) -> Vec<u8>>;

/// A token to be, good as it is.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) header: String,
    pub(super) payload: String,
    pub(super) sign: Sign,
    pub(super) audiences: Vec<String>,
}

impl Draft {
    pub(super) fn rs256() -> Self {
        Self::new("RS256", "rs", |text| rsa_signature(&RSA_PKCS1_SHA256, text))
    }

    pub(super) fn ps256() -> Self {
        Self::new("PS256", "ps", |text| rsa_signature(&RSA_PSS_SHA256, text))
    }

    pub(super) fn es256() -> Self {
        Self::new("ES256", "es", |text| ec_signature(&P256, text))
    }

    pub(super) fn es384() -> Self {
        Self::new("ES384", "es3", |text| ec_signature(&P384, text))
    }

    pub(super) fn eddsa() -> Self {
        Self::new("EdDSA", "ed", |text| ED25519.sign(text).as_ref().to_vec())
    }

    pub(super) fn all() -> [Self; 5] {
        [Self::rs256(), Self::ps256(), Self::es256(), Self::es384(), Self::eddsa()]
    }

    fn new(algorithm: &str, kid: &str, sign: fn(&[u8]) -> Vec<u8>) -> Self {
        let seconds = now().as_second();
        let claims = json!({
            "iss": ISSUER,
            "sub": "alice",
            "aud": AUDIENCE,
            "exp": seconds + 300,
            "nbf": seconds - 1,
            "iat": seconds - 1,
            "jti": "t-1",
            "client_id": "finance-bot",
            "scope": "orders:read orders:write",
        });
        Self {
            header: json!({"alg": algorithm, "kid": kid, "typ": "at+jwt"}).to_string(),
            payload: claims.to_string(),
            sign: Rc::new(sign),
            audiences: vec!["https://elsewhere.example".into(), AUDIENCE.into()],
        }
    }

    /// Sets a member of the header.
    pub(super) fn header(mut self, name: &str, value: Value) -> Self {
        self.header = with(&self.header, name, Some(value));
        self
    }

    /// Sets a claim.
    pub(super) fn claim(mut self, name: &str, value: Value) -> Self {
        self.payload = with(&self.payload, name, Some(value));
        self
    }

    pub(super) fn without_header(mut self, name: &str) -> Self {
        self.header = with(&self.header, name, None);
        self
    }

    pub(super) fn without_claim(mut self, name: &str) -> Self {
        self.payload = with(&self.payload, name, None);
        self
    }

    pub(super) fn signed_by(mut self, sign: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Self {
        self.sign = Rc::new(sign);
        self
    }

    pub(super) fn token(&self) -> String {
        let signed = format!("{}.{}", encode(&self.header), encode(&self.payload));
        let signature = encode((self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    pub(super) fn expect(&self) -> Expect<'_> {
        Expect::access_token(ISSUER, &self.audiences, now())
    }

    pub(super) fn check(&self) -> Result<Claims, TokenError> {
        self.check_text(&self.token())
    }

    pub(super) fn check_text(&self, token: &str) -> Result<Claims, TokenError> {
        verify(Unverified::parse(token)?, &KEYS, &self.expect())
    }

    /// Asserts that the draft is good, and that one change makes it bad in one way.
    #[track_caller]
    pub(super) fn refused(&self, what: &str, change: impl FnOnce(Self) -> Self, code: &str) {
        self.check().expect(what);
        let changed = change(self.clone());
        assert_ne!(changed.token(), self.token(), "{what}: nothing changed");
        assert_eq!(changed.check().unwrap_err().code(), code, "{what}");
    }

    /// The same for a change of the finished token.
    #[track_caller]
    pub(super) fn refused_text(&self, what: &str, change: impl FnOnce(&str) -> String, code: &str) {
        let token = self.token();
        self.check_text(&token).expect(what);
        let changed = change(&token);
        assert_ne!(changed, token, "{what}: nothing changed");
        assert_eq!(self.check_text(&changed).unwrap_err().code(), code, "{what}");
    }
}

fn with(text: &str, name: &str, value: Option<Value>) -> String {
    let mut object: Map<String, Value> = serde_json::from_str(text).unwrap();
    match value {
        Some(value) => object.insert(name.into(), value),
        None => object.remove(name),
    };
    Value::Object(object).to_string()
}

pub(super) fn ec_signature(pair: &EcdsaKeyPair, text: &[u8]) -> Vec<u8> {
    pair.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec()
}

pub(super) fn rsa_signature(encoding: &'static dyn RsaEncoding, text: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(encoding, &SystemRandom::new(), text, &mut signature).unwrap();
    signature
}

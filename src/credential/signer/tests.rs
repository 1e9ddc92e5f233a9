use aws_lc_rs::{
    encoding::Pkcs8V1Der,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::*;

pub(crate) fn pem(der: &[u8]) -> String {
    let label = ["PRIVATE", "KEY"].join(" ");
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A new P-256 key as PEM, and its public half.
pub(crate) fn p256() -> (String, Vec<u8>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    (pem(key.to_pkcs8v1().unwrap().as_ref()), key.public_key().as_ref().to_vec())
}

/// The header and the claims of a token, whose signature is checked.
pub(crate) fn verified(
    token: &str,
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
) -> (Value, Value) {
    let (text, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(algorithm, key).verify(text.as_bytes(), &signature).unwrap();
    let (header, body) = text.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (read(header), read(body))
}

const CLAIMS: Claims<'_> = Claims {
    iss: "https://gate",
    sub: "client:bot",
    aud: "https://idp/token",
    client_id: Some("bot"),
    user_iss: None,
};

#[test]
fn every_algorithm_signs_what_its_public_key_verifies() {
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_der = aws_lc_rs::encoding::AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let (p256_pem, p256_public) = p256();
    let rsa_public = rsa.public_key().as_ref().to_vec();
    let cases: [(_, String, &'static dyn VerificationAlgorithm, Vec<u8>); 4] = [
        (OwnAlgorithm::ES256, p256_pem, &ECDSA_P256_SHA256_FIXED, p256_public),
        (
            OwnAlgorithm::EdDSA,
            pem(ed25519.to_pkcs8v1().unwrap().as_ref()),
            &ED25519,
            ed25519.public_key().as_ref().to_vec(),
        ),
        (OwnAlgorithm::RS256, pem(rsa_der.as_ref()), &RSA_PKCS1_2048_8192_SHA256, rsa_public.clone()),
        (OwnAlgorithm::PS256, pem(rsa_der.as_ref()), &RSA_PSS_2048_8192_SHA256, rsa_public),
    ];
    for (algorithm, pem, verification, public) in &cases {
        let signer = Signer::from_pem(pem, *algorithm).unwrap();
        let token = signer.sign(Some("k1"), &CLAIMS).unwrap();
        let (header, claims) = verified(token.expose_secret(), *verification, public);
        assert_eq!(header, json!({ "alg": algorithm.word(), "typ": "JWT", "kid": "k1" }));
        assert_eq!(claims["sub"], "client:bot");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        // Every token has an id of its own, so that an endpoint can refuse a second showing.
        let (_, other) = verified(signer.sign(None, &CLAIMS).unwrap().expose_secret(), *verification, public);
        assert_ne!(claims["jti"], other["jti"]);
        assert!(claims.get("user_iss").is_none());
    }
    // A key serves its own kind of algorithm only.
    for (algorithm, pem, ..) in &cases {
        for (other, ..) in &cases {
            let same = algorithm == other
                || pem.contains(&STANDARD.encode(rsa_der.as_ref())) && {
                    matches!(other, OwnAlgorithm::RS256 | OwnAlgorithm::PS256)
                };
            assert_eq!(Signer::from_pem(pem, *other).is_ok(), same, "{algorithm:?} {other:?}");
        }
    }
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    for text in
        ["hunter2", "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &pem(b"hunter2")]
    {
        let refusal = Signer::from_pem(text, OwnAlgorithm::ES256).unwrap_err();
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

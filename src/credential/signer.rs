//! Tokens that the gate signs itself (RFC 7515, compact form).

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    rand::{self, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use secrecy::SecretString;
use serde::Serialize;

use super::CredentialError;
use crate::manifest::OwnAlgorithm;

/// How long a token of the gate's own is good for.
pub(super) const LIFE: Duration = Duration::from_secs(60);

/// How many bytes the modulus of an RSA key has at least (RFC 7518 §3.3).
const RSA_BYTES_MIN: usize = 256;

/// A private key that signs tokens.
pub(super) struct Signer {
    key: Key,
    algorithm: OwnAlgorithm,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ed25519(Ed25519KeyPair),
}

/// What a token of the gate says (RFC 7519 §4.1, RFC 8693 §4).
#[derive(Debug, Serialize)]
pub(super) struct Claims<'a> {
    pub(super) iss: &'a str,
    pub(super) sub: &'a str,
    pub(super) aud: &'a str,
    /// The client that calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<&'a str>,
    /// Who vouches for the user that `sub` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_iss: Option<&'a str>,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    claims: &'a Claims<'a>,
    iat: u64,
    exp: u64,
    jti: String,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

impl Signer {
    /// Reads a private key as PKCS#8 PEM; else says what it should be.
    pub(super) fn from_pem(pem: &str, algorithm: OwnAlgorithm) -> Result<Self, &'static str> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "a private key in PKCS#8 PEM")?;
        let der = der.secret_pkcs8_der();
        let rsa = |encoding| {
            let key = RsaKeyPair::from_pkcs8(der).ok();
            let key = key.filter(|key| key.public_modulus_len() >= RSA_BYTES_MIN);
            key.map(|key| Key::Rsa(key, encoding)).ok_or("an RSA key of 2048 bits or more")
        };
        let key = match algorithm {
            OwnAlgorithm::ES256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                .map(Key::Ecdsa)
                .map_err(|_| "a key on the curve P-256"),
            OwnAlgorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
            OwnAlgorithm::PS256 => rsa(&RSA_PSS_SHA256),
            OwnAlgorithm::EdDSA => {
                Ed25519KeyPair::from_pkcs8(der).map(Key::Ed25519).map_err(|_| "an Ed25519 key")
            }
        };
        key.map(|key| Self { key, algorithm })
    }

    /// Signs a token that is good from now on, for a minute, under an id of its own.
    pub(super) fn sign(
        &self,
        key_id: Option<&str>,
        claims: &Claims<'_>,
    ) -> Result<SecretString, CredentialError> {
        self.signed(key_id, claims).ok_or(CredentialError::Unsigned)
    }

    fn signed(&self, key_id: Option<&str>, claims: &Claims<'_>) -> Option<SecretString> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let mut id = [0; 16];
        rand::fill(&mut id).ok()?;
        let whole = Whole { claims, iat: now, exp: now + LIFE.as_secs(), jti: hex::encode(id) };
        let header = Header { alg: self.algorithm.word(), typ: "JWT", kid: key_id };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).ok()?);
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&whole).ok()?);
        let text = format!("{header}.{body}");
        let signature = URL_SAFE_NO_PAD.encode(self.signature(text.as_bytes())?);
        Some(SecretString::from(format!("{text}.{signature}")))
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Key::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
            Key::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;

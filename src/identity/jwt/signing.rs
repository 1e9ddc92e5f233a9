//! The gate's own signing keys.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use secrecy::SecretSlice;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Algorithm, object::encode};

/// How long the id of a key is: a SHA-256, encoded.
const KID_BYTES: usize = encoded_bytes(32);
/// How long a signature is, by Ed25519 (RFC 8032 §5.1.6) and by P-256 (RFC 7518 §3.4).
const SIGNATURE_BYTES: usize = 64;

/// A private key that signs tokens.
pub struct Signing {
    pair: Pair,
    kid: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
}

/// A key that was just made, and what to keep of it.
pub struct NewSigning {
    /// The key.
    pub signing: Signing,
    /// The key in PKCS#8 (DER), which [`Signing::from_pkcs8`] reads.
    pub pkcs8: SecretSlice<u8>,
}

/// Why a key cannot sign.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SigningError {
    /// The bytes are no such key.
    #[error("not an Ed25519 or P-256 key in PKCS#8")]
    Pkcs8,
    /// Keys of this algorithm are not made here.
    #[error("no signing with `{0}`, only with `EdDSA` and `ES256`")]
    Algorithm(Algorithm),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Failed,
}

impl Signing {
    /// Makes a key of `EdDSA` or `ES256`, with the system's randomness.
    ///
    /// # Errors
    /// For any other algorithm, and when the library fails.
    pub fn generate(algorithm: Algorithm) -> Result<NewSigning, SigningError> {
        let failed = |_| SigningError::Failed;
        let (pair, pkcs8) = match algorithm {
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                let pkcs8 = pair.to_pkcs8v1().map_err(failed)?;
                (Pair::Ed25519(pair), pkcs8)
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
                let pkcs8 = pair.to_pkcs8v1().map_err(failed)?;
                (Pair::Es256(pair), pkcs8)
            }
            _ => return Err(SigningError::Algorithm(algorithm)),
        };
        Ok(NewSigning { signing: Self::new(pair), pkcs8: SecretSlice::from(pkcs8.as_ref().to_vec()) })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When it is not an Ed25519 or P-256 key in PKCS#8 (DER).
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningError> {
        let ed25519 = Ed25519KeyPair::from_pkcs8(pkcs8).map(Pair::Ed25519);
        let pair = ed25519
            .or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Pair::Es256));
        pair.map(Self::new).map_err(|_| SigningError::Pkcs8)
    }

    fn new(pair: Pair) -> Self {
        let kid = thumbprint(&pair.members());
        Self { pair, kid }
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::EdDSA,
            Pair::Es256(_) => Algorithm::ES256,
        }
    }

    /// Its id: the thumbprint of its public part (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public part, as an issuer publishes it.
    #[must_use]
    pub fn public_jwk(&self) -> Value {
        let mut jwk = self.pair.members();
        for (name, value) in [("alg", self.algorithm().name()), ("kid", &self.kid), ("use", "sig")] {
            jwk.insert(name.into(), value.into());
        }
        Value::Object(jwk)
    }

    /// How long a token is, whichever key of its algorithm signs it.
    pub(in crate::identity) fn token_bytes(
        algorithm: Algorithm,
        typ: &str,
        claims: &Map<String, Value>,
    ) -> usize {
        let any_key = "0".repeat(KID_BYTES);
        let claims = Value::from(claims.clone()).to_string();
        let parts = [header(algorithm, &any_key, typ).len(), claims.len(), SIGNATURE_BYTES];
        parts.into_iter().map(encoded_bytes).sum::<usize>() + 2 // the dots between them
    }

    /// A token of a type, such as `at+jwt`, with these claims.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, SigningError> {
        let header = header(self.algorithm(), &self.kid, typ);
        let claims = serde_json::to_vec(claims).map_err(|_| SigningError::Failed)?;
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(signed.as_bytes()),
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), signed.as_bytes()),
        };
        let signature = signature.map_err(|_| SigningError::Failed)?;
        Ok(format!("{signed}.{}", encode(signature)))
    }
}

fn header(algorithm: Algorithm, kid: &str, typ: &str) -> String {
    json!({"alg": algorithm.name(), "kid": kid, "typ": typ}).to_string()
}

/// How long bytes are in Base64 without padding (RFC 7515 §2).
const fn encoded_bytes(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewSigning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.signing.fmt(f)
    }
}

impl Pair {
    /// The members of a JWK without which it would be another key.
    fn members(&self) -> Map<String, Value> {
        let members = match self {
            Self::Ed25519(pair) => {
                vec![("crv", "Ed25519".to_owned()), ("kty", "OKP".into()), ("x", encode(pair.public_key()))]
            }
            Self::Es256(pair) => {
                // The point without compression: a byte 4, and the two coordinates.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at_checked(32).unwrap_or_default();
                vec![("crv", "P-256".to_owned()), ("kty", "EC".into()), ("x", encode(x)), ("y", encode(y))]
            }
        };
        members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

/// RFC 7638: the digest of the members that make the key, in the order of their names, without
/// blanks. The map is in that order.
fn thumbprint(members: &Map<String, Value>) -> String {
    let text = Value::Object(members.clone()).to_string();
    encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_token_is_is_known_before_it_is_signed() {
        for algorithm in [Algorithm::EdDSA, Algorithm::ES256] {
            let signing = Signing::generate(algorithm).unwrap().signing;
            for length in 0..12 {
                let claims = Map::from_iter([("a\"é".to_owned(), "b\n".repeat(length).into())]);
                let token = signing.sign("at+jwt", &claims).unwrap();
                assert_eq!(Signing::token_bytes(algorithm, "at+jwt", &claims), token.len(), "{token}");
            }
        }
    }
}

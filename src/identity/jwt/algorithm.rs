//! The signature algorithms that are understood (RFC 7518 §3.1, RFC 8037, RFC 9864).

use std::fmt;

use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, RsaParameters};

pub use crate::manifest::SigningAlgorithm as Algorithm;

/// What makes keys of an algorithm, and how they check a signature.
pub(super) enum Scheme {
    Rsa(&'static RsaParameters),
    /// With the name of the curve, and the length of a coordinate.
    Ec(&'static EcdsaVerificationAlgorithm, &'static str, usize),
    Ed25519,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// The algorithm of a name, exactly as written. RFC 9864 calls `EdDSA` with Ed25519 `Ed25519`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDSA);
        }
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name in a header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(super) const fn scheme(self) -> Scheme {
        match self {
            Self::RS256 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => Scheme::Ec(&signature::ECDSA_P256_SHA256_FIXED, "P-256", 32),
            Self::ES384 => Scheme::Ec(&signature::ECDSA_P384_SHA384_FIXED, "P-384", 48),
            Self::EdDSA => Scheme::Ed25519,
        }
    }

    /// Whether keys of this kind (a JWK's `kty` and `crv`) can be used with it.
    pub(super) fn fits(self, kty: &str, crv: Option<&str>) -> bool {
        match self.scheme() {
            Scheme::Rsa(_) => kty == "RSA",
            Scheme::Ec(_, curve, _) => kty == "EC" && crv == Some(curve),
            Scheme::Ed25519 => kty == "OKP" && crv == Some("Ed25519"),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_only_as_it_is_written_in_the_standard() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::named("Ed25519"), Some(Algorithm::EdDSA));
        for name in ["", "none", "None", "HS256", "rs256", "RS256 ", "ES512", "ES256K", "Ed448", "eddsa"] {
            assert_eq!(Algorithm::named(name), None, "{name}");
        }
    }
}

//! Salted digests: who has the salt can check a claim, and nobody can guess without it.

use aws_lc_rs::{hmac, rand};

use super::SideError;

/// The random salt of one call.
#[derive(Clone, Eq, PartialEq)]
pub struct Salt([u8; SALT_BYTES]);

/// The bytes of a salt.
pub(super) const SALT_BYTES: usize = 32;

const PREFIX: &str = "hmac-sha256:";

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt")
    }
}

impl Salt {
    /// A new salt.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, SideError> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| SideError::NoRandom)?;
        Ok(Self(salt))
    }

    /// A salt that was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SALT_BYTES]) -> Self {
        Self(bytes)
    }

    /// The salt itself, to hand to who may check the digests of its call.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SALT_BYTES] {
        &self.0
    }

    /// The digest of canonical bytes (RFC 8785 for JSON): `hmac-sha256:` and HMAC-SHA-256 in hex.
    #[must_use]
    pub fn digest(&self, canonical: &[u8]) -> String {
        format!("{PREFIX}{}", hex::encode(hmac::sign(&self.key(), canonical)))
    }

    /// Whether a digest is that of these bytes.
    #[must_use]
    pub fn check(&self, canonical: &[u8], digest: &str) -> bool {
        let claimed = digest.strip_prefix(PREFIX).and_then(|claimed| hex::decode(claimed).ok());
        claimed.is_some_and(|claimed| hmac::verify(&self.key(), canonical, &claimed).is_ok())
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

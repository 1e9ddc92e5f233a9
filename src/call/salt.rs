//! The salt of a call's digests.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use serde_json::Value;

/// 32 random bytes, so that nobody can guess what a digest is of without them.
#[derive(Clone, Eq, PartialEq)]
pub struct Salt([u8; 32]);

const PREFIX: &str = "hmac-sha256:";

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl Salt {
    /// A salt from the system's source of randomness, where there is one.
    #[must_use]
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).is_ok().then_some(Self(bytes))
    }

    /// A salt that was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The salt itself, to hand to who may check the digests of its call.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of a value's canonical JSON (RFC 8785).
    #[must_use]
    pub fn digest_value(&self, value: &Value) -> Option<String> {
        Some(self.digest(&serde_json_canonicalizer::to_vec(value).ok()?))
    }

    /// The digest of canonical bytes: `hmac-sha256:` and HMAC-SHA-256 under the salt in hexadecimal.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_value_has_another_digest_in_another_call() {
        let (one, other) = (Salt::random().unwrap(), Salt::random().unwrap());
        let value = json!({ "amount": 1200, "order": "ord_1" });
        assert_eq!(one.digest_value(&value), one.digest_value(&json!({ "order": "ord_1", "amount": 1200 })));
        assert_ne!(one.digest_value(&value), other.digest_value(&value));
        assert_ne!(one.digest_value(&value), one.digest_value(&json!({ "order": "ord_1", "amount": 1201 })));
    }
}

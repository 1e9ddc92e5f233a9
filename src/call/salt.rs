//! The salt of a call's digests.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use serde_json::Value;

/// 32 random bytes, so that nobody can guess what a digest is of without them.
#[derive(Clone, Copy)]
pub struct Salt(Option<[u8; 32]>);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl Salt {
    /// A salt from the system's source of randomness. Where there is none, nothing is digested.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 32];
        Self(rand::fill(&mut bytes).is_ok().then_some(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> Option<&[u8; 32]> {
        self.0.as_ref()
    }

    /// HMAC-SHA-256 under the salt over a value's canonical JSON (RFC 8785).
    #[must_use]
    pub fn digest(&self, value: &Value) -> Option<String> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref()?);
        let canonical = serde_json_canonicalizer::to_vec(value).ok()?;
        Some(format!("hmac-sha256:{}", hex::encode(hmac::sign(&key, &canonical))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_value_has_another_digest_in_another_call() {
        let (one, other) = (Salt::random(), Salt::random());
        let value = json!({ "amount": 1200, "order": "ord_1" });
        assert_eq!(one.digest(&value), one.digest(&json!({ "order": "ord_1", "amount": 1200 })));
        assert_ne!(one.digest(&value), other.digest(&value));
        assert_ne!(one.digest(&value), one.digest(&json!({ "order": "ord_1", "amount": 1201 })));
    }
}

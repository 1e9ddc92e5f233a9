//! The salt of a call's digests.

use std::fmt;

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};
use serde_json::Value;

/// 32 random bytes, so that nobody can guess what a digest is of without them.
#[derive(Clone, Eq, PartialEq)]
pub struct Salt([u8; 32]);

/// What a digest is of. Equal values have unlike digests where they are not of the same kind, so that
/// nobody learns from two digests that an answer was what had been asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Digested {
    /// The arguments.
    Arguments,
    /// What the policies decided on, besides the arguments and the release.
    DecisionInput,
    /// The result.
    Result,
}

impl Digested {
    /// What stands before the canonical bytes. No JSON begins like that.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Arguments => b"callgate arguments 1\n",
            Self::DecisionInput => b"callgate decision input 1\n",
            Self::Result => b"callgate result 1\n",
        }
    }
}

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
    pub fn digest_value(&self, of: Digested, value: &Value) -> Option<String> {
        Some(self.digest(of, &serde_json_canonicalizer::to_vec(value).ok()?))
    }

    /// The digest of canonical bytes: `hmac-sha256:` and HMAC-SHA-256 under the salt, in hexadecimal, over
    /// what names their kind and the bytes.
    #[must_use]
    pub fn digest(&self, of: Digested, canonical: &[u8]) -> String {
        format!("{PREFIX}{}", hex::encode(self.sign(of, canonical)))
    }

    /// Whether a digest is that of these bytes.
    #[must_use]
    pub fn check(&self, of: Digested, canonical: &[u8], digest: &str) -> bool {
        let claimed = digest.strip_prefix(PREFIX).and_then(|claimed| hex::decode(claimed).ok());
        let fits =
            |claimed: Vec<u8>| verify_slices_are_equal(self.sign(of, canonical).as_ref(), &claimed).is_ok();
        claimed.is_some_and(fits)
    }

    fn sign(&self, of: Digested, canonical: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(of.label());
        context.update(canonical);
        context.sign()
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
        let digest = |salt: &Salt, value: &Value| salt.digest_value(Digested::Arguments, value);
        assert_eq!(digest(&one, &value), digest(&one, &json!({ "order": "ord_1", "amount": 1200 })));
        assert_ne!(digest(&one, &value), digest(&other, &value));
        assert_ne!(digest(&one, &value), digest(&one, &json!({ "order": "ord_1", "amount": 1201 })));
    }

    #[test]
    fn a_result_that_repeats_the_arguments_has_another_digest() {
        let salt = Salt::from_bytes([3; 32]);
        let (asked, answered) =
            (salt.digest(Digested::Arguments, b"{}"), salt.digest(Digested::Result, b"{}"));
        assert_ne!(asked, answered);
        assert!(
            salt.check(Digested::Arguments, b"{}", &asked) && salt.check(Digested::Result, b"{}", &answered)
        );
        assert!(
            !salt.check(Digested::Arguments, b"{}", &answered)
                && !salt.check(Digested::Result, b"{}", &asked)
        );
    }
}

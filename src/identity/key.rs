//! API keys: `cg_<id>_<secret>`, of which the gate keeps only a digest.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// An API key as a caller shows it, borrowed for as long as it takes to check it.
pub struct ApiKey<'a> {
    id: &'a str,
    secret: &'a str,
}

/// The digest of a key's secret part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct KeyDigest([u8; 32]);

impl<'a> ApiKey<'a> {
    /// Splits a key into its id and its secret.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix("cg_")?.split_once('_')?;
        (!id.is_empty() && !secret.is_empty()).then_some(Self { id, secret })
    }

    /// The part that is not secret.
    #[must_use]
    pub const fn id(&self) -> &str {
        self.id
    }

    /// What the key is found by: an id of any length costs the same to compare.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        Self::fingerprint_of(self.id)
    }

    /// The fingerprint of an id.
    pub(super) fn fingerprint_of(id: &str) -> [u8; 32] {
        Sha256::digest(id.as_bytes()).into()
    }

    /// Whether this is the key of a digest, in a time that does not depend on where they differ.
    pub(super) fn matches(&self, digest: &KeyDigest) -> bool {
        let shown: [u8; 32] = Sha256::digest(self.secret.as_bytes()).into();
        shown.ct_eq(&digest.0).into()
    }
}

impl KeyDigest {
    /// The digest of these bytes.
    pub(super) const fn of(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// Reads 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }
}

/// A key that was just made: the one moment at which its secret can be read.
pub struct NewKey {
    key: String,
    sha256: String,
}

impl NewKey {
    /// A key of an id and 32 random bytes.
    #[must_use]
    pub fn new(id: &str, random: [u8; 32]) -> Self {
        let secret = random.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Self { key: format!("cg_{id}_{secret}"), sha256: hex::encode(Sha256::digest(secret.as_bytes())) }
    }

    /// The whole key, for the client.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The digest, for `clients.yaml`.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_matches_its_own_digest_and_no_other() {
        let one = NewKey::new("k1", [1; 32]);
        let other = NewKey::new("k1", [2; 32]);
        let digest = KeyDigest::parse(one.sha256()).unwrap();
        assert!(ApiKey::parse(one.key()).unwrap().matches(&digest));
        assert!(!ApiKey::parse(other.key()).unwrap().matches(&digest));
        assert!(!ApiKey::parse(one.key()).unwrap().matches(&KeyDigest::of([0; 32])));
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        for text in ["", "cg_", "cg__x", "cg_id_", "cg_id", "sk_id_secret"] {
            assert!(ApiKey::parse(text).is_none(), "{text}");
        }
    }
}

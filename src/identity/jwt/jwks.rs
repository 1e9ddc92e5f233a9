//! The keys that an issuer publishes (JWK Set, RFC 7517 §5).

use std::collections::HashMap;

use serde_json::Value;

use crate::strict::{self, Bounds, Fault};

use super::{
    Algorithm, Shown,
    jwk::{Jwk, SkipReason},
};

const JWKS_BYTES_MAX: usize = 64 * 1024;
const KEYS_MAX: usize = 100;
/// A key has a dozen members, and some have a chain of certificates.
const BOUNDS: Bounds = Bounds { depth_max: 8, nodes_max: 50 * KEYS_MAX };

/// The usable public keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

/// A key that is published and not used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("key {}{}: {reason}", .index + 1, .kid.as_ref().map(|kid| format!(" (`{kid}`)")).unwrap_or_default())]
pub struct Skipped {
    /// Its place in the set, from 0.
    pub index: usize,
    /// Its id, if it has one.
    pub kid: Option<Shown>,
    /// Why.
    pub reason: SkipReason,
}

/// Why a text is no set of keys.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JwksError {
    /// It is longer than a set of keys may be.
    #[error("a key set of more than {JWKS_BYTES_MAX} bytes")]
    TooLong,
    /// It is not JSON, or not the JSON that every reader reads alike.
    #[error("the key set is not strict JSON: {0}")]
    Json(#[from] Fault),
    /// It lacks an array of keys.
    #[error("the key set has no array `keys`")]
    NoKeys,
    /// It has more keys than are looked at.
    #[error("a key set of more than {KEYS_MAX} keys")]
    TooMany,
}

impl JwkSet {
    /// Reads a set, of which one bad key does not take the others along. A key without `alg`
    /// gets the only one of `allowed` that is for keys of its kind.
    ///
    /// # Errors
    /// When the text is no set of keys. A set without a usable key is none of these errors.
    pub fn parse(bytes: &[u8], allowed: &[Algorithm]) -> Result<(Self, Vec<Skipped>), JwksError> {
        if bytes.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLong);
        }
        strict::scan(bytes, BOUNDS)?;
        let set: Value = serde_json::from_slice(bytes).map_err(|_| JwksError::NoKeys)?;
        let published = set.get("keys").and_then(Value::as_array).ok_or(JwksError::NoKeys)?;
        if published.len() > KEYS_MAX {
            return Err(JwksError::TooMany);
        }
        let mut skipped = Vec::new();
        let mut usable = Vec::new();
        for (index, jwk) in published.iter().enumerate() {
            match Jwk::read(jwk, allowed) {
                Ok(key) => usable.push((index, key)),
                Err(reason) => {
                    let kid = jwk.get("kid").and_then(Value::as_str).map(Shown::of);
                    skipped.push(Skipped { index, kid, reason });
                }
            }
        }
        let keys = without_duplicates(usable, &mut skipped);
        skipped.sort_by_key(|skipped| skipped.index);
        Ok((Self { keys }, skipped))
    }

    /// How many keys can be used.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether there is a usable key of this id.
    #[must_use]
    pub fn contains(&self, kid: &str) -> bool {
        self.named(kid).is_some()
    }

    pub(super) fn named(&self, kid: &str) -> Option<&Jwk> {
        self.keys.iter().find(|key| key.kid() == Some(kid))
    }

    /// The key of a token that names none.
    pub(super) fn only(&self) -> Option<&Jwk> {
        match self.keys.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Takes out all keys that share an id: none of them is the one that is meant.
fn without_duplicates(keys: Vec<(usize, Jwk)>, skipped: &mut Vec<Skipped>) -> Vec<Jwk> {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for kid in keys.iter().filter_map(|(_, key)| key.kid()) {
        *uses.entry(kid.to_owned()).or_default() += 1;
    }
    let mut kept = Vec::new();
    for (index, key) in keys {
        let kid = key.kid();
        if kid.and_then(|kid| uses.get(kid)).is_some_and(|uses| *uses > 1) {
            let kid = kid.map(Shown::of);
            skipped.push(Skipped { index, kid, reason: SkipReason::DuplicateKid });
        } else {
            kept.push(key);
        }
    }
    kept
}

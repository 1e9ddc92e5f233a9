//! Ed25519 signatures of many heads, verified in batches on a thread of their own.
//!
//! A batch proves that every signature in it is valid, but for a chance of 2^-128 that nobody can steer. A batch
//! that fails is gone through one by one.

use std::sync::mpsc::Receiver;

use ed25519_dalek::{Verifier, verify_batch};

use super::walk::Signed;

/// How many signatures make a batch.
pub(super) const BATCH: usize = 256;

/// Verifies what comes until the sender is gone; returns how many were valid, and the first that was not.
pub(super) fn verify_all(batches: &Receiver<Vec<Signed>>) -> (u64, Option<Signed>) {
    let mut valid = 0;
    for batch in batches {
        match first_invalid(&batch) {
            None => valid += batch.len() as u64,
            // The walk goes on regardless and finds nobody listening; what it sends is no longer of interest.
            Some(at) => return (valid + at as u64, batch.into_iter().nth(at)),
        }
    }
    (valid, None)
}

fn first_invalid(batch: &[Signed]) -> Option<usize> {
    let texts: Vec<&[u8]> = batch.iter().map(|signed| signed.text.as_slice()).collect();
    let signatures: Vec<_> = batch.iter().map(|signed| signed.signature).collect();
    let keys: Vec<_> = batch.iter().map(|signed| signed.key).collect();
    if batch.len() > 1 && verify_batch(&texts, &signatures, &keys).is_ok() {
        return None;
    }
    batch.iter().position(|signed| !is_valid(signed))
}

/// Whether one signature is valid.
pub(super) fn is_valid(signed: &Signed) -> bool {
    signed.key.verify(&signed.text, &signed.signature).is_ok()
}

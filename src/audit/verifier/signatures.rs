//! Ed25519 signatures of many heads, verified in batches on all cores.
//!
//! Heads are signed by one key, or by few. With the equations of a batch summed up under random weights, a key is
//! multiplied once for all its signatures; what is left for each of them is to decompress its point, which is more
//! than half of the work. A batch proves that every signature in it is valid, but for a chance of 2^-128 that nobody
//! can steer, since the weights are a hash of all that is verified. A batch that fails is gone through one by one.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread,
};

use curve25519_dalek::{
    constants::ED25519_BASEPOINT_POINT,
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use ed25519_dalek::{Verifier, VerifyingKey};
use sha2::{Digest, Sha512};

use super::walk::Signed;

/// How many signatures make a batch: from here on, larger ones gain nothing.
pub(super) const BATCH: usize = 1_024;
/// More threads than that wait for the one that reads.
const WORKERS_MAX: usize = 16;

/// How many threads verify.
pub(super) fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS_MAX)
}

/// The batches of one log in its order, for all workers.
pub(super) struct Batches {
    waiting: Mutex<(u64, Receiver<Vec<Signed>>)>,
    /// The number of the first batch that holds a bad signature, as far as is known.
    first_bad: AtomicU64,
}

/// What workers found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// How many signatures are valid.
    pub(super) valid: u64,
    /// The number of the first batch that holds a bad one, and the first bad one in it.
    bad: Option<(u64, Signed)>,
}

impl Batches {
    pub(super) fn new(receiver: Receiver<Vec<Signed>>) -> Self {
        Self { waiting: Mutex::new((0, receiver)), first_bad: AtomicU64::new(u64::MAX) }
    }

    /// Verifies what comes until the sender is gone.
    pub(super) fn verify(&self) -> Found {
        let mut found = Found::default();
        while let Some((number, batch)) = self.next() {
            // What comes after a bad signature is of no interest any more.
            if number > self.first_bad.load(Ordering::Relaxed) {
                continue;
            }
            let bad = first_invalid(&batch);
            found.valid += bad.unwrap_or(batch.len()) as u64;
            if let Some(signed) = bad.and_then(|at| batch.into_iter().nth(at)) {
                self.first_bad.fetch_min(number, Ordering::Relaxed);
                found = found.and(Found { valid: 0, bad: Some((number, signed)) });
            }
        }
        found
    }

    fn next(&self) -> Option<(u64, Vec<Signed>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = waiting.1.recv().ok()?;
        waiting.0 += 1;
        Some((waiting.0, batch))
    }
}

impl Found {
    /// What two workers found.
    pub(super) fn and(self, other: Self) -> Self {
        let bad = [self.bad, other.bad].into_iter().flatten().min_by_key(|(number, _)| *number);
        Self { valid: self.valid + other.valid, bad }
    }

    /// The first bad signature of the log.
    pub(super) fn first_bad(self) -> Option<Signed> {
        self.bad.map(|(_, signed)| signed)
    }
}

fn first_invalid(batch: &[Signed]) -> Option<usize> {
    if batch.len() > 1 && are_valid(batch) {
        return None;
    }
    batch.iter().position(|signed| !is_valid(signed))
}

/// Whether one signature is valid.
pub(super) fn is_valid(signed: &Signed) -> bool {
    signed.key.verify(&signed.text, &signed.signature).is_ok()
}

/// Whether all are: each has `sB = R + kA`, and so has any sum of them.
fn are_valid(batch: &[Signed]) -> bool {
    difference(batch).is_some_and(|difference| difference.is_identity())
}

/// `Σ zR + Σ (Σ zk)A − (Σ zs)B`, the second sum over the keys; `None` where a signature is none by its form.
fn difference(batch: &[Signed]) -> Option<EdwardsPoint> {
    let challenges: Vec<[u8; 64]> = batch.iter().map(challenge).collect();
    let weights = weights(batch, &challenges);
    let mut of_base = Scalar::ZERO;
    let mut of_keys: Vec<(VerifyingKey, Scalar)> = Vec::new();
    for ((signed, challenge), weight) in batch.iter().zip(&challenges).zip(&weights) {
        let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(*signed.signature.s_bytes()))?;
        of_base -= weight * s;
        let of_key = weight * Scalar::from_bytes_mod_order_wide(challenge);
        match of_keys.iter_mut().find(|(key, _)| *key == signed.key) {
            Some((_, sum)) => *sum += of_key,
            None => of_keys.push((signed.key, of_key)),
        }
    }
    let scalars = weights.iter().chain(of_keys.iter().map(|(_, sum)| sum)).chain([&of_base]);
    let points = batch
        .iter()
        .map(|signed| CompressedEdwardsY(*signed.signature.r_bytes()).decompress())
        .chain(of_keys.iter().map(|(key, _)| Some(key.to_edwards())))
        .chain([Some(ED25519_BASEPOINT_POINT)]);
    EdwardsPoint::optional_multiscalar_mul(scalars, points)
}

/// `H(R ‖ A ‖ text)`, `k` of RFC 8032 §5.1.7 before it is reduced.
fn challenge(signed: &Signed) -> [u8; 64] {
    let hash = Sha512::new().chain_update(signed.signature.r_bytes()).chain_update(signed.key.as_bytes());
    hash.chain_update(&signed.text).finalize().into()
}

/// 128 bits for each signature, which depend on all of them.
fn weights(batch: &[Signed], challenges: &[[u8; 64]]) -> Vec<Scalar> {
    let mut seed = Sha512::new();
    for (signed, challenge) in batch.iter().zip(challenges) {
        seed.update(challenge);
        seed.update(signed.signature.s_bytes());
    }
    let seed = seed.finalize();
    let blocks = (0_u64..).map(|number| -> [u8; 64] {
        Sha512::new().chain_update(seed).chain_update(number.to_le_bytes()).finalize().into()
    });
    let weights = blocks.flat_map(|block| {
        let (weights, _) = block.as_chunks::<16>();
        weights.iter().map(|bytes| Scalar::from(u128::from_le_bytes(*bytes))).collect::<Vec<_>>()
    });
    weights.take(batch.len()).collect()
}

#[cfg(test)]
#[path = "signatures/tests.rs"]
mod tests;

//! Witnesses: others who remember how far our log was, and refuse to sign that it went back.
//!
//! A checkpoint is sent to each witness with a proof that it continues what the witness saw last
//! (C2SP `tlog-witness`), and the cosignatures (C2SP `tlog-cosignature`, Ed25519) are kept beside it.
//! A log that was put back to an older state, valid as it may be by itself, is refused by them.

mod head;
mod key;
mod message;
mod state;

use std::{path::Path, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all};
use http::HeaderValue;
use reqwest::{Method, Request};
use url::Url;

use crate::egress::{EgressRefusal, SendError, Way};

pub use head::{Head, HeadError, merge};
pub use key::{Cosignature, WitnessKey, WitnessKeyError};
pub use message::{Answer, answer, cosignature, request};
pub use state::{Seen, StateError, WitnessState};

/// A witness: who it is, and where it takes checkpoints.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Its name and public key.
    pub key: WitnessKey,
    /// Its submission prefix: `/add-checkpoint` is added to it.
    pub prefix: Url,
    /// The way to it, which leads to no other addresses than its egress allows.
    pub way: Way,
}

/// Proves that the tree of the second size continues the tree of the first (RFC 6962 §2.1.2).
/// Asked for sizes above 0 that differ, on a thread where it may read files.
pub type Proofs = Arc<dyn Fn(u64, u64) -> Result<Vec<[u8; 32]>, String> + Send + Sync>;

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The witness knows a longer log: this one was put back to an older state.
    #[error("rolled back: the witness has seen size {seen}, this log has {have}")]
    RolledBack {
        /// What the witness has seen.
        seen: u64,
        /// What was submitted.
        have: u64,
    },
    /// The witness knows another tree of the same size.
    #[error("forked: the witness has seen another tree of size {size}")]
    Forked {
        /// The size of both.
        size: u64,
    },
    /// The proof of consistency was refused.
    #[error("the witness does not accept that size {new} continues the size {old} it has seen")]
    Inconsistent {
        /// What the witness has seen.
        old: u64,
        /// What was submitted.
        new: u64,
    },
    /// The witness does not accept the signature on the checkpoint.
    #[error("the witness does not know the key that signed the checkpoint of `{origin}`")]
    UnknownKey {
        /// The log.
        origin: String,
    },
    /// The witness does not take checkpoints of this log.
    #[error("the witness does not know the log `{origin}`")]
    UnknownLog {
        /// The log.
        origin: String,
    },
    /// The answer has a status that ends the submission.
    #[error("the witness answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not what the protocol says.
    #[error("the witness gave an answer that cannot be used: {what}")]
    Answer {
        /// What is wrong.
        what: &'static str,
    },
    /// A line under the witness's name and key id is no cosignature of this checkpoint.
    #[error("the witness's cosignature is forged: it is not by the witness's key, or not of this checkpoint")]
    Forged,
    /// The witness's size changed again and again while we submitted.
    #[error("the witness has seen another size at each of {tries} tries")]
    Unsettled {
        /// How often it was tried.
        tries: u32,
    },
    /// No consistency proof can be made.
    #[error("no proof that size {new} continues size {old}: {source_text}")]
    Proof {
        /// The size that the witness has seen.
        old: u64,
        /// What was submitted.
        new: u64,
        /// Why.
        source_text: String,
    },
    /// The checkpoint is no checkpoint.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The witness is where the gate may not go.
    #[error("the witness may not be called: {0}")]
    Refused(EgressRefusal),
    /// The prefix takes no path.
    #[error("the witness's URL takes no path")]
    Url,
    /// The request failed.
    #[error("the witness cannot be reached: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// The witness does not answer in time.
    #[error("the witness did not answer within {} s", after.as_secs())]
    TimedOut {
        /// The limit.
        after: Duration,
    },
}

impl WitnessError {
    /// What the witness has seen that this log cannot have come from; `None` where nothing of the kind shows.
    #[must_use]
    pub const fn contradiction(&self) -> Option<Contradiction> {
        match *self {
            Self::RolledBack { seen, .. } => Some(Contradiction { kind: "rolled_back", seen }),
            Self::Forked { size } => Some(Contradiction { kind: "forked", seen: size }),
            // The log has grown beyond what the witness saw, and not from there.
            Self::Inconsistent { old, .. } => Some(Contradiction { kind: "inconsistent", seen: old }),
            Self::UnknownKey { .. }
            | Self::UnknownLog { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Forged
            | Self::Unsettled { .. }
            | Self::Proof { .. }
            | Self::Head(_)
            | Self::Refused(_)
            | Self::Url
            | Self::Unreachable(_)
            | Self::TimedOut { .. } => None,
        }
    }
}

/// A witness has seen a log that this one does not continue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Contradiction {
    /// In a word: `rolled_back`, `forked` or `inconsistent`.
    pub kind: &'static str,
    /// The size that the witness has seen.
    pub seen: u64,
}

/// How long one submission may take, retries and all.
pub const SUBMIT_MAX: Duration = Duration::from_secs(10);
/// A witness sends a line per key; nothing honest is longer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// A first try, one with the size that the witness named, and one for a race with another submitter.
const TRIES_MAX: u32 = 3;

/// Submits a checkpoint (a signed note) to one witness. `seen` is what the witness is known to have
/// cosigned of this log. No redirect is followed: a witness is where it was configured to be.
///
/// # Errors
/// When there is no cosignature to be had. `RolledBack` and `Forked` mean that this log is not the one
/// that the witness knows; somebody should look.
pub async fn submit(
    witness: &Witness,
    checkpoint: &str,
    seen: Option<&Seen>,
    proofs: &Proofs,
) -> Result<Cosignature, WitnessError> {
    submit_within(SUBMIT_MAX, witness, checkpoint, seen, proofs).await
}

async fn submit_within(
    limit: Duration,
    witness: &Witness,
    checkpoint: &str,
    seen: Option<&Seen>,
    proofs: &Proofs,
) -> Result<Cosignature, WitnessError> {
    let head = Head::parse(checkpoint)?;
    if let Some(seen) = seen {
        refuse_going_back(seen, &head)?;
    }
    let tries = settle(witness, checkpoint, &head, seen.map_or(0, |seen| seen.size), proofs);
    match tokio::time::timeout(limit, tries).await {
        Ok(result) => result,
        Err(_) => Err(WitnessError::TimedOut { after: limit }),
    }
}

/// What the witness cosigned is known here already; it need not be asked to find that we went back.
fn refuse_going_back(seen: &Seen, head: &Head) -> Result<(), WitnessError> {
    if seen.size > head.size {
        return Err(WitnessError::RolledBack { seen: seen.size, have: head.size });
    }
    if seen.size == head.size && seen.root != head.root {
        return Err(WitnessError::Forked { size: head.size });
    }
    Ok(())
}

async fn settle(
    witness: &Witness,
    checkpoint: &str,
    head: &Head,
    known: u64,
    proofs: &Proofs,
) -> Result<Cosignature, WitnessError> {
    let mut old = known;
    for _ in 0..TRIES_MAX {
        let proof = prove(proofs, old, head.size).await?;
        let (status, content_type, body) = post(witness, request(old, &proof, checkpoint)).await?;
        match answer(status, content_type.as_deref(), &body)? {
            Answer::Lines(lines) => return cosignature(&witness.key, head, &lines),
            Answer::Size(size) if size > head.size => {
                return Err(WitnessError::RolledBack { seen: size, have: head.size });
            }
            // Told its own size back, a witness that refuses must have another tree.
            Answer::Size(size) if size == old && size == head.size => {
                return Err(WitnessError::Forked { size });
            }
            Answer::Size(size) if size == old => {
                return Err(WitnessError::Answer { what: "it refuses the very size that it names" });
            }
            Answer::Size(size) => old = size,
            Answer::Conflict | Answer::Unproved if old == head.size && old > 0 => {
                return Err(WitnessError::Forked { size: old });
            }
            Answer::Conflict => return Err(WitnessError::Answer { what: "a conflict without a size" }),
            Answer::Unproved => return Err(WitnessError::Inconsistent { old, new: head.size }),
            Answer::UnknownKey => return Err(WitnessError::UnknownKey { origin: head.origin.clone() }),
            Answer::UnknownLog => return Err(WitnessError::UnknownLog { origin: head.origin.clone() }),
        }
    }
    Err(WitnessError::Unsettled { tries: TRIES_MAX })
}

async fn prove(proofs: &Proofs, old: u64, new: u64) -> Result<Vec<[u8; 32]>, WitnessError> {
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let proofs = proofs.clone();
    let proof = tokio::task::spawn_blocking(move || proofs(old, new)).await;
    proof
        .unwrap_or_else(|_| Err("the task that makes it failed".into()))
        .map_err(|source_text| WitnessError::Proof { old, new, source_text })
}

async fn post(witness: &Witness, body: String) -> Result<(u16, Option<String>, Vec<u8>), WitnessError> {
    let mut url = witness.prefix.clone();
    url.path_segments_mut().map_err(|()| WitnessError::Url)?.pop_if_empty().push("add-checkpoint");
    let mut request = Request::new(Method::POST, url);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    request.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    *request.body_mut() = Some(body.into());
    let response = witness.way.send(request).await.map_err(|error| match error {
        SendError::Refused { refusal, .. } => WitnessError::Refused(refusal),
        SendError::Http(error) => unreachable(error),
    })?;
    let status = response.status().as_u16();
    let content_type = response.headers().get(http::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut bytes = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk.map_err(unreachable)?);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(WitnessError::Answer { what: "it is too long" });
        }
    }
    Ok((status, content_type, bytes))
}

/// The URL of a witness may hold what only its users shall know.
fn unreachable(error: reqwest::Error) -> WitnessError {
    WitnessError::Unreachable(error.without_url())
}

/// How one witness answered.
#[derive(Debug)]
pub struct Submitted {
    /// The witness.
    pub witness: WitnessKey,
    /// What it has cosigned now, or why it has not.
    pub result: Result<Seen, WitnessError>,
    line: Option<String>,
}

/// Submits a checkpoint to all witnesses at once, each within a limit, given what they have cosigned before.
/// One witness's refusal does not keep others from cosigning.
pub async fn submit_to_all(
    witnesses: &[Witness],
    checkpoint: &str,
    proofs: &Proofs,
    state: &WitnessState,
    limit: Duration,
) -> Vec<Submitted> {
    join_all(witnesses.iter().map(async |witness| {
        let seen = state.seen(&witness.key);
        let cosigned = submit_within(limit, witness, checkpoint, seen, proofs).await;
        let (line, result) = match cosigned.and_then(|it| Ok((it, Head::parse(checkpoint)?))) {
            Ok((Cosignature { time, line }, head)) => {
                (Some(line), Ok(Seen { size: head.size, root: head.root, time }))
            }
            Err(error) => (None, Err(error)),
        };
        Submitted { witness: witness.key.clone(), result, line }
    }))
    .await
}

/// Keeps what witnesses have cosigned in the log's folder: their states in `witness.json`, the newest
/// cosigned checkpoint in `cosignatures`. Waits for the disk.
///
/// # Errors
/// When those files cannot be read or written.
pub fn keep(
    folder: &Path,
    checkpoint: &str,
    mut state: WitnessState,
    submitted: &[Submitted],
) -> Result<(), StateError> {
    let mut lines = Vec::new();
    for Submitted { witness, result, line } in submitted {
        if let (Ok(seen), Some(line)) = (result, line) {
            state.set(witness, seen.clone());
            lines.push(line.clone());
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    // The note first: a state without its note would claim what nobody can show.
    state::keep_cosignatures(folder, checkpoint, &lines)?;
    state.save(folder)
}

#[cfg(test)]
mod tests;

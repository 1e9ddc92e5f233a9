//! Why runs, revocations and keys cannot be had.

use crate::manifest::KeyId;

/// A change of runs, revocations or keys that was not made.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// The store does not answer.
    #[error("the store of runs does not answer: {0}")]
    Store(#[from] sqlx::Error),
    /// The store holds what nobody wrote there.
    #[error("the store of runs is damaged: {0}")]
    Damaged(String),
    /// The store is older than what was read of it before.
    #[error(
        "the store of runs went back from generation {known} to {found}: was an old copy put in its place?"
    )]
    WentBack {
        /// What was known of it.
        known: i64,
        /// What it says now.
        found: i64,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// As many live runs as there may be.
    #[error("{max} runs are live, and no more may be")]
    TooManyRuns {
        /// How many there may be.
        max: usize,
    },
    /// As many live runs of one client as there may be, default runs not counted.
    #[error("the client has {max} live runs besides its default ones, and may have no more")]
    TooManyOfClient {
        /// How many there may be.
        max: usize,
    },
    /// A run with more labels than it may have.
    #[error("a run may have {max} labels at most")]
    TooManyLabels {
        /// How many it may have.
        max: usize,
    },
    /// More destinations than a run may have, or a longer one.
    #[error("a run may have {max} destinations of {bytes_max} bytes at most")]
    Destinations {
        /// How many it may have.
        max: usize,
        /// How long each may be.
        bytes_max: usize,
    },
    /// A name, a reason or an id longer than is kept.
    #[error("{what} is longer than {bytes_max} bytes")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The run ended meanwhile.
    #[error("the run has ended")]
    Ended,
    /// Others change the same thing again and again.
    #[error("the run changes faster than it can be read")]
    Contended,
    /// As many revocations as there may be.
    #[error("{max} revocations are in force, and no more may be")]
    TooManyRevocations {
        /// How many there may be.
        max: usize,
    },
    /// As many keys as there may be.
    #[error("there are {max} keys made at run time, and no more may be")]
    TooManyKeys {
        /// How many there may be.
        max: usize,
    },
    /// A key of this id was made before.
    #[error("a key of id `{0}` was made before")]
    KeyExists(KeyId),
    /// No key of this id was made at run time.
    #[error("no key of id `{0}` was made at run time")]
    UnknownKey(KeyId),
}

/// Why a run cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is none of this id, or not any more.
    #[error("unknown run")]
    Unknown,
    /// It has ended.
    #[error("the run has ended")]
    Ended,
    /// It is past its lifetime, or was idle for too long.
    #[error("the run has expired")]
    Expired,
    /// It is somebody else's: callers are told what they are told of one that does not exist.
    #[error("the run belongs to another principal")]
    Foreign,
    /// The store does not answer.
    #[error(transparent)]
    Runs(#[from] RunsError),
}

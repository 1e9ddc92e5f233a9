//! The side store: what a record's digests stand for, encrypted, bounded, and erasable.
//!
//! Records hold salted digests only. The salts, and bodies where a tool asks for them, lie in files
//! beside the log that no proof covers: to erase one leaves every record and every proof as it is.
//! One process appends; any other may read and erase at the same time.
//!
//! What it does not promise: puts are not synced. A power loss takes the last of them, and a digest
//! whose salt is lost can no longer be checked against anything. An erasure overwrites the bytes of
//! the file and syncs; copies that a file system, a disk or a backup made are beyond its reach.

mod format;
mod key;
mod reader;
mod writer;

use std::{io, path::PathBuf, time::Duration};

use crate::store::KeyFileError;

pub use crate::call::{Digested, Salt};
pub use format::{BODY_BYTES_MAX, Kind};
pub use key::SideKey;
pub use reader::{Body, Damage, Erase, Erased, Erasure, Found, Pruned, SideReader};
pub use writer::{SideHealth, SideStore};

/// What is put under a call.
#[derive(Debug)]
pub enum Content {
    /// The salt of the call's digests.
    Salt(Salt),
    /// A body, as JSON.
    Body(Kind, Vec<u8>),
}

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All files together hold no more bytes than this; the oldest go first.
    pub bytes_max: u64,
    /// No entry is kept longer than this. Whole files go, so that an entry may go earlier by a sixth.
    pub age_max: Duration,
}

/// The least that [`Bounds::bytes_max`] can be.
pub const STORE_BYTES_MIN: u64 = 64 * 1024;

/// Why a side store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// A file cannot be made, read or written.
    #[error("`{}` cannot be used: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The store would be too small to hold anything.
    #[error("a side store of {bytes_max} bytes is too small; it needs at least {STORE_BYTES_MIN}")]
    TooSmall {
        /// The bound that was asked for.
        bytes_max: u64,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// The thread cannot be started.
    #[error("the thread of the side store cannot be started: {0}")]
    Thread(io::Error),
}

/// Why something was not put into the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PutError {
    /// A body is larger than what is kept.
    #[error("a body of {bytes} bytes is larger than the {bytes_max} that are kept")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The disk does not keep up.
    #[error("the side store is behind: its queue is full")]
    Full,
    /// The store is closed.
    #[error("the side store is closed")]
    Closed,
}

#[cfg(test)]
mod tests;

//! Proofs that can be checked offline, with a public key alone.
//!
//! **Inclusion** is a file of the form [tlog-proof](https://c2sp.org/tlog-proof) (`.tlog-proof`). Its `extra` line
//! carries the record's bytes; they need no trust, as the proof is of their hash:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of the record>
//! index <index of the record>
//! <base64 of a hash, from the leaf's sibling up>*
//!
//! <the checkpoint, as a signed note>
//! ```
//!
//! **Consistency** is what a log sends to a witness ([tlog-witness](https://c2sp.org/tlog-witness)): it shows that the
//! tree of the checkpoint begins with the tree of `old` leaves.
//!
//! ```text
//! old <size>
//! <base64 of a hash>*
//!
//! <the newer checkpoint, as a signed note>
//! ```

mod source;

use std::{fmt::Write, io, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::verifier::{
    note::{Checkpoint, Key, NoteError, OtherKey},
    tree::{self, Hash, leaf_hash},
};

pub use source::{consistency, consistency_from, note_at, prove};

const INCLUSION: &str = "c2sp.org/tlog-proof@v1";
/// A path has a hash for each level of the tree, a consistency proof one more.
const HASHES_MAX: usize = 65;

/// That a record is in a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The index of the record.
    pub index: u64,
    /// The record.
    pub record: Vec<u8>,
    /// The hashes beside the way from the record to the root.
    pub path: Vec<Hash>,
    /// The checkpoint, as a signed note.
    pub checkpoint: Vec<u8>,
}

/// That a log only grew from one checkpoint to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Consistency {
    /// The size of the older tree.
    pub old: u64,
    /// The proof (RFC 6962 §2.1.2).
    pub path: Vec<Hash>,
    /// The newer checkpoint, as a signed note.
    pub checkpoint: Vec<u8>,
}

/// What a proof has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// The log.
    pub origin: String,
    /// How many records the log had at least.
    pub size: u64,
    /// The index of the record.
    pub index: u64,
    /// The record.
    pub record: Vec<u8>,
}

/// Why a proof shows nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// The file does not have the form of a proof.
    #[error("not a proof: expected {expected}")]
    Form {
        /// What was expected.
        expected: &'static str,
    },
    /// A checkpoint is not one, or signed by somebody else.
    #[error("the checkpoint cannot be trusted: {0}")]
    Checkpoint(NoteError),
    /// A checkpoint is signed by another key than those that are given.
    #[error("the checkpoint cannot be trusted: {0}")]
    OtherKey(OtherKey),
    /// The checkpoints are of two logs.
    #[error("the checkpoints are of two logs, `{old}` and `{new}`")]
    TwoLogs {
        /// The older one's.
        old: String,
        /// The newer one's.
        new: String,
    },
    /// The record is not the one at that place of the log.
    #[error("the record is not the one at index {index} of `{origin}`")]
    Inclusion {
        /// The index.
        index: u64,
        /// The log.
        origin: String,
    },
    /// The log did not only grow.
    #[error("`{origin}` with {new} records does not begin with the {old} records of the older checkpoint")]
    Consistency {
        /// The log.
        origin: String,
        /// The size of the older checkpoint.
        old: u64,
        /// The size of the newer one.
        new: u64,
    },
}

/// Why a proof could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// A file could not be read.
    #[error("cannot read `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A segment is damaged.
    #[error("`{}` is damaged at byte {offset}", file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where.
        offset: u64,
    },
    /// No head covers the record.
    #[error("no signed head of `{}` covers the record {index}", log.display())]
    NotCovered {
        /// The log's folder.
        log: PathBuf,
        /// The record's index.
        index: u64,
    },
    /// There is no head of that size.
    #[error("`{}` has no signed head of {size} records", log.display())]
    NoHead {
        /// The log's folder.
        log: PathBuf,
        /// The size.
        size: u64,
    },
    /// A checkpoint is not one of this log.
    #[error("the records in `{}` are not those of the checkpoint of {size} records", log.display())]
    OtherTree {
        /// The log's folder.
        log: PathBuf,
        /// The checkpoint's size.
        size: u64,
    },
    /// Not a checkpoint.
    #[error("not a checkpoint")]
    Note,
    /// The sizes are the wrong way round.
    #[error("the older checkpoint has {old} records, the newer one {new}")]
    Order {
        /// The older one's size.
        old: u64,
        /// The newer one's size.
        new: u64,
    },
}

impl Proof {
    /// The proof as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let record = BASE64_STANDARD.encode(&self.record);
        file(format!("{INCLUSION}\nextra {record}\nindex {}\n", self.index), &self.path, &self.checkpoint)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckError::Form`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckError> {
        let rest =
            str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix(INCLUSION)?.strip_prefix('\n'));
        let rest = rest.ok_or(form("a first line `c2sp.org/tlog-proof@v1`"))?;
        let (record, rest) = line(rest, "extra ").ok_or(form("a line `extra` with the record"))?;
        let record = BASE64_STANDARD.decode(record).map_err(|_| form("a record in base64"))?;
        let (index, rest) = line(rest, "index ").ok_or(form("a line `index`"))?;
        let index = number(index).ok_or(form("an index"))?;
        let (path, checkpoint) = hashes(rest)?;
        Ok(Self { index, record, path, checkpoint: checkpoint.to_vec() })
    }
}

impl Consistency {
    /// The proof as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        file(format!("old {}\n", self.old), &self.path, &self.checkpoint)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckError::Form`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckError> {
        let text = str::from_utf8(bytes).map_err(|_| form("text"))?;
        let (old, rest) = line(text, "old ").ok_or(form("a first line `old`"))?;
        let old = number(old).ok_or(form("a size"))?;
        let (path, checkpoint) = hashes(rest)?;
        Ok(Self { old, path, checkpoint: checkpoint.to_vec() })
    }
}

/// Checks a proof of inclusion. The keys have the name that the log's name follows in its origin, or the origin.
///
/// # Errors
/// Where it shows nothing.
pub fn check(proof: &[u8], keys: &[Key]) -> Result<Checked, CheckError> {
    let Proof { index, record, path, checkpoint } = Proof::from_bytes(proof)?;
    let checkpoint = trusted(&checkpoint, keys)?;
    let origin = checkpoint.origin.to_owned();
    let root = tree::root_by_inclusion(leaf_hash(&record), index, checkpoint.size, &path);
    if root != Some(checkpoint.root) {
        return Err(CheckError::Inclusion { index, origin });
    }
    Ok(Checked { origin, size: checkpoint.size, index, record })
}

/// Checks a proof of consistency with an older checkpoint; returns the sizes of both.
///
/// # Errors
/// Where it shows nothing.
pub fn check_consistency(old: &[u8], proof: &[u8], keys: &[Key]) -> Result<(u64, u64), CheckError> {
    let Consistency { old: size, path, checkpoint } = Consistency::from_bytes(proof)?;
    let (old, new) = (trusted(old, keys)?, trusted(&checkpoint, keys)?);
    if old.origin != new.origin {
        return Err(CheckError::TwoLogs { old: old.origin.to_owned(), new: new.origin.to_owned() });
    }
    let shown = tree::is_consistent((old.size, &old.root), (new.size, &new.root), &path);
    if size != old.size || !shown {
        return Err(CheckError::Consistency { origin: new.origin.to_owned(), old: old.size, new: new.size });
    }
    Ok((old.size, new.size))
}

/// Reads a checkpoint and verifies that one of the keys signed it.
fn trusted<'a>(note: &'a [u8], keys: &[Key]) -> Result<Checkpoint<'a>, CheckError> {
    let checkpoint = Checkpoint::parse(note).map_err(CheckError::Checkpoint)?;
    if let Some(other) = checkpoint.other_key(keys) {
        return Err(CheckError::OtherKey(other));
    }
    let of_log = |key: &Key| {
        if key.name() == checkpoint.origin {
            return Some(key.clone());
        }
        let log = checkpoint.origin.strip_prefix(key.name())?.strip_prefix('/')?;
        (!log.contains('/')).then(|| key.of_log(log))
    };
    let keys: Vec<Key> = keys.iter().filter_map(of_log).collect();
    checkpoint.verify(&keys).map_err(CheckError::Checkpoint)?;
    Ok(checkpoint)
}

fn file(mut head: String, path: &[Hash], checkpoint: &[u8]) -> Vec<u8> {
    for hash in path {
        let _ = writeln!(head, "{}", BASE64_STANDARD.encode(hash));
    }
    head.push('\n');
    [head.as_bytes(), checkpoint].concat()
}

const fn form(expected: &'static str) -> CheckError {
    CheckError::Form { expected }
}

fn line<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(name)?.split_once('\n')
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn hashes(text: &str) -> Result<(Vec<Hash>, &[u8]), CheckError> {
    let (mut path, mut rest) = (Vec::new(), text);
    loop {
        let (line, after) = rest.split_once('\n').ok_or(form("an empty line after the hashes"))?;
        rest = after;
        if line.is_empty() {
            return Ok((path, rest.as_bytes()));
        }
        let hash = BASE64_STANDARD.decode(line).ok().and_then(|hash| hash.try_into().ok());
        path.push(hash.ok_or(form("a hash of 32 bytes in base64"))?);
        if path.len() > HASHES_MAX {
            return Err(form("no more hashes than a tree has levels"));
        }
    }
}

#[cfg(test)]
mod tests;

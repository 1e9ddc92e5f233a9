//! What others know of a log when a process claims it: the heads of it that other logs of the state folder have on
//! record, and what witnesses have cosigned.
//!
//! A log that was put back to an older state, with its checkpoint and tiles, is a valid older log: by itself it
//! cannot tell. Going on with it would sign a second history beside the one that others have seen.
//!
//! Only heads that are durable are known to others: what is published, and so what others read, was synced before.
//! An honest crash never makes a log shorter than that.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    frame::{Frame, Frames, Kind},
    head::SignedHead,
    key::Trusted,
    segment::{self, Header},
    tree::{Frontier, Hash, leaf_hash},
    witness::WitnessState,
};

/// How much of the ends of all other logs is read, in bytes.
const TAILS_BYTES_MAX: u64 = 256 << 20;
/// How much of the end of one log is read, in bytes.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// No segment is larger; one that is, is no segment.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;
/// For so many heads the root is compared, each of which may take the reading of a segment.
const ROOTS_MAX: usize = 8;
/// How a record of other logs' heads begins: canonical JSON sorts its members.
const HEADS_START: &[u8] = b"{\"heads\":[";
/// What a frame has before its payload: length, kind and tag.
const BEFORE_PAYLOAD_BYTES: usize = 4 + 1 + 16;

/// A head of a log that somebody else has seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Known {
    by: Holder,
    size: u64,
    root: Hash,
}

/// Who has seen it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Holder {
    /// Another log of the state folder, by its name.
    Log(String),
    /// A witness, by the name and id of its key.
    Witness(String),
}

/// How a log contradicts what is known of it.
#[derive(Debug)]
pub(super) enum Contradiction {
    /// It is shorter.
    Shorter(Known),
    /// It has other records.
    Other(Known),
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shorter(Known { by, size, .. }) => {
                match by {
                    Holder::Log(log) => write!(f, "log `{log}` has a head of it with {size} on record")?,
                    Holder::Witness(key) => {
                        write!(f, "the witness `{}` has cosigned {size}", key.escape_debug())?
                    }
                }
                f.write_str(": it was put back, or its end is gone")
            }
            Self::Other(Known { by, size, .. }) => {
                write!(f, "they do not begin with the {size} ")?;
                match by {
                    Holder::Log(log) => write!(f, "of its head that log `{log}` has on record"),
                    Holder::Witness(key) => {
                        write!(f, "that the witness `{}` has cosigned", key.escape_debug())
                    }
                }
            }
        }
    }
}

/// The heads that the logs of a folder have on record, by the log they are of, with the log that has them.
#[derive(Debug, Default)]
pub(super) struct OnRecord(BTreeMap<String, Vec<(String, String)>>);

impl OnRecord {
    /// Reads the ends of all logs. They may be written meanwhile: a frame that is not whole is none.
    pub(super) fn read(folder: &Path) -> Self {
        let mut heads = Self::default();
        let logs: Vec<PathBuf> =
            list(folder).into_iter().filter(|log| log.join("segments").is_dir()).collect();
        let each = TAIL_BYTES_MAX.min(TAILS_BYTES_MAX / logs.len().max(1) as u64);
        for log in logs {
            let Some(name) = log.file_name().and_then(|name| name.to_str()) else { continue };
            if let Err(error) = heads.read_tail(name, &log.join("segments"), each) {
                tracing::warn!(log = name, %error, "the heads that a log has on record cannot be read");
            }
        }
        heads
    }

    fn read_tail(&mut self, holder: &str, segments: &Path, bytes_max: u64) -> io::Result<()> {
        let mut firsts: Vec<u64> = fs::read_dir(segments)?
            .filter_map(|entry| segment::first_of(entry.ok()?.file_name().to_str()?))
            .collect();
        firsts.sort_unstable();
        let mut left = bytes_max;
        for first in firsts.into_iter().rev() {
            let mut file = File::open(segments.join(segment::name(first)))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(left)))?;
            let mut bytes = Vec::new();
            file.take(left).read_to_end(&mut bytes)?;
            self.find(holder, &bytes);
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Frames are found by what they hold, as the bytes may begin in the middle of one.
    fn find(&mut self, holder: &str, bytes: &[u8]) {
        #[derive(Deserialize)]
        struct Heads {
            heads: Vec<Head>,
        }
        #[derive(Deserialize)]
        struct Head {
            checkpoint: String,
            log: String,
        }
        for at in memchr::memmem::find_iter(bytes, HEADS_START) {
            let frame = at.checked_sub(BEFORE_PAYLOAD_BYTES).and_then(|at| Frame::read(bytes.get(at..)?));
            let record = frame.filter(|frame| frame.kind == Kind::Record);
            let heads = record.and_then(|frame| serde_json::from_slice::<Heads>(frame.payload).ok());
            for Head { checkpoint, log } in heads.into_iter().flat_map(|heads| heads.heads) {
                self.0.entry(log).or_default().push((holder.to_owned(), checkpoint));
            }
        }
    }

    /// The newest head of a log in each other one, by its own key.
    pub(super) fn of(&self, log: &str, trusted: &Trusted) -> Vec<Known> {
        let mut by_holder: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
        for (holder, note) in self.0.get(log).into_iter().flatten().filter(|(holder, _)| holder != log) {
            let size = note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
            by_holder.entry(holder).or_default().push((size, note));
        }
        let newest = |(holder, mut notes): (&str, Vec<(u64, &str)>)| {
            notes.sort_unstable();
            notes.dedup();
            // What is not signed by the log's own key says nothing about it.
            let head =
                notes.iter().rev().find_map(|(_, note)| SignedHead::verify(note.as_bytes(), trusted))?;
            Some(Known { by: Holder::Log(holder.to_owned()), size: head.size(), root: *head.root() })
        };
        by_holder.into_iter().filter_map(newest).collect()
    }
}

/// What witnesses have cosigned of a log, as its folder says.
pub(super) fn witnessed(folder: &Path) -> Vec<Known> {
    // A file that cannot be read is for the task that asks the witnesses to say.
    let state = WitnessState::load(folder).unwrap_or_default();
    let known = |(label, seen): (&str, &super::witness::Seen)| Known {
        by: Holder::Witness(label.to_owned()),
        size: seen.size,
        root: seen.root,
    };
    state.all().map(known).collect()
}

/// How a log of `size` records contradicts what is known of it.
pub(super) fn contradiction(
    folder: &Path,
    size: u64,
    mut known: Vec<Known>,
) -> io::Result<Option<Contradiction>> {
    known.sort_by_key(|known| std::cmp::Reverse(known.size));
    let mut roots = BTreeMap::new();
    for known in known {
        if known.size > size {
            return Ok(Some(Contradiction::Shorter(known)));
        }
        if roots.len() == ROOTS_MAX && !roots.contains_key(&known.size) {
            break;
        }
        let root = match roots.get(&known.size) {
            Some(root) => *root,
            None => *roots.entry(known.size).or_insert(root_at(folder, known.size)?),
        };
        // Where a segment in the middle cannot be read that far, `verify` says so.
        if root.is_some_and(|root| root != known.root) {
            return Ok(Some(Contradiction::Other(known)));
        }
    }
    Ok(None)
}

/// The root of a log's first `size` records, by the segment that holds the last of them.
fn root_at(folder: &Path, size: u64) -> io::Result<Option<Hash>> {
    let segments = folder.join("segments");
    let firsts =
        fs::read_dir(&segments)?.filter_map(|entry| segment::first_of(entry.ok()?.file_name().to_str()?));
    let Some(first) = firsts.filter(|first| *first <= size).max() else { return Ok(None) };
    let path = segments.join(segment::name(first));
    if fs::metadata(&path)?.len() > SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let bytes = fs::read(&path)?;
    let Some((Header { mut frontier, .. }, frames_at)) = Header::read(&bytes) else { return Ok(None) };
    let records = Frames::new(&bytes, frames_at).filter(|(_, frame)| frame.kind == Kind::Record);
    for (_, record) in records.take(usize::try_from(size - first).unwrap_or(usize::MAX)) {
        frontier.push(leaf_hash(record.payload));
    }
    Ok(Some(frontier).filter(|frontier| frontier.size() == size).map(|frontier: Frontier| frontier.root()))
}

/// Whether a log's folder holds nothing yet but its lock.
pub(super) fn is_new(folder: &Path) -> bool {
    list(folder).iter().all(|path| path.file_name().is_some_and(|name| name == "lock"))
}

fn list(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests;

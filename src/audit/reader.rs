//! Reads the records of a log from its segments, while its writer goes on.
//!
//! A frame that is not whole yet is not there yet. Bytes that are no frame and have a frame behind
//! them are damage, and an error that says where. Whether records are the ones that were written is
//! for the verifier to say: the reader checks checksums, not signatures.

mod follow;
mod frames;
mod view;
#[cfg(test)]
pub(crate) mod fixture;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

pub use follow::Follower;
pub use view::RecordView;

use super::{frame::Kind, segment};
use frames::{Frame, Frames, Next};

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A segment is damaged.
    #[error("`{}` is damaged at record {index}, byte {offset}: {damage}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// The first record that cannot be read.
        index: u64,
        /// Where it would begin.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// Records between two segments are missing.
    #[error("records {from} to {} are missing before `{}`", to.saturating_sub(1), path.display())]
    Missing {
        /// The segment behind the gap.
        path: PathBuf,
        /// The first record that is missing.
        from: u64,
        /// The first one that is there again.
        to: u64,
    },
    /// The segment has a format that this program does not know.
    #[error("`{}` has format version {version}, which this program does not read", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
}

/// What is wrong with bytes where a frame should begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// A segment's header is not whole.
    #[error("the segment's header is not intact")]
    Header,
    /// No frame has this length.
    #[error("no frame has a length of {length} bytes")]
    Length {
        /// The length.
        length: u32,
    },
    /// No frame has this kind.
    #[error("no frame has kind {kind}")]
    Kind {
        /// The kind.
        kind: u8,
    },
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// The file ends inside a frame.
    #[error("the frame is not complete")]
    Short,
}

/// A record, and where it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its index in its log.
    pub index: u64,
    /// Its bytes: canonical JSON, if its writer was ours.
    pub bytes: Vec<u8>,
    /// Where its frame is.
    pub place: Place,
}

/// The place of a frame in a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The first record of its segment.
    pub segment: u64,
    /// Where it begins in the segment.
    pub offset: u64,
    /// Its tag, which depends on every frame before it.
    pub tag: [u8; 16],
}

/// A log of a state folder.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LogFolder {
    name: String,
    path: PathBuf,
}

/// The logs of a state folder, by name.
///
/// # Errors
/// When the folder cannot be read. A state folder without logs has none.
pub fn logs(state: &Path) -> Result<Vec<LogFolder>, ReadError> {
    let folder = state.join("audit");
    let mut logs: Vec<LogFolder> = names(&folder)?
        .into_iter()
        .map(|name| LogFolder { path: folder.join(&name), name })
        .filter(|log| log.path.join("segments").is_dir())
        .collect();
    logs.sort_by(|one, other| sort_key(&one.name).cmp(&sort_key(&other.name)));
    Ok(logs)
}

/// `serve-2` comes before `serve-10`.
fn sort_key(name: &str) -> (&str, u64, &str) {
    let (kind, slot) = name.rsplit_once('-').unwrap_or((name, ""));
    (kind, slot.parse().unwrap_or(u64::MAX), name)
}

fn names(folder: &Path) -> Result<Vec<String>, ReadError> {
    let failed = |source| ReadError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

impl fmt::Display for LogFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl LogFolder {
    /// The log's name, `serve-0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records from `index` on, as far as there are any now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn records(&self, index: u64) -> Result<Records, ReadError> {
        Ok(Records(Some(self.follow(index)?)))
    }

    /// The records behind a frame that was found before; none if it is no longer there.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn records_behind(&self, index: u64, place: Place) -> Result<Option<Records>, ReadError> {
        let Some(mut frames) = self.open_at(index, place)? else { return Ok(None) };
        match frames.next() {
            Ok(Next::Frame(frame)) if frame.tag == place.tag => {}
            Ok(_) | Err(ReadError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(Records(Some(Follower::at(self.clone(), frames)))))
    }

    /// The last `count` records.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn last(&self, count: u64) -> Result<Records, ReadError> {
        self.records(self.size()?.saturating_sub(count))
    }

    /// How many records there are now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn size(&self) -> Result<u64, ReadError> {
        let Some(last) = self.segments()?.last().copied() else { return Ok(0) };
        let mut frames = self.open(last)?;
        while let Next::Frame(_) = frames.next()? {}
        Ok(frames.index())
    }

    /// One record, where the log has it.
    ///
    /// # Errors
    /// When the log cannot be read up to there.
    pub fn get(&self, index: u64) -> Result<Option<Found>, ReadError> {
        self.records(index)?.next().transpose()
    }

    /// The record at a place where it was found before, if it is still there.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn get_at(&self, index: u64, place: Place) -> Result<Option<Found>, ReadError> {
        let Some(mut frames) = self.open_at(index, place)? else { return Ok(None) };
        let segment = frames.first();
        Ok(match frames.next() {
            Ok(Next::Frame(frame)) if frame.tag == place.tag => found(segment, frame),
            Ok(_) | Err(ReadError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        })
    }

    /// The records from `index` on, those included that are not written yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn follow(&self, index: u64) -> Result<Follower, ReadError> {
        Follower::new(self.clone(), index)
    }

    /// The first records of the segments, in order.
    fn segments(&self) -> Result<Vec<u64>, ReadError> {
        let mut firsts: Vec<u64> =
            names(&self.path.join("segments"))?.iter().filter_map(|name| segment::first_of(name)).collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.path.join("segments").join(segment::name(first))
    }

    fn open(&self, first: u64) -> Result<Frames, ReadError> {
        Frames::open(self.segment(first), first)
    }

    fn open_at(&self, index: u64, place: Place) -> Result<Option<Frames>, ReadError> {
        let mut frames = match self.open(place.segment) {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            frames => frames?,
        };
        frames.seek(place.offset, index);
        Ok(Some(frames))
    }
}

fn found(segment: u64, frame: Frame<'_>) -> Option<Found> {
    let place = Place { segment, offset: frame.offset, tag: frame.tag };
    (frame.kind == Kind::Record).then(|| Found { index: frame.index, bytes: frame.payload.to_vec(), place })
}

/// Records, in order, as far as there were any when the end was reached.
#[derive(Debug)]
pub struct Records(Option<Follower>);

impl Iterator for Records {
    type Item = Result<Found, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.as_mut()?.poll().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.0 = None;
        }
        next
    }
}

#[cfg(test)]
mod tests;

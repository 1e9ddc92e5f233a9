//! What a verification found.

use std::{fmt, path::PathBuf};

use super::note::OtherKey;

/// What was found in all logs that were verified.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each log, in the order of their names.
    pub logs: Vec<LogReport>,
}

impl Report {
    /// Whether nothing is wrong. Records that no head covers yet are not wrong, nor is a frame that was cut short
    /// at the end of a log: that is what a crash leaves.
    pub fn is_clean(&self) -> bool {
        self.damage().next().is_none()
    }

    /// All that is wrong.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.logs.iter().flat_map(|log| &log.damage)
    }
}

/// What was found in one log.
#[derive(Clone, Debug, Default)]
pub struct LogReport {
    /// The name of its folder.
    pub log: String,
    /// How many bytes of segments were read.
    pub bytes: u64,
    /// How many records were read, up to the first damage.
    pub records: u64,
    /// How many of them a verified head covers.
    pub signed: u64,
    /// How many heads were read, each of them the right one for the records before it.
    pub heads: u64,
    /// How many of their signatures were verified.
    pub signatures: u64,
    /// The size that the published checkpoint names.
    pub published: Option<u64>,
    /// Bytes at the end of the log that are a frame cut short: written when the process died, or this moment.
    pub torn: Option<Torn>,
    /// Heads of other logs on record here that could not be checked, as only this log was verified.
    pub unchecked_heads: u64,
    /// What is wrong, the first bad record first.
    pub damage: Vec<Damage>,
}

impl LogReport {
    /// How many records at the end no head covers yet.
    pub fn unsigned(&self) -> u64 {
        self.records.saturating_sub(self.signed)
    }
}

/// The end of a log, where it is not a whole frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Torn {
    /// The segment.
    pub file: PathBuf,
    /// Where the cut frame begins.
    pub offset: u64,
    /// How many bytes of it there are.
    pub bytes: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The log.
    pub log: String,
    /// The file that is not as it must be.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The index of the first bad record; the first it may be, where `until` is later than that.
    pub index: u64,
    /// The bad record is before this index; all records from `index` on may be bad where it is `None`.
    pub until: Option<u64>,
    /// What the file does not keep to.
    pub rule: Rule,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, file, offset, index, until, rule } = self;
        write!(formatter, "log `{log}`, ")?;
        match until {
            Some(until) if *until > index + 1 => {
                write!(formatter, "one of the records {index} to {}", until - 1)?
            }
            Some(_) => write!(formatter, "record {index}")?,
            None => write!(formatter, "record {index} and all after it")?,
        }
        write!(formatter, ": {rule} (`{}`, byte {offset})", file.display())
    }
}

/// The rules of the format, each as what is the matter where it is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rule {
    /// The segments follow one another without a gap, the first one at 0.
    SegmentMissing,
    /// A segment's header is valid.
    Header,
    /// A segment's header tells of the tree and the frame before it.
    HeaderLink,
    /// A frame's kind, length and checksum are valid.
    Frame,
    /// Only the last frame of the last segment may be cut short.
    CutShort,
    /// Each segment but the last ends with a head.
    SegmentEnd,
    /// A head comes at least every 1,048,576 records.
    HeadsTooFar,
    /// A head is a checkpoint in its one form, signed once, of this log.
    HeadForm,
    /// A head's size is the number of records before it, and its root theirs.
    HeadTree,
    /// A head is signed by one of the keys.
    HeadSignature,
    /// The published checkpoint is a checkpoint of this log in its one form, signed by one of the keys.
    CheckpointForm,
    /// Nothing of the log is signed by one of the keys.
    OtherKey(OtherKey),
    /// There is a published checkpoint, once the log shows that it was published.
    CheckpointMissing,
    /// The log is as long as its published checkpoint says.
    CheckpointBeyond,
    /// The published checkpoint is one of the heads in the segments.
    CheckpointTree,
    /// The tiles hold the hashes of the tree.
    Tile,
    /// The tiles that the published checkpoint needs exist.
    TileMissing,
    /// The entry bundles hold the records.
    Bundle,
    /// The entry bundles that the published checkpoint needs exist.
    BundleMissing,
    /// A head of another log on record is a checkpoint of that log, signed by one of the keys.
    OtherForm,
    /// A log whose head is on record exists.
    OtherMissing(String),
    /// A log is as long as the head of it that is on record in another one.
    OtherShorter(String),
    /// The head of a log that is on record in another one is one of the heads in its segments.
    OtherTree(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SegmentMissing => "the segment that begins here is missing",
            Self::Header => "the header of the segment is damaged",
            Self::HeaderLink => "the segment is not the next one of this log",
            Self::Frame => "the frame is damaged",
            Self::CutShort => "the frame is cut short, and is not the last one of the log",
            Self::SegmentEnd => "the segment does not end with a head, and is not the last one",
            Self::HeadsTooFar => "too many records without a head",
            Self::HeadForm => "the head is not a checkpoint of this log",
            Self::HeadTree => "the records are not those that the head was signed for",
            Self::HeadSignature => "the head is not signed by any of the keys",
            Self::CheckpointForm => {
                "the published checkpoint is not a checkpoint of this log signed by any of the keys"
            }
            Self::OtherKey(other) => return other.fmt(formatter),
            Self::CheckpointMissing => "the log was published, and its checkpoint is missing",
            Self::CheckpointBeyond => "the log is shorter than its published checkpoint",
            Self::CheckpointTree => "the published checkpoint is not a head of this log",
            Self::Tile => "the tile does not hold the hashes of the tree",
            Self::TileMissing => "the tile is missing",
            Self::Bundle => "the entry bundle does not hold the records",
            Self::BundleMissing => "the entry bundle is missing",
            Self::OtherForm => "the record holds a head of another log that is not signed by any of the keys",
            Self::OtherMissing(log) => {
                return write!(formatter, "log `{log}` is missing, whose head is on record here");
            }
            Self::OtherShorter(log) => {
                return write!(formatter, "log `{log}` is shorter than its head on record here");
            }
            Self::OtherTree(log) => {
                return write!(formatter, "log `{log}` is not the one whose head is on record here");
            }
        })
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The log that is read.
    pub log: &'a str,
    /// How many bytes of segments were read, of all logs.
    pub bytes: u64,
    /// How many there are.
    pub bytes_total: u64,
    /// How many records of this log were read.
    pub records: u64,
}

/// Why there is no report.
#[derive(Debug)]
pub enum VerifyError {
    /// The folder holds no log.
    NoLog(PathBuf),
    /// No key was given.
    NoKey,
    /// A file could not be read.
    Read(PathBuf, std::io::Error),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLog(folder) => write!(formatter, "no log in `{}`", folder.display()),
            Self::NoKey => formatter.write_str("no key to verify with"),
            Self::Read(file, _) => write!(formatter, "cannot read `{}`", file.display()),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) => Some(error),
            Self::NoLog(_) | Self::NoKey => None,
        }
    }
}

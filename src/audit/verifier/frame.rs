//! The bytes of a segment: its header, its frames, the head in a frame.

use super::tree::Hash;

/// The first bytes of every segment; the last one is the version of the format.
pub const MAGIC: [u8; 8] = *b"CGSEG\0\0\x01";
/// The longest record, in bytes: entry bundles count in 16 bits.
pub const RECORD_BYTES_MAX: usize = 65_535;
/// The longest payload of a head frame, in bytes.
pub const HEAD_BYTES_MAX: usize = 4_096;
/// What a frame has around its payload, in bytes.
pub const FRAME_EXTRA_BYTES: usize = BEFORE_PAYLOAD + CRC_BYTES;

const BEFORE_PAYLOAD: usize = 4 + 1 + TAG_BYTES;
const TAG_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// What links a frame to the one before it; only the holder of the private key can check it.
pub type Tag = [u8; TAG_BYTES];

/// What a frame carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One record.
    Record,
    /// A signed tree head.
    Head,
}

/// A frame with the right checksum.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: Kind,
    /// Its link to the frame before.
    pub tag: Tag,
    /// The record, or the head.
    pub payload: &'a [u8],
    /// How long the frame is with everything, in bytes.
    pub bytes: usize,
}

/// The header of a segment with the right checksum.
#[derive(Clone, Debug)]
pub struct Header {
    /// The index of the first record.
    pub first: u64,
    /// The peaks of the tree before it, largest first.
    pub peaks: Vec<Hash>,
    /// The tag of the last frame before the segment.
    pub tag: Tag,
    /// How long the header is, in bytes.
    pub bytes: usize,
}

/// What a head frame carries.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// How many records were known to be synced when it was written.
    pub synced: u64,
    /// The index of the oldest intent without an outcome.
    pub open: u64,
    /// The checkpoint, as a signed note.
    pub note: &'a [u8],
}

/// Why bytes are not a frame or a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unread {
    /// They end before it does.
    Short,
    /// They do not begin as a segment of this version does.
    Magic,
    /// The number of peaks is not that of the first record's index.
    Peaks,
    /// No such kind of frame.
    Kind,
    /// A length that this kind of frame cannot have.
    Length,
    /// The checksum is of other bytes.
    Checksum,
}

/// Reads the frame that `bytes` begin with.
///
/// # Errors
/// Where they do not begin with a whole, valid one.
pub fn frame(bytes: &[u8]) -> Result<Frame<'_>, Unread> {
    let (length, rest) = bytes.split_first_chunk().ok_or(Unread::Short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (kind, rest) = rest.split_first().ok_or(Unread::Short)?;
    let (kind, longest) = match kind {
        1 => (Kind::Record, RECORD_BYTES_MAX),
        2 => (Kind::Head, HEAD_BYTES_MAX),
        _ => return Err(Unread::Kind),
    };
    if length == 0 || length > longest {
        return Err(Unread::Length);
    }
    let (tag, rest) = rest.split_first_chunk().ok_or(Unread::Short)?;
    let (payload, rest) = rest.split_at_checked(length).ok_or(Unread::Short)?;
    let checksum = rest.first_chunk().ok_or(Unread::Short)?;
    let covered = bytes.get(..BEFORE_PAYLOAD + length).ok_or(Unread::Short)?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*checksum) {
        return Err(Unread::Checksum);
    }
    Ok(Frame { kind, tag: *tag, payload, bytes: FRAME_EXTRA_BYTES + length })
}

/// Reads the header that a segment's `bytes` begin with.
///
/// # Errors
/// Where they do not begin with a whole, valid one.
pub fn header(bytes: &[u8]) -> Result<Header, Unread> {
    let (magic, rest) = bytes.split_first_chunk().ok_or(Unread::Short)?;
    if *magic != MAGIC {
        return Err(Unread::Magic);
    }
    let (first, rest) = rest.split_first_chunk().ok_or(Unread::Short)?;
    let first = u64::from_le_bytes(*first);
    let (count, rest) = rest.split_first().ok_or(Unread::Short)?;
    if u32::from(*count) != first.count_ones() {
        return Err(Unread::Peaks);
    }
    let (peaks, rest) = rest.split_at_checked(usize::from(*count) * 32).ok_or(Unread::Short)?;
    let (tag, rest) = rest.split_first_chunk().ok_or(Unread::Short)?;
    let checksum = rest.first_chunk().ok_or(Unread::Short)?;
    let covered = bytes.len() - rest.len();
    if crc32c::crc32c(bytes.get(..covered).ok_or(Unread::Short)?) != u32::from_le_bytes(*checksum) {
        return Err(Unread::Checksum);
    }
    let peaks = peaks.as_chunks().0.to_vec();
    Ok(Header { first, peaks, tag: *tag, bytes: covered + CRC_BYTES })
}

/// Reads the payload of a head frame; `None` where it is too short to be one.
pub fn head(payload: &[u8]) -> Option<Head<'_>> {
    let (synced, rest) = payload.split_first_chunk()?;
    let (open, note) = rest.split_first_chunk()?;
    Some(Head { synced: u64::from_le_bytes(*synced), open: u64::from_le_bytes(*open), note })
}

/// Whether a valid frame begins anywhere in `bytes`.
pub fn any_frame(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|start| bytes.get(start..).is_some_and(|rest| frame(rest).is_ok()))
}

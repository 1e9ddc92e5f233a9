//! A frame: what a segment is made of, and the chain of tags that ties each to the one before.

use aws_lc_rs::hmac;

use super::tree::Hash;

/// The longest record: C2SP entry bundles have lengths of 16 bits.
pub(super) const RECORD_BYTES_MAX: usize = 65_535;
/// The longest head.
pub(super) const HEAD_BYTES_MAX: usize = 4_096;
/// What a frame adds to its payload.
pub(super) const FRAME_EXTRA_BYTES: usize = PAYLOAD_AT + CRC_BYTES;

const KIND_AT: usize = 4;
const TAG_AT: usize = 5;
/// Where the payload of a frame begins.
pub(super) const PAYLOAD_AT: usize = TAG_AT + TAG_BYTES;
const CRC_BYTES: usize = 4;
const TAG_BYTES: usize = 16;

/// What ties a frame to all frames before it.
pub(super) type Tag = [u8; TAG_BYTES];

/// What a frame holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Record,
    Head,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Head => 2,
        }
    }

    /// The kind that a byte stands for.
    pub(super) const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Record),
            2 => Some(Self::Head),
            _ => None,
        }
    }

    /// The longest payload.
    pub(super) const fn bytes_max(self) -> usize {
        match self {
            Self::Record => RECORD_BYTES_MAX,
            Self::Head => HEAD_BYTES_MAX,
        }
    }
}

/// The chain of tags. Who has the log's key sees by it an edit that no head covers yet.
pub(super) struct Chain {
    key: hmac::Key,
    tag: Tag,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("tag", &hex::encode(self.tag)).finish_non_exhaustive()
    }
}

impl Chain {
    /// Goes on after the frame that has this tag.
    pub(super) const fn resume(key: hmac::Key, tag: Tag) -> Self {
        Self { key, tag }
    }

    /// The tag of the last frame.
    pub(super) const fn tag(&self) -> Tag {
        self.tag
    }

    /// The tag that the next frame has to have.
    pub(super) fn next(&self, kind: Kind, leaf: &Hash) -> Tag {
        let mut message = [0; TAG_BYTES + 1 + 32];
        let (before, rest) = message.split_at_mut(TAG_BYTES);
        before.copy_from_slice(&self.tag);
        if let Some((kind_byte, hash)) = rest.split_first_mut() {
            *kind_byte = kind.byte();
            hash.copy_from_slice(leaf);
        }
        let mut tag = Tag::default();
        for (byte, full) in tag.iter_mut().zip(hmac::sign(&self.key, &message).as_ref()) {
            *byte = *full;
        }
        tag
    }

    /// Goes on after a frame that was read.
    pub(super) const fn pass(&mut self, tag: Tag) {
        self.tag = tag;
    }

    /// Appends a frame to a batch. The leaf hash of the payload is the caller's to compute: who hands over
    /// a record does that in its own thread.
    pub(super) fn append(&mut self, batch: &mut Vec<u8>, kind: Kind, payload: &[u8], leaf: &Hash) {
        self.tag = self.next(kind, leaf);
        let start = batch.len();
        batch.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        batch.push(kind.byte());
        batch.extend_from_slice(&self.tag);
        batch.extend_from_slice(payload);
        let crc = crc32c::crc32c(batch.get(start..).unwrap_or_default());
        batch.extend_from_slice(&crc.to_le_bytes());
    }
}

/// A frame with a right checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) tag: Tag,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame that bytes begin with; `None` where there is no whole one with a right checksum.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = Kind::of(*bytes.get(KIND_AT)?)?;
        if !(1..=kind.bytes_max()).contains(&length) {
            return None;
        }
        let (body, rest) = bytes.split_at_checked(PAYLOAD_AT + length)?;
        let crc = u32::from_le_bytes(*rest.first_chunk()?);
        if crc32c::crc32c(body) != crc {
            return None;
        }
        let (front, payload) = body.split_at_checked(PAYLOAD_AT)?;
        let tag = *front.last_chunk()?;
        Some(Self { kind, tag, payload })
    }

    /// How many bytes the frame takes in its segment.
    pub(super) const fn bytes_len(&self) -> usize {
        self.payload.len() + FRAME_EXTRA_BYTES
    }
}

/// The frames of a segment from an offset on, each with its offset, up to the first bad place.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    pub(super) const fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, offset }
    }

    /// Where the last frame that was given ends.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let frame = Frame::read(self.bytes.get(self.offset..)?)?;
        let at = self.offset;
        self.offset += frame.bytes_len();
        Some((at, frame))
    }
}

/// All frames that begin at any byte after an offset, whatever lies between them.
///
/// A record cannot smuggle one in: JSON holds no control characters, and a frame's kind is one.
pub(super) fn frames_after(bytes: &[u8], offset: usize) -> impl Iterator<Item = (usize, Frame<'_>)> {
    let mut at = offset + 1;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            if let Some(frame) = bytes.get(at..).and_then(Frame::read) {
                let found = at;
                at += frame.bytes_len();
                return Some((found, frame));
            }
            at += 1;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tree::leaf_hash;

    fn chain() -> Chain {
        Chain::resume(hmac::Key::new(hmac::HMAC_SHA256, b"key"), Tag::default())
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut batch = Vec::new();
        let mut writing = chain();
        writing.append(&mut batch, Kind::Record, b"{}", &leaf_hash(b"{}"));
        writing.append(&mut batch, Kind::Head, b"head", &leaf_hash(b"head"));
        let mut reading = chain();
        let mut frames = Frames::new(&batch, 0);
        for (kind, payload) in [(Kind::Record, b"{}".as_slice()), (Kind::Head, b"head")] {
            let (_, frame) = frames.next().unwrap();
            assert_eq!((frame.kind, frame.payload), (kind, payload));
            assert_eq!(frame.tag, reading.next(kind, &leaf_hash(payload)));
            reading.pass(frame.tag);
        }
        assert_eq!(frames.offset(), batch.len());
        assert!(frames.next().is_none());
    }

    #[test]
    fn a_flip_of_any_bit_or_a_cut_at_any_byte_is_no_frame() {
        let mut batch = Vec::new();
        chain().append(&mut batch, Kind::Record, b"{\"a\":1}", &leaf_hash(b"{\"a\":1}"));
        for at in 0..batch.len() {
            assert!(Frame::read(&batch[..at]).is_none());
            for bit in 0..8 {
                let mut flipped = batch.clone();
                flipped[at] ^= 1 << bit;
                assert!(Frame::read(&flipped).is_none(), "byte {at}, bit {bit}");
            }
        }
        assert!(Frame::read(&batch).is_some());
    }

    #[test]
    fn frames_are_found_behind_a_bad_place_at_any_offset() {
        let mut batch = vec![0xff; 7];
        let mut chain = chain();
        chain.append(&mut batch, Kind::Record, b"one", &leaf_hash(b"one"));
        batch.extend([0; 5]);
        chain.append(&mut batch, Kind::Record, b"two", &leaf_hash(b"two"));
        let found: Vec<_> = frames_after(&batch, 0).map(|(_, frame)| frame.payload).collect();
        assert_eq!(found, [b"one", b"two"]);
    }
}

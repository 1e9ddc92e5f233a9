//! A segment: a file of frames behind a header that lets one go on without the segments before it.

use super::{
    frame::Tag,
    tree::{Frontier, Hash},
};

/// The last byte is the version of the format.
const MAGIC: [u8; 8] = *b"CGSEG\0\0\x01";
const COUNT_AT: usize = 16;
const ROOTS_AT: usize = 17;

/// What is known at a segment's begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Header {
    /// The tree of all records before the segment.
    pub(super) frontier: Frontier,
    /// The tag of the last frame before the segment.
    pub(super) tag: Tag,
}

impl Header {
    /// The index of the segment's first record.
    pub(super) const fn first(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let roots = self.frontier.roots();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.first().to_le_bytes());
        bytes.push(u8::try_from(roots.len()).unwrap_or(u8::MAX));
        bytes.extend(roots.as_flattened());
        bytes.extend(self.tag);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the header that bytes begin with, and gives the offset of the first frame.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let count = usize::from(*bytes.get(COUNT_AT)?);
        let roots_end = ROOTS_AT + count * size_of::<Hash>();
        let (body, rest) = bytes.split_at_checked(roots_end + size_of::<Tag>())?;
        let crc = u32::from_le_bytes(*rest.first_chunk()?);
        if !body.starts_with(&MAGIC) || crc32c::crc32c(body) != crc {
            return None;
        }
        let first = u64::from_le_bytes(*body.get(MAGIC.len()..)?.first_chunk()?);
        let (roots, _) = body.get(ROOTS_AT..roots_end)?.as_chunks();
        let frontier = Frontier::resume(first, roots.to_vec())?;
        Some((Self { frontier, tag: *body.last_chunk()? }, body.len() + size_of_val(&crc)))
    }
}

/// The name of the segment that begins with a record's index; names sort as indexes do.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The index in a segment's name; `None` for other files.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The name that a segment has until its header is durable.
pub(super) fn unfinished_name(first: u64) -> String {
    format!("{first:020}.new")
}

/// Whether a file is a segment whose making was cut short.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(".new")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tree::leaf_hash;

    #[test]
    fn a_header_is_read_as_it_was_written_and_no_other_way() {
        for size in [0_u64, 1, 7, 64, 100] {
            let mut frontier = Frontier::default();
            (0..size).for_each(|n| frontier.push(leaf_hash(&n.to_le_bytes())));
            let header = Header { frontier, tag: [9; 16] };
            let bytes = header.encode();
            assert_eq!(Header::read(&bytes), Some((header, bytes.len())));
            for at in 0..bytes.len() {
                assert_eq!(Header::read(&bytes[..at]), None);
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert_eq!(Header::read(&flipped), None, "size {size}, byte {at}");
            }
        }
    }

    #[test]
    fn names_tell_the_first_index_and_nothing_else_is_a_segment() {
        assert_eq!(first_of(&name(u64::MAX)), Some(u64::MAX));
        assert_eq!(first_of(&name(0)), Some(0));
        for other in ["0.log", "+0000000000000000000.log", "99999999999999999999.log", "checkpoint"] {
            assert_eq!(first_of(other), None);
        }
    }
}

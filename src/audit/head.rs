//! A head: what the log says of itself, signed.

use tlog_tiles::{Checkpoint, Hash as TlogHash};

use super::{
    key::{LogKey, Trusted},
    tree::Hash,
};

/// A C2SP checkpoint, as a signed note.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SignedHead {
    size: u64,
    root: Hash,
    note: Vec<u8>,
}

impl SignedHead {
    /// Signs the size and root of a log. `None` only where the origin is no name, which a key cannot have.
    pub(super) fn sign(key: &LogKey, size: u64, root: Hash) -> Option<Self> {
        let checkpoint = Checkpoint::new(key.origin(), size, TlogHash(root), "").ok()?;
        let note = key.sign(&checkpoint.to_bytes())?.to_bytes();
        Some(Self { size, root, note })
    }

    /// Reads a note; `None` unless a trusted key has signed it for the log.
    pub(super) fn verify(note: &[u8], trusted: &Trusted) -> Option<Self> {
        let signed = trusted.verified(note)?;
        let checkpoint = Checkpoint::from_bytes(signed.text()).ok()?;
        (checkpoint.origin() == trusted.origin()).then(|| Self {
            size: checkpoint.size(),
            root: checkpoint.hash().0,
            note: note.to_vec(),
        })
    }

    /// How many records the log holds.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The root of their tree.
    pub(super) const fn root(&self) -> &Hash {
        &self.root
    }

    /// The signed note.
    pub(super) fn note(&self) -> &[u8] {
        &self.note
    }
}

/// What the frame of a head holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct HeadPayload<'a> {
    /// How many records were known to be synced when the head was written.
    pub(super) synced: u64,
    /// The index of the oldest intent without an outcome on record; the size where there is none.
    pub(super) open: u64,
    /// The signed note.
    pub(super) note: &'a [u8],
}

impl<'a> HeadPayload<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.note.len());
        bytes.extend(self.synced.to_le_bytes());
        bytes.extend(self.open.to_le_bytes());
        bytes.extend(self.note);
        bytes
    }

    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (synced, rest) = bytes.split_first_chunk()?;
        let (open, note) = rest.split_first_chunk()?;
        Some(Self { synced: u64::from_le_bytes(*synced), open: u64::from_le_bytes(*open), note })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::key::PrivateKey;

    #[test]
    fn a_head_is_a_checkpoint_of_its_log_and_no_other() {
        let key = PrivateKey::generate("base").unwrap();
        let log = key.for_log("base/serve-0").unwrap();
        let head = SignedHead::sign(&log, 7, [1; 32]).unwrap();
        let text = String::from_utf8(head.note().to_vec()).unwrap();
        assert!(
            text.starts_with("base/serve-0\n7\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\n\u{2014} ")
        );
        assert_eq!(SignedHead::verify(head.note(), &log.trusting(&[]).unwrap()), Some(head.clone()));

        let edited = text.replace("\n7\n", "\n8\n");
        assert_eq!(SignedHead::verify(edited.as_bytes(), &log.trusting(&[]).unwrap()), None);
        let other = key.for_log("base/serve-1").unwrap();
        assert_eq!(SignedHead::verify(head.note(), &other.trusting(&[]).unwrap()), None);
        // Signed under this log's name, but it speaks of another.
        let foreign = log.sign(b"base/serve-1\n7\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").unwrap();
        assert_eq!(SignedHead::verify(&foreign.to_bytes(), &log.trusting(&[]).unwrap()), None);
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let payload = HeadPayload { synced: 3, open: 5, note: b"note" };
        assert_eq!(HeadPayload::read(&payload.encode()), Some(payload));
        assert_eq!(HeadPayload::read(&[0; 15]), None);
    }
}

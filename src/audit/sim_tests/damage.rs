//! What somebody without the key does to the end of a log.

use crate::audit::{
    disk::sim::Random,
    frame::{Frames, Kind},
    head::HeadPayload,
    recover::RecoverError,
    segment::Header,
};

/// Damage of the last segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    /// A record gets other bytes and a right checksum.
    Edited { frame: Place },
    /// A byte of a record that a later head tells to be synced is another one.
    Flipped { at: usize },
    /// The end is cut off, down to a whole frame, below the published head.
    Cut { end: usize, head: Place },
}

/// A frame: where it begins, and how long its payload is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset: usize,
    payload: usize,
}

const PAYLOAD_AT: usize = 21;

impl Place {
    const fn payload(self) -> std::ops::Range<usize> {
        self.offset + PAYLOAD_AT..self.offset + PAYLOAD_AT + self.payload
    }
}

impl Damage {
    /// Damage that this segment can have, if it holds enough.
    pub(super) fn choose(bytes: &[u8], random: &mut Random) -> Option<Self> {
        let (header, start) = Header::read(bytes)?;
        let (mut records, mut last_head, mut synced) = (Vec::new(), None, 0);
        for (offset, frame) in Frames::new(bytes, start) {
            let place = Place { offset, payload: frame.payload.len() };
            match frame.kind {
                Kind::Record => records.push(place),
                Kind::Head => {
                    last_head = Some((place, records.len()));
                    synced = synced.max(HeadPayload::read(frame.payload)?.synced);
                }
            }
        }
        let pick = |random: &mut Random, places: &[Place]| {
            (!places.is_empty()).then(|| places[random.below(places.len() as u64) as usize])
        };
        let (head, covered) = last_head?;
        match random.below(3) {
            0 => {
                // Where no head covers them, the tags alone tell.
                let uncovered = records.get(covered..).filter(|_| random.coin());
                Some(Self::Edited { frame: pick(random, uncovered.unwrap_or(&records))? })
            }
            1 => {
                let synced = synced.saturating_sub(header.first()) as usize;
                let frame = pick(random, records.get(..synced)?)?;
                Some(Self::Flipped {
                    at: frame.payload().start + random.below(frame.payload as u64) as usize,
                })
            }
            _ => Some(Self::Cut { end: pick(random, records.get(..covered)?)?.offset, head }),
        }
    }

    pub(super) const fn needs_checkpoint(self) -> bool {
        matches!(self, Self::Cut { .. })
    }

    /// The note of the last head.
    pub(super) fn head_note(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Cut { head, .. } => bytes[head.payload()][16..].to_vec(),
            Self::Edited { .. } | Self::Flipped { .. } => Vec::new(),
        }
    }

    pub(super) fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Edited { frame } => {
                let payload = frame.payload();
                bytes[payload.start + 1] ^= 1;
                let crc = crc32c::crc32c(&bytes[frame.offset..payload.end]);
                bytes[payload.end..payload.end + 4].copy_from_slice(&crc.to_le_bytes());
            }
            Self::Flipped { at } => bytes[at] ^= 0x10,
            Self::Cut { end, .. } => bytes.truncate(end),
        }
    }

    /// Whether a refusal is the one for this damage.
    pub(super) const fn is(self, error: &RecoverError) -> bool {
        match self {
            Self::Edited { .. } | Self::Flipped { .. } => matches!(error, RecoverError::Damaged { .. }),
            Self::Cut { .. } => matches!(error, RecoverError::BelowCheckpoint { .. }),
        }
    }
}

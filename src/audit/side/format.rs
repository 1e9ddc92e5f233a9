//! The bytes of a side file. All integers are little-endian.
//!
//! ```text
//! header  8  magic "CGSIDE\0\x01" (last byte: format version 1)
//!         8  u64 number of the file, as in its name
//!         8  u64 when it was begun, Unix milliseconds
//!         8  id of the key
//!        32  random salt: the file's own key is made from it, the store's key and the log's origin
//!         4  u32 CRC-32C of the header bytes before it
//! entry   4  u32 length of the sealed bytes
//!         1  u8 kind: 1 salt, 2 arguments, 3 result, 4 decision input
//!        16  u128 id of the call
//!         8  u64 index of the call's outcome record; all ones where it was not known yet
//!         8  u64 when it was put, Unix milliseconds
//!        12  nonce
//!         4  u32 CRC-32C of the entry bytes before it
//!         8  u64 when it was erased, Unix milliseconds; 0: it was not
//!         -  sealed bytes: AES-256-GCM ciphertext and tag; zeros once erased
//! ```
//! The associated data is "callgate side entry 1\n", the log's origin, a newline, and the entry's bytes
//! up to its CRC: nothing of them can be changed, and no entry passes for another call's.

use aws_lc_rs::{aead, rand};

use super::{Content, SideError};

/// Bodies larger than this are refused.
pub const BODY_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"CGSIDE\0\x01";
pub(super) const FILE_HEAD_BYTES: usize = 68;
const NAMED_BYTES: usize = 49;
pub(super) const ENTRY_HEAD_BYTES: usize = NAMED_BYTES + 4;
pub(super) const ERASED_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const SEALED_BYTES_MAX: usize = BODY_BYTES_MAX + TAG_BYTES;

/// The body of what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The arguments of the call.
    Arguments,
    /// Its validated result.
    Result,
    /// What its policy decision was made on.
    DecisionInput,
}

/// What an entry holds: a salt, or a body.
pub(super) type Held = Option<Kind>;

const fn code(held: Held) -> u8 {
    match held {
        None => 1,
        Some(Kind::Arguments) => 2,
        Some(Kind::Result) => 3,
        Some(Kind::DecisionInput) => 4,
    }
}

const fn held(code: u8) -> Option<Held> {
    Some(match code {
        1 => None,
        2 => Some(Kind::Arguments),
        3 => Some(Kind::Result),
        4 => Some(Kind::DecisionInput),
        _ => return None,
    })
}

/// The header of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileHead {
    pub(super) number: u64,
    pub(super) began_ms: u64,
    pub(super) key_id: [u8; 8],
    pub(super) salt: [u8; 32],
}

impl FileHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_HEAD_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.began_ms.to_le_bytes());
        bytes.extend_from_slice(&self.key_id);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(FILE_HEAD_BYTES - 4)?;
        let mut rest = Fields(rest);
        if u32::from_le_bytes(rest.take()?) != crc32c::crc32c(covered) {
            return None;
        }
        let mut fields = Fields(covered);
        if fields.take::<8>()? != MAGIC {
            return None;
        }
        Some(Self {
            number: u64::from_le_bytes(fields.take()?),
            began_ms: u64::from_le_bytes(fields.take()?),
            key_id: fields.take()?,
            salt: fields.take()?,
        })
    }
}

/// The header of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntryHead {
    pub(super) sealed_bytes: usize,
    pub(super) held: Held,
    pub(super) call: u128,
    pub(super) record: Option<u64>,
    pub(super) put_ms: u64,
    nonce: [u8; 12],
    /// When it was erased. Not covered by CRC or seal, since it changes.
    pub(super) erased_ms: Option<u64>,
}

impl EntryHead {
    /// All bytes of the entry.
    pub(super) const fn entry_bytes(&self) -> usize {
        ENTRY_HEAD_BYTES + ERASED_BYTES + self.sealed_bytes
    }

    /// What the seal covers beside the content.
    fn named(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY_HEAD_BYTES);
        bytes.extend_from_slice(&u32::try_from(self.sealed_bytes).unwrap_or(u32::MAX).to_le_bytes());
        bytes.push(code(self.held));
        bytes.extend_from_slice(&self.call.to_le_bytes());
        bytes.extend_from_slice(&self.record.unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.put_ms.to_le_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes
    }

    /// Reads the header at the start of some bytes, unless there is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let sealed_bytes = usize::try_from(u32::from_le_bytes(fields.take()?)).ok()?;
        let [code] = fields.take()?;
        let held = held(code)?;
        if !(TAG_BYTES..=SEALED_BYTES_MAX).contains(&sealed_bytes) {
            return None;
        }
        let call = u128::from_le_bytes(fields.take()?);
        let record = u64::from_le_bytes(fields.take()?);
        let put_ms = u64::from_le_bytes(fields.take()?);
        let nonce = fields.take()?;
        if u32::from_le_bytes(fields.take()?) != crc32c::crc32c(bytes.get(..NAMED_BYTES)?) {
            return None;
        }
        let erased_ms = match u64::from_le_bytes(fields.take()?) {
            0 => None,
            at => Some(at),
        };
        let record = (record != u64::MAX).then_some(record);
        Some(Self { sealed_bytes, held, call, record, put_ms, nonce, erased_ms })
    }
}

/// The key of one file of one log.
pub(super) struct SegmentKey {
    key: aead::LessSafeKey,
    origin: String,
}

impl SegmentKey {
    pub(super) fn new(key: &[u8; 32], origin: &str) -> Option<Self> {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key).ok()?;
        Some(Self { key: aead::LessSafeKey::new(key), origin: origin.to_owned() })
    }

    /// Appends a whole entry to some bytes.
    pub(super) fn seal(
        &self,
        into: &mut Vec<u8>,
        call: u128,
        record: Option<u64>,
        put_ms: u64,
        content: &Content,
    ) -> Result<(), SideError> {
        let (held, plain) = match content {
            Content::Salt(salt) => (None, salt.as_bytes().as_slice()),
            Content::Body(kind, body) => (Some(*kind), body.as_slice()),
        };
        let mut nonce = [0; 12];
        rand::fill(&mut nonce).map_err(|_| SideError::NoRandom)?;
        let sealed_bytes = plain.len() + TAG_BYTES;
        let head = EntryHead { sealed_bytes, held, call, record, put_ms, nonce, erased_ms: None };
        let named = head.named();
        let mut sealed = Vec::with_capacity(sealed_bytes);
        sealed.extend_from_slice(plain);
        self.key
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                self.covered(&named),
                &mut sealed,
            )
            .map_err(|_| SideError::NoRandom)?;
        into.extend_from_slice(&named);
        into.extend_from_slice(&crc32c::crc32c(&named).to_le_bytes());
        into.extend_from_slice(&[0; ERASED_BYTES]);
        into.extend_from_slice(&sealed);
        Ok(())
    }

    /// The content of an entry, if nothing of it was changed.
    pub(super) fn open(&self, head: &EntryHead, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(head.nonce);
        let plain_bytes = self.key.open_in_place(nonce, self.covered(&head.named()), &mut bytes).ok()?.len();
        bytes.truncate(plain_bytes);
        Some(bytes)
    }

    fn covered(&self, named: &[u8]) -> aead::Aad<Vec<u8>> {
        aead::Aad::from([b"callgate side entry 1\n", self.origin.as_bytes(), b"\n", named].concat())
    }
}

/// How many bytes an entry of this content takes.
pub(super) fn entry_bytes(content: &Content) -> usize {
    let plain = match content {
        Content::Salt(salt) => salt.as_bytes().len(),
        Content::Body(_, body) => body.len(),
    };
    ENTRY_HEAD_BYTES + ERASED_BYTES + plain + TAG_BYTES
}

/// Bytes that are read field by field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

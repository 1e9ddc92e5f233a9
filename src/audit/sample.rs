//! Logs for tests and benches of the verifier, written by a third reading of the format.
//!
//! The tags are not those of a real log: nobody without the private key can tell.

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

/// The name that the logs' names follow in their origins.
pub(super) const BASE: &str = "callgate.test/0123456789abcdef";

/// Who signs.
pub(super) fn signer(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// The public key, as verifiers get it.
pub(super) fn vkey(signer: &SigningKey) -> String {
    let public = [&[1], signer.verifying_key().as_bytes().as_slice()].concat();
    format!("{BASE}+{}+{}", hex(&key_id(BASE, signer)), BASE64_STANDARD.encode(public))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_id(name: &str, signer: &SigningKey) -> [u8; 4] {
    let hashed =
        Sha256::new().chain_update(name).chain_update(b"\n\x01").chain_update(signer.verifying_key());
    let hashed: [u8; 32] = hashed.finalize().into();
    [hashed[0], hashed[1], hashed[2], hashed[3]]
}

/// A log as its bytes, frame by frame.
pub(super) struct LogBytes {
    origin: String,
    signer: SigningKey,
    peaks: Vec<[u8; 32]>,
    tag: [u8; 16],
    /// How many records there are.
    pub(super) size: u64,
    /// The segments: the first record's index, and the frames after the header.
    pub(super) segments: Vec<(u64, Vec<Vec<u8>>)>,
    /// The heads: size and note.
    pub(super) heads: Vec<(u64, Vec<u8>)>,
}

impl LogBytes {
    /// Begins a log.
    pub(super) fn new(log: &str, signer: &SigningKey) -> Self {
        let mut bytes = Self {
            origin: format!("{BASE}/{log}"),
            signer: signer.clone(),
            peaks: Vec::new(),
            tag: [0; 16],
            size: 0,
            segments: Vec::new(),
            heads: Vec::new(),
        };
        bytes.segment();
        bytes
    }

    /// Begins a segment.
    pub(super) fn segment(&mut self) {
        let mut header = b"CGSEG\0\0\x01".to_vec();
        header.extend(self.size.to_le_bytes());
        header.push(self.peaks.len() as u8);
        self.peaks.iter().for_each(|peak| header.extend(peak));
        header.extend(self.tag);
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        self.segments.push((self.size, vec![header]));
    }

    /// Adds a record.
    pub(super) fn record(&mut self, record: &[u8]) {
        let mut node = leaf(record);
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().unwrap();
            node = Sha256::new().chain_update([1]).chain_update(left).chain_update(node).finalize().into();
        }
        self.peaks.push(node);
        self.size += 1;
        self.frame(1, record);
    }

    /// Signs a head.
    pub(super) fn head(&mut self) {
        let fold = |right: [u8; 32], left: &[u8; 32]| -> [u8; 32] {
            Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
        };
        let root = match self.peaks.split_last() {
            Some((last, rest)) => rest.iter().rev().fold(*last, fold),
            None => Sha256::digest([]).into(),
        };
        let text = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(root));
        let signature = self.signer.sign(text.as_bytes()).to_bytes();
        let signature = [key_id(&self.origin, &self.signer).as_slice(), &signature].concat();
        let note = format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64_STANDARD.encode(signature));
        let payload = [&self.size.to_le_bytes(), &self.size.to_le_bytes(), note.as_bytes()].concat();
        self.heads.push((self.size, note.into_bytes()));
        self.frame(2, &payload);
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let linked = Sha256::new().chain_update(self.tag).chain_update([kind]).chain_update(leaf(payload));
        let linked: [u8; 32] = linked.finalize().into();
        self.tag.copy_from_slice(&linked[..16]);
        let frame = frame(kind, &self.tag, payload);
        self.segments.last_mut().unwrap().1.push(frame);
    }

    /// The tag of a segment's last frame.
    pub(super) fn last_tag(&self, at: usize) -> [u8; 16] {
        self.segments[at].1.last().unwrap()[5..21].try_into().unwrap()
    }

    /// Writes the segments into a log's folder.
    pub(super) fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("segments")).unwrap();
        for (first, frames) in &self.segments {
            fs::write(folder.join(format!("segments/{first:020}.log")), frames.concat()).unwrap();
        }
    }
}

/// One frame.
pub(super) fn frame(kind: u8, tag: &[u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(tag);
    frame.extend(payload);
    frame.extend(crc32c::crc32c(&frame).to_le_bytes());
    frame
}

fn leaf(record: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

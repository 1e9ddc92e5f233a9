//! Checkpoints as C2SP signed notes, and the keys that sign them.
//!
//! Read strictly: a text has one form only, so that a note that verifies is byte for byte what its text demands.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};

use super::tree::Hash;

const ED25519: u8 = 1;
const SIGNATURE_START: &str = "\u{2014} ";
/// A note may carry that many signatures.
const SIGNATURES_MAX: usize = 64;

/// A public key, under the name it signs by.
#[derive(Clone, Debug)]
pub struct Key {
    name: String,
    id: [u8; 4],
    public: VerifyingKey,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyError;

impl fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("expected a key of the form `name+id+base64` for Ed25519")
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// Reads a key as C2SP signed notes write them (`name+id+base64`).
    ///
    /// # Errors
    /// Where the text is not one, or its id is not that of the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError);
        };
        let key = BASE64_STANDARD.decode(key).map_err(|_| KeyError)?;
        let Some((&ED25519, public)) = key.split_first() else { return Err(KeyError) };
        let public = <[u8; 32]>::try_from(public).map_err(|_| KeyError)?;
        let public = VerifyingKey::from_bytes(&public).map_err(|_| KeyError)?;
        let key = Self::named(name, public);
        let written = u32::from_str_radix(id, 16).map_err(|_| KeyError)?;
        let valid = !name.is_empty() && !name.contains(char::is_whitespace) && id.len() == 8;
        if valid && written.to_be_bytes() == key.id { Ok(key) } else { Err(KeyError) }
    }

    /// Reads a file of keys: one a line; empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// Where a line is no key.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(Self::parse).collect()
    }

    /// The same key under the name of a log, `name/log`: that is how it signs the log's heads.
    pub fn of_log(&self, log: &str) -> Self {
        Self::named(&format!("{}/{log}", self.name), self.public)
    }

    /// The name that the key signs by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key as C2SP signed notes write them.
    pub fn vkey(&self) -> String {
        let key = [&[ED25519], self.public.as_bytes().as_slice()].concat();
        format!("{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), BASE64_STANDARD.encode(key))
    }

    /// Its name and id, as a note names it.
    pub fn label(&self) -> String {
        label(&self.name, self.id)
    }

    fn named(name: &str, public: VerifyingKey) -> Self {
        use sha2::{Digest, Sha256};
        let digest = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(public);
        let digest: Hash = digest.finalize().into();
        let [a, b, c, d, ..] = digest;
        Self { name: name.to_owned(), id: [a, b, c, d], public }
    }

    pub(super) fn public(&self) -> VerifyingKey {
        self.public
    }
}

fn label(name: &str, id: [u8; 4]) -> String {
    format!("{name}+{:08x}", u32::from_be_bytes(id))
}

/// By whom a note says it is signed, where that is none of the keys that are given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OtherKey {
    /// The name and id of the key in the note.
    pub signed: String,
    /// Those of the keys that are given, as they are for the same log.
    pub given: Vec<String>,
}

impl fmt::Display for OtherKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |label: &String| format!("`{}`", label.escape_debug());
        let given = self.given.iter().map(quoted).collect::<Vec<_>>().join(", ");
        let are = if self.given.len() == 1 { "key given is" } else { "keys given are" };
        write!(formatter, "it is signed by the key {}, and the {are} {given}", quoted(&self.signed))
    }
}

/// A checkpoint in a signed note whose form is right; who signed it is still to be asked.
#[derive(Clone, Debug)]
pub struct Checkpoint<'a> {
    /// The log's name.
    pub origin: &'a str,
    /// How many records the tree has.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
    /// What is signed.
    pub text: &'a str,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

/// What is wrong with the form of a note or its signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoteError {
    /// Not three lines of a checkpoint, in their one form, and signature lines after an empty one.
    Form,
    /// No signature by a key that is known.
    UnknownKey,
    /// A signature that the key did not make over this text.
    Signature,
}

impl fmt::Display for NoteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Form => "not a checkpoint in the form of a signed note",
            Self::UnknownKey => "not signed by any of the keys",
            Self::Signature => "the signature is not of this text",
        })
    }
}

impl std::error::Error for NoteError {}

impl<'a> Checkpoint<'a> {
    /// Reads a signed note.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(note: &'a [u8]) -> Result<Self, NoteError> {
        Self::read(note).ok_or(NoteError::Form)
    }

    fn read(note: &'a [u8]) -> Option<Self> {
        let note = str::from_utf8(note).ok()?;
        let (text, signatures) = note.split_at_checked(note.find("\n\n")? + 1)?;
        let mut lines = text.split_terminator('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let valid = !origin.is_empty() && !origin.contains(|c: char| c.is_whitespace() || c == '+');
        if lines.next().is_some() || !valid {
            return None;
        }
        let number: u64 = size.parse().ok()?;
        if number.to_string() != size || !signatures.ends_with('\n') {
            return None;
        }
        let root = <Hash>::try_from(BASE64_STANDARD.decode(root).ok()?).ok()?;
        let lines = signatures.strip_prefix('\n')?.split_terminator('\n');
        let signatures = lines.map(signature_line).collect::<Option<Vec<_>>>()?;
        let count = 1..=SIGNATURES_MAX;
        count.contains(&signatures.len()).then_some(Self { origin, size: number, root, text, signatures })
    }

    /// How many signatures the note carries.
    pub fn signatures(&self) -> usize {
        self.signatures.len()
    }

    /// By whom it says it is signed; `None` where that is one of the keys, under whatever name.
    pub fn other_key(&self, keys: &[Key]) -> Option<OtherKey> {
        let own = self.signatures.iter().find(|(name, _)| *name == self.origin);
        let (name, bytes) = own.or_else(|| self.signatures.first())?;
        let id = *bytes.first_chunk()?;
        if keys.iter().any(|key| Key::named(name, key.public).id == id) {
            return None;
        }
        let log = self.origin.rsplit('/').next().unwrap_or_default();
        let is_of_log = |key: &Key| key.name.rsplit('/').next() == Some(log);
        let of_log = |key: &Key| if is_of_log(key) { key.label() } else { key.of_log(log).label() };
        Some(OtherKey { signed: label(name, id), given: keys.iter().map(of_log).collect() })
    }

    /// The signature by one of the keys, and which; not verified yet.
    ///
    /// # Errors
    /// [`NoteError::UnknownKey`].
    pub fn signature<'k>(&self, keys: &'k [Key]) -> Result<(&'k Key, Signature), NoteError> {
        let by = |key: &Key| {
            let of = |(name, bytes): &&(&str, Vec<u8>)| *name == key.name && bytes.starts_with(&key.id);
            let (_, bytes) = self.signatures.iter().find(of)?;
            Some(Signature::from_bytes(bytes.get(4..)?.try_into().ok()?))
        };
        keys.iter().find_map(|key| Some((key, by(key)?))).ok_or(NoteError::UnknownKey)
    }

    /// Verifies the signature by one of the keys.
    ///
    /// # Errors
    /// Where none of them signed.
    pub fn verify(&self, keys: &[Key]) -> Result<(), NoteError> {
        let (key, signature) = self.signature(keys)?;
        key.public.verify(self.text.as_bytes(), &signature).map_err(|_| NoteError::Signature)
    }
}

fn signature_line(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
    let signature = BASE64_STANDARD.decode(signature).ok()?;
    (!name.is_empty() && signature.len() > 4).then_some((name, signature))
}

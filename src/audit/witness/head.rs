//! A checkpoint (C2SP `tlog-checkpoint`) as a witness's client reads it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use signed_note::{Note, Signature};

/// What a checkpoint says, and the bytes that are signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// The log.
    pub origin: String,
    /// How many records it has.
    pub size: u64,
    /// The root of its tree.
    pub root: [u8; 32],
    text: String,
    lines: Vec<String>,
}

/// Why a note is no checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// It is no signed note.
    #[error("the checkpoint is no signed note")]
    Note,
    /// Its text has no origin, size and root.
    #[error("the checkpoint does not begin with an origin, a size and a root")]
    Text,
}

impl Head {
    /// Reads a checkpoint, without regard to who signed it.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(note: &str) -> Result<Self, HeadError> {
        Note::from_bytes(note.as_bytes()).map_err(|_| HeadError::Note)?;
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(HeadError::Note)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(HeadError::Text);
        };
        let number: u64 = size.parse().map_err(|_| HeadError::Text)?;
        if origin.is_empty() || number.to_string() != size || lines.any(str::is_empty) {
            return Err(HeadError::Text);
        }
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok()).ok_or(HeadError::Text)?;
        Ok(Self {
            origin: origin.to_owned(),
            size: number,
            root,
            text: format!("{text}\n"),
            lines: signatures.lines().map(str::to_owned).collect(),
        })
    }

    /// The note's text: what is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn note(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for line in &self.lines {
            note.push_str(line);
            note.push('\n');
        }
        note
    }
}

/// The newest cosigned checkpoint, given the stored one: cosignatures of the same checkpoint come
/// together, and those of an older one do not replace a newer. A witness's later line replaces its earlier.
///
/// # Errors
/// When one of the two is no checkpoint.
pub fn merge(stored: Option<&str>, checkpoint: &str, cosignatures: &[String]) -> Result<String, HeadError> {
    let head = Head::parse(checkpoint)?;
    let stored = stored.map(Head::parse).transpose()?.filter(|stored| stored.origin == head.origin);
    let mut newest = match stored {
        Some(stored) if stored.size > head.size => return Ok(stored.note()),
        Some(stored) if stored.text == head.text => stored,
        _ => head,
    };
    for line in cosignatures {
        let key = signer(line).ok_or(HeadError::Note)?;
        newest.lines.retain(|present| signer(present).as_ref() != Some(&key));
        newest.lines.push(line.clone());
    }
    Ok(newest.note())
}

fn signer(line: &str) -> Option<(String, u32)> {
    let signature = Signature::from_bytes(line.as_bytes()).ok()?;
    Some((signature.name().to_owned(), signature.id()))
}

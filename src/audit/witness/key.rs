//! Who a witness is: its verifier key (C2SP `signed-note`, signature type 0x04).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use signed_note::{Signature, is_key_name_valid, key_id};

/// The name and the public key of a witness.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WitnessKey {
    name: String,
    id: u32,
    public: [u8; 32],
}

/// A cosignature that was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cosignature {
    /// When the witness made it, in Unix seconds, as the witness says.
    pub time: u64,
    /// The signature line, without its newline.
    pub line: String,
}

/// Why a text is no witness's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WitnessKeyError {
    /// It has another form.
    #[error("a witness's key has the form `name+id+base64`")]
    Format,
    /// It is a key for something else: a log's checkpoints have type 1.
    #[error("the key has signature type {found:#04x}; a witness's has 0x04")]
    Type {
        /// The type it has.
        found: u8,
    },
    /// The id is not that of the name and the key: one of the three was mistyped.
    #[error("the key's id does not fit its name and key")]
    Id,
}

/// Signature type of Ed25519 cosignatures.
const COSIGNATURE_V1: u8 = 4;

impl WitnessKey {
    /// Reads a verifier key, `name+id+base64`.
    ///
    /// # Errors
    /// When it is none of a witness with an Ed25519 key.
    pub fn parse(vkey: &str) -> Result<Self, WitnessKeyError> {
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(WitnessKeyError::Format);
        };
        let key = STANDARD.decode(key).map_err(|_| WitnessKeyError::Format)?;
        let (kind, public) = key.split_first().ok_or(WitnessKeyError::Format)?;
        if *kind != COSIGNATURE_V1 {
            return Err(WitnessKeyError::Type { found: *kind });
        }
        let public = public.try_into().map_err(|_| WitnessKeyError::Format)?;
        if !is_key_name_valid(name) || name.chars().any(char::is_control) {
            return Err(WitnessKeyError::Format);
        }
        let expected = key_id(name, &key);
        if !id.eq_ignore_ascii_case(&format!("{expected:08x}")) {
            return Err(WitnessKeyError::Id);
        }
        Ok(Self { name: name.to_owned(), id: expected, public })
    }

    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `name+id`: what tells the key from the witness's other keys.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}+{:08x}", self.name, self.id)
    }

    /// Whether a signature line claims to be by this key.
    #[must_use]
    pub fn is_named_by(&self, line: &Signature) -> bool {
        line.name() == self.name && line.id() == self.id
    }

    /// The cosignature in a signature line, if it is by this key and of this checkpoint's text.
    #[must_use]
    pub fn verify(&self, text: &str, line: &Signature) -> Option<Cosignature> {
        let (time, signature) = line.signature().split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        if !self.is_named_by(line) || i64::try_from(time).is_err() {
            return None;
        }
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message.as_bytes(), signature).ok()?;
        let line = String::from_utf8(line.to_bytes()).ok()?.trim_end_matches('\n').to_owned();
        Some(Cosignature { time, line })
    }
}

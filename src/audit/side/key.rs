//! The key of the side stores of a state folder.

use std::path::Path;

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use super::{SideError, format::SegmentKey};
use crate::store::{KEY_BYTES, key_file};

/// Encrypts side stores. Each file is under a key of its own, made from this one: random nonces
/// of 96 bits are safe for some 2³² entries under a key, which one key would pass within days.
#[derive(Debug)]
pub struct SideKey(SecretBox<[u8; KEY_BYTES]>);

impl SideKey {
    /// The key that configuration gives.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// The key that configuration gives as text: 32 bytes in base64. Anything else is none.
    #[must_use]
    pub fn parse(text: &SecretString) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.expose_secret().trim()).ok()?;
        Some(Self::from_bytes(bytes.try_into().ok()?))
    }

    /// Reads a key file, or makes one where there is none.
    ///
    /// # Errors
    /// When the file cannot be read or made, holds no key, or can be used by others.
    pub fn open(path: &Path) -> Result<Self, SideError> {
        Ok(Self(key_file(path)?))
    }

    /// Names the key without telling it.
    pub(super) fn id(&self) -> [u8; 8] {
        let tag = self.derive(&[b"callgate side key id 1"]);
        tag.first_chunk().copied().unwrap_or_default()
    }

    /// The key of one segment of one log.
    pub(super) fn segment(&self, origin: &str, salt: &[u8; 32]) -> Option<SegmentKey> {
        let key = self.derive(&[b"callgate side segment 1\n", salt, origin.as_bytes()]);
        SegmentKey::new(&key, origin)
    }

    fn derive(&self, parts: &[&[u8]]) -> [u8; KEY_BYTES] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret()));
        for part in parts {
            context.update(part);
        }
        context.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

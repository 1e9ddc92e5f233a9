//! Keyed digests: who has the key can check a claim, and nobody can guess without it.

use std::{fs, io, io::Write as _, path::Path, time::Duration};

use aws_lc_rs::{hmac, rand};
use serde_json::Value;

use super::log::LogError;
use crate::call::CallId;

/// The key of a state folder's digests.
pub struct DigestKey(hmac::Key);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey")
    }
}

const KEY_BYTES: usize = 32;

impl DigestKey {
    /// Reads the key of a folder, or makes one where there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, LogError> {
        let failed = |source| LogError::Io { path: folder.join("digest.key"), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join("digest.key");
        match make(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        // Another process may be about to write the key it has just made.
        for _ in 0..50 {
            let key = fs::read(&path).map_err(failed)?;
            if key.len() == KEY_BYTES {
                return Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(failed(io::Error::new(io::ErrorKind::InvalidData, "the key does not have 32 bytes")))
    }

    /// The digest of a value that belongs to a call: HMAC-SHA-256 over the call's id and the
    /// value's canonical JSON.
    #[must_use]
    pub fn digest(&self, id: CallId, value: &Value) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(id.to_string().as_bytes());
        context.update(&serde_json_canonicalizer::to_vec(value).unwrap_or_default());
        format!("hmac-sha256:{}", hex::encode(context.sign()))
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key).map_err(|_| io::Error::other("no random bytes"))?;
    file.write_all(&key)?;
    file.sync_all()
}

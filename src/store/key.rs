//! Keys of the gate's own that lie in its state folder: 32 random bytes, made once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox};

use super::place_once;

/// How long such a key is.
pub const KEY_BYTES: usize = 32;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be made or read.
    #[error("the key file `{}` cannot be used: {source}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold a key.
    #[error("the key file `{}` holds {bytes} bytes; a key has {KEY_BYTES}", path.display())]
    Length {
        /// The key file.
        path: PathBuf,
        /// How many bytes it holds.
        bytes: usize,
    },
    /// Others than its owner can use it.
    #[error("the key file `{}` can be used by others: its mode is {mode:o}; make it 600", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// Reads a key file, or makes one where there is none.
///
/// # Errors
/// When the file cannot be read or made, holds no key, or can be used by others.
pub fn key_file(path: &Path) -> Result<SecretBox<[u8; KEY_BYTES]>, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    let found = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            place_once(path, random()?.expose_secret()).map_err(failed)?;
            fs::read(path)
        }
        found => found,
    };
    let found = found.map_err(failed)?;
    refuse_exposed(path)?;
    let key: [u8; KEY_BYTES] = found
        .as_slice()
        .try_into()
        .map_err(|_| KeyFileError::Length { path: path.to_owned(), bytes: found.len() })?;
    Ok(SecretBox::new(Box::new(key)))
}

fn random() -> Result<SecretBox<[u8; KEY_BYTES]>, KeyFileError> {
    let mut key = SecretBox::new(Box::new([0; KEY_BYTES]));
    rand::fill(key.expose_secret_mut()).map_err(|_| KeyFileError::NoRandom)?;
    Ok(key)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyFileError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path) -> Result<(), KeyFileError> {
    Ok(())
}

//! Reading a secret from where its reference points.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read,
    path::Path,
};

use secrecy::{ExposeSecret, SecretString};

use super::CredentialError;
use crate::manifest::SecretRef;

/// How many bytes a secret may have. Servers take 8 KiB in one header field; chains of certificates are longer.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// How the environment is read.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads a secret, without the newline that editors put at the end of a file.
pub(super) fn read(
    reference: &SecretRef,
    base_dir: &Path,
    environment: Environment<'_>,
) -> Result<SecretString, CredentialError> {
    match reference {
        SecretRef::Env(variable) => {
            let value = environment(variable)
                .ok_or_else(|| CredentialError::NotSet { variable: variable.clone() })?;
            text(reference, value.into_encoded_bytes())
        }
        SecretRef::File(path) => read_file_secret(reference, &base_dir.join(path)),
        SecretRef::Vault(_) => Err(CredentialError::InVault { reference: reference.clone() }),
    }
}

/// Reads the secret of a file, which is at `path`.
pub(super) fn read_file_secret(reference: &SecretRef, path: &Path) -> Result<SecretString, CredentialError> {
    text(reference, read_file(path)?)
}

fn text(reference: &SecretRef, bytes: Vec<u8>) -> Result<SecretString, CredentialError> {
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(CredentialError::TooLong { reference: reference.clone(), bytes_max: SECRET_BYTES_MAX });
    }
    let mut text = String::from_utf8(bytes).map_err(|_| CredentialError::Unsendable {
        reference: reference.clone(),
        expected: "a secret is text in UTF-8",
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let secret = SecretString::from(text);
    if secret.expose_secret().is_empty() {
        return Err(CredentialError::Empty { reference: reference.clone() });
    }
    Ok(secret)
}

/// Reads a regular file that only its owner can open, up to just past the limit.
fn read_file(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let unreadable = |error| CredentialError::Unreadable { path: path.to_owned(), error };
    // Asked before opening, since opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(CredentialError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(unreadable)?;
    refuse_exposed(&file, path)?;
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Asks the open file, not the path, which may have come to mean another file.
#[cfg(unix)]
fn refuse_exposed(file: &File, path: &Path) -> Result<(), CredentialError> {
    use std::os::unix::fs::MetadataExt;

    let metadata =
        file.metadata().map_err(|error| CredentialError::Unreadable { path: path.to_owned(), error })?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CredentialError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &File, _: &Path) -> Result<(), CredentialError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_environment(value: &str) -> Result<SecretString, CredentialError> {
        read(&SecretRef::Env("KEY".to_owned()), Path::new("."), &|_| Some(value.into()))
    }

    #[cfg(unix)]
    fn from_file(content: &[u8], mode: u32) -> Result<SecretString, CredentialError> {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read(&SecretRef::File("key".into()), folder.path(), &|_| None)
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_a_secret() {
        for (value, secret) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), (" s ", " s ")] {
            assert_eq!(from_environment(value).unwrap().expose_secret(), secret);
        }
    }

    #[test]
    fn an_empty_secret_is_refused() {
        for value in ["", "\n", "\r\n"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    from_environment(value).unwrap_err(),
                    @"the secret at `env:KEY` is empty"
                );
            }
        }
    }

    #[test]
    fn a_secret_of_megabytes_is_refused() {
        insta::assert_snapshot!(
            from_environment(&"s".repeat(SECRET_BYTES_MAX + 1)).unwrap_err(),
            @"the secret at `env:KEY` is longer than 65536 bytes"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_for_its_owner_alone_is_read() {
        assert_eq!(from_file(b"s3cr3t\n", 0o600).unwrap().expose_secret(), "s3cr3t");
        assert_eq!(from_file(b"s3cr3t", 0o400).unwrap().expose_secret(), "s3cr3t");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_open_is_refused_with_its_mode() {
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            let refusal = from_file(b"hunter2", mode).unwrap_err();
            assert!(matches!(refusal, CredentialError::Exposed { mode: found, .. } if found == mode));
            let text = refusal.to_string();
            assert!(text.ends_with(&format!("(mode {mode:04o}): run `chmod 600` on it")), "{text}");
            assert!(!text.contains("hunter2"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_text_are_refused_and_not_repeated() {
        insta::assert_snapshot!(
            from_file(b"hunter2\xff", 0o600).unwrap_err(),
            @"the secret at `file:key` holds characters that cannot be sent: a secret is text in UTF-8"
        );
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read(&SecretRef::File("absent".into()), folder.path(), &|_| None).unwrap_err();
        assert!(matches!(missing, CredentialError::Unreadable { .. }), "{missing}");
        let directory = read(&SecretRef::File(".".into()), folder.path(), &|_| None).unwrap_err();
        assert!(matches!(directory, CredentialError::NotAFile { .. }), "{directory}");
    }
}

//! Keys that were typed where something else belongs. What is typed there is repeated in messages, written into
//! files and put on record, so it is refused without a word of it.

use std::{ffi::OsString, path::Path};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    admin::{REFUSED, holds_secret},
    manifest::KeyId,
};

/// What keys of clients begin with.
const CLIENT: &str = "cg_";
/// What keys of people who run the server begin with.
const ADMIN: &str = "cgadmin_";
/// How long the name of a variable may be.
const VARIABLE_BYTES_MAX: usize = 64;

/// Refuses a key or a token anywhere on the command line, of a command that takes none there.
///
/// # Errors
/// When there is one.
pub(super) fn refuse_secrets(words: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let is_one = |word: OsString| {
        let word = word.to_string_lossy();
        let value = if word.starts_with("--") { word.split_once('=').map(|(_, value)| value) } else { None };
        let value = value.unwrap_or(&word);
        holds_secret(value) && !Path::new(value).exists()
    };
    if words.into_iter().any(is_one) { Err(REFUSED.to_owned()) } else { Ok(()) }
}

/// Refuses what is no name of an environment variable.
///
/// # Errors
/// When that is so, or it could be a key.
pub(super) fn refuse_key_as_variable(option: &str, name: &str) -> Result<(), String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let is_variable = (1..=VARIABLE_BYTES_MAX).contains(&name.len())
        && name.chars().all(is_plain)
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if is_variable && !is_like_a_key(name) {
        return Ok(());
    }
    Err(format!("`{option}` takes the name of an environment variable, never the key"))
}

/// Refuses a key in place of the file that holds it.
///
/// # Errors
/// When it could be a key, and there is no such file.
pub(super) fn refuse_key_as_file(option: &str, path: &Path) -> Result<(), String> {
    if path.to_str().is_some_and(is_like_a_key) && !path.exists() {
        return Err(format!("`{option}` takes the path of a file that holds the key, never the key"));
    }
    Ok(())
}

/// Refuses a key in place of a name.
///
/// # Errors
/// When it could be a key.
pub(super) fn refuse_key_as_name(name: &str) -> Result<(), String> {
    if is_like_a_key(name) {
        return Err("a key is named by its id, such as `k1` of `cg_k1_…`: never type the key".to_owned());
    }
    Ok(())
}

/// The id of a key, as it was typed.
///
/// # Errors
/// When it is none.
pub(super) fn typed_key_id(text: &str) -> Result<KeyId, String> {
    refuse_key_as_name(text)?;
    KeyId::parse(text).map_err(|error| error.to_string())
}

/// Refuses to show the admin listener what is no key of its own: it may be somebody's all the same.
///
/// # Errors
/// When that is so.
pub(super) fn refuse_other_than_admin_key(key: &SecretString) -> Result<(), String> {
    if key.expose_secret().starts_with(ADMIN) {
        return Ok(());
    }
    Err(format!("the admin key begins with `{ADMIN}`, and this one does not: a client's key is none"))
}

/// Refuses to show an admin key where the API key of a client belongs.
///
/// # Errors
/// When it is one.
pub(super) fn refuse_admin_key(key: &SecretString) -> Result<(), String> {
    if key.expose_secret().starts_with(ADMIN) {
        return Err(format!("the API key begins with `{ADMIN}`: an admin key is none of a client's"));
    }
    Ok(())
}

fn is_like_a_key(text: &str) -> bool {
    text.starts_with(CLIENT) || text.starts_with(ADMIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["cg_k1_0123456789abcdef", "cgadmin_a_1_secret", "cg_x"];

    #[test]
    fn a_key_is_no_name_and_each_kind_goes_to_its_own_place() {
        for key in KEYS {
            let refusal = typed_key_id(key).unwrap_err();
            assert!(refusal.contains("never type the key") && !refusal.contains(key), "{refusal}");
            assert_eq!(refuse_key_as_name(key).unwrap_err(), refusal);
        }
        assert_eq!(typed_key_id("k1").unwrap().as_str(), "k1");
        assert!(typed_key_id("k 1").unwrap_err().contains("is not a key id"));
        let (admin, client) = (SecretString::from("cgadmin_a_b"), SecretString::from("cg_a_b"));
        assert_eq!((refuse_other_than_admin_key(&admin), refuse_admin_key(&client)), (Ok(()), Ok(())));
        assert!(refuse_other_than_admin_key(&client).is_err() && refuse_admin_key(&admin).is_err());
    }

    #[test]
    fn a_secret_is_refused_in_any_word_but_in_the_path_of_a_file() {
        let words = |words: &[&str]| refuse_secrets(words.iter().map(OsString::from));
        for word in
            ["cg_k1_0123456789abcdef", "--name=cg_k1_0123456789abcdef", "https://h/cg_k1_0123456789abcdef"]
        {
            assert_eq!(words(&["connect", word]).unwrap_err(), REFUSED);
        }
        assert_eq!(words(&["connect", "codex", "--name", "cg_bot", "--key-env", "CG_TOKEN"]), Ok(()));
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("cg_k1_0123456789abcdef");
        assert!(words(&[file.to_str().unwrap()]).is_err());
        std::fs::write(&file, "").unwrap();
        assert_eq!(words(&[file.to_str().unwrap(), &format!("--key-file={}", file.display())]), Ok(()));
    }

    #[test]
    fn a_key_is_no_variable_and_no_file_and_is_not_repeated() {
        for key in KEYS {
            for refusal in [
                refuse_key_as_variable("--key-env", key).unwrap_err(),
                refuse_key_as_file("--key-file", Path::new(key)).unwrap_err(),
            ] {
                assert!(refusal.ends_with(", never the key") && !refusal.contains(key), "{refusal}");
            }
        }
        for odd in ["", "1A", "A B", "A-B", "A=B", "\u{1b}[2J", &"A".repeat(65)] {
            assert!(refuse_key_as_variable("--key-env", odd).is_err(), "{odd}");
        }
        assert_eq!(refuse_key_as_variable("--key-env", "CG_TOKEN"), Ok(()));
        assert_eq!(refuse_key_as_file("--key-file", Path::new("keys/cg_key")), Ok(()));
    }
}

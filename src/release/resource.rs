//! Files that are resources: read with the release, and only from the folder that is for them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Component, Path},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::manifest::FileContent;

/// The folder beside `callgate.yaml` that such files are in.
const FOLDER: &str = "resources";
/// A larger file is not read.
const BYTES_MAX: u64 = 1 << 20;

/// Reads a file below the folder. A link that leads out of it leads nowhere.
///
/// # Errors
/// Why it is not read, as the end of a sentence.
pub(super) fn read(base: &Path, path: &Path) -> Result<Vec<u8>, String> {
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_below || path.as_os_str().is_empty() {
        return Err(format!("is no path below the folder `{FOLDER}`"));
    }
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let folder = base.join(FOLDER).canonicalize().map_err(unreadable)?;
    let path = folder.join(path).canonicalize().map_err(unreadable)?;
    if !path.starts_with(&folder) {
        return Err(format!("leads out of the folder `{FOLDER}`"));
    }
    if !path.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(format!("is larger than {} MiB", BYTES_MAX >> 20));
    }
    Ok(bytes)
}

/// Text where it is UTF-8, and base64 where it is not.
pub(super) fn content(bytes: Vec<u8>) -> FileContent {
    String::from_utf8(bytes)
        .map_or_else(|error| FileContent::Blob(BASE64_STANDARD.encode(error.as_bytes())), FileContent::Text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let project = tempfile::tempdir().unwrap();
        let (base, folder) = (project.path(), project.path().join(FOLDER));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/a.md"), "inside").unwrap();
        fs::write(base.join("secret"), "outside").unwrap();
        symlink(base.join("secret"), folder.join("link")).unwrap();
        symlink(base, folder.join("up")).unwrap();
        symlink(folder.join("sub/a.md"), folder.join("alias")).unwrap();
        assert_eq!(read(base, Path::new("sub/a.md")), Ok(b"inside".to_vec()));
        assert_eq!(read(base, Path::new("alias")), Ok(b"inside".to_vec()));
        let absolute = base.join("secret");
        for path in
            ["../secret", "sub/../../secret", "link", "up/secret", "", ".", "sub", "missing", "/etc/passwd"]
        {
            assert!(read(base, Path::new(path)).is_err(), "{path}");
        }
        assert!(read(base, &absolute).is_err());
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_and_one_that_is_no_text_is_encoded() {
        let project = tempfile::tempdir().unwrap();
        let folder = project.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        for (name, length) in [("most", BYTES_MAX), ("more", BYTES_MAX + 1)] {
            File::create(folder.join(name)).unwrap().set_len(length).unwrap();
        }
        assert!(read(project.path(), Path::new("most")).is_ok());
        assert_eq!(read(project.path(), Path::new("more")), Err("is larger than 1 MiB".into()));
        assert_eq!(content(vec![0xff, 0xfe]), FileContent::Blob("//4=".into()));
        assert_eq!(content("ä".into()), FileContent::Text("ä".into()));
    }
}

//! Files that are made once: keys, and names that must not change.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::Path,
};

use aws_lc_rs::rand;

/// Places a file where none is yet, for its owner alone, and its folder too. It appears whole or not at all,
/// and durable. Where somebody else was first, theirs stays.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn place_once(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    // Written under a name of its own, then linked: nobody ever reads half of it.
    let draft = folder.join(draft_name(path)?);
    let placed = write(&draft, content).and_then(|()| fs::hard_link(&draft, path));
    // Best effort: what is left over is used by nobody.
    let _ = fs::remove_file(&draft);
    match placed {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Also where another was first: it may not have come so far.
        _ => fs::File::open(folder)?.sync_all(),
    }
}

/// Makes a file that is opened with these options its owner's alone.
pub(crate) fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn draft_name(path: &Path) -> io::Result<OsString> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", hex::encode(random)));
    Ok(name)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = private(fs::OpenOptions::new().write(true).create_new(true)).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_come_places_the_file_and_nobody_sees_half_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/key");
        let place = |content: &u8| {
            place_once(&path, &[*content; 4096]).unwrap();
            fs::read(&path).unwrap()
        };
        let contents: Vec<u8> = (0..8).collect();
        let seen: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = contents.iter().map(|content| scope.spawn(|| place(content))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|content| content == &[content[0]; 4096] && content == &seen[0]));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no drafts are left");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_placed_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        place_once(&path, b"content").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(place_once(&file.join("key"), b"content").is_err());
    }
}

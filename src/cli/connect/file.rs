//! A file of somebody else's, changed with care: all at once, and with a copy of how it was.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// How large a configuration may be.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How long is waited for others who write in the same folder, and between two looks.
const LOCK_MAX: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// A file, as it was read.
#[derive(Debug)]
pub(super) struct ConfigFile {
    /// What a link leads to, so that the link stays.
    path: PathBuf,
    /// None where there is no file yet.
    text: Option<String>,
}

impl ConfigFile {
    /// Reads a file, which need not be there.
    ///
    /// # Errors
    /// When it is there and cannot be read as text.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
                return Ok(Self { path: path.to_owned(), text: None });
            }
            Err(error) => return Err(format!("cannot read `{shown}`: {error}")),
        };
        let text = read(&path).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
        Ok(Self { path, text: Some(text) })
    }

    /// What was in it.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Puts another text in its place, and gives the copy of the one before. A crash leaves one or the other.
    ///
    /// # Errors
    /// When that fails, or the file has changed meanwhile.
    pub(super) fn replace(&self, text: &str) -> Result<Option<PathBuf>, String> {
        let shown = self.path.display();
        let cannot = |error: io::Error| format!("cannot write `{shown}`: {error}");
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(cannot)?;
        }
        let _lock = lock(&self.path).map_err(cannot)?;
        if self.now().map_err(cannot)? != self.text {
            return Err(cannot(io::Error::other("it has changed meanwhile: try again")));
        }
        let backup = self.text.as_ref().map(|before| self.back_up(before)).transpose().map_err(cannot)?;
        let temporary = beside(&self.path, &format!("new-{}", std::process::id()));
        let written = self.write_new(&temporary, text).and_then(|()| {
            // Who knows of no lock may have written it, too.
            if self.now()? != self.text {
                return Err(io::Error::other("it has changed meanwhile: try again"));
            }
            fs::rename(&temporary, &self.path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
            let _ = backup.as_ref().map(fs::remove_file);
        }
        written.map_err(cannot)?;
        Ok(backup)
    }

    /// What is in it by now.
    fn now(&self) -> io::Result<Option<String>> {
        if self.path.exists() { read(&self.path).map(Some) } else { Ok(None) }
    }

    fn back_up(&self, before: &str) -> io::Result<PathBuf> {
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut path = beside(&self.path, &format!("bak-{now}"));
        let mut count = 1;
        while path.exists() {
            count += 1;
            path = beside(&self.path, &format!("bak-{now}-{count}"));
        }
        self.write_new(&path, before)?;
        Ok(path)
    }

    /// Writes a file that is not there yet, as open to others as the one that is.
    fn write_new(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if self.text.is_some() {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600); // until it has the mode of the other
        }
        let mut file = options.open(path)?;
        file.write_all(text.as_bytes())?;
        if self.text.is_some() {
            file.set_permissions(fs::metadata(&self.path)?.permissions())?;
        }
        file.sync_all()
    }
}

/// Keeps other commands from writing next to a file: by a lock on its folder, which leaves nothing there. Where
/// folders cannot be locked, as on Windows, there is none.
fn lock(path: &Path) -> io::Result<Option<fs::File>> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let Ok(folder) = fs::File::open(folder) else { return Ok(None) };
    let until = Instant::now() + LOCK_MAX;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(fs::TryLockError::Error(_)) => return Ok(None),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_RETRY),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::other("another program holds a lock on its folder"));
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than a configuration may be"));
    }
    Ok(text)
}

/// `FILE.ENDING`, in the same folder.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_writers_the_second_is_refused_and_leaves_nothing_behind() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "{}").unwrap();
        let (one, other) = (ConfigFile::read(&path).unwrap(), ConfigFile::read(&path).unwrap());
        assert!(one.replace("{\"one\": 1}").unwrap().is_some());
        let said = other.replace("{\"other\": 1}").unwrap_err();
        assert!(said.contains("it has changed meanwhile"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"one\": 1}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and one copy");
    }
}

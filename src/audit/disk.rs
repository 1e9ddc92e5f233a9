//! The disk, as far as a log needs it.
//!
//! Nothing else in the log touches a file, so that a simulator can stand in and crash, tear, reorder or
//! hang at every single operation.

#[cfg(test)]
pub(super) mod sim;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _},
    path::Path,
};

/// Folders and names.
pub(super) trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// The names in a folder, in any order; a missing folder holds none.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder, and those above it, for the owner alone.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Opens an existing file to read and to append.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Makes a file for the owner alone; fails where one exists.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames a file; replaces what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Waits until the names in a folder survive a power loss.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// The bytes that may still be written.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// One open file.
pub(super) trait DiskFile: Send + 'static {
    /// How many bytes it holds.
    fn len(&self) -> io::Result<u64>;
    /// Reads from an offset; may read less than was asked for, and nothing at the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Appends; may write less than was asked for.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file to a length.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Waits until the bytes, and the length, survive a power loss.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// The machine's own disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        // A name that is not UTF-8 is none of ours.
        entries.map(|entry| Ok(entry?.file_name().into_string().ok())).filter_map(Result::transpose).collect()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        fs::OpenOptions::new().read(true).append(true).open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        fs::OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(folder)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        retried(|| FileExt::read_at(self, into, offset))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retried(|| io::Write::write(self, bytes))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }
}

/// A signal before the first byte is no answer of the disk.
fn retried(mut work: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Appends all bytes.
pub(super) fn append_all(file: &mut impl DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.append(bytes)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Reads a whole file.
pub(super) fn read_all(file: &impl DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let read = file.read_at(u64::try_from(filled).unwrap_or(u64::MAX), rest)?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_file_is_the_owners_alone_and_is_never_made_twice() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        RealDisk.make_folder(path.parent().unwrap()).unwrap();
        append_all(&mut RealDisk.create(&path).unwrap(), b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(RealDisk.create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        append_all(&mut RealDisk.open(&path).unwrap(), b" two").unwrap();
        assert_eq!(read_all(&RealDisk.open(&path).unwrap()).unwrap(), b"one two");
        assert_eq!(RealDisk.list(path.parent().unwrap()).unwrap(), ["b"]);
        assert!(RealDisk.list(&folder.path().join("none")).unwrap().is_empty());
        assert!(RealDisk.free_bytes(folder.path()).unwrap() > 0);
    }
}

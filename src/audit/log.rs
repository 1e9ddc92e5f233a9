//! A log on disk: a folder of its own, claimed by one process at a time.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Serialize;

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file cannot be made, read or written.
    #[error("the log file `{}` cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the log is no record.
    #[error("the log `{}` is damaged: its last complete line is no record", path.display())]
    Damaged {
        /// The log file.
        path: PathBuf,
    },
    /// All slots are taken.
    #[error("all {slots} logs of kind `{kind}` are in use by other processes")]
    Full {
        /// The kind of log.
        kind: &'static str,
        /// How many there are.
        slots: u32,
    },
}

/// The name of a log: its kind and its slot, `serve-0`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LogName(String);

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A claimed log, ready to be appended to.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) name: LogName,
    pub(super) file: File,
    /// The number of the next record.
    pub(super) next: u64,
    /// How many bytes of an unfinished last line were cut off.
    pub(super) cut: u64,
    /// Holds the lock for as long as the log is open.
    _lock: File,
}

/// Processes of one kind that can share a state folder.
const SLOTS_MAX: u32 = 256;

/// The longest last line that is read to find the last record's number.
const TAIL_BYTES_MAX: u64 = 1 << 20;

impl Log {
    /// Claims the first log of a kind that no other process holds.
    pub(super) fn claim(folder: &Path, kind: &'static str) -> Result<Self, LogError> {
        for slot in 0..SLOTS_MAX {
            let name = LogName(format!("{kind}-{slot}"));
            let folder = folder.join(&name.0);
            if let Some(lock) = lock(&folder)? {
                return Self::open(name, &folder, lock);
            }
        }
        Err(LogError::Full { kind, slots: SLOTS_MAX })
    }

    fn open(name: LogName, folder: &Path, lock: File) -> Result<Self, LogError> {
        let path = folder.join("log.jsonl");
        let failed = |source| LogError::Io { path: path.clone(), source };
        let mut options = fs::OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        // A file that was just made is not there after a power loss until its folder is synced.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let tail_start = length.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(tail_start)).map_err(failed)?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).map_err(failed)?;
        let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let cut = u64::try_from(tail.len() - complete).unwrap_or(u64::MAX);
        if complete == 0 && tail_start > 0 {
            return Err(LogError::Damaged { path });
        }
        let next = match tail.get(..complete.saturating_sub(1)).filter(|lines| !lines.is_empty()) {
            None => 0,
            Some(lines) => {
                let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                let last: Numbered =
                    serde_json::from_slice(last).map_err(|_| LogError::Damaged { path: path.clone() })?;
                last.seq + 1
            }
        };
        if cut > 0 {
            // Nobody was told that this record exists: its writer died before it was whole.
            file.set_len(length - cut).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        Ok(Self { name, file, next, cut, _lock: lock })
    }
}

#[derive(serde::Deserialize)]
struct Numbered {
    seq: u64,
}

/// Locks a log's folder, unless another process has.
fn lock(folder: &Path) -> Result<Option<File>, LogError> {
    let path = folder.join("lock");
    let failed = |source| LogError::Io { path: path.clone(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn two_processes_never_share_a_log_and_a_slot_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let one = Log::claim(folder.path(), "stdio").unwrap();
        let other = Log::claim(folder.path(), "stdio").unwrap();
        assert_eq!((one.name.to_string().as_str(), other.name.to_string().as_str()), ("stdio-0", "stdio-1"));
        drop(one);
        assert_eq!(Log::claim(folder.path(), "stdio").unwrap().name.to_string(), "stdio-0");
    }

    #[test]
    fn an_unfinished_line_is_cut_and_numbering_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        Log::claim(folder.path(), "serve")
            .unwrap()
            .file
            .write_all(b"{\"seq\":0}\n{\"seq\":1}\n{\"se")
            .unwrap();
        let log = Log::claim(folder.path(), "serve").unwrap();
        assert_eq!((log.next, log.cut), (2, 4));
        assert_eq!(
            fs::read_to_string(folder.path().join("serve-0/log.jsonl")).unwrap(),
            "{\"seq\":0}\n{\"seq\":1}\n"
        );
    }

    #[test]
    fn a_damaged_log_is_not_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        Log::claim(folder.path(), "serve").unwrap().file.write_all(b"{\"seq\":0}\nxx\n").unwrap();
        assert!(matches!(Log::claim(folder.path(), "serve"), Err(LogError::Damaged { .. })));
    }
}

//! A log on disk: a folder of its own, claimed by one process at a time.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    WriteError,
    disk::RealDisk,
    key::KeyError,
    recover::{Claim, RecoverError, Recovered, Seen, recover},
    rollback::{self, OnRecord},
    setup::Setup,
    side::SideError,
};

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
    /// What is there cannot be gone on with.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// Its first record cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The encrypted store beside it cannot be used.
    #[error(transparent)]
    Side(#[from] SideError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file of a key does not hold one.
    #[error("`{}`: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The key signs under another name than the logs.
    #[error("the checkpoint key is named `{key}`, and the origin is `{origin}`: both name the same logs")]
    KeyName {
        /// The key's name.
        key: String,
        /// The logs' origin.
        origin: String,
    },
    /// The key of the encrypted store is none.
    #[error("the key of `bodies` is not 32 bytes in base64")]
    BodiesKey,
    /// The file of the origin holds none.
    #[error("`{}`: {reason}", path.display())]
    Origin {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody else knows more of the log, or another log.
    #[error(
        "the log `{log}` holds {size} records, but {contradiction}; put its newest state back, or move `{}` away, so \
         that another log is begun",
        folder.display()
    )]
    PutBack {
        /// The log.
        log: LogName,
        /// Its folder.
        folder: PathBuf,
        /// How many records it holds.
        size: u64,
        /// Who knows what.
        contradiction: String,
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

impl LogError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
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

/// A log that is ours.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) name: LogName,
    pub(super) folder: PathBuf,
    /// The name that it signs under.
    pub(super) origin: String,
    pub(super) recovered: Recovered<RealDisk>,
}

/// Processes of one kind that can share a state folder.
const SLOTS_MAX: u32 = 256;

/// Claims the first log of a kind that no other process holds, and mends what an interrupted one left.
///
/// A log that others know more of is refused, before anything is signed. A name that others know and that holds
/// nothing any more is not used again: two logs of one name would pass for a log that was tampered with.
pub(super) fn claim(logs: &Path, kind: &'static str, setup: &Setup) -> Result<Claimed, LogError> {
    let mut on_record = None;
    for slot in 0..SLOTS_MAX {
        let name = LogName(format!("{kind}-{slot}"));
        let folder = logs.join(&name.0);
        let Some(lock) = lock(&folder)? else { continue };
        let origin = format!("{}/{name}", setup.base);
        let key = setup.signing.for_log(&origin)?;
        let on_record = on_record.get_or_insert_with(|| OnRecord::read(logs));
        let mut known = on_record.of(&name.0, &key.trusting(&setup.previous)?);
        if !known.is_empty() && rollback::is_new(&folder) {
            tracing::warn!(log = %name, "a log is gone that other logs have a head of; its name is not used again");
            continue;
        }
        known.extend(rollback::witnessed(&folder));
        let claim = Claim {
            folder: &folder,
            key,
            known: &setup.previous,
            boot: &boot(),
            now_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
        };
        let recovered = recover(Arc::new(RealDisk), claim, &seen)?.holding(lock);
        let size = recovered.size();
        let contradiction = rollback::contradiction(&folder, size, known);
        if let Some(contradiction) = contradiction.map_err(|source| LogError::io(&folder, source))? {
            let contradiction = contradiction.to_string();
            return Err(LogError::PutBack { log: name, folder, size, contradiction });
        }
        return Ok(Claimed { name, folder, origin, recovered });
    }
    Err(LogError::Full { kind, slots: SLOTS_MAX })
}

/// The kernel's name for the time since it was started. Where there is none, every start counts as one.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown-{}", Timestamp::now()), |id| id.trim().to_owned())
}

/// What a record is, as far as recovery must know.
fn seen(record: &[u8]) -> Seen {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow)]
        record: Cow<'a, str>,
        #[serde(borrow)]
        call: Option<PeekCall<'a>>,
    }
    #[derive(Deserialize)]
    struct PeekCall<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let Ok(Peek { record, call: Some(call) }) = serde_json::from_slice::<Peek<'_>>(record) else {
        return Seen::Plain;
    };
    match (u128::from_str_radix(&call.id, 16), &*record) {
        (Ok(call), "intent") => Seen::Intent(call),
        (Ok(call), "outcome") => Seen::Outcome(call),
        _ => Seen::Plain,
    }
}

/// Locks a log's folder, unless another process has.
fn lock(folder: &Path) -> Result<Option<File>, LogError> {
    let path = folder.join("lock");
    let failed = |source| LogError::io(&path, source);
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
    use crate::audit::Keys;

    #[test]
    fn two_processes_never_share_a_log_and_a_slot_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::open(folder.path(), &Keys::default()).unwrap();
        let name = |claimed: &Claimed| claimed.name.to_string();
        let one = claim(folder.path(), "stdio", &setup).unwrap();
        let other = claim(folder.path(), "stdio", &setup).unwrap();
        assert_eq!((name(&one).as_str(), name(&other).as_str()), ("stdio-0", "stdio-1"));
        assert_eq!(one.origin, format!("{}/stdio-0", setup.base));
        drop(one);
        assert_eq!(name(&claim(folder.path(), "stdio", &setup).unwrap()), "stdio-0");
    }

    #[test]
    fn an_intent_and_its_outcome_are_of_one_call() {
        let id = "0000000003e8ffffffffffffffffffff";
        let record =
            |kind: &str| format!(r#"{{"call":{{"id":"{id}","kind":"tool"}},"record":"{kind}","v":1}}"#);
        let call = u128::from_str_radix(id, 16).unwrap();
        assert_eq!(seen(record("intent").as_bytes()), Seen::Intent(call));
        assert_eq!(seen(record("outcome").as_bytes()), Seen::Outcome(call));
        assert_eq!(seen(br#"{"record":"start","v":1}"#), Seen::Plain);
        assert_eq!(seen(b"no record"), Seen::Plain);
    }
}

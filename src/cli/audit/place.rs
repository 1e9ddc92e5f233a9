//! What was typed, and what it means: the state folder, a log, a record, keys.

use std::{
    convert::Infallible,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;

use super::Failure;
use crate::{
    audit::{
        index::{Filter, Index, Match},
        reader::{self, LogFolder, ReadError, RecordView},
        verifier::note::Key,
    },
    manifest::{Place, Problem, ServerFile, Source, read},
};

/// Where the logs are.
#[derive(Clone, Debug, Args)]
pub(super) struct State {
    /// The state folder, where the logs are; left out, that of the project.
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
}

impl State {
    /// The state folder. Nothing else of a project has to be in order, or to be there.
    pub(super) fn find(&self, config: &Path) -> Result<PathBuf, Failure> {
        let path = match &self.state {
            Some(path) => path.clone(),
            None => {
                let base = config.parent().map(Path::to_owned).unwrap_or_default();
                base.join(configured(config)?.state)
            }
        };
        match (path.is_dir(), path.join("audit").is_dir()) {
            (true, true) => Ok(path),
            (true, false) => Err(Failure::NoLogs { path }),
            (false, _) => Err(Failure::NoState { path }),
        }
    }

    /// What `callgate.yaml` says; nothing where `--state` says that no project is needed.
    pub(super) fn server(&self, config: &Path) -> Result<Option<ServerFile>, Failure> {
        if self.state.is_some() { Ok(None) } else { configured(config).map(Some) }
    }
}

fn configured(config: &Path) -> Result<ServerFile, Failure> {
    let text = fs::read_to_string(config).map_err(|error| {
        let source = Source { path: config.to_owned(), text: "".into() };
        let problem = Problem::error(&source, Place::File, format!("cannot be read: {error}"));
        Failure::Config(Box::new(problem.help("`--state DIR` names the state folder without a project")))
    })?;
    let source = Source { path: config.to_owned(), text: text.into() };
    read(&source).map_err(Failure::Config)
}

/// The log of that name.
pub(super) fn log(state: &Path, name: &str) -> Result<LogFolder, Failure> {
    let logs = reader::logs(state)?;
    let known = || logs.iter().map(ToString::to_string).collect();
    let log = logs.iter().find(|log| log.name() == name).cloned();
    log.ok_or_else(|| Failure::NoLog { log: name.to_owned(), known: known() })
}

/// What names records: a call's id, or a place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum RecordId {
    Call(String),
    Place { log: String, index: u64 },
}

impl FromStr for RecordId {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let place =
            text.rsplit_once('/').and_then(|(log, index)| Some((log.to_owned(), index.parse().ok()?)));
        Ok(place.map_or_else(|| Self::Call(text.to_owned()), |(log, index)| Self::Place { log, index }))
    }
}

/// The records that were asked for.
#[derive(Debug)]
pub(super) struct Located {
    /// Oldest first; there is at least one.
    pub(super) records: Vec<Match>,
    /// Why there may be more that cannot be read.
    pub(super) faults: Vec<ReadError>,
}

/// More records than one call has.
const RECORDS_OF_A_CALL_MAX: u32 = 100;

impl RecordId {
    /// Finds the records.
    pub(super) async fn find(&self, state: &Path) -> Result<Located, Failure> {
        match self {
            Self::Place { log: name, index } => {
                let id = format!("{name}/{index}");
                let found = log(state, name)?.get(*index)?.ok_or(Failure::NoRecord { id })?;
                let view = RecordView::of(&found.bytes);
                let record = Match { log: name.clone(), found, view };
                Ok(Located { records: vec![record], faults: Vec::new() })
            }
            Self::Call(call) => {
                let filter = Filter { call: Some(call.clone()), ..Filter::default() };
                let mut index = Index::open(state).await?;
                let mut records = index.search(&filter, RECORDS_OF_A_CALL_MAX).await?;
                records.reverse();
                let (id, faults) = (call.clone(), index.into_faults());
                match (records.is_empty() || call.is_empty(), faults.first()) {
                    (true, Some(fault)) => Err(Failure::NotReadable { id, fault: fault.to_string() }),
                    (true, None) => Err(Failure::NoRecord { id }),
                    (false, _) => Ok(Located { records, faults }),
                }
            }
        }
    }
}

/// Thousands of public keys.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// Reads a file that may come from anybody: a plain one, and no more of it than it may hold.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !fs::metadata(path)?.is_file() {
        return refused("it is no plain file".to_owned());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return refused(format!("it holds more than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// The keys in a public key as text, or in a file of them.
pub(super) fn keys(given: &str) -> Result<Vec<Key>, Failure> {
    if let Ok(key) = Key::parse(given) {
        return Ok(vec![key]);
    }
    let text = read_bounded(Path::new(given), KEYS_BYTES_MAX).ok();
    let keys = text
        .and_then(|text| String::from_utf8(text).ok())
        .and_then(|text| Key::parse_lines(&text).ok())
        .filter(|keys| !keys.is_empty());
    keys.ok_or_else(|| Failure::NoKey { given: given.to_owned() })
}

/// The file of a state folder that lists the keys that ever signed here.
pub(super) fn keys_path(state: &Path) -> PathBuf {
    state.join("audit").join("keys.pub")
}

/// The given keys, or those that the state folder lists itself.
pub(super) fn keys_or_listed(given: Option<&str>, state: &Path) -> Result<Vec<Key>, Failure> {
    if let Some(given) = given {
        return keys(given);
    }
    let path = keys_path(state);
    let text = read_bounded(&path, KEYS_BYTES_MAX).ok().and_then(|text| String::from_utf8(text).ok());
    let keys = text.and_then(|text| Key::parse_lines(&text).ok()).filter(|keys| !keys.is_empty());
    keys.ok_or(Failure::NoKeys { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_that_is_named_needs_no_project() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("callgate.yaml");
        let named = State { state: Some(folder.path().to_owned()) };
        assert!(matches!(named.find(&nowhere), Err(Failure::NoLogs { .. })));
        fs::create_dir(folder.path().join("audit")).unwrap();
        assert_eq!(named.find(&nowhere).unwrap(), folder.path());
        let left_out = State { state: None };
        assert!(left_out.server(&nowhere).is_err());
        assert!(named.server(&nowhere).unwrap().is_none());
        assert!(matches!(left_out.find(&nowhere), Err(Failure::Config(_))));
        fs::write(&nowhere, "state: here\n").unwrap();
        assert!(matches!(left_out.find(&nowhere), Err(Failure::NoState { .. })));
        fs::create_dir_all(folder.path().join("here/audit")).unwrap();
        assert_eq!(left_out.find(&nowhere).unwrap(), folder.path().join("here"));
        fs::write(&nowhere, "state: [\n").unwrap();
        assert!(matches!(left_out.find(&nowhere), Err(Failure::Config(_))));
    }

    #[test]
    fn a_record_is_named_by_its_place_or_by_its_call() {
        let place = |log: &str, index| RecordId::Place { log: log.into(), index };
        assert_eq!("serve-0/12".parse(), Ok(place("serve-0", 12)));
        assert_eq!("00ff".parse(), Ok(RecordId::Call("00ff".into())));
        assert_eq!("serve-0/x".parse(), Ok(RecordId::Call("serve-0/x".into())));
    }
}

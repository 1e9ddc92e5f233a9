//! `callgate audit consistency`: a log only grew from one checkpoint to another.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    place::{self, State, keys_or_listed},
    prove::write,
    verify::count,
};
use crate::{
    audit::{
        proof::{check_consistency, consistency, note_at},
        reader::{self, LogFolder},
        verifier::note::Checkpoint,
    },
    cli::{
        output::{GOOD, Printer},
        visible::visible,
    },
};

/// What `consistency` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The older checkpoint: a file, or how many records the log had when a head was signed.
    old: String,
    /// The newer checkpoint, likewise.
    new: String,
    /// The log; left out, the one that a checkpoint file names, or the only one there is.
    #[arg(long)]
    log: Option<String>,
    /// A public key, or a file of them; left out, the keys that the state folder lists itself.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Write the proof to this file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    state: State,
}

pub(super) fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let keys = keys_or_listed(arguments.key.as_deref(), &state)?;
    let (old, new) = (Given::read(&arguments.old)?, Given::read(&arguments.new)?);
    let log = log(&state, arguments.log.as_deref(), [&old, &new])?;
    let (old, new) = (old.note(&log)?, new.note(&log)?);
    let proof = consistency(log.path(), &old, &new)?.to_bytes();
    // The proof is checked as somebody else would: signatures, too.
    let (old_size, new_size) = check_consistency(&old, &proof, &keys)?;
    if let Some(path) = &arguments.output {
        write(Some(path), &proof)?;
    }
    if printer.is_json() {
        printer.value(&json!({ "ok": true, "log": log.name(), "old": old_size, "new": new_size }));
    } else {
        printer.line(&format!(
            "{GOOD}ok:{GOOD:#} `{}` with {} begins with the {} of the older checkpoint",
            visible(log.name()),
            count(new_size, "record"),
            count(old_size, "record"),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A checkpoint as it is named: a file's bytes, or a size.
enum Given {
    Note(Vec<u8>),
    Size(u64),
}

impl Given {
    /// Reads what was typed. A number is a size, unless a file has that name.
    fn read(given: &str) -> Result<Self, Failure> {
        if let Ok(note) = fs::read(given) {
            let is_checkpoint = Checkpoint::parse(&note).is_ok();
            return is_checkpoint
                .then_some(Self::Note(note))
                .ok_or_else(|| Failure::NoCheckpoint { given: given.to_owned() });
        }
        given.parse().map(Self::Size).map_err(|_| Failure::NoCheckpoint { given: given.to_owned() })
    }

    fn note(self, log: &LogFolder) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Note(note) => Ok(note),
            Self::Size(size) => Ok(note_at(log.path(), size)?),
        }
    }

    /// The log that a note names: the end of its origin.
    fn log(&self) -> Option<String> {
        let Self::Note(note) = self else { return None };
        let checkpoint = Checkpoint::parse(note).ok()?;
        Some(checkpoint.origin.rsplit_once('/')?.1.to_owned())
    }
}

fn log(state: &Path, named: Option<&str>, given: [&Given; 2]) -> Result<LogFolder, Failure> {
    let named = named.map(str::to_owned).or_else(|| given.iter().find_map(|given| given.log()));
    match (named, reader::logs(state)?.as_slice()) {
        (Some(name), _) => place::log(state, &name),
        (None, [only]) => Ok(only.clone()),
        (None, known) => Err(Failure::LogLeftOut { known: known.iter().map(ToString::to_string).collect() }),
    }
}

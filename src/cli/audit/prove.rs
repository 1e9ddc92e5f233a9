//! `callgate audit prove`: a proof that a record is in its log, as a file.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    place::{Located, RecordId, State, log},
    warn,
};
use crate::{
    audit::{index::Match, proof::prove},
    cli::{output::Printer, visible::visible},
};

/// What `prove` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The id of a call, whose outcome is proved, or the place of a record (`serve-0/12`).
    id: RecordId,
    /// Write the proof to this file; left out, to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    state: State,
}

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let (Match { log: name, found, .. }, code) = one(printer, &arguments.id, &state).await?;
    let proof = prove(log(&state, &name)?.path(), found.index)?;
    write(arguments.output.as_deref(), &proof.to_bytes())?;
    if let Some(path) = &arguments.output {
        if printer.is_json() {
            printer.value(&json!({ "log": name, "index": found.index, "file": path }));
        } else {
            let place = visible(&format!("{name}/{}", found.index));
            printer.note(&format!("the proof of {place} is in `{}`", path.display()));
        }
    }
    Ok(code)
}

/// The one record that is meant: the place's, or the outcome of the call. Says what is damaged.
pub(super) async fn one(printer: Printer, id: &RecordId, state: &Path) -> Result<(Match, ExitCode), Failure> {
    let Located { records: mut matches, faults } = id.find(state).await?;
    let code = warn(printer, &faults);
    if matches.iter().any(|record| record.view.kind == "outcome") {
        matches.retain(|record| record.view.kind == "outcome");
    }
    match <[Match; 1]>::try_from(matches) {
        Ok([record]) => Ok((record, code)),
        Err(several) => {
            let places = several.iter().map(|record| format!("{}/{}", record.log, record.found.index));
            let id = several.first().map(|record| record.view.call.clone()).unwrap_or_default();
            Err(Failure::Ambiguous { id, places: places.collect() })
        }
    }
}

/// Writes a file, or to standard output.
pub(super) fn write(path: Option<&Path>, bytes: &[u8]) -> Result<(), Failure> {
    let Some(path) = path else {
        let _ = io::stdout().write_all(bytes); // a reader that has gone away wants no more
        return Ok(());
    };
    fs::write(path, bytes).map_err(|source| Failure::Io { path: path.to_owned(), source })
}

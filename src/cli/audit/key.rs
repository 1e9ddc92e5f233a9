//! `callgate audit key`: the public keys that verify the logs.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    place::{State, keys_or_listed},
};
use crate::{
    audit::verifier::note::Key,
    cli::{output::Printer, visible::visible},
};

/// What `key` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state: State,
}

pub(super) fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let keys: Vec<String> = keys_or_listed(None, &state)?.iter().map(Key::vkey).collect();
    if printer.is_json() {
        printer.value(&json!({ "keys": keys }));
    } else {
        keys.iter().for_each(|key| printer.line(&visible(key)));
    }
    Ok(ExitCode::SUCCESS)
}

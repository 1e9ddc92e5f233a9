//! `callgate audit show`: whole records.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::{
    Failure,
    line::{json_line, visible, visible_json},
    place::{RecordId, State},
};
use crate::cli::output::{DIM, Printer};

/// What `show` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The id of a call, or the place of a record (`serve-0/12`).
    id: RecordId,
    #[command(flatten)]
    state: State,
}

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    for record in arguments.id.find(&state).await? {
        if printer.is_json() {
            printer.line(&json_line(&record));
        } else {
            let place = visible(&format!("{}/{}", record.log, record.found.index));
            printer.line(&format!("{DIM}{place}{DIM:#}\n{}", visible_json(&record.found.bytes)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

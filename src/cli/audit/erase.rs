//! `callgate audit erase`: the bodies that were kept of a call.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    Failure, kept,
    place::{RecordId, State, log},
    prove::one,
};
use crate::{
    audit::{
        index::Match,
        side::{Erase, Erased},
    },
    cli::{
        output::{DOUBT, GOOD, Printer, plural},
        visible::visible,
    },
};

/// What `erase` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The id of the call, or the place of a record of it (`serve-0/12`).
    id: RecordId,
    /// Erase the salt too: nobody can check a guess against the digests any more, nor what others kept.
    #[arg(long)]
    salt: bool,
    /// Erase without asking.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    state: State,
}

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let (Match { log: name, found, view }, code) = one(printer, &arguments.id, &state).await?;
    let Some(call) = kept::call_number(&view.call) else {
        return Err(Failure::NoCall { log: name, index: found.index });
    };
    let side = kept::open(&arguments.state, config, &state, &log(&state, &name)?)?;
    if !arguments.yes && !confirmed(&view.call) {
        return Err(Failure::Unconfirmed);
    }
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let erased = side.erase(call, if arguments.salt { Erase::Everything } else { Erase::Bodies }, now_ms)?;
    print(printer, &view.call, &erased);
    Ok(if erased.damaged.is_empty() { code } else { ExitCode::FAILURE })
}

/// Asks on a terminal; elsewhere there is nobody who could agree.
fn confirmed(call: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let mut asked = anstream::stderr();
    let question = format!("erase the bodies of call {} for good? [y/N] ", visible(call));
    let mut answer = String::new();
    asked.write_all(question.as_bytes()).and_then(|()| asked.flush()).is_ok()
        && io::stdin().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "yes")
}

fn print(printer: Printer, call: &str, erased: &Erased) {
    let damaged: Vec<String> = erased.damaged.iter().map(ToString::to_string).collect();
    if printer.is_json() {
        let Erased { entries, before, .. } = erased;
        printer
            .value(&json!({ "call": call, "erased": entries, "erased_before": before, "damaged": damaged }));
        return;
    }
    let entries = |count| match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    printer.line(&match (erased.entries, erased.before) {
        (0, 0) => format!("nothing to erase is kept of call {}", visible(call)),
        (0, before) => format!("nothing is left to erase: {} had been erased before", entries(before)),
        (now, 0) => format!("{GOOD}erased:{GOOD:#} {}", entries(now)),
        (now, before) => format!("{GOOD}erased:{GOOD:#} {}; {} before", entries(now), entries(before)),
    });
    if !damaged.is_empty() {
        printer.note(&format!(
            "{DOUBT}warning:{DOUBT:#} {} cannot be read, and could hold more:",
            plural(damaged.len(), "place")
        ));
    }
    damaged.iter().for_each(|place| printer.note(&format!("  {}", visible(place))));
}

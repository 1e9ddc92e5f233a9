//! `callgate audit erase`: the bodies that were kept of a call.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{
    Failure,
    line::visible,
    place::{RecordId, State, log},
    prove::one,
};
use crate::{
    audit::{
        index::Match,
        reader::LogFolder,
        side::{Erase, Erased, SideKey, SideReader},
        verifier::note::Checkpoint,
    },
    cli::output::{DOUBT, GOOD, Printer, plural},
};

/// What `erase` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The id of the call, or the place of a record of it (`serve-0/12`).
    id: RecordId,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    state: State,
}

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let Match { log: name, found, view } = one(&arguments.id, &state).await?;
    let Some(call) = call_number(&view.call) else {
        return Err(Failure::NoCall { log: name, index: found.index });
    };
    let log = log(&state, &name)?;
    let key = key(&state)?;
    if !arguments.yes && !confirmed(&view.call) {
        return Err(Failure::Unconfirmed);
    }
    let side = SideReader::new(&log.path().join("side"), &origin(&state, &log), key);
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let erased = side.erase(call, Erase::Bodies, now_ms)?;
    print(printer, &view.call, &erased);
    Ok(if erased.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The key of the side stores. None is made here: without one, nothing was kept.
fn key(state: &Path) -> Result<SideKey, Failure> {
    let path = state.join("audit").join("side.key");
    if path.exists() { Ok(SideKey::open(&path)?) } else { Err(Failure::NoSideKey { path }) }
}

/// The log's origin: as its checkpoint says it, or made of the state folder's.
fn origin(state: &Path, log: &LogFolder) -> String {
    let note = fs::read(log.path().join("checkpoint")).unwrap_or_default();
    if let Ok(checkpoint) = Checkpoint::parse(&note) {
        return checkpoint.origin.to_owned();
    }
    let base = fs::read_to_string(state.join("audit").join("origin")).unwrap_or_default();
    format!("{}/{}", base.trim(), log.name())
}

/// A call's id as a number.
fn call_number(id: &str) -> Option<u128> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(id, 16).ok().filter(|_| is_id)
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
    let bodies = |count| match count {
        1 => "1 body".to_owned(),
        count => format!("{count} bodies"),
    };
    let before = match erased.before {
        0 => String::new(),
        count => format!("; {} before", bodies(count)),
    };
    printer.line(&format!("{GOOD}erased:{GOOD:#} {}{before}", bodies(erased.entries)));
    if !damaged.is_empty() {
        printer.note(&format!(
            "{DOUBT}warning:{DOUBT:#} {} cannot be read, and could hold more:",
            plural(damaged.len(), "place")
        ));
    }
    damaged.iter().for_each(|place| printer.note(&format!("  {}", visible(place))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_a_call_is_one() {
        assert_eq!(call_number("000000000000000000000000000000ff"), Some(255));
        for other in ["", "ff", "+00000000000000000000000000000ff", "0000000000000000000000000000000g"] {
            assert_eq!(call_number(other), None, "{other}");
        }
    }
}

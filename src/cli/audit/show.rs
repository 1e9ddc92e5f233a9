//! `callgate audit show`: whole records, and what was kept of their call beside the log.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    Failure,
    kept::{self, Kept, Verdict},
    line::json_line,
    place::{Located, RecordId, State, log},
    warn,
};
use crate::{
    audit::{index::Match, side::Damage},
    cli::{
        output::{BAD, DIM, DOUBT, GOOD, Printer},
        visible::{escaped_json, visible, visible_json},
    },
};

/// What `show` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The id of a call, or the place of a record (`serve-0/12`).
    id: RecordId,
    /// Show the arguments and the result too, where they were kept (`record: full`).
    #[arg(long)]
    bodies: bool,
    #[command(flatten)]
    state: State,
}

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let Located { records, faults } = arguments.id.find(&state).await?;
    for record in &records {
        if printer.is_json() {
            printer.line(&json_line(record));
        } else {
            let place = visible(&format!("{}/{}", record.log, record.found.index));
            printer.line(&format!("{DIM}{place}{DIM:#}\n{}", visible_json(&record.found.bytes)));
        }
    }
    let mut code = warn(printer, &faults);
    let mut logs: Vec<&str> = records.iter().map(|record| record.log.as_str()).collect();
    logs.dedup();
    for name in logs {
        let records: Vec<Match> = records.iter().filter(|record| record.log == name).cloned().collect();
        if show_kept(printer, config, arguments, &state, &records)? == ExitCode::FAILURE {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Says of each digest that the records of a call hold in one log whether what was kept fits it.
fn show_kept(
    printer: Printer,
    config: &Path,
    arguments: &Arguments,
    state: &Path,
    records: &[Match],
) -> Result<ExitCode, Failure> {
    let digests = kept::digests(records);
    let Some(first) = records.first().filter(|_| !digests.is_empty()) else { return Ok(ExitCode::SUCCESS) };
    let Some(call) = kept::call_number(&first.view.call) else { return Ok(ExitCode::SUCCESS) };
    let store = match kept::open(&arguments.state, config, state, &log(state, &first.log)?) {
        // Whoever was handed the folder without its secrets can read the record all the same.
        Err(failure @ Failure::NoSideKey { .. }) if !arguments.bodies => {
            printer
                .note(&format!("{DIM}the digests are not checked: {}{DIM:#}", visible(&failure.to_string())));
            return Ok(ExitCode::SUCCESS);
        }
        store => store?,
    };
    let found = store.get(call)?;
    let checked = kept::check(&found, &digests);
    if printer.is_json() {
        printer.line(&escaped_json(&json(first, &checked, arguments.bodies).to_string()));
    } else {
        checked.iter().for_each(|kept| print(printer, kept, arguments.bodies));
    }
    found.damaged.iter().for_each(|damage| warn_of(printer, damage));
    let holds = checked.iter().all(|kept| kept.verdict != Verdict::DoesNotHold);
    Ok(if holds && found.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(printer: Printer, kept: &Kept, with_body: bool) {
    let style = match kept.verdict {
        Verdict::Holds => GOOD,
        Verdict::DoesNotHold => BAD,
        Verdict::NoSalt => DOUBT,
        Verdict::Erased(_) | Verdict::NotKept => DIM,
    };
    let when = match kept.verdict {
        Verdict::Erased(Some(time)) => format!(" {time}"),
        _ => String::new(),
    };
    printer.line(&format!("{:9}  {style}{}{when}{style:#}", kept.name, kept.verdict.words()));
    if let Some(body) = kept.body.as_ref().filter(|_| with_body) {
        printer.line(&visible_json(body));
    }
}

fn json(record: &Match, checked: &[Kept], with_bodies: bool) -> Value {
    let entry = |kept: &Kept| {
        let mut entry = Map::new();
        entry.insert("verdict".into(), kept.verdict.words().into());
        if let Verdict::Erased(Some(time)) = kept.verdict {
            entry.insert("erased".into(), time.to_string().into());
        }
        if let Some(body) = kept.body.as_ref().filter(|_| with_bodies) {
            entry.insert("body".into(), kept::body_json(body));
        }
        (kept.name.to_owned(), Value::Object(entry))
    };
    let kept: Map<String, Value> = checked.iter().map(entry).collect();
    json!({ "call": record.view.call, "log": record.log, "kept": kept })
}

fn warn_of(printer: Printer, damage: &Damage) {
    printer.note(&format!("{DOUBT}warning:{DOUBT:#} {}", visible(&damage.to_string())));
}

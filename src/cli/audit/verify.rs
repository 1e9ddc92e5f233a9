//! `callgate audit verify`: everything there is, against the keys.

use std::{
    collections::HashMap,
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::{
    Failure,
    place::{State, keys_or_listed, keys_path},
};
use crate::{
    audit::{
        verifier::{Damage, LogReport, Progress, Report, Rule, Signatures, note::Key, verify},
        witness::{Seen, StateError, WitnessState},
    },
    cli::{
        output::{BAD, DIM, DOUBT, GOOD, Printer, plural},
        visible::visible,
    },
};

/// What `verify` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state: State,
    /// A public key, or a file of them; left out, the keys that the state folder lists itself.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Of the signatures verify the last of each segment only, which covers all records before it.
    #[arg(long)]
    quick: bool,
}

pub(super) fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let keys = keys_or_listed(arguments.key.as_deref(), &state)?;
    let signatures = if arguments.quick { Signatures::Covering } else { Signatures::Every };
    // Before the logs, which may grow while they are read.
    let mut witnessed = witnessed(&state);
    let bar = bar();
    let report = verify(&state, &keys, signatures, &mut |progress: Progress<'_>| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes);
        bar.set_message(visible(progress.log));
    });
    bar.finish_and_clear();
    let report = report?;
    let mut of_log = |log: &LogReport| {
        witnessed.remove(&folder_of(&state, &log.log)).unwrap_or_else(|| Ok(WitnessState::default()))
    };
    let logs: Vec<_> = report.logs.iter().map(|log| (log, of_log(log))).collect();
    let is_clean = report.is_clean() && !logs.iter().any(|(log, state)| is_short(log, state));
    if printer.is_json() {
        printer.value(&json!({
            "ok": is_clean,
            "keys": keys.iter().map(Key::vkey).collect::<Vec<_>>(),
            "logs": logs.iter().map(|(log, state)| log_json(log, state)).collect::<Vec<_>>(),
        }));
    } else {
        print(printer, &report, &logs);
        if arguments.key.is_none() {
            printer.note(&format!(
                "{DIM}the keys are those of `{}`; with `--key` the folder's own word is not taken{DIM:#}",
                visible(&keys_path(&state).display().to_string())
            ));
        }
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A bar on a terminal, and nothing elsewhere.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
    let bar = ProgressBar::no_length(); // to standard error
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
}

/// What witnesses have cosigned of a log, as its folder says, or why it does not say.
type Witnessed = Result<WitnessState, StateError>;

/// What witnesses have cosigned of each log, by its folder.
fn witnessed(state: &Path) -> HashMap<PathBuf, Witnessed> {
    let children =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = children(&state.join("audit")).chain(children(state)).chain([state.to_owned()]);
    let folders = folders.filter(|folder| folder.is_dir());
    folders.map(|folder| (folder.clone(), WitnessState::load(&folder))).collect()
}

/// The folder of a log, where a state folder, its part `audit`, or the log's own folder was named.
fn folder_of(state: &Path, log: &str) -> PathBuf {
    let folders = [state.join("audit").join(log), state.join(log)];
    folders.into_iter().find(|folder| folder.is_dir()).unwrap_or_else(|| state.to_owned())
}

/// Whether witnesses have cosigned more of a log than there is.
fn is_short(log: &LogReport, state: &Witnessed) -> bool {
    // What comes after damage is not counted, and the damage is reported.
    let is_whole = log.damage.is_empty();
    is_whole && state.as_ref().ok().and_then(WitnessState::witnessed).is_some_and(|size| size > log.records)
}

fn print(printer: Printer, report: &Report, logs: &[(&LogReport, Witnessed)]) {
    let mut short = 0;
    for (log, state) in logs {
        let is_short = is_short(log, state);
        short += usize::from(is_short);
        let verdict = if log.damage.is_empty() && !is_short {
            format!("{GOOD}ok{GOOD:#}     ")
        } else {
            format!("{BAD}damaged{BAD:#}")
        };
        let checkpoint = match log.published {
            Some(size) => format!("checkpoint at {size}"),
            None if log.damage.iter().any(is_of_checkpoint) => format!("{DOUBT}no valid checkpoint{DOUBT:#}"),
            None => format!("{DOUBT}no checkpoint{DOUBT:#}"),
        };
        let witnessed = state.as_ref().ok().and_then(WitnessState::witnessed);
        let witnessed = witnessed.map(|size| format!(", witnessed to {size}")).unwrap_or_default();
        printer.line(&format!(
            "{verdict}  {}  {}, {} signed, {}, {checkpoint}{witnessed}",
            visible(&log.log),
            count(log.records, "record"),
            log.signed,
            count(log.heads, "head"),
        ));
        if let Some(torn) = &log.torn {
            printer
                .line(&format!("         {DOUBT}its last frame is not whole: {} bytes{DOUBT:#}", torn.bytes));
        }
        if let Err(error) = state {
            printer.line(&format!("         {DOUBT}{}{DOUBT:#}", visible(&error.to_string())));
        }
        if is_short {
            printer.line("         a witness has cosigned more records than there are");
        }
        for damage in &log.damage {
            printer.line(&format!("         {}", visible(&damage.to_string())));
        }
    }
    let damages = report.damage().count() + short;
    let logs = plural(report.logs.len(), "log");
    printer.line(&if damages == 0 {
        format!("{GOOD}ok:{GOOD:#} {logs}")
    } else {
        format!("{BAD}damaged:{BAD:#} {} in {logs}", plural(damages, "place"))
    });
}

fn is_of_checkpoint(damage: &Damage) -> bool {
    matches!(damage.rule, Rule::OtherKey(_) | Rule::CheckpointForm)
}

pub(super) fn count(count: u64, noun: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), noun)
}

fn log_json(log: &LogReport, state: &Witnessed) -> Value {
    let by_witness = state.as_ref().ok().map(|state| {
        let seen =
            |(key, seen): (&str, &Seen)| (key.to_owned(), json!({ "size": seen.size, "time": seen.time }));
        state.all().map(seen).collect::<Map<_, _>>()
    });
    json!({
        "log": log.log,
        "bytes": log.bytes,
        "records": log.records,
        "signed": log.signed,
        "heads": log.heads,
        "signatures": log.signatures,
        "published": log.published,
        "witnessed": state.as_ref().ok().and_then(WitnessState::witnessed),
        "witnesses": by_witness,
        "torn_bytes": log.torn.as_ref().map(|torn| torn.bytes),
        "unchecked_heads": log.unchecked_heads,
        "damage": log.damage.iter().map(damage_json).collect::<Vec<_>>(),
    })
}

fn damage_json(damage: &Damage) -> Value {
    json!({
        "index": damage.index,
        "until": damage.until,
        "file": damage.file,
        "offset": damage.offset,
        "message": damage.rule.to_string(),
    })
}

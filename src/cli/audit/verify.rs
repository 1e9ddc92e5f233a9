//! `callgate audit verify`: everything there is, against the keys.

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Failure,
    line::visible,
    place::{State, keys_or_listed, keys_path},
};
use crate::{
    audit::verifier::{Damage, LogReport, Progress, Report, Signatures, note::Key, verify},
    cli::output::{BAD, DIM, DOUBT, GOOD, Printer, plural},
};

/// What `verify` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state: State,
    /// A public key, or a file of them; left out, the keys that the state folder lists itself.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Verify only the signatures that the proof needs: of the last head of each segment.
    #[arg(long)]
    quick: bool,
}

pub(super) fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let keys = keys_or_listed(arguments.key.as_deref(), &state)?;
    let signatures = if arguments.quick { Signatures::Covering } else { Signatures::Every };
    let bar = bar();
    let report = verify(&state, &keys, signatures, &mut |progress: Progress<'_>| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes);
        bar.set_message(visible(progress.log));
    });
    bar.finish_and_clear();
    let report = report?;
    if printer.is_json() {
        printer.value(&json(&report, &keys));
    } else {
        print(printer, &report);
        if arguments.key.is_some() && report.logs.iter().all(|log| log.signatures == 0) {
            printer.note(&format!("{DOUBT}nothing here is signed by a key that `--key` names{DOUBT:#}"));
        }
        if arguments.key.is_none() {
            printer.note(&format!(
                "{DIM}the keys are those of `{}`; with `--key` the folder's own word is not taken{DIM:#}",
                visible(&keys_path(&state).display().to_string())
            ));
        }
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

fn print(printer: Printer, report: &Report) {
    for log in &report.logs {
        let verdict = if log.damage.is_empty() {
            format!("{GOOD}ok{GOOD:#}     ")
        } else {
            format!("{BAD}damaged{BAD:#}")
        };
        let checkpoint = match log.published {
            Some(size) => format!("checkpoint at {size}"),
            None => format!("{DOUBT}no checkpoint{DOUBT:#}"),
        };
        printer.line(&format!(
            "{verdict}  {}  {}, {} signed, {}, {checkpoint}",
            visible(&log.log),
            count(log.records, "record"),
            log.signed,
            count(log.heads, "head"),
        ));
        if let Some(torn) = &log.torn {
            printer
                .line(&format!("         {DOUBT}its last frame is not whole: {} bytes{DOUBT:#}", torn.bytes));
        }
        for damage in &log.damage {
            printer.line(&format!("         {}", visible(&damage.to_string())));
        }
    }
    let damages = report.damage().count();
    let logs = plural(report.logs.len(), "log");
    printer.line(&if damages == 0 {
        format!("{GOOD}ok:{GOOD:#} {logs}")
    } else {
        format!("{BAD}damaged:{BAD:#} {} in {logs}", plural(damages, "place"))
    });
}

pub(super) fn count(count: u64, noun: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), noun)
}

fn json(report: &Report, keys: &[Key]) -> Value {
    json!({
        "ok": report.is_clean(),
        "keys": keys.iter().map(Key::vkey).collect::<Vec<_>>(),
        "logs": report.logs.iter().map(log_json).collect::<Vec<_>>(),
    })
}

fn log_json(log: &LogReport) -> Value {
    json!({
        "log": log.log,
        "bytes": log.bytes,
        "records": log.records,
        "signed": log.signed,
        "heads": log.heads,
        "signatures": log.signatures,
        "published": log.published,
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

//! `callgate audit`: what is on record, and proof of it.

mod check_proof;
mod consistency;
mod erase;
mod export;
mod filter;
mod kept;
mod key;
mod line;
mod place;
mod prove;
mod search;
mod show;
mod tail;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::{
    output::{DOUBT, Printer},
    visible::visible,
};
use crate::{
    audit::{
        index::IndexError,
        proof::{CheckError, ProveError},
        reader::ReadError,
        side::SideError,
        verifier::VerifyError,
    },
    credential::CredentialError,
    manifest::Problem,
};

/// What `audit` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the newest records of all logs, and with `-f` those that follow.
    Tail(tail::Arguments),
    /// Find records, newest first, or count calls.
    Search(search::Arguments),
    /// Show the records of a call, or one record, and check what was kept of it.
    Show(show::Arguments),
    /// Verify every record, head, tile and checkpoint of all logs.
    Verify(verify::Arguments),
    /// Write a proof that a record is in its log, to be checked without the log.
    Prove(prove::Arguments),
    /// Check a proof with a public key; needs nothing else.
    CheckProof(check_proof::Arguments),
    /// Prove that a log only grew from one checkpoint to another.
    Consistency(consistency::Arguments),
    /// Write records as JSON lines or as a table.
    Export(export::Arguments),
    /// Erase the bodies that were kept of a call; its records and proofs stay.
    Erase(erase::Arguments),
    /// Print the public keys that verify the logs.
    Key(key::Arguments),
}

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Tail(arguments) => tail::run(*printer, config, &arguments).await,
        Command::Search(arguments) => search::run(*printer, config, &arguments).await,
        Command::Show(arguments) => show::run(*printer, config, &arguments).await,
        Command::Verify(arguments) => verify::run(*printer, config, &arguments),
        Command::Prove(arguments) => prove::run(*printer, config, &arguments).await,
        Command::CheckProof(arguments) => check_proof::run(*printer, &arguments),
        Command::Consistency(arguments) => consistency::run(*printer, config, &arguments),
        Command::Export(arguments) => export::run(*printer, config, &arguments),
        Command::Erase(arguments) => erase::run(*printer, config, &arguments).await,
        Command::Key(arguments) => key::run(*printer, config, &arguments),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Config(problem)) => printer.fail_load(&[*problem]),
        Err(failure) => printer.fail(&visible(&failure.to_string())),
    }
}

/// Why a command about the record does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("`callgate.yaml` cannot be read")]
    Config(Box<Problem>),
    #[error("there is no folder `{}`: nothing was recorded yet, or `--state` names another one", path.display())]
    NoState { path: PathBuf },
    #[error("`{}` is no state folder with a record: there is no folder `audit` in it", path.display())]
    NoLogs { path: PathBuf },
    #[error("there is no log `{log}`; there are: {}", names(known))]
    NoLog { log: String, known: Vec<String> },
    #[error("which log? `--log` names one of: {}", names(known))]
    LogLeftOut { known: Vec<String> },
    #[error("no record of `{id}`")]
    NoRecord { id: String },
    #[error("no record of `{id}` in what can be read: {fault}")]
    NotReadable { id: String, fault: String },
    #[error("record {index} of `{log}` is not the record of a call")]
    NoCall { log: String, index: u64 },
    #[error("`{id}` is on record in several places; name one of them: {}", names(places))]
    Ambiguous { id: String, places: Vec<String> },
    #[error("`{given}` is neither a checkpoint file nor a number of records")]
    NoCheckpoint { given: String },
    #[error("`{given}` is neither a public key (`name+id+base64`) nor a file of them")]
    NoKey { given: String },
    #[error("`{}` holds no public keys; give one with `--key`", path.display())]
    NoKeys { path: PathBuf },
    #[error("there is no `{}`, the key of what was kept of calls", path.display())]
    NoSideKey { path: PathBuf },
    #[error("the key that `record.bodies.key` names: {0}")]
    SideSecret(CredentialError),
    #[error("the key that `record.bodies.key` names is not 32 bytes in base64")]
    SideKey,
    #[error("the bodies of a call cannot be brought back once they are erased: say `--yes`")]
    Unconfirmed,
    #[error("`{}` cannot be used: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("{0}{because}", because = cause(.0))]
    Verify(#[from] VerifyError),
    #[error("{0}{because}", because = cause(.0))]
    Prove(#[from] ProveError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Side(#[from] SideError),
    #[error("the records cannot be written: {0}")]
    Csv(#[from] csv::Error),
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `: cause`, for errors that do not print theirs.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(|source| format!(": {source}")).unwrap_or_default()
}

/// Says which logs are damaged: what was shown is not all there is.
fn warn(printer: Printer, faults: &[ReadError]) -> ExitCode {
    for fault in faults {
        printer.note(&format!("{DOUBT}warning:{DOUBT:#} {}", visible(&fault.to_string())));
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

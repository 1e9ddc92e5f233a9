//! `callgate audit check-proof`: a proof, checked with a public key and nothing else.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure,
    place::{keys, read_bounded},
};
use crate::{
    audit::proof::check,
    cli::{
        output::{GOOD, Printer},
        visible::{visible, visible_json},
    },
};

/// What `check-proof` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The proof.
    file: PathBuf,
    /// The public key, or a file of public keys, from somebody whom you trust.
    #[arg(long, value_name = "KEY")]
    key: String,
}

/// Larger than any proof: a record of 65,535 bytes in base64, its path, its checkpoint.
const PROOF_BYTES_MAX: u64 = 1 << 20;

pub(super) fn run(printer: Printer, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let keys = keys(&arguments.key)?;
    let failed = |source| Failure::Io { path: arguments.file.clone(), source };
    let checked = check(&read_bounded(&arguments.file, PROOF_BYTES_MAX).map_err(failed)?, &keys)?;
    if printer.is_json() {
        let record: Option<Value> = serde_json::from_slice(&checked.record).ok();
        printer.value(&json!({
            "ok": true,
            "origin": checked.origin,
            "index": checked.index,
            "size": checked.size,
            "record": record,
        }));
    } else {
        printer.line(&visible_json(&checked.record));
        printer.line(&format!(
            "{GOOD}ok:{GOOD:#} this is record {} of `{}`, signed with {} records",
            checked.index,
            visible(&checked.origin),
            checked.size,
        ));
    }
    Ok(ExitCode::SUCCESS)
}

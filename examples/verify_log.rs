//! Verifies the logs of a state folder, or one log's folder, with nothing of this project but the verifier module.
//!
//!     cargo run --release --example verify_log -- STATE --key FILE
//!
//! FILE holds public keys, one a line (`name+id+base64`). Exits with 0 where nothing is wrong, with 1 where
//! something is, with 2 where it could not be found out.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is how a small program answers")]

#[path = "../src/audit/verifier.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "not all of the module is for this program")]
mod verifier;

use std::{env, error::Error, fs, path::Path, process::ExitCode};

use verifier::{Report, Signatures, note::Key, verify};

const USAGE: &str = "usage: verify_log STATE --key FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let report = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [state, "--key", file] | ["--key", file, state] => read(Path::new(state), Path::new(file)),
        _ => Err(USAGE.into()),
    };
    match report {
        Ok(report) => say(&report),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn read(state: &Path, key: &Path) -> Result<Report, Box<dyn Error>> {
    let keys =
        fs::read_to_string(key).map_err(|error| format!("cannot read `{}`: {error}", key.display()))?;
    let keys = Key::parse_lines(&keys)?;
    Ok(verify(state, &keys, Signatures::Every, &mut |_| ())?)
}

fn say(report: &Report) -> ExitCode {
    for log in &report.logs {
        let (unsigned, torn) = (log.unsigned(), log.torn.is_some());
        println!("log `{}`: {} records, {} heads", log.log, log.records, log.heads);
        if unsigned > 0 {
            println!("  the last {unsigned} are not signed yet");
        }
        if torn {
            println!("  the last frame is cut short");
        }
        if log.unchecked_heads > 0 {
            println!("  {} heads of other logs on record were not compared with those", log.unchecked_heads);
        }
    }
    report.damage().for_each(|damage| println!("DAMAGE {damage}"));
    println!("{}", if report.is_clean() { "clean" } else { "damaged" });
    ExitCode::from(u8::from(!report.is_clean()))
}

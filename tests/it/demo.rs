//! `callgate demo`, as somebody runs it who has just found the program.

use std::{path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{PROGRAM, Printed, callgate, print};

/// The commands that a demo names at its end, run by a shell as they stand there.
fn run(folder: &Path, said: &str, command: &str) -> Printed {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| line.contains(command)).collect();
    let [line] = lines[..] else { panic!("`{command}` is named {} times: {said}", lines.len()) };
    // The program is called as the demo was.
    assert!(line.starts_with(PROGRAM), "{line}");
    print(Command::new("sh").arg("-c").arg(line).current_dir(folder))
}

#[test]
fn a_demo_that_is_kept_names_the_commands_that_show_and_verify_its_record() {
    let folder = TempDir::new().unwrap();
    // A shell has to take the name for one word.
    let said = callgate(folder.path(), ["demo", "--keep", "my demo's"]).good();
    let shown = run(folder.path(), &said, " audit tail --state ").good();
    assert!(shown.contains("refunds.create") && shown.contains("not_permitted"), "{shown}");
    let verified = run(folder.path(), &said, " audit verify --state ").good();
    assert!(verified.contains("ok: 1 log"), "{verified}");
    assert!(folder.path().join("my demo's/state").is_dir());
}

#[test]
fn a_demo_that_is_not_kept_says_how_to_keep_its_record() {
    let folder = TempDir::new().unwrap();
    let said = callgate(folder.path(), ["demo"]).good();
    // What is gone cannot be looked at: no command is named that would fail.
    assert!(!said.contains(" audit tail --state "), "{said}");
    let line = said.lines().find(|line| line.contains(" demo --keep ")).unwrap_or_else(|| panic!("{said}"));
    print(Command::new("sh").arg("-c").arg(line.trim()).current_dir(folder.path())).good();
}

#[test]
fn a_demo_for_programs_names_its_state_where_it_is_kept() {
    let folder = TempDir::new().unwrap();
    let said: Value = callgate(folder.path(), ["--json", "demo", "--keep", "kept"]).json();
    assert_eq!(said["state"], "kept/state", "{said}");
    let said: Value = callgate(folder.path(), ["--json", "demo"]).json();
    assert_eq!(said["state"], Value::Null, "{said}");
}

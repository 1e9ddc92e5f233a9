//! The help of every command, as it is committed under `tests/help`: whoever changes it sees how it reads.
//!
//! `CALLGATE_BLESS=1 cargo test --test it help` writes the files anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command as Process,
};

use clap::Command;

use crate::process::{PROGRAM, print};

const COLUMNS: &str = "100";

#[test]
fn the_help_of_every_command_reads_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let printed: BTreeMap<String, String> =
        commands().iter().map(|path| (format!("{}.txt", path.join("-")), help(&path[1..]))).collect();
    if std::env::var_os("CALLGATE_BLESS").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        printed.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }
    let committed: BTreeMap<String, String> = files(&folder)
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    let names = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&printed), names(&committed), "a command came or went: see the head of this file");
    for (name, printed) in &printed {
        let committed = &committed[name];
        let difference = similar::TextDiff::from_lines(committed, printed);
        assert!(
            committed == printed,
            "{}\nsee the head of this file",
            difference.unified_diff().header(name, name)
        );
    }
}

#[test]
fn every_command_and_every_argument_says_what_it_is() {
    let mut silent = Vec::new();
    each(&callgate::cli::command(), &mut Vec::new(), &mut |path, command| {
        let of = path.join(" ");
        if command.get_about().is_none() {
            silent.push(of.clone());
        }
        let arguments = command.get_arguments().filter(|argument| argument.get_help().is_none());
        silent.extend(arguments.map(|argument| format!("{of}: {}", argument.get_id())));
    });
    assert_eq!(silent, [""; 0]);
}

/// The path of every command, from the program's name on.
fn commands() -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    each(&callgate::cli::command(), &mut Vec::new(), &mut |path, _| paths.push(path.to_vec()));
    assert!(paths.len() > 20, "{paths:?}");
    paths
}

fn each(command: &Command, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Command)) {
    path.push(command.get_name().to_owned());
    visit(path, command);
    command.get_subcommands().for_each(|below| each(below, path, visit));
    path.pop();
}

fn help(command: &[String]) -> String {
    let mut process = Process::new(PROGRAM);
    process.args(command).arg("--help").env("COLUMNS", COLUMNS).env_remove("CALLGATE_CONFIG");
    print(&mut process).good()
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

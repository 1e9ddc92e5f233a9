//! `callgate check`: reads everything, and reports all errors at once.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::output::{BAD, GOOD, Printer, count, plural};
use crate::{
    identity::Client,
    manifest::ToolManifest,
    release::Project,
    rules::{Files, Rules, Secrets},
    transport::listener_problems,
};

/// What `check` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Read the secrets of credentials too: they have to be there, and usable.
    #[arg(long)]
    secrets: bool,
    /// List the tools, resources and prompts that each client may see and ask for.
    #[arg(long)]
    list: bool,
}

/// The kinds of things that the project offers, and how many there are.
fn kinds(files: &Files) -> Vec<(&'static str, usize)> {
    let count = |word: &&str| files.tools.iter().filter(|(_, it)| it.offer.word() == *word).count();
    let kinds = ["tool", "resource", "prompt"].map(|word| (word, count(&word)));
    kinds.into_iter().filter(|(word, count)| *word == "tool" || *count > 0).collect()
}

/// What exists for each client, by name.
fn views(rules: &Rules, kinds: &[(&str, usize)]) -> Vec<Vec<String>> {
    let mut views: Vec<Vec<String>> = rules.clients.iter().map(|client| view(rules, client, kinds)).collect();
    views.sort();
    views
}

fn view(rules: &Rules, client: &Client, kinds: &[(&str, usize)]) -> Vec<String> {
    let of = |word: &str| {
        let offered = rules.catalog.allowed_all(client).map(|tool| tool.manifest());
        let names = offered.filter(|manifest| manifest.offer.word() == word).map(ToolManifest::offered);
        names.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    [client.name().to_string()].into_iter().chain(kinds.iter().map(|(word, _)| of(word))).collect()
}

pub(super) fn run(printer: &Printer, config: &Path, arguments: &Arguments) -> ExitCode {
    let secrets = if arguments.secrets { Secrets::Required } else { Secrets::Unread };
    let project = Project::read(config);
    let (rules, mut problems) = project.build_with(secrets, printer.secrets());
    if let Some((source, server)) = project.files.as_ref().map(|files| &files.server) {
        problems.extend(listener_problems(&server.listen.http, source, project.base(), secrets));
    }
    printer.problems(&problems, true);
    let (errors, warnings) = count(&problems);
    let rules = rules.filter(|_| errors == 0);
    let kinds = project.files.as_ref().map(kinds).unwrap_or_default();
    if !printer.is_json() {
        let verdict = match &rules {
            Some(rules) => {
                let offers = kinds.iter().map(|(word, count)| plural(*count, word));
                let offers = offers.collect::<Vec<_>>().join(", ");
                let clients = plural(rules.clients.iter().count(), "client");
                format!("{GOOD}ok:{GOOD:#} {offers}, {clients}, {}", plural(warnings, "warning"))
            }
            None => {
                format!("{BAD}failed:{BAD:#} {}, {}", plural(errors, "error"), plural(warnings, "warning"))
            }
        };
        if let Some(rules) = rules.as_ref().filter(|_| arguments.list) {
            let header = kinds.iter().map(|(word, _)| format!("{word}s")).collect::<Vec<_>>();
            let header: Vec<&str> = ["client"].into_iter().chain(header.iter().map(String::as_str)).collect();
            printer.table(&header, &views(rules, &kinds));
        }
        printer.line(&verdict);
    }
    if rules.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

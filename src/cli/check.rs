//! `callgate check`: reads everything, and reports all errors at once.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::output::{BAD, GOOD, Printer, count, plural};
use crate::{
    release::Project,
    rules::{Rules, Secrets},
    transport::listener_problems,
};

/// What `check` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Read the secrets of credentials too: they have to be there, and usable.
    #[arg(long)]
    secrets: bool,
    /// List the tools that each client may see and call.
    #[arg(long)]
    list: bool,
}

/// The tools that exist for each client, by name.
fn views(rules: &Rules) -> Vec<Vec<String>> {
    let mut views: Vec<Vec<String>> = rules
        .clients
        .iter()
        .map(|client| {
            let tools: Vec<String> =
                rules.catalog.allowed(client).map(|tool| tool.name().to_string()).collect();
            vec![client.name().to_string(), tools.join(", ")]
        })
        .collect();
    views.sort();
    views
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
    if !printer.is_json() {
        let verdict = match &rules {
            Some(rules) => {
                let tools = plural(rules.catalog.tools().count(), "tool");
                let clients = plural(rules.clients.iter().count(), "client");
                format!("{GOOD}ok:{GOOD:#} {tools}, {clients}, {}", plural(warnings, "warning"))
            }
            None => {
                format!("{BAD}failed:{BAD:#} {}, {}", plural(errors, "error"), plural(warnings, "warning"))
            }
        };
        if let Some(rules) = rules.as_ref().filter(|_| arguments.list) {
            printer.table(&["client", "tools"], &views(rules));
        }
        printer.line(&verdict);
    }
    if rules.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

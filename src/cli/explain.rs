//! `callgate explain`: one call, judged and not made.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    output::{BAD, DOUBT, GOOD, Printer},
    target::asked,
    test::rehearsal,
};
use crate::{
    call::{Outcome, PolicyFact, Refusal as _, StageNote, Trail},
    gateway::rehearse,
    manifest::{ClientName, Label},
    release::Project,
    rules::Secrets,
};

/// What `explain` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The tool's name; or `resource:URI`, or `prompt:NAME`.
    tool: String,
    /// The client that would call.
    #[arg(long)]
    client: ClientName,
    /// The arguments of the tool or the prompt, as a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = super::call::parse_arguments)]
    args: Map<String, Value>,
    /// A label of what the run has read before; may be given more than once.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<Label>,
}

pub(super) fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let (rules, problems) = Project::read(config).build(Secrets::Unread);
    let Some(rules) = rules else {
        return printer.fail_load(&problems);
    };
    let call = match asked(&arguments.tool, arguments.args) {
        Ok(kind) => rehearsal(kind),
        Err(error) => return printer.fail(&error),
    };
    let mut trail = Trail::begin(&call, &rules.digest);
    let verdict = rehearse(&rules, &arguments.client, arguments.labels, call, &mut trail);
    let outcome = verdict.as_ref().map_or_else(|error| error.outcome(), |()| Outcome::Allowed);
    let decision = trail.facts.decision.as_ref();
    if printer.is_json() {
        printer.value(&json!({
            "outcome": outcome,
            "stages": trail.stages,
            "decision": decision,
            "detail": verdict.as_ref().err().map(ToString::to_string),
            "agent_is_told": verdict.as_ref().err().map(|error| error.public_message()),
        }));
    } else {
        let row = |note: &StageNote| {
            vec![note.stage.to_string(), note.verdict.to_owned(), format!("{} µs", note.micros)]
        };
        printer.table(&["guard", "verdict", "took"], &trail.stages.iter().map(row).collect::<Vec<_>>());
        for PolicyFact { id, reason } in
            decision.map(|decision| decision.policies.as_slice()).unwrap_or_default()
        {
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            printer.line(&format!("decided by `{id}`{reason}"));
        }
        let style = match outcome {
            Outcome::Allowed => GOOD,
            Outcome::Pending => DOUBT,
            _ => BAD,
        };
        printer.line(&format!("{style}{outcome}{style:#}"));
        if let Err(error) = &verdict {
            printer.line(&format!("why:               {error}"));
            printer.line(&format!("the agent is told: {}", error.public_message()));
        }
    }
    if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

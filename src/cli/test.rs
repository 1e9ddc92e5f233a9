//! `callgate test`: the tools' examples and the policies' cases, without touching a backend.

use std::{collections::BTreeSet, path::Path, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::output::{BAD, DIM, GOOD, Printer};
use crate::{
    call::{Call, CallKind, Origin, PolicyFact, Proof, Refusal as _, Trail, Transport},
    gateway::{CallError, rehearse},
    manifest::{Case, ClientName, Denial, DenyStage, Expectation, GroupName, Label},
    policy::{Question, RequestFacts, RunFacts},
    release::Project,
    rules::{Rules, Secrets},
};

/// What `test` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show the cases that hold too.
    #[arg(long, short)]
    verbose: bool,
}

/// What became of one example or case.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    name: String,
    expected: String,
    got: String,
    holds: bool,
}

pub(super) fn run(printer: &Printer, config: &Path, arguments: &Arguments) -> ExitCode {
    let project = Project::read(config);
    let (rules, problems) = project.build(Secrets::Unread);
    let (Some(rules), Some(files)) = (rules, &project.files) else {
        return printer.fail_load(&problems);
    };
    let examples = files.tools.iter().flat_map(|(source, manifest)| {
        manifest.examples.iter().enumerate().map(|(at, example)| {
            let (name, arguments) = (manifest.tool.to_string(), example.arguments.clone().into());
            let got = judge(&rules, &example.client, CallKind::Tool { name, arguments }, &[]);
            let name = format!("{} example {}", manifest.tool, at + 1);
            report(source.path.display().to_string(), name, &example.expect, &got)
        })
    });
    let cases = files.cases.iter().flat_map(|(source, file)| {
        let path = source.path.display().to_string();
        let rules = &rules;
        file.cases.iter().map(move |case| {
            report(path.clone(), case.name.clone(), &case.expect, &case_verdict(rules, case))
        })
    });
    let reports: Vec<Report> = examples.chain(cases).collect();
    print(printer, arguments, &reports)
}

fn print(printer: &Printer, arguments: &Arguments, reports: &[Report]) -> ExitCode {
    let failed = reports.iter().filter(|report| !report.holds).count();
    if printer.is_json() {
        printer.value(
            &serde_json::json!({ "cases": reports, "passed": reports.len() - failed, "failed": failed }),
        );
    } else {
        for report in reports.iter().filter(|report| arguments.verbose || !report.holds) {
            let Report { file, name, expected, got, holds } = report;
            if *holds {
                printer.line(&format!("{GOOD}ok{GOOD:#}     {name} {DIM}({got}, {file}){DIM:#}"));
            } else {
                printer.line(&format!("{BAD}FAILED{BAD:#} {name} {DIM}({file}){DIM:#}\n         expected {expected}\n         got      {got}"));
            }
        }
        printer.line(&format!("{} passed, {failed} failed", reports.len() - failed));
    }
    if reports.is_empty() {
        return printer
            .fail("there is nothing to test: write `examples:` in a tool, or `policies/*.cases.yaml`");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the guards say to a call.
pub(super) enum Got {
    /// It may go.
    Allow,
    /// These have to agree.
    Pending(Vec<GroupName>),
    /// A guard that expectations can name refuses it.
    Deny(DenyStage, Option<String>, Vec<PolicyFact>),
    /// Something else is wrong.
    Other(String),
}

fn report(file: String, name: String, expected: &Expectation, got: &Got) -> Report {
    let holds = match (expected, got) {
        (Expectation::Allow, Got::Allow) => true,
        (Expectation::Pending(expected), Got::Pending(groups)) => {
            let sorted = |groups: &[GroupName]| {
                let mut groups = groups.to_vec();
                groups.sort();
                groups
            };
            sorted(expected) == sorted(groups)
        }
        (Expectation::Deny(Denial { deny, at, by }), Got::Deny(stage, pointer, policies)) => {
            deny == stage
                && (at.is_none() || at == pointer)
                && by.as_ref().is_none_or(|by| policies.iter().any(|policy| policy.id == *by))
        }
        _ => false,
    };
    Report { file, name, expected: expected.to_string(), got: got.to_string(), holds }
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Pending(groups) => Expectation::Pending(groups.clone()).fmt(f),
            Self::Deny(stage, at, policies) => {
                let by = policies.iter().map(|policy| policy.id.as_str()).collect::<Vec<_>>().join("`, `");
                let by = (!by.is_empty()).then_some(by);
                Expectation::Deny(Denial { deny: *stage, at: at.clone(), by }).fmt(f)
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// A call that is only judged.
pub(super) fn rehearsal(kind: CallKind) -> Call {
    let origin = Origin { transport: Transport::Cli, source: None };
    Call::now(kind, Proof::default(), origin, CancellationToken::new())
}

fn judge(rules: &Rules, client: &ClientName, kind: CallKind, labels: &[Label]) -> Got {
    let call = rehearsal(kind);
    let mut trail = Trail::begin(&call, &rules.digest);
    let verdict = rehearse(rules, client, labels.iter().cloned(), call, &mut trail);
    let policies = trail.facts.decision.map(|decision| decision.policies).unwrap_or_default();
    match verdict {
        Ok(()) => Got::Allow,
        Err(error) => got(&error, policies),
    }
}

fn got(error: &CallError, policies: Vec<PolicyFact>) -> Got {
    use crate::{
        approval::ApprovalError, catalog::AdmitError, hygiene::Hidden, plan::Unsendable, schema::SchemaError,
    };
    match error {
        CallError::Admit(AdmitError::MissingScope { .. }) => Got::Deny(DenyStage::Scope, None, policies),
        CallError::Admit(_) => Got::Deny(DenyStage::Tool, None, policies),
        CallError::Schema(
            SchemaError::Mismatch { at, .. } | SchemaError::Hidden { hidden: Hidden::Found { at, .. }, .. },
        )
        | CallError::Plan(Unsendable::Argument { pointer: at, .. }) => {
            Got::Deny(DenyStage::Arguments, Some(at.clone()), policies)
        }
        CallError::Policy(_) => Got::Deny(DenyStage::Policy, None, policies),
        CallError::Approval(ApprovalError::Required { obligations, .. }) => {
            Got::Pending(obligations.iter().map(|one| one.group.clone()).collect())
        }
        other => Got::Other(format!("{}: {other}", other.code())),
    }
}

fn case_verdict(rules: &Rules, case: &Case) -> Got {
    let Case { tool, resource, prompt, release, .. } = case;
    let arguments = || case.arguments.clone().into();
    let kind = match (tool, resource, prompt, release) {
        (Some(tool), None, None, None) => CallKind::Tool { name: tool.to_string(), arguments: arguments() },
        (None, Some(_), None, None) if !case.arguments.is_empty() => {
            return Got::Other("a resource has no arguments but its URI".into());
        }
        (None, Some(uri), None, None) => CallKind::resource(uri.to_string()),
        (None, None, Some(name), None) => CallKind::Prompt { name: name.to_string(), arguments: arguments() },
        (None, None, None, Some(label)) => return release_verdict(rules, case, label),
        _ => return Got::Other("a case names one of `tool`, `resource`, `prompt` and `release`".into()),
    };
    judge(rules, &case.client, kind, &case.labels)
}

fn release_verdict(rules: &Rules, case: &Case, label: &Label) -> Got {
    let run = RunFacts { labels: case.labels.iter().cloned().collect(), calls: 0 };
    let request = RequestFacts {
        transport: "cli".into(),
        source: None,
        time: Timestamp::now(),
        authentication: "rehearsed".into(),
    };
    let question =
        Question { client: &case.client, roles: &BTreeSet::new(), user: None, run: &run, request: &request };
    match rules.policies.release(&question, label) {
        Ok(decision) if decision.is_allow() => Got::Allow,
        Ok(decision) => Got::Deny(DenyStage::Policy, None, decision.facts().policies),
        Err(error) => Got::Other(error.to_string()),
    }
}

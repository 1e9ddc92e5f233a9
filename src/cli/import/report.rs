//! What `callgate import` did, and what is left for a person to do.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    super::{
        output::{BAD, DOUBT, GOOD, Printer, plural},
        visible::visible,
    },
    McpArguments, Outcome,
    draft::Draft,
};
use crate::{
    manifest::{Digest, UpstreamKind, UpstreamSpec},
    upstream::{file_digest, find_program},
};

/// What there is to report.
pub(super) struct Report<'a> {
    pub(super) base: &'a Path,
    pub(super) spec: &'a UpstreamSpec,
    pub(super) instructions: Option<Digest>,
    pub(super) version: &'static str,
    pub(super) outcomes: &'a [Outcome],
}

pub(super) fn report(printer: &Printer, arguments: &McpArguments, report: &Report<'_>) {
    let paste = to_paste(report);
    if printer.is_json() {
        let of = |word: &str| {
            let drafts = report.outcomes.iter().filter(|outcome| outcome.draft.word() == word);
            drafts.map(|outcome| as_json(outcome, arguments)).collect::<Vec<Value>>()
        };
        printer.value(&json!({
            "upstream": arguments.upstream, "version": report.version, "instructions": report.instructions,
            "missing": paste, "tools": of("tool"), "resources": of("resource"), "prompts": of("prompt"),
        }));
        return;
    }
    for Outcome { draft, path, result } in report.outcomes {
        match &draft.text {
            Ok(text) if arguments.stdout => printer.line(&format!("---\n{}", escaped(text))),
            Ok(_) if *result == "kept" => printer.line(&format!(
                "{DOUBT}kept{DOUBT:#} `{}`: it is there already, and `--force` replaces it",
                path.display()
            )),
            Ok(_) => printer.line(&format!("{GOOD}{result}{GOOD:#} `{}`", path.display())),
            Err(why) => printer.line(&format!(
                "{BAD}refused{BAD:#} the {} `{}`: {why}",
                draft.word(),
                visible(&draft.there)
            )),
        }
        if !arguments.stdout {
            draft.notes.iter().for_each(|note| printer.line(&format!("    {note}")));
        }
    }
    next_steps(printer, arguments, report.outcomes, &paste);
}

fn as_json(Outcome { draft, path, result }: &Outcome, arguments: &McpArguments) -> Value {
    let there = match draft.kind {
        UpstreamKind::Tool => "upstream_tool",
        UpstreamKind::Resource => "uri",
        UpstreamKind::Template => "template",
        UpstreamKind::Prompt => "upstream_prompt",
    };
    let mut item = json!({
        "definition": draft.definition, "result": result, "path": path, "notes": draft.notes,
        "manifest": draft.text.as_ref().ok().filter(|_| arguments.stdout),
        "why": draft.text.as_ref().err(),
    });
    if let Some(members) = item.as_object_mut() {
        members.insert(draft.word().to_owned(), draft.name.clone().into());
        members.insert(there.to_owned(), draft.there.clone().into());
    }
    item
}

/// A manifest's own text with nothing in it that a terminal would obey.
fn escaped(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

/// What `callgate.yaml` does not say of the upstream yet.
fn to_paste(Report { base, spec, instructions, .. }: &Report<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if *instructions != spec.instructions {
        lines.push(match instructions {
            Some(digest) => format!("instructions: {digest}"),
            None => "(no `instructions:`: the server has none)".to_owned(),
        });
    }
    if let Some(program) = spec.stdio.as_ref().filter(|program| program.digest.is_none()) {
        let digest = find_program(&program.command, base).and_then(|path| file_digest(&path).ok());
        lines.extend(digest.map(|digest| format!("stdio: digest: {digest}")));
    }
    lines
}

fn next_steps(printer: &Printer, arguments: &McpArguments, outcomes: &[Outcome], paste: &[String]) {
    let name = &arguments.upstream;
    let made = |word: &str| {
        let made = outcomes.iter().filter(|outcome| outcome.result != "refused");
        made.map(|outcome| &outcome.draft).filter(|draft| draft.word() == word).collect::<Vec<_>>()
    };
    let [tools, resources, prompts] = ["tool", "resource", "prompt"].map(made);
    let counts = [(&tools, "tool"), (&resources, "resource"), (&prompts, "prompt")]
        .map(|(made, word)| plural(made.len(), word));
    printer.note(&format!("\n{} of `{name}`. What is left for a person:", counts.join(", ")));
    if !paste.is_empty() {
        printer
            .note(&format!("  say in `callgate.yaml`, under `upstreams: {name}:`, once they are reviewed:"));
        paste.iter().for_each(|line| printer.note(&format!("    {line}")));
    }
    if outcomes.is_empty() {
        printer.note("  nothing: it has none of what was asked for");
        return;
    }
    printer.note(
        "  review each manifest: `effects`, `reach` and `yields` say the worst until you say otherwise",
    );
    let named = |made: &[&Draft]| made.iter().map(|draft| draft.name.clone()).collect();
    let lists: [(&str, Vec<String>); 3] = [
        ("tools", named(&tools)),
        ("resources", resources.iter().map(|draft| format!("'{}'", glob(draft))).collect()),
        ("prompts", named(&prompts)),
    ];
    let lists = lists.iter().filter(|(_, names)| !names.is_empty());
    let lists: Vec<String> = lists.map(|(key, names)| format!("`{key}: [{}]`", names.join(", "))).collect();
    printer.note(&format!("  name them in `policies/clients.yaml`, such as {}", lists.join(", ")));
    printer.note(
        "  permit them in `policies/*.cedar`; then `callgate accept NAME` for each, and `callgate check`",
    );
}

/// The glob of an allowlist that is this resource, or all that a template stands for.
fn glob(draft: &Draft) -> String {
    let pieces = draft.there.split('{').enumerate();
    let pieces = pieces.map(|(at, piece)| match piece.split_once('}').filter(|_| at > 0) {
        Some((_, literal)) => format!("*{}", globset::escape(literal)),
        None => globset::escape(piece),
    });
    pieces.collect()
}

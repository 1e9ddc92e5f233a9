//! `callgate import`: manifests for review, of what another server offers.
//!
//! A server's claims about its tools are shown and not taken: each manifest says the worst until a person who has
//! looked says otherwise. Nothing is called, and what is there already stays unless it is said.

mod draft;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use globset::{Glob, GlobMatcher};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use self::draft::Draft;
use super::{
    output::{BAD, DIM, DOUBT, GOOD, Printer, plural},
    visible::visible,
};
use crate::{
    call::Era,
    egress::Egress,
    manifest::{BackendSpec, Digest, ServiceName, UpstreamSpec},
    release::Project,
    rules::Files,
    upstream::{Connection, Hello, Reached, file_digest, find_program, instructions_digest},
};

/// What `import` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to an upstream of `callgate.yaml`, and write a manifest for each of its tools.
    Mcp(McpArguments),
}

/// What `import mcp` takes.
#[derive(Debug, Args)]
struct McpArguments {
    /// The upstream's name in `callgate.yaml`.
    upstream: ServiceName,
    /// Only the tools whose names match, such as `read_*`.
    #[arg(long, value_name = "GLOB", default_value = "*")]
    tool: Glob,
    /// Print the manifests, and write nothing.
    #[arg(long)]
    stdout: bool,
    /// Replace manifests that are there already, whatever was changed in them.
    #[arg(long)]
    force: bool,
}

/// What became of one tool.
struct Outcome {
    draft: Draft,
    path: PathBuf,
    result: &'static str,
}

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let Command::Mcp(arguments) = arguments.command;
    match import(printer, config, &arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.fail(&error),
    }
}

async fn import(printer: &Printer, config: &Path, arguments: &McpArguments) -> Result<(), String> {
    let project = Project::read(config);
    let Some(files) = &project.files else {
        printer.problems(&project.problems, false);
        return Err("the project's files cannot be read; run `callgate check`".into());
    };
    let name = &arguments.upstream;
    let spec = files.server.1.upstreams.get(name).ok_or_else(|| {
        format!("there is no upstream `{name}`: name it under `upstreams:` in `{}`", config.display())
    })?;
    if !printer.is_json() {
        printer.note(&format!("{DIM}connecting to{DIM:#} `{name}`"));
    }
    let listed = fetch(printer, &project, name, spec).await?;
    let matcher = arguments.tool.compile_matcher();
    let drafts = drafts(files, name, &listed.tools, &matcher);
    let folder = project.base().join(&files.server.1.tools).join(name.as_str());
    let outcomes =
        drafts.into_iter().map(|draft| put(draft, &folder, arguments)).collect::<Result<Vec<_>, _>>()?;
    if let (Some(text), false) = (&listed.instructions, arguments.stdout) {
        let written = outcomes.iter().any(|outcome| outcome.result == "written");
        if written {
            write(&folder.join("reviewed/instructions.txt"), text)?;
        }
    }
    let instructions = instructions_digest(listed.instructions.as_deref());
    report(printer, project.base(), arguments, spec, &outcomes, instructions, listed.version);
    Ok(())
}

/// What a server says of itself.
struct Listed {
    tools: Vec<Map<String, Value>>,
    instructions: Option<String>,
    version: &'static str,
}

async fn fetch(
    printer: &Printer,
    project: &Project,
    name: &ServiceName,
    spec: &UpstreamSpec,
) -> Result<Listed, String> {
    let dns = project.files.as_ref().and_then(|files| files.server.1.dns.as_ref());
    let egress = Egress::new(dns).map_err(|error| error.to_string())?;
    let reached = Reached::new(name, spec, project.base(), &egress, printer.secrets())
        .map_err(|error| error.to_string())?;
    let hello = Hello { era: Era::Stateless, abilities: Map::new() };
    let (events, _heard) = mpsc::channel(16);
    let failed = |error| format!("the upstream `{name}`: {error}");
    let connection = Connection::open(&reached.endpoint, hello, reached.bounds, None, events);
    let connection = connection.await.map_err(failed)?;
    let tools = connection.list("tools/list", "tools").await.map_err(failed);
    let server = connection.server();
    let listed = tools.map(|tools| Listed {
        tools,
        instructions: server.instructions.clone().filter(|text| !text.is_empty()),
        version: server.version,
    });
    connection.close().await;
    listed
}

fn drafts(
    files: &Files,
    upstream: &ServiceName,
    tools: &[Map<String, Value>],
    matcher: &GlobMatcher,
) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for tool in tools {
        let named = tool.get("name").and_then(Value::as_str).unwrap_or_default();
        if !matcher.is_match(named) {
            continue;
        }
        let mut draft = Draft::new(upstream, named, tool);
        let twice =
            tools.iter().filter(|other| other.get("name").and_then(Value::as_str) == Some(named)).count() > 1;
        if twice {
            draft.refuse("the upstream has several tools of this name: nobody knows which would be called");
        } else if drafts.iter().any(|other| other.name == draft.name) {
            draft.refuse(
                "another tool of the upstream comes to the same name here: write its manifest by hand",
            );
        }
        let elsewhere = files.tools.iter().find(|(_, manifest)| {
            let BackendSpec::Mcp(mcp) = &manifest.backend else { return false };
            mcp.upstream == *upstream && mcp.tool == named && manifest.tool.as_str() != draft.name
        });
        if let Some((_, manifest)) = elsewhere {
            draft.refuse(&format!("`{}` is this tool already", manifest.tool));
        }
        drafts.push(draft);
    }
    drafts
}

/// Writes a draft, unless something is there already.
fn put(draft: Draft, folder: &Path, arguments: &McpArguments) -> Result<Outcome, String> {
    let path = folder.join(format!("{}.yaml", draft.name));
    let result = match &draft.text {
        Err(_) => "refused",
        Ok(_) if arguments.stdout => "shown",
        Ok(_) if path.exists() && !arguments.force => "kept",
        Ok(text) => {
            write(&folder.join("reviewed").join(format!("{}.json", draft.name)), &draft.reviewed)?;
            write(&path, text)?;
            "written"
        }
    };
    Ok(Outcome { draft, path, result })
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

fn report(
    printer: &Printer,
    base: &Path,
    arguments: &McpArguments,
    spec: &UpstreamSpec,
    outcomes: &[Outcome],
    instructions: Option<Digest>,
    version: &str,
) {
    let paste = to_paste(spec, base, instructions);
    if printer.is_json() {
        let tools = outcomes.iter().map(|Outcome { draft, path, result }| {
            json!({
                "tool": draft.name, "upstream_tool": draft.tool, "definition": draft.definition,
                "result": result, "path": path, "notes": draft.notes,
                "manifest": draft.text.as_ref().ok().filter(|_| arguments.stdout),
                "why": draft.text.as_ref().err(),
            })
        });
        let tools: Vec<Value> = tools.collect();
        let upstream = &arguments.upstream;
        printer.value(&json!({
            "upstream": upstream, "version": version, "instructions": instructions, "missing": paste, "tools": tools
        }));
        return;
    }
    for Outcome { draft, path, result } in outcomes {
        match &draft.text {
            Ok(text) if arguments.stdout => printer.line(&format!("---\n{}", escaped(text))),
            Ok(_) if *result == "kept" => printer.line(&format!(
                "{DOUBT}kept{DOUBT:#} `{}`: it is there already, and `--force` replaces it",
                path.display()
            )),
            Ok(_) => printer.line(&format!("{GOOD}{result}{GOOD:#} `{}`", path.display())),
            Err(why) => printer.line(&format!("{BAD}refused{BAD:#} `{}`: {why}", visible(&draft.tool))),
        }
        if !arguments.stdout {
            draft.notes.iter().for_each(|note| printer.line(&format!("    {note}")));
        }
    }
    next_steps(printer, arguments, outcomes, &paste);
}

/// A manifest's own text with nothing in it that a terminal would obey.
fn escaped(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

/// What `callgate.yaml` does not say of the upstream yet.
fn to_paste(spec: &UpstreamSpec, base: &Path, instructions: Option<Digest>) -> Vec<String> {
    let mut lines = Vec::new();
    if instructions != spec.instructions {
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
    let made: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.result != "refused")
        .map(|outcome| outcome.draft.name.as_str())
        .collect();
    printer.note(&format!("\n{} of `{name}`. What is left for a person:", plural(made.len(), "tool")));
    if !paste.is_empty() {
        printer
            .note(&format!("  say in `callgate.yaml`, under `upstreams: {name}:`, once they are reviewed:"));
        paste.iter().for_each(|line| printer.note(&format!("    {line}")));
    }
    printer.note(
        "  review each manifest: `effects`, `reach` and `yields` say the worst until you say otherwise",
    );
    printer.note(&format!("  name them in `policies/clients.yaml`, such as `tools: [{}]`", made.join(", ")));
    printer.note(
        "  permit them in `policies/*.cedar`; then `callgate accept TOOL` for each, and `callgate check`",
    );
}

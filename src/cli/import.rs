//! `callgate import`: manifests for review, of what another server offers.
//!
//! A server's claims about its tools are shown and not taken: each manifest says the worst until a person who has
//! looked says otherwise. Nothing is called, and what is there already stays unless it is said.

mod draft;
mod prompt;
mod report;
mod resource;
mod tool;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use globset::Glob;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use self::{
    draft::{Draft, named, plain, word},
    report::{Report, report},
};
use super::output::{DIM, Printer};
use crate::{
    call::Era,
    egress::Egress,
    manifest::{BackendSpec, Offer, ServiceName, ToolManifest, UpstreamKind, UpstreamSpec},
    release::Project,
    rules::Files,
    upstream::{Connection, Hello, Reached, UpstreamError, instructions_digest},
};

/// The method that the upstream does not have (JSON-RPC 2.0 §5.1).
const METHOD_NOT_FOUND: i64 = -32601;

/// What `import` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to an upstream of `callgate.yaml`, and write a manifest for each of its tools, resources and prompts.
    Mcp(McpArguments),
}

/// What `import mcp` takes.
#[derive(Debug, Args)]
struct McpArguments {
    /// The upstream's name in `callgate.yaml`.
    upstream: ServiceName,
    /// Only the tools whose names match, such as `read_*`, and of the rest what is asked for besides.
    #[arg(long, value_name = "GLOB")]
    tool: Option<Glob>,
    /// Only the resources whose URIs match, and the templates whose own text does, such as `docs://*`.
    #[arg(long, value_name = "GLOB")]
    resource: Option<Glob>,
    /// Only the prompts whose names match.
    #[arg(long, value_name = "GLOB")]
    prompt: Option<Glob>,
    /// Print the manifests, and write nothing.
    #[arg(long)]
    stdout: bool,
    /// Replace manifests that are there already, whatever was changed in them.
    #[arg(long)]
    force: bool,
}

impl McpArguments {
    /// Whether one thing is asked for: everything is, where nothing is said.
    fn takes(&self, item: &Item) -> bool {
        let said = match item.kind {
            UpstreamKind::Tool => &self.tool,
            UpstreamKind::Resource | UpstreamKind::Template => &self.resource,
            UpstreamKind::Prompt => &self.prompt,
        };
        match said {
            Some(glob) => glob.compile_matcher().is_match(item.named()),
            None => [&self.tool, &self.resource, &self.prompt].iter().all(|said| said.is_none()),
        }
    }
}

/// What became of one of the things that are offered.
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
    let taken: Vec<&Item> = listed.items.iter().filter(|item| arguments.takes(item)).collect();
    let drafts = drafts(files, name, &listed.items, &taken);
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
    let base = project.base();
    report(
        printer,
        arguments,
        &Report { base, spec, instructions, version: listed.version, outcomes: &outcomes },
    );
    Ok(())
}

/// What a server says of itself.
struct Listed {
    items: Vec<Item>,
    instructions: Option<String>,
    version: &'static str,
}

/// One thing that it offers.
struct Item {
    kind: UpstreamKind,
    definition: Map<String, Value>,
}

impl Item {
    fn named(&self) -> &str {
        named(self.kind, &self.definition)
    }

    /// What its name here is made of: its own name, unless several have that.
    fn called<'a>(&'a self, all: &'a [Self]) -> &'a str {
        if matches!(self.kind, UpstreamKind::Tool | UpstreamKind::Prompt) {
            return self.named();
        }
        let name = |item: &'a Self| item.definition.get("name").and_then(Value::as_str).unwrap_or_default();
        let own = name(self);
        let alike = all.iter().filter(|other| word(other.kind) == word(self.kind));
        let is_alone = alike.filter(|other| plain(name(other)) == plain(own)).count() < 2;
        if is_alone && !own.is_empty() { own } else { self.named() }
    }
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
    let items = list(&connection).await.map_err(failed);
    let server = connection.server();
    let listed = items.map(|items| Listed {
        items,
        instructions: server.instructions.clone().filter(|text| !text.is_empty()),
        version: server.version,
    });
    connection.close().await;
    listed
}

/// Everything that the server says it has.
async fn list(connection: &Connection) -> Result<Vec<Item>, UpstreamError> {
    let capabilities = &connection.server().capabilities;
    let is_said = |kind: UpstreamKind| capabilities.contains_key(kind.family());
    let kinds = [UpstreamKind::Tool, UpstreamKind::Resource, UpstreamKind::Template, UpstreamKind::Prompt];
    // A server that says nothing of itself may have tools all the same.
    let says_nothing = !kinds.into_iter().any(is_said);
    let mut items = Vec::new();
    for kind in kinds {
        let is_there = is_said(kind) || (says_nothing && kind == UpstreamKind::Tool);
        if !is_there {
            continue;
        }
        let (method, member) = kind.list();
        match connection.list(method, member).await {
            Ok(listing) => items.extend(listing.into_iter().map(|definition| Item { kind, definition })),
            // Not every server that has resources has templates of them.
            Err(UpstreamError::Refused { code: METHOD_NOT_FOUND, .. }) if kind == UpstreamKind::Template => {}
            Err(error) => return Err(error),
        }
    }
    Ok(items)
}

fn drafts(files: &Files, upstream: &ServiceName, all: &[Item], taken: &[&Item]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    for item in taken {
        let (kind, there) = (item.kind, item.named());
        let mut draft = Draft::new(upstream, kind, item.called(all), &item.definition);
        let word = draft.word();
        if all.iter().filter(|other| other.kind == kind && other.named() == there).count() > 1 {
            draft.refuse(&format!(
                "the upstream has several {word}s of this name: nobody knows which would be meant"
            ));
        } else if drafts.iter().any(|other| other.stem() == draft.stem()) {
            draft.refuse(&format!(
                "another {word} of the upstream comes to the same name here: write its manifest by hand"
            ));
        }
        let mut others = files.tools.iter().map(|(_, manifest)| manifest);
        if let Some(other) = others.find(|manifest| is_same(manifest, upstream, &draft)) {
            draft.refuse(&format!("`{}` is this {word} already", other.offered()));
        }
        drafts.push(draft);
    }
    drafts
}

/// Whether a manifest of another name is of the same thing; a URI is one thing, whoever answers.
fn is_same(manifest: &ToolManifest, upstream: &ServiceName, draft: &Draft) -> bool {
    let is_it = match (&manifest.offer, &manifest.backend) {
        (Offer::Resource(resource), _) => draft.word() == "resource" && resource.written() == draft.there,
        (_, BackendSpec::Mcp(mcp)) => {
            mcp.upstream == *upstream && mcp.kind == draft.kind && mcp.tool == draft.there
        }
        _ => false,
    };
    is_it && manifest.offered().as_str() != draft.name
}

/// Writes a draft, unless something is there already.
fn put(draft: Draft, folder: &Path, arguments: &McpArguments) -> Result<Outcome, String> {
    let path = folder.join(format!("{}.yaml", draft.stem()));
    let result = match &draft.text {
        Err(_) => "refused",
        Ok(_) if arguments.stdout => "shown",
        Ok(_) if path.exists() && !arguments.force => "kept",
        Ok(text) => {
            write(&folder.join("reviewed").join(format!("{}.json", draft.stem())), &draft.reviewed)?;
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

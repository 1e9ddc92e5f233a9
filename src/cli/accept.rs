//! `callgate accept`: shows what changed in a tool, a resource or a prompt since it was accepted, and accepts it.
//!
//! The accepted definition itself is kept in `policies/accepted/`, so that the
//! next change can be shown; what counts is the digest in `policies/tools.yaml`.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::{
    output::{BAD, DIM, GOOD, Printer},
    target::offered,
};
use crate::{
    catalog::definition_digest,
    manifest::{
        Floor, FloorsFile, Offer, Place, Source, ToolManifest, ToolName, join_pointer, position, read,
        read_value,
    },
    release::Project,
};

/// What `accept` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The tool's name; or `resource:NAME`, or `prompt:NAME`.
    #[arg(value_name = "TOOL", value_parser = offered)]
    name: ToolName,
    /// Accept it without asking.
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(printer: &Printer, config: &Path, arguments: &Arguments) -> ExitCode {
    match accept(printer, config, arguments) {
        Ok(done) => done,
        Err(message) => printer.fail(&message),
    }
}

fn accept(printer: &Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, String> {
    let project = Project::read(config);
    let Some(files) = &project.files else {
        printer.problems(&project.problems, false);
        return Err("the project does not load; run `callgate check`".into());
    };
    let (source, manifest) =
        files.tools.iter().find(|(_, manifest)| manifest.tool == arguments.name).ok_or_else(|| {
            let (word, name) =
                arguments.name.as_str().split_once(':').unwrap_or(("tool", arguments.name.as_str()));
            format!("there is no {word} `{name}` that can be read; run `callgate check`")
        })?;
    let mut definition = read_value(source).map_err(|problem| problem.message)?;
    let digest = definition_digest(&definition);
    if let Some(members) = definition.as_object_mut() {
        members.remove("examples");
    }
    let floor = files.floors.1.of(manifest);
    if floor.and_then(|floor| floor.digest.as_ref()) == Some(&digest) {
        report(printer, manifest, &digest, "unchanged");
        return Ok(ExitCode::SUCCESS);
    }
    let kept = kept_path(&files.floors.0.path, manifest);
    show(printer, &fs::read_to_string(&kept).unwrap_or_default(), &pretty(&definition));
    if !arguments.yes && !ask(printer, manifest)? {
        return Err("not accepted; nothing was written".into());
    }
    let text = with_digest(&files.floors.0, manifest, &digest)?;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("cannot write `{path}`: {error}")
    };
    // The copy first: it decides nothing, and the digest in the other file does.
    kept.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed(&kept))?;
    fs::write(&kept, pretty(&definition)).map_err(failed(&kept))?;
    replace(&files.floors.0.path, &text).map_err(failed(&files.floors.0.path))?;
    report(printer, manifest, &digest, "accepted");
    Ok(ExitCode::SUCCESS)
}

fn report(printer: &Printer, manifest: &ToolManifest, digest: &str, what: &str) {
    if printer.is_json() {
        let (word, name) = (manifest.offer.word(), manifest.offered());
        printer.value(&serde_json::json!({ word: name, "digest": digest, "result": what }));
    } else {
        printer.line(&format!("{GOOD}{what}{GOOD:#} the {} {DIM}{digest}{DIM:#}", manifest.said()));
    }
}

fn kept_path(floors: &Path, manifest: &ToolManifest) -> PathBuf {
    let folder = floors.with_file_name("accepted");
    let folder = match manifest.offer {
        Offer::Tool => folder,
        Offer::Resource(_) | Offer::Prompt(_) => folder.join(section(manifest)),
    };
    folder.join(format!("{}.json", manifest.offered()))
}

/// The key of `tools.yaml` that holds what is accepted of its kind.
const fn section(manifest: &ToolManifest) -> &'static str {
    match manifest.offer {
        Offer::Tool => "tools",
        Offer::Resource(_) => "resources",
        Offer::Prompt(_) => "prompts",
    }
}

/// All that is accepted of its kind.
const fn accepted<'a>(file: &'a FloorsFile, manifest: &ToolManifest) -> &'a BTreeMap<ToolName, Floor> {
    match manifest.offer {
        Offer::Tool => &file.tools,
        Offer::Resource(_) => &file.resources,
        Offer::Prompt(_) => &file.prompts,
    }
}

fn pretty(definition: &Value) -> String {
    let mut text = serde_json::to_string_pretty(definition).unwrap_or_default();
    text.push('\n');
    text
}

/// Prints the difference between the definition that was accepted and the one that is here.
fn show(printer: &Printer, accepted: &str, now: &str) {
    if printer.is_json() {
        return;
    }
    if accepted.is_empty() {
        printer.line(&format!("{DIM}nothing was accepted before; the definition:{DIM:#}"));
    }
    let difference = TextDiff::from_lines(accepted, now);
    for group in difference.grouped_ops(3) {
        for change in group.iter().flat_map(|operation| difference.iter_changes(operation)) {
            let text = change.value().trim_end_matches('\n');
            match change.tag() {
                ChangeTag::Delete => printer.line(&format!("{BAD}- {text}{BAD:#}")),
                ChangeTag::Insert => printer.line(&format!("{GOOD}+ {text}{GOOD:#}")),
                ChangeTag::Equal => printer.line(&format!("  {text}")),
            }
        }
    }
}

fn ask(printer: &Printer, manifest: &ToolManifest) -> Result<bool, String> {
    if printer.is_json() || !io::stdin().is_terminal() {
        return Err("nobody can be asked here: review the change, then pass `--yes`".into());
    }
    let _ = write!(anstream::stdout(), "accept the {}? [y/N] ", manifest.said());
    let _ = anstream::stdout().flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The text of `tools.yaml` with the digest in it, its comments kept.
fn with_digest(source: &Source, manifest: &ToolManifest, digest: &str) -> Result<String, String> {
    let (name, section) = (manifest.offered(), section(manifest));
    let file: FloorsFile = if source.text.trim().is_empty() {
        FloorsFile::default()
    } else {
        read(source).map_err(|problem| problem.message)?
    };
    let entry = join_pointer(&format!("/{section}"), name.as_str());
    let mut lines: Vec<String> = source.text.lines().map(str::to_owned).collect();
    let line_of = |place: &Place| {
        position(source, place).map(|(line, column)| (line.saturating_sub(1), column.saturating_sub(1)))
    };
    match accepted(&file, manifest).get(name) {
        Some(floor) if floor.digest.is_some() => {
            let (line, column) = line_of(&Place::Key(format!("{entry}/digest"))).unwrap_or_default();
            if let Some(text) = lines.get_mut(line) {
                *text = format!("{}digest: {digest}", " ".repeat(column));
            }
        }
        Some(_) => {
            let (line, column) = line_of(&Place::Key(entry.clone())).unwrap_or_default();
            lines.insert((line + 1).min(lines.len()), format!("{}digest: {digest}", " ".repeat(column + 2)));
        }
        None => {
            let mut claims = vec![format!("  {name}:")];
            if matches!(manifest.offer, Offer::Tool) {
                // All else only reads.
                claims.push(format!("    effects: {}", manifest.effects));
            }
            claims.push(format!("    reach: {}", manifest.reach));
            claims.push(format!("    yields: {}", manifest.yields));
            claims.push(format!("    digest: {digest}"));
            match lines.iter().position(|line| line.trim_end().strip_suffix(':') == Some(section)) {
                Some(at) => drop(lines.splice(at + 1..at + 1, claims)),
                None => {
                    lines.push(format!("{section}:"));
                    lines.extend(claims);
                }
            }
        }
    }
    let text = lines.join("\n") + "\n";
    // What was written is read again: a file in an unusual form is not guessed at.
    let edited = Source { path: source.path.clone(), text: text.clone().into() };
    let holds = read::<FloorsFile>(&edited).is_ok_and(|edited| {
        let all = |file: &FloorsFile| file.tools.len() + file.resources.len() + file.prompts.len();
        let is_new = usize::from(!accepted(&file, manifest).contains_key(name));
        accepted(&edited, manifest).get(name).and_then(|floor| floor.digest.as_deref()) == Some(digest)
            && all(&edited) == all(&file) + is_new
    });
    if holds {
        Ok(text)
    } else {
        Err(format!(
            "`{}` has a form that cannot be edited here: add `digest: {digest}` to `{name}` under `{section}`",
            source.path.display()
        ))
    }
}

/// Replaces a file at once: a crash leaves the old one or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("yaml.new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{PromptManifest, ResourceManifest};

    fn manifest() -> ToolManifest {
        let text = "tool: a.b\ndescription: x\ninput: { type: object }\nbackend: { http: { service: s, method: GET, path: / } }\n";
        read(&Source { path: "a.yaml".into(), text: text.into() }).unwrap()
    }

    #[test]
    fn what_is_accepted_of_resources_and_prompts_stands_under_their_own_keys() {
        let text = "resource: a.b\nuri: docs://a\ndescription: x\nbackend: { file: { path: a.md } }\n";
        let resource: ResourceManifest = read(&Source { path: "r.yaml".into(), text: text.into() }).unwrap();
        let text =
            "prompt: a.b\ndescription: x\nbackend: { text: { messages: [{ role: user, text: a }] } }\n";
        let prompt: PromptManifest = read(&Source { path: "p.yaml".into(), text: text.into() }).unwrap();
        let floors = "tools:\n  a.b:\n    effects: read\n";
        let mut text = floors.to_owned();
        for manifest in [resource.into_tool(), prompt.into_tool()] {
            let digest = format!("sha256:{}", "0".repeat(64));
            let source = |text: &str| Source { path: "tools.yaml".into(), text: text.into() };
            text = with_digest(&source(&text), &manifest, &digest).unwrap();
            assert_eq!(with_digest(&source(&text), &manifest, &digest).unwrap(), text);
        }
        let zeros = "0".repeat(64);
        let expected = format!(
            "{floors}resources:\n  a.b:\n    reach: none\n    yields: untrusted\n    digest: sha256:{zeros}\nprompts:\n  a.b:\n    reach: none\n    yields: untrusted\n    digest: sha256:{zeros}\n"
        );
        assert_eq!(text, expected);
    }

    fn edited(text: &str) -> Result<String, String> {
        let digest = format!("sha256:{}", "0".repeat(64));
        with_digest(&Source { path: "tools.yaml".into(), text: text.into() }, &manifest(), &digest)
    }

    #[test]
    fn comments_and_other_tools_stay_as_they_are() {
        let text = edited("# why\nunlisted: hide\ntools:\n  a.b:            # ours\n    effects: destructive\n  c.d:\n    effects: read\n").unwrap();
        assert!(
            text.starts_with(
                "# why\nunlisted: hide\ntools:\n  a.b:            # ours\n    digest: sha256:00"
            ),
            "{text}"
        );
        assert!(text.ends_with("    effects: destructive\n  c.d:\n    effects: read\n"), "{text}");
        assert_eq!(edited(&text).unwrap(), text);
    }

    #[test]
    fn a_new_tool_is_accepted_with_its_claims_as_floors() {
        for text in ["", "unlisted: hide\n", "tools:\n  c.d:\n    effects: read\n"] {
            let text = edited(text).unwrap();
            assert!(text.contains("  a.b:\n    effects: destructive\n    reach: external\n    yields: untrusted\n    digest: "), "{text}");
        }
    }

    #[test]
    fn a_form_that_cannot_be_edited_is_refused_rather_than_guessed_at() {
        assert!(edited("tools: { a.b: { effects: read } }\n").is_err());
    }
}

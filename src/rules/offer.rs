//! Resources and prompts: what their types cannot say.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Files, shown};
use crate::manifest::{
    BackendSpec, Offer, OwnContent, Place, Problem, PromptBackend, PromptManifest, ResourceBackend,
    ResourceManifest, Source, ToolManifest,
};

/// What is wrong with the manifest of a resource or a prompt by itself.
pub(super) fn manifest(source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) {
    shown::check_offer(source, manifest, problems);
    match &manifest.offer {
        Offer::Tool => {}
        Offer::Resource(offer) => resource(source, offer, problems),
        Offer::Prompt(offer) => prompt(source, offer, problems),
    }
    if let BackendSpec::Own(own) = &manifest.backend {
        let unread = matches!(&own.content, OwnContent::File { read: None, .. });
        if manifest.credential.is_some() {
            let problem =
                Problem::error(source, Place::Key("/credential".into()), "nobody is shown the credential");
            problems.push(problem.help("leave it out: the project answers by itself"));
        }
        if unread && !problems.iter().any(|problem| problem.source.path == source.path) {
            problems.push(Problem::error(
                source,
                Place::Pointer("/backend/file".into()),
                "the file was not read",
            ));
        }
    }
}

fn resource(source: &Source, resource: &ResourceManifest, problems: &mut Vec<Problem>) {
    match (&resource.uri, &resource.template) {
        (Some(_), Some(_)) => {
            let message =
                format!("`{}` has both `uri` and `template`: keep the one that is meant", resource.resource);
            problems.push(Problem::error(source, Place::Key("/template".into()), message));
        }
        (None, None) => {
            let message = format!("`{}` has neither `uri` nor `template`", resource.resource);
            problems.push(Problem::error(source, Place::File, message));
        }
        (None, Some(template)) => {
            let mut seen = HashSet::new();
            for name in template.variables().filter(|name| !seen.insert(*name)) {
                let message = format!("the variable `{name}` stands there twice");
                problems.push(Problem::error(source, Place::Pointer("/template".into()), message));
            }
            if matches!(resource.backend, ResourceBackend::File(_)) {
                let problem =
                    Problem::error(source, Place::Key("/backend/file".into()), "one file has one `uri`");
                problems.push(problem.help("write a manifest for each file"));
            }
        }
        (Some(_), None) => {}
    }
}

fn prompt(source: &Source, prompt: &PromptManifest, problems: &mut Vec<Problem>) {
    let mut known = BTreeSet::new();
    for (at, argument) in prompt.arguments.iter().enumerate() {
        let place = || Place::Pointer(format!("/arguments/{at}/name"));
        if !(1..=128).contains(&argument.name.chars().count()) {
            problems.push(Problem::error(source, place(), "the name of an argument has 1 to 128 characters"));
        }
        if !known.insert(argument.name.as_str()) {
            let message = format!("there are two arguments `{}`", argument.name.escape_debug());
            problems.push(Problem::error(source, place(), message));
        }
    }
    match &prompt.backend {
        PromptBackend::Mcp(mcp) => {
            if !(1..=128).contains(&mcp.prompt.chars().count()) {
                let message = "the name of an upstream's prompt has 1 to 128 characters";
                problems.push(Problem::error(source, Place::Pointer("/backend/mcp/prompt".into()), message));
            }
        }
        PromptBackend::Text(text) => {
            if text.messages.is_empty() {
                let place = Place::Pointer("/backend/text/messages".into());
                problems.push(Problem::error(source, place, "a prompt has a message"));
            }
            let named: Vec<BTreeSet<&str>> = text.messages.iter().map(|message| message.named()).collect();
            for (at, names) in named.iter().enumerate() {
                for name in names.difference(&known) {
                    let place = Place::Pointer(format!("/backend/text/messages/{at}/text"));
                    let problem = Problem::error(source, place, format!("`{{{name}}}` is no argument"));
                    problems.push(problem.help("name it under `arguments`"));
                }
            }
            let used: BTreeSet<&str> = named.into_iter().flatten().collect();
            for (at, argument) in prompt.arguments.iter().enumerate() {
                if !used.contains(argument.name.as_str()) {
                    let message = format!("no message holds the argument `{}`", argument.name.escape_debug());
                    problems.push(Problem::error(
                        source,
                        Place::Pointer(format!("/arguments/{at}")),
                        message,
                    ));
                }
            }
        }
    }
}

/// Two resources with one URI: nobody knows which would be read.
pub(super) fn ambiguous(files: &Files, problems: &mut Vec<Problem>) {
    let mut seen = HashMap::new();
    for (source, manifest) in &files.tools {
        let Offer::Resource(resource) = &manifest.offer else { continue };
        if let Some(first) = seen.insert(resource.written(), &resource.resource) {
            let message = format!("`{}` is the resource `{first}` already", resource.written());
            let key = if resource.uri.is_some() { "/uri" } else { "/template" };
            problems.push(Problem::error(source, Place::Pointer(key.into()), message));
        }
    }
}

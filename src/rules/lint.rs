//! What types cannot say: names that lead nowhere, claims that need to be made on purpose.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::{Files, credentials, keywords, offer, shown, upstream};
use crate::{
    catalog::{Catalog, LABEL_KEYWORD},
    identity::Clients,
    manifest::{
        BackendSpec, ClientSpec, Deliberate, Effects, HttpBackend, Label, Offer, Place, Problem, Source,
        ToolManifest, ToolName, Undo, join_pointer,
    },
    plan::urls_unsaid,
    schema::{self, Unbounded},
};

/// What is wrong with one manifest by itself.
pub(super) fn manifest(source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) {
    if !matches!(manifest.offer, Offer::Tool) {
        return offer::manifest(source, manifest, problems);
    }
    let deliberate = |choice| manifest.deliberately.contains(&choice);
    if manifest.input.get("type").and_then(Value::as_str) != Some("object") {
        let problem =
            Problem::error(source, Place::Pointer("/input".into()), "the input is not of `type: object`");
        problems.push(problem.help("MCP passes a tool's arguments as one object"));
    }
    match &manifest.backend {
        BackendSpec::Http(http) => {
            if !http.method.is_safe() && !deliberate(Deliberate::ReadsByOtherMethods) {
                unsafe_read(source, manifest, http, problems);
            }
            bindings(source, manifest, http, problems);
        }
        BackendSpec::Mcp(mcp) => upstream::tool(source, mcp, problems),
        BackendSpec::Own(_) => {} // of resources and prompts
    }
    if manifest.output.is_none() && !deliberate(Deliberate::UncheckedOutput) {
        let problem = Problem::error(source, Place::File, format!("`{}` has no `output`", manifest.tool));
        problems
            .push(problem.help("write the schema of its answers, or say `deliberately: [unchecked-output]`"));
    }
    if !deliberate(Deliberate::UnboundedInput) {
        unbounded(source, &manifest.input, problems);
    }
    if manifest.input.get("additionalProperties") != Some(&Value::Bool(false)) {
        let problem =
            Problem::warning(source, Place::Pointer("/input".into()), "the input lets any other argument in");
        problems.push(problem.help("say `additionalProperties: false`"));
    }
    if let Some(output) = &manifest.output {
        labels(source, "/output", &Value::Object(output.clone()), problems);
    }
    shown::check_tool(source, manifest, problems);
    keywords::check(source, manifest, problems);
    for at in urls_unsaid(&manifest.input, "/input") {
        let problem = Problem::warning(source, Place::Pointer(at), "nobody judges where this URL leads");
        problems.push(problem.help("say `x-egress: true` if the backend fetches it, or `x-egress: false`"));
    }
}

/// A tool that is said to change nothing, by a method that may.
fn unsafe_read(source: &Source, manifest: &ToolManifest, http: &HttpBackend, problems: &mut Vec<Problem>) {
    if manifest.effects == Effects::Read {
        let message = format!("`effects: read` with the method `{}`", http.method.as_str());
        let problem = Problem::error(source, Place::Pointer("/effects".into()), message);
        problems.push(problem.help("use GET or HEAD, or say `deliberately: [reads-by-other-methods]`"));
    }
}

/// Strings and arrays of an input without an upper bound.
fn unbounded(source: &Source, schema: &Map<String, Value>, problems: &mut Vec<Problem>) {
    for Unbounded { at, kind, keyword } in schema::unbounded(schema) {
        let place = Place::Pointer(format!("/input{at}"));
        let problem = Problem::warning(source, place, format!("a {kind} without an upper bound"));
        problems.push(
            problem
                .help(format!("say `{keyword}:`, or `deliberately: [unbounded-input]` for the whole tool")),
        );
    }
}

/// Labels that are none.
fn labels(source: &Source, pointer: &str, schema: &Value, problems: &mut Vec<Problem>) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                let below = join_pointer(pointer, name);
                if name == LABEL_KEYWORD {
                    let refusal = match value.as_str() {
                        Some(text) => Label::parse(text).err().map(|error| error.to_string()),
                        None => Some(format!("`{value}` is not a label")),
                    };
                    problems.extend(
                        refusal.map(|message| Problem::error(source, Place::Pointer(below.clone()), message)),
                    );
                }
                labels(source, &below, value, problems);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| {
                labels(source, &join_pointer(pointer, &at.to_string()), item, problems)
            });
        }
        _ => {}
    }
}

/// Every argument goes somewhere, and everything that goes is an argument.
fn bindings(source: &Source, manifest: &ToolManifest, http: &HttpBackend, problems: &mut Vec<Problem>) {
    let none = Map::new();
    let arguments = manifest.input.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let required: HashSet<&str> = manifest
        .input
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let known = |argument: &str| arguments.contains_key(argument);
    let mut bound: HashSet<&str> = HashSet::new();
    for slot in http.path.slots() {
        let place = Place::Pointer("/backend/http/path".into());
        if !known(slot) {
            problems.push(Problem::error(
                source,
                place,
                format!("the path names `{slot}`, which is no argument of the input"),
            ));
        } else if !required.contains(slot) {
            let problem = Problem::error(
                source,
                place,
                format!("the path needs `{slot}`, which is not a required argument"),
            );
            problems.push(problem.help(format!("add `{slot}` to `required`")));
        }
        bound.insert(slot);
    }
    for (key, binding) in [("query", &http.query), ("headers", &http.headers), ("body", &http.body)] {
        for (_, argument) in binding.iter() {
            if !known(argument) {
                let message = format!("`{key}` names `{argument}`, which is no argument of the input");
                problems.push(Problem::error(source, Place::below("/backend/http", key), message));
            }
            bound.insert(argument);
        }
    }
    for argument in arguments.keys().filter(|argument| !bound.contains(argument.as_str())) {
        let place = Place::Key(join_pointer("/input/properties", argument));
        let problem =
            Problem::error(source, place, format!("the argument `{argument}` is not sent anywhere"));
        problems.push(problem.help("bind it in the path, `query`, `headers` or `body`, or leave it out"));
    }
}

/// Names in one file that have to exist in another.
pub(super) fn references(files: &Files, problems: &mut Vec<Problem>) {
    let server = &files.server.1;
    for (source, manifest) in &files.tools {
        let service = manifest.backend.service();
        let (exists, what, key) = match &manifest.backend {
            BackendSpec::Http(_) => (server.services.contains_key(service), "service", "services"),
            BackendSpec::Mcp(_) => (server.upstreams.contains_key(service), "upstream", "upstreams"),
            BackendSpec::Own(_) => (true, "", ""),
        };
        if !exists {
            let place = Place::Pointer(manifest.backend.service_pointer().into());
            let problem = Problem::error(source, place, format!("there is no {what} `{service}`"));
            let path = files.server.0.path.display();
            problems.push(problem.help(format!("name it under `{key}:` in `{path}`")));
        }
        credentials::choice(files, source, manifest, problems);
        for (at, example) in manifest.examples.iter().enumerate() {
            if !files.clients.1.clients.contains_key(&example.client) {
                let place = Place::Pointer(format!("/examples/{at}/client"));
                problems.push(Problem::error(
                    source,
                    place,
                    format!("there is no client `{}`", example.client),
                ));
            }
        }
    }
    let tools: HashSet<&str> = files.tools.iter().map(|(_, manifest)| manifest.tool.as_str()).collect();
    let floors = &files.floors.1;
    for (word, accepted) in
        [("tool", &floors.tools), ("resource", &floors.resources), ("prompt", &floors.prompts)]
    {
        let offered: HashSet<&ToolName> = files
            .tools
            .iter()
            .filter(|(_, manifest)| manifest.offer.word() == word)
            .map(|(_, manifest)| manifest.offered())
            .collect();
        for name in accepted.keys().filter(|name| !offered.contains(name)) {
            let place = Place::Key(join_pointer(&format!("/{word}s"), name.as_str()));
            problems.push(Problem::warning(&files.floors.0, place, format!("there is no {word} `{name}`")));
        }
    }
    for (name, spec) in &server.credentials {
        for (at, tool) in spec.tools.iter().enumerate().filter(|(_, tool)| !tools.contains(tool.as_str())) {
            let place = Place::Pointer(format!("{}/tools/{at}", join_pointer("/credentials", name.as_str())));
            problems.push(Problem::warning(&files.server.0, place, format!("there is no tool `{tool}`")));
        }
    }
    if let Some(stdio) = &server.listen.stdio {
        let place = Place::Pointer("/listen/stdio/client".into());
        match files.clients.1.clients.get(&stdio.client) {
            None => problems.push(Problem::error(
                &files.server.0,
                place,
                format!("there is no client `{}`", stdio.client),
            )),
            Some(client) if !client.stdio => {
                let problem = Problem::error(
                    &files.server.0,
                    place,
                    format!("the client `{}` may not be claimed over stdio", stdio.client),
                );
                problems
                    .push(problem.help("set `stdio: true` for it, if a local process may claim to be it"));
            }
            Some(_) => {}
        }
    }
}

/// Whether an allowlist may name a URI that a template stands for, and not the template itself. Where both begin
/// alike, it may.
fn may_read_some(client: &ClientSpec, manifest: &ToolManifest) -> bool {
    let Offer::Resource(resource) = &manifest.offer else { return false };
    let Some(template) = &resource.template else { return false };
    fn start<'a>(text: &'a str, ends: &[char]) -> &'a str {
        text.split(ends).next().unwrap_or_default()
    }
    let own = start(template.as_str(), &['{']);
    client.resources.iter().any(|pattern| {
        let named = start(pattern, &['*', '?', '[', '{', '\\']);
        named.starts_with(own) || own.starts_with(named)
    })
}

/// Tools that nobody may call, and clients that may call nothing; resources and prompts likewise.
pub(super) fn unreachable(files: &Files, clients: &Clients, catalog: &Catalog, problems: &mut Vec<Problem>) {
    let nothing = if files.tools.iter().all(|(_, manifest)| matches!(manifest.offer, Offer::Tool)) {
        "no tools"
    } else {
        "no tools, resources or prompts"
    };
    let mut reached = HashSet::new();
    for client in clients.iter() {
        let mut own: HashSet<_> = catalog.allowed_all(client).map(|tool| tool.name().clone()).collect();
        let is_visible =
            |manifest: &ToolManifest| catalog.tool(&manifest.tool).is_some_and(|tool| tool.is_visible());
        let manifests = files.tools.iter().map(|(_, manifest)| manifest);
        let templates = manifests.filter(|it| is_visible(it) && may_read_some(client.spec(), it));
        own.extend(templates.map(|manifest| manifest.tool.clone()));
        if own.is_empty() {
            let place = Place::Key(join_pointer("/clients", client.name().as_str()));
            let message = format!("the client `{}` has {nothing}", client.name());
            problems.push(Problem::warning(&files.clients.0, place, message));
        }
        reached.extend(own);
    }
    for (source, manifest) in &files.tools {
        let visible = catalog.tool(&manifest.tool).is_some_and(|tool| tool.is_visible());
        if visible && !reached.contains(&manifest.tool) {
            let word = manifest.offer.word();
            let verb = match manifest.offer {
                Offer::Tool => "call",
                Offer::Resource(_) => "read",
                Offer::Prompt(_) => "get",
            };
            let message = format!("no client may {verb} `{}`", manifest.offered());
            let problem = Problem::warning(source, Place::Pointer(format!("/{word}")), message);
            let path = files.clients.0.path.display();
            problems.push(problem.help(format!("add it to a client's `{word}s` in `{path}`")));
        }
    }
}

/// An `undo` names a tool, and gives it arguments of the right types.
pub(super) fn undo(files: &Files, problems: &mut Vec<Problem>) {
    let tools: BTreeMap<&str, &ToolManifest> =
        files.tools.iter().map(|(_, manifest)| (manifest.tool.as_str(), manifest)).collect();
    for (source, manifest) in &files.tools {
        let Some(undo) = &manifest.undo else { continue };
        match tools.get(undo.tool.as_str()) {
            Some(target) => undo_arguments(source, manifest, undo, target, problems),
            None => {
                let message = format!("there is no tool `{}`", undo.tool);
                problems.push(Problem::error(source, Place::Pointer("/undo/tool".into()), message));
            }
        }
    }
}

fn undo_arguments(
    source: &Source,
    manifest: &ToolManifest,
    undo: &Undo,
    target: &ToolManifest,
    problems: &mut Vec<Problem>,
) {
    let none = Map::new();
    let wanted = target.input.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let required = target
        .input
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    for missing in required.filter(|name| !undo.arguments.contains_key(*name)) {
        let message = format!("`{}` needs the argument `{missing}`", undo.tool);
        problems.push(Problem::error(source, Place::Key("/undo/arguments".into()), message));
    }
    for (name, pointer) in &undo.arguments {
        let place = Place::below("/undo/arguments", name);
        let Some(wants) = wanted.get(name) else {
            problems.push(Problem::error(source, place, format!("`{}` has no argument `{name}`", undo.tool)));
            continue;
        };
        let given = match pointer.split_once('/').and_then(|(_, rest)| rest.split_once('/')) {
            Some(("arguments", path)) => schema_at(&manifest.input, path),
            Some(("result", path)) => manifest.output.as_ref().and_then(|output| schema_at(output, path)),
            _ => None,
        };
        match given.map(|schema| schema.get("type")) {
            None => {
                let problem = Problem::error(
                    source,
                    place,
                    format!("`{pointer}` leads to nothing that a schema names"),
                );
                problems.push(problem.help("point below `/arguments` or `/result`, such as `/result/id`"));
            }
            Some(given) if given.is_some() && wants.get("type").is_some() && given != wants.get("type") => {
                problems.push(Problem::error(
                    source,
                    place,
                    format!("`{pointer}` has not the type of `{name}`"),
                ));
            }
            Some(_) => {}
        }
    }
}

/// The schema of a member of the values that a schema describes.
fn schema_at<'a>(schema: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut segments = path.split('/');
    let mut found = schema.get("properties")?.get(segments.next()?)?;
    for segment in segments {
        found = found.get("properties")?.get(segment)?;
    }
    Some(found)
}

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        credential::LiveSecrets,
        manifest::{ClientsFile, FloorsFile, read},
        rules::{Rules, Secrets},
    };

    const RESOURCE: &str = "resource: page\ntemplate: 'docs://{page}'\ndescription: d\nbackend: { mcp: { upstream: up, definition: 'sha256:0000000000000000000000000000000000000000000000000000000000000000' } }\n";
    const PROMPT: &str = "prompt: review\ndescription: d\narguments: [{ name: code, required: true }]\nbackend: { text: { messages: [{ role: user, text: 'Review {code}' }] } }\n";

    fn tool(path: &str, text: &str) -> (Source, ToolManifest) {
        let source = Source { path: path.into(), text: text.into() };
        let manifest = if text.starts_with("resource:") {
            read(&source).map(ResourceManifest::into_tool)
        } else {
            read(&source).map(PromptManifest::into_tool)
        };
        (source, manifest.unwrap())
    }

    fn build(manifests: Vec<(Source, ToolManifest)>, policy: &str, floors: &str) -> (Option<Rules>, String) {
        build_for(manifests, policy, floors, CLIENTS)
    }

    fn build_for(
        manifests: Vec<(Source, ToolManifest)>,
        policy: &str,
        floors: &str,
        clients: &str,
    ) -> (Option<Rules>, String) {
        fn typed<T: serde::de::DeserializeOwned>(path: &str, text: &str) -> (Source, T) {
            let source = Source { path: path.into(), text: text.into() };
            let value = read(&source).unwrap();
            (source, value)
        }
        let files = Files {
            server: typed(
                "callgate.yaml",
                "upstreams: { up: { http: { url: 'https://example.com/mcp' } } }\n",
            ),
            tools: manifests,
            clients: typed::<ClientsFile>("clients.yaml", clients),
            floors: typed::<FloorsFile>("tools.yaml", floors),
            policies: vec![Source { path: "p.cedar".into(), text: policy.into() }],
            cases: vec![],
        };
        let live = LiveSecrets::default();
        let (rules, problems) = Rules::build(&files, String::new(), Path::new(""), Secrets::Unread, &live);
        let said = problems.iter().map(|it| format!("{:?} {}", it.place, it.message));
        (rules, said.collect::<Vec<_>>().join("\n"))
    }

    const POLICY: &str = "permit (principal, action in Action::\"gate:read-resource\", resource) when { context.args.uri like \"docs://*\" };\npermit (principal, action == Action::\"prompt:review\", resource == Service::\"gate:project\") when { context.args.code != \"\" };";
    const CLIENTS: &str = "clients: { bot: { owner: dana, resources: ['docs://*'], prompts: ['*'] } }\n";

    #[test]
    fn policies_speak_of_resources_and_prompts() {
        let (rules, said) =
            build(vec![tool("r.yaml", RESOURCE), tool("p.yaml", PROMPT)], POLICY, "unlisted: trust-claims\n");
        assert_eq!(said, "");
        assert!(rules.is_some());
    }

    #[test]
    fn what_nobody_accepted_is_hidden_and_what_was_accepted_is_accepted_as_it_was() {
        let manifests = || vec![tool("r.yaml", RESOURCE), tool("p.yaml", PROMPT)];
        insta::assert_snapshot!(build(manifests(), "", "{}\n").1, @r#"
        Key("/clients/bot") the client `bot` has no tools, resources or prompts
        Pointer("/prompt") the prompt `review` is hidden from everybody: nobody accepted it
        Pointer("/resource") the resource `page` is hidden from everybody: nobody accepted it
        "#);
        let wrong = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
        let floors = format!(
            "resources: {{ page: {{ digest: '{wrong}' }} }}\nprompts: {{ review: {{ reach: external }}, gone: {{}} }}\n"
        );
        insta::assert_snapshot!(build(manifests(), "", &floors).1, @r#"
        Pointer("/reach") `review` claims `reach: none`, weaker than the accepted `external`
        Pointer("/resource") the definition of `page` is not the one that was accepted
        Key("/clients/bot") the client `bot` has no tools, resources or prompts
        Key("/prompts/gone") there is no prompt `gone`
        "#);
    }

    #[test]
    fn a_client_that_may_read_a_page_or_get_a_prompt_has_something() {
        let said = |allowlist: &str| {
            let clients = format!("clients: {{ bot: {{ owner: dana, {allowlist} }} }}\n");
            let manifests = vec![tool("r.yaml", RESOURCE), tool("p.yaml", PROMPT)];
            build_for(manifests, "", "unlisted: trust-claims\n", &clients).1
        };
        let (page, prompt) = (
            "Pointer(\"/resource\") no client may read `page`",
            "Pointer(\"/prompt\") no client may get `review`",
        );
        assert_eq!(said("resources: ['docs://7']"), prompt);
        assert_eq!(said("resources: ['d*']"), prompt);
        assert_eq!(said("prompts: [review]"), page);
        let nothing = "Key(\"/clients/bot\") the client `bot` has no tools, resources or prompts";
        for allowlist in ["resources: ['other://7']", "tools: ['*']", "prompts: [revi]"] {
            assert_eq!(said(allowlist), format!("{nothing}\n{prompt}\n{page}"), "{allowlist}");
        }
    }

    #[test]
    fn everything_that_is_wrong_with_an_offer_is_said_at_once() {
        let mut said = Vec::new();
        for text in [
            RESOURCE.replace("template:", "uri: 'docs://a'\ntemplate:"),
            RESOURCE.replace("template: 'docs://{page}'\n", ""),
            RESOURCE.replace("{page}", "{page}/{page}"),
            RESOURCE.replace("mcp: { upstream: up, definition: 'sha256:0000000000000000000000000000000000000000000000000000000000000000' }", "file: { path: a }"),
            RESOURCE.replace("description: d", "description: \"d\\u202E\""),
            PROMPT.replace("{code}", "{coed}"),
            PROMPT.replace("{ name: code, required: true }", "{ name: code }, { name: code }"),
            PROMPT.replace("description: d", "description: ' '\ncredential: key"),
        ] {
            said.push(build(vec![tool("a.yaml", &text)], "", "unlisted: trust-claims\n").1);
        }
        let twice = vec![tool("a.yaml", RESOURCE), tool("b.yaml", &RESOURCE.replace("page\n", "other\n"))];
        said.push(build(twice, "", "unlisted: trust-claims\n").1);
        insta::assert_snapshot!(said.join("\n--\n").replace("\nKey(\"/clients/bot\") the client `bot` has no tools, resources or prompts", ""), @r#"
        Key("/template") `page` has both `uri` and `template`: keep the one that is meant
        --
        File `page` has neither `uri` nor `template`
        --
        Pointer("/template") the variable `page` stands there twice
        --
        Key("/backend/file") one file has one `uri`
        --
        Pointer("/description") the text holds 1 bidi control, which no reader sees
        --
        Pointer("/backend/text/messages/0/text") `{coed}` is no argument
        Pointer("/arguments/0") no message holds the argument `code`
        --
        Pointer("/arguments/1/name") there are two arguments `code`
        --
        Pointer("/description") the `description` is empty
        Key("/credential") nobody is shown the credential
        Pointer("/credential") there is no credential `key`
        --
        Pointer("/template") `docs://{page}` is the resource `page` already
        "#);
    }
}

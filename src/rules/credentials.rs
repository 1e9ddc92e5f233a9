//! Credentials and vaults: that what they name exists, and that they say what they need to.

use std::collections::HashSet;

use super::{Files, egress::check_way};
use crate::{
    credential::SECRET_BYTES_MIN,
    egress::is_localhost,
    manifest::{
        BaseUrl, CredentialKind, CredentialName, Place, Problem, SecretRef, Source, ToolManifest, ToolName,
        VaultSpec, is_this_machine, join_pointer,
    },
    plan::HttpPlan,
};

/// Every credential and every vault by itself.
pub(super) fn check(files: &Files, problems: &mut Vec<Problem>) {
    let (source, server) = &files.server;
    for (name, spec) in &server.vaults {
        vault(source, &join_pointer("/vaults", name.as_str()), spec, problems);
    }
    let tools: HashSet<&ToolName> = files.tools.iter().map(|(_, manifest)| &manifest.tool).collect();
    for (name, spec) in &server.credentials {
        let pointer = format!("{}/as", join_pointer("/credentials", name.as_str()));
        for (key, reference) in spec.kind.secrets() {
            let SecretRef::Vault(reference) = reference else { continue };
            if !server.vaults.contains_key(&reference.vault) {
                let place = Place::Pointer(format!("{pointer}/{key}"));
                let problem =
                    Problem::error(source, place, format!("there is no vault `{}`", reference.vault));
                problems.push(problem.help("name it under `vaults:`"));
            }
        }
        kind(files, name, &pointer, &spec.kind, &tools, problems);
    }
}

fn vault(source: &Source, pointer: &str, spec: &VaultSpec, problems: &mut Vec<Problem>) {
    check_way(source, pointer, "the vault", ("url", spec.url.url()), &spec.egress, problems);
    unencrypted(source, format!("{pointer}/url"), &spec.url, problems);
    if spec.token.is_some() == spec.app_role.is_some() {
        let message = "a vault has either a `token` or an `app-role`";
        problems.push(Problem::error(source, Place::Key(pointer.to_owned()), message));
    }
    let own = spec.token.iter().map(|token| ("token", token));
    let own = own.chain(spec.app_role.iter().map(|role| ("app-role/secret-id", &role.secret_id)));
    for (key, _) in own.filter(|(_, reference)| matches!(reference, SecretRef::Vault(_))) {
        let place = Place::Pointer(format!("{pointer}/{key}"));
        let problem = Problem::error(source, place, "what opens a vault cannot be in one");
        problems.push(problem.help("name it by `env:NAME` or `file:PATH`"));
    }
}

fn kind(
    files: &Files,
    name: &CredentialName,
    pointer: &str,
    kind: &CredentialKind,
    tools: &HashSet<&ToolName>,
    problems: &mut Vec<Problem>,
) {
    let (source, server) = &files.server;
    let below = |key: &str| Place::Pointer(format!("{pointer}/{}/{key}", kind.word()));
    if matches!(kind, CredentialKind::Query { .. }) {
        let message = format!("the credential `{name}` stands in the URL, which servers and proxies log");
        let problem = Problem::warning(source, Place::Key(format!("{pointer}/query")), message);
        problems.push(problem.help("use `bearer` or `header`, if the service takes one"));
    }
    if matches!(kind, CredentialKind::Certificate { .. }) {
        let service = server.credentials.get(name).and_then(|spec| server.services.get(&spec.service));
        if service.is_some_and(|service| service.url.url().scheme() != "https") {
            let message = "a certificate is shown over `https` only, and the service's URL is `http`";
            problems.push(Problem::error(source, Place::Key(format!("{pointer}/certificate")), message));
        }
    }
    let Some(spec) = kind.token_request() else { return };
    let at = format!("{pointer}/{}", kind.word());
    check_way(source, &at, "the token endpoint", ("token-url", spec.token_url.url()), spec.egress, problems);
    unencrypted(source, format!("{at}/token-url"), spec.token_url, problems);
    let proof = match (spec.secret, spec.key, spec.alg, spec.auth) {
        (Some(_), None, None, _) | (None, Some(_), Some(_), None) => None,
        (Some(_), Some(_), ..) | (None, None, ..) => Some("a client has either a `secret` or a `key`"),
        (Some(_), None, Some(_), _) => Some("`alg` goes with a `key`, and there is none"),
        (None, Some(_), None, _) => Some("a `key` needs its `alg`"),
        (None, Some(_), Some(_), Some(_)) => Some("`auth` goes with a `secret`, and there is none"),
    };
    problems.extend(proof.map(|message| Problem::error(source, Place::Key(at.clone()), message)));
    if spec.client.is_empty() {
        problems.push(Problem::error(source, below("client"), "the `client` is empty"));
    }
    for tool in spec.scopes.tools().filter(|tool| !tools.contains(tool)) {
        let message = format!("there is no tool `{tool}`");
        problems.push(Problem::warning(
            source,
            Place::Key(join_pointer(&format!("{at}/scopes"), tool.as_str())),
            message,
        ));
    }
}

/// A secret so short that answers and logs are not searched for it. Vaults are held under names of their own.
pub(super) fn too_short(files: &Files, held_as: &str) -> Option<Problem> {
    let (source, server) = &files.server;
    let credential = server.credentials.keys().find(|name| name.as_str() == held_as);
    let vault = server.vaults.keys().find(|name| format!("vault {name}") == held_as);
    let (pointer, what) = match (credential, vault) {
        (Some(name), _) => (join_pointer("/credentials", name.as_str()), format!("the credential `{name}`")),
        (None, Some(name)) => (join_pointer("/vaults", name.as_str()), format!("the vault `{name}`")),
        (None, None) => return None,
    };
    let message = format!(
        "a secret of {what} has less than {SECRET_BYTES_MIN} bytes: answers and logs are not searched for it"
    );
    Some(Problem::warning(source, Place::Key(pointer), message).help("use a longer one"))
}

/// A URL that secrets are sent to in the clear, over a network.
fn unencrypted(source: &Source, pointer: String, url: &BaseUrl, problems: &mut Vec<Problem>) {
    let url = url.url();
    if url.scheme() != "https" && !is_this_machine(url, is_localhost) {
        let problem = Problem::warning(source, Place::Pointer(pointer), "secrets are sent here in the clear");
        problems.push(problem.help("use `https`"));
    }
}

/// The credentials that a tool names exist, and serve it; the clients that it names exist.
pub(super) fn choice(files: &Files, source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) {
    let Some(choice) = &manifest.credential else { return };
    let path = files.server.0.path.display();
    for (below, client, name) in choice.named() {
        let place = || Place::Pointer(format!("/credential{below}"));
        match files.server.1.credentials.get(name) {
            None => {
                let problem = Problem::error(source, place(), format!("there is no credential `{name}`"));
                problems.push(problem.help(format!("name it under `credentials:` in `{path}`")));
            }
            Some(spec) if !spec.serves().any(|name| name == manifest.tool) => {
                let message = format!("the credential `{name}` does not list `{}`", manifest.offered());
                let problem = Problem::error(source, place(), message);
                problems.push(
                    problem
                        .help(format!("add it to the credential's `{}s` in `{path}`", manifest.offer.word())),
                );
            }
            Some(spec) if spec.service != *manifest.backend.service() => {
                let message = format!("the credential `{name}` belongs to the service `{}`", spec.service);
                problems.push(Problem::error(source, place(), message));
            }
            Some(_) => {}
        }
        if let Some(client) = client.filter(|client| !files.clients.1.clients.contains_key(*client)) {
            let place = Place::Key(format!("/credential{below}"));
            problems.push(Problem::error(source, place, format!("there is no client `{client}`")));
        }
    }
}

/// An argument and a credential of a tool that would set the same header or parameter.
pub(super) fn clash(
    files: &Files,
    source: &Source,
    manifest: &ToolManifest,
    plan: &HttpPlan,
    problems: &mut Vec<Problem>,
) {
    let mut seen = HashSet::new();
    for (_, _, name) in manifest.credential.iter().flat_map(|choice| choice.named()) {
        let Some(spec) = files.server.1.credentials.get(name).filter(|_| seen.insert(name)) else {
            continue; // a missing one is a problem of its own
        };
        if let Some(place) = plan.clash(&spec.kind) {
            let message = format!("`{place}` is set by the credential `{name}`, and by an argument too");
            problems.push(Problem::error(source, Place::Pointer("/backend/http".into()), message));
        }
    }
}

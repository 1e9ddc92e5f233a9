//! Whose tokens are taken: what `callgate.yaml` and `clients.yaml` say of issuers, held against each other.

use std::collections::{HashMap, HashSet};

use super::{Files, egress::check_way};
use crate::{
    egress::is_localhost,
    manifest::{
        ClientName, ClientSpec, IdentitySpec, IssuerSpec, Place, Problem, SigningAlgorithm, Source,
        is_this_machine, join_pointer,
    },
};

/// Everything that the two files say of tokens fits together.
pub(super) fn check(files: &Files, problems: &mut Vec<Problem>) {
    let (source, server) = &files.server;
    let spec = &server.identity;
    if spec.resource.is_none() && (spec.tokens.is_some() || !spec.issuers.is_empty()) {
        let problem = Problem::error(
            source,
            Place::Key("/identity".into()),
            "`identity` takes tokens, and has no `resource`",
        );
        problems.push(problem.help(
            "write the URL of the endpoint as clients know it, such as `https://gate.example.com/mcp`: tokens are for it",
        ));
    }
    check_issuers(source, spec, problems);
    for (name, client) in &files.clients.1.clients {
        check_client(files, name, client, problems);
    }
}

fn check_issuers(source: &Source, spec: &IdentitySpec, problems: &mut Vec<Problem>) {
    let own = spec.own_issuer();
    let mut seen: HashMap<&str, &str> = own.as_deref().map(|own| (own, "tokens")).into_iter().collect();
    for (name, issuer) in &spec.issuers {
        let pointer = join_pointer("/identity/issuers", name.as_str());
        let what = format!("the key set of issuer `{name}`");
        check_way_of_keys(source, &pointer, &what, issuer, problems);
        let mut refuse = |below: &str, message: String, help: &str| {
            let place = Place::Pointer(format!("{pointer}/{below}"));
            problems.push(Problem::error(source, place, message).help(help.to_owned()));
        };
        if let Some(other) = seen.insert(&issuer.issuer, name.as_str()) {
            refuse(
                "issuer",
                format!("`{}` is already the issuer of `{other}`", issuer.issuer),
                "an issuer is named once",
            );
        }
        if issuer.issuer.is_empty() {
            refuse("issuer", "the issuer is empty".into(), "it is what its tokens say as `iss`");
        }
        if issuer.types.is_empty() {
            refuse("types", "no type of token is taken".into(), "leave it out for `at+jwt` (RFC 9068)");
        }
        if issuer.algorithms.is_empty() {
            refuse("algorithms", "no algorithm is taken".into(), "name those that the issuer signs with");
        }
        let mut kinds = HashSet::new();
        for algorithm in issuer.algorithms.iter().filter(|algorithm| !kinds.insert(kind(**algorithm))) {
            refuse(
                "algorithms",
                format!("`{algorithm:?}` is a second algorithm for keys of one kind"),
                "a key is used with one algorithm alone (RFC 8725 §3.1): name the one that the issuer signs with",
            );
        }
    }
}

/// Keys decide who is let in: they come over TLS, or from this machine.
fn check_way_of_keys(
    source: &Source,
    pointer: &str,
    what: &str,
    issuer: &IssuerSpec,
    problems: &mut Vec<Problem>,
) {
    let url = issuer.jwks.url();
    check_way(source, pointer, what, ("jwks", url), &issuer.egress, problems);
    if url.scheme() != "https" && !is_this_machine(url, is_localhost) {
        let message = format!("{what} is fetched over `http`, where anybody on the way can put in a key");
        let problem = Problem::error(source, Place::Pointer(format!("{pointer}/jwks")), message);
        problems.push(problem.help("name an `https` URL"));
    }
}

/// The kinds of keys that algorithms are for.
const fn kind(algorithm: SigningAlgorithm) -> &'static str {
    use SigningAlgorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match algorithm {
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => "RSA",
        ES256 => "P-256",
        ES384 => "P-384",
        EdDSA => "Ed25519",
    }
}

fn check_client(files: &Files, name: &ClientName, client: &ClientSpec, problems: &mut Vec<Problem>) {
    let spec = &files.server.1.identity;
    let (source, pointer) = (&files.clients.0, join_pointer("/clients", name.as_str()));
    for (at, token) in client.tokens.iter().enumerate() {
        if !spec.issuers.contains_key(&token.issuer) {
            let place = Place::Pointer(format!("{pointer}/tokens/{at}/issuer"));
            let message = format!("there is no issuer `{}`", token.issuer);
            let help = format!("name it under `identity: issuers:` in `{}`", files.server.0.path.display());
            problems.push(Problem::error(source, place, message).help(help));
        }
    }
    let mut warn = |below: &str, message: String, help: &str| {
        let place = Place::Pointer(format!("{pointer}/{below}"));
        problems.push(Problem::warning(source, place, message).help(help.to_owned()));
    };
    if spec.tokens.is_none() && !client.assertion_keys.is_empty() {
        let help = "say `identity: tokens: {}` in `callgate.yaml`";
        warn("assertion-keys", format!("`{name}` has keys for a token endpoint, and there is none"), help);
    }
    if spec.tokens.is_none() && client.acts_for_users {
        let help = "say `identity: tokens: {}` in `callgate.yaml`";
        warn(
            "acts-for-users",
            format!("`{name}` may act for users by a token endpoint, and there is none"),
            help,
        );
    }
    let brings_roles = client
        .tokens
        .iter()
        .any(|token| spec.issuers.get(&token.issuer).is_some_and(|issuer| issuer.claims.roles.is_some()));
    if !client.token_roles.is_empty() && !brings_roles {
        let help = "say `claims: { roles: … }` of its issuer in `callgate.yaml`";
        warn("token-roles", format!("no token of `{name}` brings roles along"), help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    fn said(server: &str, clients: &str) -> String {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let (server, clients) = (source("callgate.yaml", server), source("clients.yaml", clients));
        let files = Files {
            server: (server.clone(), read(&server).unwrap()),
            tools: vec![],
            clients: (clients.clone(), read(&clients).unwrap()),
            floors: (server.clone(), crate::manifest::FloorsFile::default()),
            policies: vec![],
            cases: vec![],
        };
        let mut problems = Vec::new();
        check(&files, &mut problems);
        let said = problems.iter().map(|it| format!("{:?} {:?} {}", it.severity, it.place, it.message));
        said.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_fits_together_is_not_spoken_of() {
        let server = "identity:\n  resource: https://gate.example.com/mcp\n  tokens: {}\n  issuers:\n    corp: { issuer: https://id.example.com, jwks: https://id.example.com/keys, algorithms: [RS256, ES256], claims: { roles: groups } }\n";
        let clients = "clients: { bot: { owner: o, acts-for-users: true, token-roles: [lead], tokens: [{ issuer: corp, client: bot }] } }";
        assert_eq!(said(server, clients), "");
    }

    #[test]
    fn an_issuer_that_could_not_be_trusted_or_understood_does_not_load() {
        let server = "identity:\n  tokens: { issuer: https://id.example.com }\n  issuers:\n    corp: { issuer: https://id.example.com, jwks: http://id.example.com/keys, algorithms: [RS256, PS256], types: [] }\n    empty: { issuer: '', jwks: http://127.0.0.1:9/keys, algorithms: [] }\n";
        insta::assert_snapshot!(said(server, "clients: {}"), @r#"
        Error Key("/identity") `identity` takes tokens, and has no `resource`
        Error Pointer("/identity/issuers/corp/jwks") the key set of issuer `corp` is fetched over `http`, where anybody on the way can put in a key
        Error Pointer("/identity/issuers/corp/issuer") `https://id.example.com` is already the issuer of `tokens`
        Error Pointer("/identity/issuers/corp/types") no type of token is taken
        Error Pointer("/identity/issuers/corp/algorithms") `PS256` is a second algorithm for keys of one kind
        Error Pointer("/identity/issuers/empty/jwks") the key set of issuer `empty`: the address is loopback (127.0.0.0/8, RFC 1122), which the service's egress does not allow
        Error Pointer("/identity/issuers/empty/issuer") the issuer is empty
        Error Pointer("/identity/issuers/empty/algorithms") no algorithm is taken
        "#);
    }

    #[test]
    fn a_client_of_an_issuer_that_is_not_there_does_not_load() {
        let clients = "clients: { bot: { owner: o, acts-for-users: true, token-roles: [lead], tokens: [{ issuer: corp, client: bot }] } }";
        insta::assert_snapshot!(said("name: x\n", clients), @r#"
        Error Pointer("/clients/bot/tokens/0/issuer") there is no issuer `corp`
        Warning Pointer("/clients/bot/acts-for-users") `bot` may act for users by a token endpoint, and there is none
        Warning Pointer("/clients/bot/token-roles") no token of `bot` brings roles along
        "#);
    }
}

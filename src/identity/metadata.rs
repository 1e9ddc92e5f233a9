//! What the server tells of itself to whoever asks for tokens (RFC 9728, RFC 8414).

use serde_json::{Value, json};

use super::own::{AUTHORIZATION_PATH, JWKS_PATH, REVOKE_PATH, TOKEN_PATH, beside};
use crate::manifest::{IdentitySpec, ResourceUrl, Scope};

/// Where a protected resource is described (RFC 9728 §3).
const RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// Where an authorization server is described (RFC 8414 §3).
const SERVER: &str = "/.well-known/oauth-authorization-server";

/// What the server tells of itself, worked out once.
#[derive(Debug, Default)]
pub struct Metadata {
    /// The paths of a `GET`, and what is there.
    documents: Vec<(String, Value)>,
    /// What a challenge says besides its error.
    challenge: String,
    issues_tokens: bool,
}

impl Metadata {
    pub(super) fn new(spec: &IdentitySpec) -> Self {
        let Some(resource) = &spec.resource else { return Self::default() };
        let scopes: Vec<&str> = spec.scopes.iter().map(Scope::as_str).collect();
        let own = spec.own_issuer();
        let servers = spec.issuers.values().map(|issuer| issuer.issuer.clone()).chain(own.clone());
        let mut described = json!({
            "resource": resource.as_str(),
            "authorization_servers": servers.collect::<Vec<_>>(),
            "bearer_methods_supported": ["header"],
            "resource_name": "callgate",
        });
        if !scopes.is_empty() {
            put(&mut described, "scopes_supported", json!(scopes));
        }
        let path = resource.url().path().trim_end_matches('/');
        let mut documents = vec![(format!("{RESOURCE}{path}"), described.clone())];
        if !path.is_empty() {
            documents.push((RESOURCE.to_owned(), described));
        }
        if let Some(issuer) = own {
            let path =
                issuer.parse::<ResourceUrl>().map(|url| url.url().path().trim_end_matches('/').to_owned());
            documents
                .push((format!("{SERVER}{}", path.unwrap_or_default()), server(&issuer, resource, &scopes)));
        }
        let mut challenge =
            format!(", resource_metadata=\"{}\"", beside(resource, &format!("{RESOURCE}{path}")));
        if !scopes.is_empty() {
            challenge.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
        }
        Self { documents, challenge, issues_tokens: spec.tokens.is_some() }
    }

    /// What is at a path, where something is.
    #[must_use]
    pub fn document(&self, path: &str) -> Option<&Value> {
        self.documents.iter().find(|(known, _)| known == path).map(|(_, document)| document)
    }

    /// Whether there is a token endpoint.
    #[must_use]
    pub const fn issues_tokens(&self) -> bool {
        self.issues_tokens
    }

    /// What the server's own tokens say as `iss`, where it issues any.
    #[must_use]
    pub fn own_issuer(&self) -> Option<&str> {
        let (_, described) = self.documents.iter().find(|(path, _)| path.starts_with(SERVER))?;
        described.get("issuer")?.as_str()
    }

    /// What a challenge says besides its error: where the resource is described, and the scopes to ask for.
    #[must_use]
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// What a challenge for other scopes says besides its error.
    #[must_use]
    pub fn challenge_for(&self, scopes: &[String]) -> String {
        // Scope tokens hold neither `"` nor `\` (RFC 6749 §3.3).
        let place = self.challenge.split(", scope=").next().unwrap_or_default();
        format!("{place}, scope=\"{}\"", scopes.join(" "))
    }
}

/// RFC 8414 §2.
fn server(issuer: &str, resource: &ResourceUrl, scopes: &[&str]) -> Value {
    let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"];
    let algorithms = ["RS256", "ES256", "ES384", "EdDSA"];
    let mut described = json!({
        "issuer": issuer,
        "authorization_endpoint": beside(resource, AUTHORIZATION_PATH),
        "token_endpoint": beside(resource, TOKEN_PATH),
        "revocation_endpoint": beside(resource, REVOKE_PATH),
        "jwks_uri": beside(resource, JWKS_PATH),
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "tls_client_certificate_bound_access_tokens": true,
    });
    if !scopes.is_empty() {
        put(&mut described, "scopes_supported", json!(scopes));
    }
    described
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

//! Credentials: secrets that the gate holds for services, and leases on them.
//!
//! A secret enters by a reference, is held in [`secrecy::SecretString`], and
//! leaves only inside a request, put there by a [`Lease`]. No message, no `Debug`
//! and no file holds it. A caller's own token is not even known here: what a
//! lease is asked with are names.

mod certificate;
mod endpoint;
mod error;
#[cfg(test)]
mod fixture;
mod lease;
mod live;
mod local;
mod scan;
mod secret;
mod signer;
mod slot;
mod source;
mod timing;
mod token;
mod vault;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;

use self::{
    certificate::CertificateSource,
    lease::{Place, Presentation, Shown},
    live::HeldSecret,
    secret::Environment,
    source::{Places, Source},
    timing::Timing,
    token::{TokenSource, Tokens},
    vault::Vault,
};
use crate::{
    egress::Egress,
    manifest::{
        CredentialKind, CredentialName, CredentialSpec, SecretRef, ServiceName, ToolName, VaultName,
        VaultSpec,
    },
};

pub use error::{CredentialError, EndpointError};
pub use lease::Lease;
pub use live::{LiveSecret, LiveSecrets};
pub use scan::{FoundSecret, SECRET_BYTES_MIN};

/// How long giving everything back may take when the process ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The credentials whose secrets could be read.
#[derive(Debug)]
pub struct Credentials {
    held: BTreeMap<CredentialName, Held>,
    vaults: BTreeMap<VaultName, Arc<Vault>>,
    tokens: Tokens,
    live: LiveSecrets,
}

/// A credential: where its secret comes from, and whom it may serve.
#[derive(Debug)]
struct Held {
    service: ServiceName,
    tools: BTreeSet<ToolName>,
    origin: Origin,
}

/// Where what is shown comes from.
#[derive(Debug)]
enum Origin {
    Secret(Source<Presentation>),
    Token(Arc<TokenSource>),
    Certificate(CertificateSource),
}

/// What a lease is asked for with.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// The tool that is called.
    pub tool: &'a ToolName,
    /// The service that it is sent to.
    pub service: &'a ServiceName,
    /// The credential.
    pub name: &'a CredentialName,
    /// The client that calls.
    pub client: &'a str,
    /// The user that it calls for: the issuer, and the subject there.
    pub user: Option<(&'a str, &'a str)>,
    /// Until when the call can wait.
    pub deadline: Instant,
}

/// What of the files could not be held, by where it stands.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Holder {
    /// A credential.
    Credential(CredentialName),
    /// A vault.
    Vault(VaultName),
}

/// Reads a secret that is no credential; a file is relative to `base_dir`.
///
/// # Errors
/// When there is none, or others can read it.
pub fn read_secret(reference: &SecretRef, base_dir: &Path) -> Result<SecretString, CredentialError> {
    secret::read(reference, base_dir, &|variable| std::env::var_os(variable))
}

impl Credentials {
    /// Reads the secrets that `specs` refer to; files are relative to `base_dir`. Every secret is in `live` for as
    /// long as it is held.
    ///
    /// What can be held is held, and everything that cannot is reported. Vaults and token endpoints are not asked yet.
    #[must_use]
    pub fn resolve(
        specs: &BTreeMap<CredentialName, CredentialSpec>,
        vaults: &BTreeMap<VaultName, VaultSpec>,
        base_dir: &Path,
        live: &LiveSecrets,
    ) -> (Self, Vec<(Holder, CredentialError)>) {
        let environment = |variable: &str| std::env::var_os(variable);
        Self::resolve_with(specs, vaults, base_dir, &environment, live, Timing::REAL)
    }

    fn resolve_with(
        specs: &BTreeMap<CredentialName, CredentialSpec>,
        vault_specs: &BTreeMap<VaultName, VaultSpec>,
        base_dir: &Path,
        environment: Environment<'_>,
        live: &LiveSecrets,
        timing: Timing,
    ) -> (Self, Vec<(Holder, CredentialError)>) {
        let mut problems = Vec::new();
        let mut vaults = BTreeMap::new();
        for (name, spec) in vault_specs {
            match Vault::new(name, spec, base_dir, environment, live, timing) {
                Ok(vault) => {
                    vaults.insert(name.clone(), vault);
                }
                Err(error) => problems.push((Holder::Vault(name.clone()), error)),
            }
        }
        let mut held = BTreeMap::new();
        for (name, spec) in specs {
            let places = Places { name: name.as_str(), base_dir, environment, vaults: &vaults, live, timing };
            match Held::new(name, spec, &places) {
                Ok(credential) => {
                    held.insert(name.clone(), credential);
                }
                // A vault that cannot be held is a problem of its own.
                Err(CredentialError::NoVault { vault }) if vault_specs.contains_key(&vault) => {}
                Err(error) => problems.push((Holder::Credential(name.clone()), error)),
            }
        }
        (Self { held, vaults, tokens: Tokens::new(), live: live.clone() }, problems)
    }

    /// Lends a credential to one call of a tool. What is not at hand is got, over `egress`.
    ///
    /// # Errors
    /// When the credential does not exist, does not list the tool, belongs to another service, or cannot be got in
    /// time.
    pub async fn lease(&self, egress: &Egress, request: LeaseRequest<'_>) -> Result<Lease, CredentialError> {
        let LeaseRequest { tool, service, name, .. } = request;
        let held = self.held.get(name).ok_or_else(|| CredentialError::Unknown { name: name.clone() })?;
        if !held.tools.contains(tool) {
            return Err(CredentialError::NotForTool { name: name.clone(), tool: tool.clone() });
        }
        if held.service != *service {
            return Err(CredentialError::NotForService {
                name: name.clone(),
                service: service.clone(),
                belongs_to: held.service.clone(),
            });
        }
        let shown = tokio::time::timeout_at(request.deadline.into(), self.show(held, egress, &request));
        let shown = shown.await.unwrap_or(Err(CredentialError::Waited))?;
        Ok(Lease::new(name.clone(), shown))
    }

    async fn show(
        &self,
        held: &Held,
        egress: &Egress,
        request: &LeaseRequest<'_>,
    ) -> Result<Shown, CredentialError> {
        match &held.origin {
            Origin::Secret(source) => {
                let (presentation, doubt) = source.current(egress, request.deadline).await?;
                Ok(Shown::Secret(presentation, doubt))
            }
            Origin::Token(source) => {
                let (slot, token) = source.get(&self.tokens, egress, request).await?;
                Ok(Shown::Token(slot, token))
            }
            Origin::Certificate(source) => {
                source.current(egress, request.deadline).await.map(Shown::Certificate)
            }
        }
    }

    /// Has a credential be got anew that the service refused with 401, for the calls that come.
    pub fn reject(&self, lease: &Lease) {
        lease.reject();
    }

    /// The same, for this call; none where the service would be shown the same again, or nothing is to be had.
    pub async fn renew(&self, egress: &Egress, request: LeaseRequest<'_>, refused: &Lease) -> Option<Lease> {
        refused.reject();
        let renewed = self.lease(egress, request).await.ok()?;
        (!renewed.shows_the_same(refused)).then_some(renewed)
    }

    /// Gives back what vaults have lent, as far as they can be reached soon.
    pub async fn close(&self, egress: &Egress) {
        let closing = self.vaults.values().map(|vault| vault.close(egress));
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, futures::future::join_all(closing)).await;
    }

    /// The secrets that are held right now.
    #[must_use]
    pub const fn live(&self) -> &LiveSecrets {
        &self.live
    }
}

impl Held {
    fn new(
        name: &CredentialName,
        spec: &CredentialSpec,
        places: &Places<'_>,
    ) -> Result<Self, CredentialError> {
        Ok(Self {
            service: spec.service.clone(),
            tools: spec.serves().collect(),
            origin: Origin::new(name, &spec.kind, places)?,
        })
    }
}

impl Origin {
    fn new(
        name: &CredentialName,
        kind: &CredentialKind,
        places: &Places<'_>,
    ) -> Result<Self, CredentialError> {
        let place = Place::of(kind)?;
        if let Some(spec) = kind.token_request() {
            return TokenSource::new(name, &spec, places).map(Self::Token);
        }
        match kind {
            CredentialKind::Certificate { certificate, key } => {
                CertificateSource::new(certificate, key, places).map(Self::Certificate)
            }
            CredentialKind::Bearer { secret }
            | CredentialKind::Basic { secret, .. }
            | CredentialKind::Header { secret, .. }
            | CredentialKind::Query { secret, .. } => {
                let named = secret.clone();
                let make = move |held: HeldSecret| match &place {
                    Some(place) => Presentation::new(place, &named, held),
                    None => Err(CredentialError::Spec("the credential has no place in a request")),
                };
                Source::new(secret, places, Box::new(make)).map(Self::Secret)
            }
            CredentialKind::ClientCredentials(_) | CredentialKind::TokenExchange(_) => {
                Err(CredentialError::Spec("the credential is not got by a token"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "hunter2-is-the-secret";

    fn specs(kind: serde_json::Value) -> BTreeMap<CredentialName, CredentialSpec> {
        let spec = json!({ "service": "orders", "tools": ["orders.get"], "as": kind });
        serde_json::from_value(json!({ "key": spec })).unwrap()
    }

    type Resolved = (Credentials, Vec<(Holder, CredentialError)>);

    fn resolve_all(
        specs: &BTreeMap<CredentialName, CredentialSpec>,
        environment: Environment<'_>,
    ) -> Resolved {
        let live = LiveSecrets::default();
        Credentials::resolve_with(specs, &BTreeMap::new(), Path::new("."), environment, &live, Timing::REAL)
    }

    fn resolve(kind: serde_json::Value) -> Resolved {
        resolve_all(&specs(kind), &|_| Some(SECRET.into()))
    }

    async fn lend(
        credentials: &Credentials,
        tool: &str,
        service: &str,
        name: &str,
    ) -> Result<Lease, CredentialError> {
        let request = LeaseRequest {
            tool: &tool.parse().unwrap(),
            service: &service.parse().unwrap(),
            name: &name.parse().unwrap(),
            client: "bot",
            user: None,
            deadline: Instant::now() + Duration::from_secs(5),
        };
        credentials.lease(&Egress::new(None).unwrap(), request).await
    }

    async fn lease(tool: &str, service: &str, name: &str) -> Result<Lease, CredentialError> {
        let (credentials, problems) = resolve(json!({ "bearer": { "secret": "env:KEY" } }));
        assert!(problems.is_empty());
        lend(&credentials, tool, service, name).await
    }

    #[tokio::test]
    async fn a_listed_tool_of_the_same_service_gets_a_lease() {
        assert_eq!(lease("orders.get", "orders", "key").await.unwrap().name().as_str(), "key");
    }

    #[tokio::test]
    async fn a_credential_that_does_not_exist_is_not_lent() {
        insta::assert_snapshot!(
            lease("orders.get", "orders", "other").await.unwrap_err(),
            @"there is no credential `other`"
        );
    }

    #[tokio::test]
    async fn a_credential_is_not_lent_to_a_tool_that_it_does_not_list() {
        insta::assert_snapshot!(
            lease("orders.cancel", "orders", "key").await.unwrap_err(),
            @"credential `key` does not serve tool `orders.cancel`"
        );
    }

    #[tokio::test]
    async fn a_credential_is_not_lent_to_another_service() {
        insta::assert_snapshot!(
            lease("orders.get", "mail", "key").await.unwrap_err(),
            @"credential `key` belongs to service `orders`, not to `mail`"
        );
    }

    #[tokio::test]
    async fn nothing_that_holds_the_secret_prints_it() {
        for kind in [
            json!({ "bearer": { "secret": "env:KEY" } }),
            json!({ "basic": { "username": "dana", "secret": "env:KEY" } }),
            json!({ "header": { "name": "X-Api-Key", "secret": "env:KEY" } }),
            json!({ "query": { "name": "api_key", "secret": "env:KEY" } }),
        ] {
            let (credentials, problems) = resolve(kind);
            assert!(problems.is_empty());
            let lease = lend(&credentials, "orders.get", "orders", "key").await.unwrap();
            assert!(!format!("{credentials:?} {credentials:#?} {lease:?} {lease:#?}").contains("hunter2"));
        }
    }

    #[test]
    fn one_bad_credential_does_not_take_the_others_along() {
        let mut all = specs(json!({ "bearer": { "secret": "env:KEY" } }));
        all.append(
            &mut serde_json::from_value(json!({
                "missing": {
                    "service": "orders", "tools": [], "as": { "bearer": { "secret": "env:MISSING" } }
                }
            }))
            .unwrap(),
        );
        let environment = |variable: &str| (variable == "KEY").then(|| SECRET.into());
        let (credentials, problems) = resolve_all(&all, &environment);
        assert_eq!(credentials.held.len(), 1);
        let (name, error) = problems.first().unwrap();
        insta::assert_snapshot!(
            format!("{name:?}: {error}"),
            @"Credential(CredentialName(\"missing\")): the environment variable `MISSING` is not set"
        );
    }

    #[test]
    fn a_secret_that_a_header_cannot_carry_is_refused_and_not_repeated() {
        let (_, problems) = resolve_all(&specs(json!({ "bearer": { "secret": "env:KEY" } })), &|_| {
            Some("hunter2\r\nX-Admin: 1".into())
        });
        insta::assert_snapshot!(
            problems.first().unwrap().1,
            @"the secret at `env:KEY` holds characters that cannot be sent: a token is visible ASCII without spaces"
        );
    }

    #[test]
    fn a_credential_does_not_replace_a_field_of_the_gate() {
        for name in ["Host", "Content-Length", "Transfer-Encoding", "Connection", "X-Forwarded-For"] {
            let (_, problems) = resolve(json!({ "header": { "name": name, "secret": "env:KEY" } }));
            let (_, error) = problems.first().unwrap();
            assert!(matches!(error, CredentialError::BadName { given, .. } if given == name), "{error}");
        }
    }

    #[test]
    fn a_user_name_with_a_colon_is_refused() {
        let (_, problems) = resolve(json!({ "basic": { "username": "a:b", "secret": "env:KEY" } }));
        insta::assert_snapshot!(
            problems.first().unwrap().1,
            @"`a:b` is not a user name without colon and control characters (RFC 7617 §2)"
        );
    }
}

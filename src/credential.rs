//! Credentials: secrets that the gate holds for services, and leases on them.
//!
//! A secret enters by a reference, is held in [`secrecy::SecretString`], and
//! leaves only inside a request, put there by a [`Lease`]. No message, no `Debug`
//! and no file holds it.

mod lease;
mod secret;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;

use crate::manifest::{CredentialName, CredentialSpec, SecretRef, ServiceName, ToolName};
use lease::Presentation;

pub use lease::Lease;

/// The credentials whose secrets could be read.
#[derive(Debug, Default)]
pub struct Credentials(BTreeMap<CredentialName, Held>);

/// A credential: its secret, and whom it may serve.
#[derive(Debug)]
struct Held {
    service: ServiceName,
    tools: BTreeSet<ToolName>,
    presentation: Arc<Presentation>,
}

/// Why a credential cannot be held, or not be leased. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The environment variable is missing.
    #[error("the environment variable `{variable}` is not set")]
    NotSet {
        /// The variable's name.
        variable: String,
    },
    /// The file cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The path names a folder, a pipe or a device.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Users other than the owner can open the file.
    #[error("`{}` is open to other users (mode {mode:04o}): run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The secret has no bytes.
    #[error("the secret at `{reference}` is empty")]
    Empty {
        /// Where the secret is.
        reference: SecretRef,
    },
    /// The secret is larger than any header field should be.
    #[error("the secret at `{reference}` is longer than {bytes_max} bytes")]
    TooLong {
        /// Where the secret is.
        reference: SecretRef,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The secret holds what its place in a request cannot carry.
    #[error("the secret at `{reference}` holds characters that cannot be sent: {expected}")]
    Unsendable {
        /// Where the secret is.
        reference: SecretRef,
        /// What can be sent.
        expected: &'static str,
    },
    /// The user's name, or the name of the header or parameter, cannot be used.
    #[error("`{given}` is not {expected}")]
    BadName {
        /// What was written.
        given: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No credential of that name is held.
    #[error("there is no credential `{name}`")]
    Unknown {
        /// The credential.
        name: CredentialName,
    },
    /// The credential does not list the tool.
    #[error("credential `{name}` does not serve tool `{tool}`")]
    NotForTool {
        /// The credential.
        name: CredentialName,
        /// The tool that asked.
        tool: ToolName,
    },
    /// The credential belongs to another service.
    #[error("credential `{name}` belongs to service `{belongs_to}`, not to `{service}`")]
    NotForService {
        /// The credential.
        name: CredentialName,
        /// The service that it would have been sent to.
        service: ServiceName,
        /// The only service that it may be sent to.
        belongs_to: ServiceName,
    },
}

/// Reads a secret that is no credential; a file is relative to `base_dir`.
///
/// # Errors
/// When there is none, or others can read it.
pub fn read_secret(reference: &SecretRef, base_dir: &Path) -> Result<SecretString, CredentialError> {
    secret::read(reference, base_dir, &|variable| std::env::var_os(variable))
}

impl Credentials {
    /// Reads the secrets that `specs` refer to; files are relative to `base_dir`.
    ///
    /// What can be held is held, and every credential that cannot is reported.
    #[must_use]
    pub fn resolve(
        specs: &BTreeMap<CredentialName, CredentialSpec>,
        base_dir: &Path,
    ) -> (Self, Vec<(CredentialName, CredentialError)>) {
        Self::resolve_with(specs, base_dir, &|variable| std::env::var_os(variable))
    }

    fn resolve_with(
        specs: &BTreeMap<CredentialName, CredentialSpec>,
        base_dir: &Path,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> (Self, Vec<(CredentialName, CredentialError)>) {
        let mut held = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, spec) in specs {
            let presentation = secret::read(spec.kind.secret(), base_dir, environment)
                .and_then(|secret| Presentation::new(&spec.kind, secret));
            match presentation {
                Ok(presentation) => {
                    held.insert(name.clone(), Held::new(spec, presentation));
                }
                Err(error) => problems.push((name.clone(), error)),
            }
        }
        (Self(held), problems)
    }

    /// Lends a credential to one call of a tool.
    ///
    /// # Errors
    /// When the credential does not exist, does not list the tool, or belongs
    /// to another service.
    pub fn lease(
        &self,
        tool: &ToolName,
        service: &ServiceName,
        name: &CredentialName,
    ) -> Result<Lease, CredentialError> {
        let held = self.0.get(name).ok_or_else(|| CredentialError::Unknown { name: name.clone() })?;
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
        Ok(Lease::new(name.clone(), Arc::clone(&held.presentation)))
    }
}

impl Held {
    fn new(spec: &CredentialSpec, presentation: Presentation) -> Self {
        Self {
            service: spec.service.clone(),
            tools: spec.tools.iter().cloned().collect(),
            presentation: Arc::new(presentation),
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

    fn resolve(kind: serde_json::Value) -> (Credentials, Vec<(CredentialName, CredentialError)>) {
        Credentials::resolve_with(&specs(kind), Path::new("."), &|_| Some(SECRET.into()))
    }

    fn lease(tool: &str, service: &str, name: &str) -> Result<Lease, CredentialError> {
        let (credentials, problems) = resolve(json!({ "bearer": { "secret": "env:KEY" } }));
        assert!(problems.is_empty());
        credentials.lease(&tool.parse().unwrap(), &service.parse().unwrap(), &name.parse().unwrap())
    }

    #[test]
    fn a_listed_tool_of_the_same_service_gets_a_lease() {
        assert_eq!(lease("orders.get", "orders", "key").unwrap().name().as_str(), "key");
    }

    #[test]
    fn a_credential_that_does_not_exist_is_not_lent() {
        insta::assert_snapshot!(
            lease("orders.get", "orders", "other").unwrap_err(),
            @"there is no credential `other`"
        );
    }

    #[test]
    fn a_credential_is_not_lent_to_a_tool_that_it_does_not_list() {
        insta::assert_snapshot!(
            lease("orders.cancel", "orders", "key").unwrap_err(),
            @"credential `key` does not serve tool `orders.cancel`"
        );
    }

    #[test]
    fn a_credential_is_not_lent_to_another_service() {
        insta::assert_snapshot!(
            lease("orders.get", "mail", "key").unwrap_err(),
            @"credential `key` belongs to service `orders`, not to `mail`"
        );
    }

    #[test]
    fn nothing_that_holds_the_secret_prints_it() {
        for kind in [
            json!({ "bearer": { "secret": "env:KEY" } }),
            json!({ "basic": { "username": "dana", "secret": "env:KEY" } }),
            json!({ "header": { "name": "X-Api-Key", "secret": "env:KEY" } }),
            json!({ "query": { "name": "api_key", "secret": "env:KEY" } }),
        ] {
            let (credentials, problems) = resolve(kind);
            assert!(problems.is_empty());
            let lease = credentials
                .lease(&"orders.get".parse().unwrap(), &"orders".parse().unwrap(), &"key".parse().unwrap())
                .unwrap();
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
        let (credentials, problems) = Credentials::resolve_with(&all, Path::new("."), &environment);
        assert_eq!(credentials.0.len(), 1);
        let (name, error) = problems.first().unwrap();
        insta::assert_snapshot!(
            format!("{name}: {error}"),
            @"missing: the environment variable `MISSING` is not set"
        );
    }

    #[test]
    fn a_secret_that_a_header_cannot_carry_is_refused_and_not_repeated() {
        let (_, problems) = Credentials::resolve_with(
            &specs(json!({ "bearer": { "secret": "env:KEY" } })),
            Path::new("."),
            &|_| Some("hunter2\r\nX-Admin: 1".into()),
        );
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

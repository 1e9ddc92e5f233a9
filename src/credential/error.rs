//! Why a credential cannot be held, or not be leased.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    egress::EgressRefusal,
    manifest::{CredentialName, SecretRef, ServiceName, ToolName, VaultName},
};

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
    /// The secret is not what it is to be used as.
    #[error("the secret at `{reference}` is not {expected}")]
    Unusable {
        /// Where the secret is.
        reference: SecretRef,
        /// What it should be.
        expected: &'static str,
    },
    /// The secret is in a vault, where it has to be at hand.
    #[error("`{reference}` is in a vault, and this secret is read before one can be asked")]
    InVault {
        /// Where the secret is.
        reference: SecretRef,
    },
    /// No vault of that name can be asked.
    #[error("there is no vault `{vault}`")]
    NoVault {
        /// The vault.
        vault: VaultName,
    },
    /// The user's name, or the name of the header or parameter, cannot be used.
    #[error("`{given}` is not {expected}")]
    BadName {
        /// What was written.
        given: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The specification of a token or a certificate does not say what it needs to.
    #[error("{0}")]
    Spec(&'static str),
    /// No credential of that name is held.
    #[error("there is no credential `{name}`")]
    Unknown {
        /// The credential.
        name: CredentialName,
    },
    /// The tool names no credential for this client.
    #[error("tool `{tool}` has no credential for `{client}`")]
    NotForClient {
        /// The tool.
        tool: ToolName,
        /// The client.
        client: String,
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
    /// The credential is for users, and the caller has none.
    #[error("the credential needs a user, and `{client}` calls for none")]
    NeedsUser {
        /// The client.
        client: String,
    },
    /// A user's subject is one that only clients have.
    #[error("a user's subject begins with `client:`, which stands for clients")]
    ReservedSubject,
    /// A token could not be signed.
    #[error("the gate's own token cannot be signed")]
    Unsigned,
    /// The token endpoint gave no usable token.
    #[error("the token endpoint of `{name}`: {source}")]
    TokenEndpoint {
        /// The credential.
        name: CredentialName,
        /// Why.
        source: EndpointError,
    },
    /// The vault gave no usable secret.
    #[error("the vault `{vault}`: {source}")]
    Vault {
        /// The vault.
        vault: VaultName,
        /// Why.
        source: EndpointError,
    },
    /// It took longer than the call can wait.
    #[error("no credential was there in time")]
    Waited,
    /// The failure of a fetch that others waited for too.
    #[error(transparent)]
    Shared(Arc<Self>),
}

/// What went wrong with a token endpoint or a vault: facts of our own, never a word of theirs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EndpointError {
    /// It is where its egress does not allow it.
    #[error("{0}")]
    Egress(EgressRefusal),
    /// No connection.
    #[error("cannot connect")]
    Unreachable,
    /// The connection broke.
    #[error("the connection broke")]
    Interrupted,
    /// The whole answer was not there in time.
    #[error("no whole answer within {after:?}")]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// It points elsewhere, where we do not go.
    #[error("answered {code}, a redirect, which is not followed")]
    Redirected {
        /// The status.
        code: u16,
    },
    /// It answered with another status than success.
    #[error("answered {code}")]
    Status {
        /// The status.
        code: u16,
    },
    /// It refuses, with a registered error code (RFC 6749 §5.2, RFC 8707 §2).
    #[error("refused with `{code}`")]
    Refused {
        /// The code.
        code: &'static str,
    },
    /// The answer is larger than any honest one.
    #[error("the answer is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The answer is not strict JSON, by its own word or in fact.
    #[error("the answer is not strict JSON")]
    NotJson,
    /// A member is missing, or not what it should be.
    #[error("the answer has no usable `{member}`")]
    Member {
        /// The member.
        member: &'static str,
    },
    /// A scope that the tool needs is not granted.
    #[error("a scope that the tool needs was not granted")]
    ScopeMissing,
    /// More was granted than was asked for.
    #[error("more scopes were granted than were asked for")]
    ScopeWider,
    /// What it gives is over before it could be used.
    #[error("what it gives does not live long enough to be used")]
    ShortLived,
    /// The vault is sealed, or in maintenance.
    #[error("it is sealed")]
    Sealed,
    /// The vault does not let the gate have the secret.
    #[error("access is denied")]
    Denied,
    /// There is no such secret.
    #[error("there is no such secret")]
    Missing,
    /// The secret has no such field, or it is no text.
    #[error("the secret has no text in the field `{field}`")]
    NoField {
        /// The field.
        field: String,
    },
}

impl CredentialError {
    /// Whether what was held before is not to be used any more either.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Vault { source, .. } => matches!(
                source,
                EndpointError::Denied | EndpointError::Missing | EndpointError::NoField { .. }
            ),
            Self::Shared(error) => error.is_final(),
            _ => false,
        }
    }

    /// The error in one word, stable over versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotForClient { .. } => "credential_not_for_client",
            Self::NeedsUser { .. } | Self::ReservedSubject => "credential_needs_user",
            Self::Unknown { .. }
            | Self::NotForTool { .. }
            | Self::NotForService { .. }
            | Self::BadName { .. }
            | Self::Spec(_)
            | Self::InVault { .. }
            | Self::NoVault { .. } => "credential",
            Self::NotSet { .. }
            | Self::Unreadable { .. }
            | Self::NotAFile { .. }
            | Self::Exposed { .. }
            | Self::Empty { .. }
            | Self::TooLong { .. }
            | Self::Unsendable { .. }
            | Self::Unusable { .. }
            | Self::Unsigned
            | Self::TokenEndpoint { .. }
            | Self::Vault { .. }
            | Self::Waited => "credential_unavailable",
            Self::Shared(error) => error.code(),
        }
    }
}

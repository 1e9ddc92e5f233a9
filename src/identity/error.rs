//! Why a caller is not known.

use crate::{
    call::{Outcome, Refusal, Stage},
    manifest::{ClientName, KeyId},
    runs::RunsError,
};

/// Why a caller is not known. The agent is told the same in every case that is its own.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing was shown.
    #[error("no proof of identity")]
    Nothing,
    /// What was shown is neither an API key nor a token.
    #[error("neither an API key of the form `cg_<id>_<secret>` nor an access token")]
    Malformed,
    /// No client has a key of this id.
    #[error("unknown key id")]
    UnknownKey,
    /// The id is known, the secret is not its secret.
    #[error("wrong secret for key `{id}` of `{client}`")]
    WrongSecret {
        /// The key's id.
        id: KeyId,
        /// Its client.
        client: ClientName,
    },
    /// The key is past its last day.
    #[error("key `{id}` of `{client}` has expired")]
    Expired {
        /// The key's id.
        id: KeyId,
        /// Its client.
        client: ClientName,
    },
    /// No such client.
    #[error("unknown client `{0}`")]
    UnknownClient(ClientName),
    /// A process claims to be a client that no process may claim to be.
    #[error("client `{0}` may not be claimed by a local process: it lacks `stdio: true`")]
    NotForStdio(ClientName),
    /// The certificate is no client's, or that of several.
    #[error("the certificate is not that of one client")]
    UnknownCertificate,
    /// The client calls from where it may not.
    #[error("client `{0}` may not call from there")]
    WrongSource(ClientName),
    /// The store of runs does not answer.
    #[error(transparent)]
    Runs(#[from] RunsError),
}

impl Refusal for IdentityError {
    fn stage(&self) -> Stage {
        Stage::Identity
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Nothing => "no_proof",
            Self::Malformed => "malformed_proof",
            Self::UnknownKey => "unknown_key",
            Self::WrongSecret { .. } => "wrong_secret",
            Self::Expired { .. } => "expired_key",
            Self::UnknownClient(_) => "unknown_client",
            Self::NotForStdio(_) => "not_for_stdio",
            Self::UnknownCertificate => "unknown_certificate",
            Self::WrongSource(_) => "wrong_source",
            Self::Runs(_) => "runs_unavailable",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Nothing
            | Self::Malformed
            | Self::UnknownKey
            | Self::WrongSecret { .. }
            | Self::Expired { .. }
            | Self::UnknownClient(_)
            | Self::NotForStdio(_)
            | Self::UnknownCertificate
            | Self::WrongSource(_) => "authentication failed".into(),
            Self::Runs(_) => "temporarily unavailable".into(),
        }
    }
    fn outcome(&self) -> Outcome {
        Outcome::Denied
    }
}

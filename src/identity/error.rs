//! Why a caller is not known.

use std::num::NonZeroU32;

use crate::{
    call::{Outcome, Refusal, Stage},
    manifest::{ClientName, IssuerName, KeyId},
    runs::{RunError, RunsError, StandingError},
};

use super::jwt::TokenError;

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
    /// The token is not one to take.
    #[error("token: {0}")]
    Token(TokenError),
    /// The token is from nobody whose tokens are taken.
    #[error("the token's issuer is none whose tokens are taken")]
    UnknownIssuer,
    /// The token's claims do not say who calls.
    #[error("the token's claims do not say who calls")]
    Claims,
    /// The token is no client's.
    #[error("the token is no client's")]
    NoClient,
    /// The token is bound to a certificate that was not shown.
    #[error("the token is bound to a certificate that was not shown")]
    Unbound,
    /// The assertion was used before.
    #[error("the assertion was used before")]
    Replayed,
    /// What the caller stands on was taken away.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// The run that the token, session or process is bound to is not there.
    #[error(transparent)]
    Run(RunError),
    /// The keys of an issuer cannot be had.
    #[error("the keys of issuer `{0}` cannot be had")]
    KeysUnavailable(IssuerName),
    /// The keys of this server's own cannot be had.
    #[error("the signing keys cannot be had: {0}")]
    Keys(String),
    /// The store of runs does not answer.
    #[error(transparent)]
    Runs(#[from] RunsError),
}

/// Why no session begins.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The client has as many as it may have.
    #[error("the client has {max} sessions, and may have no more")]
    OfClient {
        /// How many it may have.
        max: NonZeroU32,
    },
    /// There are as many as there may be.
    #[error("there are {max} sessions, and may be no more")]
    InAll {
        /// How many there may be.
        max: NonZeroU32,
    },
    /// The store does not answer, or has no room.
    #[error(transparent)]
    Runs(#[from] RunsError),
}

impl IdentityError {
    /// Whether the gate cannot tell who calls, so that another proof would not help.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::KeysUnavailable(_)
                | Self::Keys(_)
                | Self::Runs(_)
                | Self::Run(RunError::Runs(_))
                | Self::Standing(StandingError::Stale { .. })
        )
    }
}

impl From<RunError> for IdentityError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Runs(error) => Self::Runs(error),
            error => Self::Run(error),
        }
    }
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
            Self::Token(error) => error.code(),
            Self::UnknownIssuer => "unknown_issuer",
            Self::Claims => "token_claims",
            Self::NoClient => "token_of_no_client",
            Self::Unbound => "token_unbound",
            Self::Replayed => "assertion_used",
            Self::Standing(StandingError::Expired) => "expired",
            Self::Standing(StandingError::RunEnded(_)) => "run_ended",
            Self::Standing(StandingError::Stale { .. }) => "state_stale",
            Self::Standing(_) => "revoked",
            Self::Run(RunError::Runs(_)) | Self::Runs(_) => "runs_unavailable",
            Self::Run(_) => "unknown_run",
            Self::KeysUnavailable(_) | Self::Keys(_) => "keys_unavailable",
        }
    }
    fn public_message(&self) -> String {
        // The same for all, so that nobody learns what was nearly right.
        if self.is_ours() { "temporarily unavailable".into() } else { "authentication failed".into() }
    }
    fn outcome(&self) -> Outcome {
        Outcome::Denied
    }
}

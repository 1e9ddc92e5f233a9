//! `Call → Identified`: who calls, on what proof, in which run.

mod clients;
mod key;

use std::{ops::Deref, sync::Arc};

use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use crate::{
    call::{Call, CallerFacts, Facts, Outcome, Passed, Proof, Refusal, Stage},
    manifest::{ClientName, KeyId},
    runs::{Principal, Run, Runs, RunsError, Standing, StandingError},
};

pub use clients::{Client, Clients};
pub use key::{ApiKey, NewKey};

/// A call whose caller is known.
#[derive(Debug)]
pub struct Identified {
    call: Call,
    caller: Caller,
    run: Run,
    rehearsal: bool,
}

impl Identified {
    /// Who calls.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The run that the call belongs to, as it stood when the call arrived.
    #[must_use]
    pub const fn run(&self) -> &Run {
        &self.run
    }

    /// Whether the call is only rehearsed: judged, and never carried out.
    #[must_use]
    pub const fn is_rehearsal(&self) -> bool {
        self.rehearsal
    }
}

impl Deref for Identified {
    type Target = Call;
    fn deref(&self) -> &Call {
        &self.call
    }
}

impl Passed for Identified {
    const STAGE: Stage = Stage::Identity;
    fn describe(&self, facts: &mut Facts) {
        facts.caller = Some(CallerFacts {
            client: self.caller.client.name().to_string(),
            authentication: self.caller.authentication.word(),
            key: self.caller.key.as_ref().map(ToString::to_string),
            run: self.run.id().to_string(),
            run_ended: self.run.ended().map(|run| run.to_string()),
        });
    }
}

/// The one who calls: a client, known by some proof.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Arc<Client>,
    key: Option<KeyId>,
    authentication: Authentication,
}

impl Caller {
    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// How it proved who it is.
    #[must_use]
    pub const fn authentication(&self) -> Authentication {
        self.authentication
    }
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authentication {
    /// By a local process's word alone.
    Asserted,
    /// By an API key.
    ApiKey,
    /// Not at all: the call is only rehearsed.
    Rehearsed,
}

impl Authentication {
    /// The word that stands for it in policies and records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
            Self::ApiKey => "api-key",
            Self::Rehearsed => "rehearsed",
        }
    }
}

/// Why a caller is not known. The agent is told the same in every case.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing was shown.
    #[error("no proof of identity")]
    Nothing,
    /// What was shown is not an API key.
    #[error("not an API key of the form `cg_<id>_<secret>`")]
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
    /// What it stands on was taken away.
    #[error(transparent)]
    Standing(#[from] StandingError),
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
            Self::Standing(StandingError::Stale { .. }) => "state_stale",
            Self::Standing(_) => "revoked",
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
            | Self::NotForStdio(_) => "authentication failed".into(),
            Self::Standing(StandingError::Stale { .. }) => "temporarily unavailable".into(),
            Self::Standing(_) => "authentication failed".into(),
            Self::Runs(_) => "temporarily unavailable".into(),
        }
    }
    fn outcome(&self) -> Outcome {
        Outcome::Denied
    }
}

/// Finds out who calls.
#[derive(Debug)]
pub struct Identities {
    runs: Arc<Runs>,
}

impl Identities {
    /// Identities whose runs are kept in `runs`.
    #[must_use]
    pub const fn new(runs: Arc<Runs>) -> Self {
        Self { runs }
    }

    /// Identifies a call.
    ///
    /// # Errors
    /// When the caller does not prove who it is, or its run cannot be found.
    pub async fn identify(&self, clients: &Clients, call: Call) -> Result<Identified, IdentityError> {
        let caller = authenticate(clients, &call.proof, call.received)?;
        let principal = Principal::client(caller.client.name().clone());
        let standing = Standing {
            client: caller.client.name().clone(),
            key: caller.key.clone(),
            token: None,
            run: None,
            expires: None,
        };
        self.runs.check(&standing, call.received)?;
        if let Some(key) = &caller.key {
            self.runs.key_used(key, call.received);
        }
        let run = self.runs.default_run(&principal, call.received).await?.with_call();
        Ok(Identified { call, caller, run, rehearsal: false })
    }
}

/// Who shows this proof? Spends nothing and changes nothing.
///
/// # Errors
/// When the proof proves nothing.
pub fn authenticate(clients: &Clients, proof: &Proof, now: Timestamp) -> Result<Caller, IdentityError> {
    match proof {
        Proof::Nothing => Err(IdentityError::Nothing),
        Proof::ApiKey(key) => {
            let key = ApiKey::parse(key.expose_secret()).ok_or(IdentityError::Malformed)?;
            let (client, id) = clients.by_key(&key, now)?;
            Ok(Caller { client, key: Some(id), authentication: Authentication::ApiKey })
        }
        Proof::Asserted(name) => {
            let client = clients.named(name).ok_or_else(|| IdentityError::UnknownClient(name.clone()))?;
            if !client.may_be_asserted() {
                return Err(IdentityError::NotForStdio(name.clone()));
            }
            Ok(Caller { client, key: None, authentication: Authentication::Asserted })
        }
    }
}

/// A call that is judged as if `client` made it in `run`, and that no stage carries out.
///
/// # Errors
/// When there is no such client.
pub fn rehearse(
    clients: &Clients,
    client: &ClientName,
    run: Run,
    call: Call,
) -> Result<Identified, IdentityError> {
    let client = clients.named(client).ok_or_else(|| IdentityError::UnknownClient(client.clone()))?;
    let caller = Caller { client, key: None, authentication: Authentication::Rehearsed };
    Ok(Identified { call, caller, run, rehearsal: true })
}

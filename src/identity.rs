//! `Call → Identified`: who calls, on what proof, in which run.

mod caller;
mod clients;
mod error;
pub mod jwt;
mod key;

use std::{net::IpAddr, ops::Deref, sync::Arc};

use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use crate::{
    call::{Call, CallerFacts, Claim, Facts, Passed, Proof, Stage, TokenFacts},
    manifest::ClientName,
    runs::{Principal, Run, Runs},
};

pub use caller::{Authentication, Caller, Grant};
pub use clients::{Client, Clients};
pub use error::IdentityError;
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
            key: self.caller.key().map(ToString::to_string),
            run: self.run.id().to_string(),
            run_ended: self.run.ended().map(|run| run.to_string()),
            token: self.caller.grant().map(token_facts),
            user: self.caller.user().cloned(),
        });
    }
}

fn token_facts(grant: &Grant) -> TokenFacts {
    TokenFacts { id: grant.id.clone(), issuer: grant.issuer.clone() }
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
        let caller = authenticate(clients, &call.proof, call.origin.source, call.received)?;
        let principal = Principal { client: caller.client.name().clone(), user: caller.user().cloned() };
        let run = self.runs.default_run(&principal, call.received).await?.with_call();
        Ok(Identified { call, caller, run, rehearsal: false })
    }
}

/// Who shows this proof? Spends nothing and changes nothing.
///
/// # Errors
/// When the proof proves nothing, or is shown from where its client may not call.
pub fn authenticate(
    clients: &Clients,
    proof: &Proof,
    source: Option<IpAddr>,
    now: Timestamp,
) -> Result<Caller, IdentityError> {
    let known = |client, authentication| Caller { client, authentication, key: None, grant: None };
    let caller = match (&proof.claim, &proof.certificate) {
        (Claim::Nothing, None) => return Err(IdentityError::Nothing),
        (Claim::Nothing, Some(certificate)) => {
            let client = clients.by_certificate(certificate).ok_or(IdentityError::UnknownCertificate)?;
            known(client, Authentication::Certificate)
        }
        (Claim::Bearer(text), _) => {
            let key = ApiKey::parse(text.expose_secret()).ok_or(IdentityError::Malformed)?;
            let (client, id) = clients.by_key(&key, now)?;
            Caller { key: Some(id), ..known(client, Authentication::ApiKey) }
        }
        (Claim::Asserted(name), _) => {
            let client = clients.named(name).ok_or_else(|| IdentityError::UnknownClient(name.clone()))?;
            if !client.may_be_asserted() {
                return Err(IdentityError::NotForStdio(name.clone()));
            }
            return Ok(known(client, Authentication::Asserted));
        }
    };
    if !caller.client.may_call_from(source) {
        return Err(IdentityError::WrongSource(caller.client.name().clone()));
    }
    Ok(caller)
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
    let caller = Caller { client, authentication: Authentication::Rehearsed, key: None, grant: None };
    Ok(Identified { call, caller, run, rehearsal: true })
}

//! `Call → Identified`: who calls, on what proof, in which run.

mod caller;
mod clients;
mod error;
mod issuers;
pub mod jwt;
mod key;
mod metadata;
mod mint;
mod own;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::{
    call::{Call, CallerFacts, Claim, Facts, Passed, Proof, RunClaim, Stage, TokenFacts},
    egress::Egress,
    manifest::{ClientName, IdentitySpec, RunsSpec},
    runs::{
        EndReason, EndedRun, NewRun, Run, RunError, RunId, RunKind, Runs, RunsError, Standing, StandingError,
    },
};
use tokens::Tokens;

use clients::Claimed;

pub use caller::{Authentication, Caller, Grant};
pub use clients::{Client, Clients};
pub use error::{IdentityError, SessionError};
pub use key::{ApiKey, NewKey};
pub use metadata::Metadata;
pub use mint::{ClientProof, NewAccessToken, TokenRefusal, TokenRequest};
pub use own::MintError;

/// A call whose caller is known.
#[derive(Debug)]
pub struct Identified {
    call: Call,
    caller: Caller,
    run: Run,
    /// What its caller stands on. A call that is only rehearsed stands on nothing.
    ground: Option<Ground>,
}

/// What a caller stands on, and who knows whether that still holds.
#[derive(Clone, Debug)]
struct Ground {
    runs: Arc<Runs>,
    standing: Standing,
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
        self.ground.is_none()
    }

    /// Whether the caller still stands where it stood when the call arrived. Asks memory only.
    ///
    /// # Errors
    /// When its client, key, token or run was revoked, has ended or expired meanwhile.
    pub fn still_stands(&self) -> Result<(), StandingError> {
        let Some(Ground { runs, standing }) = &self.ground else { return Ok(()) };
        runs.check(standing, Timestamp::now())
    }

    /// Whether the caller may still be given the answer. What it showed may have expired while that was made. Asks
    /// memory only.
    ///
    /// # Errors
    /// When its client, key, token or run was revoked, or its run has ended.
    pub fn may_be_answered(&self) -> Result<(), StandingError> {
        match (self.still_stands(), &self.ground) {
            (Err(StandingError::Expired), Some(Ground { runs, standing })) => {
                runs.check(&Standing { expires: None, ..standing.clone() }, Timestamp::now())
            }
            (stands, _) => stands,
        }
    }

    /// The same question, for whoever has to ask it away from the call.
    pub(crate) fn standing(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let ground = self.ground.clone();
        move || {
            ground.as_ref().is_none_or(|ground| ground.runs.check(&ground.standing, Timestamp::now()).is_ok())
        }
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
        let run_ended = self.run.ended().map(|run| run.to_string());
        facts.caller =
            Some(CallerFacts { run_ended, ..caller_facts(&self.caller, self.run.id().to_string()) });
    }
}

fn caller_facts(caller: &Caller, run: String) -> CallerFacts {
    CallerFacts {
        client: caller.client.name().to_string(),
        authentication: caller.authentication.word(),
        key: caller.key().map(ToString::to_string),
        run,
        run_ended: None,
        token: caller.grant().map(token_facts),
        user: caller.user().cloned(),
    }
}

fn token_facts(grant: &Grant) -> TokenFacts {
    TokenFacts { id: grant.id.clone(), issuer: grant.issuer.clone() }
}

/// How long one local process may be served.
const PROCESS_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How long it takes to refuse a proof at least: longer than any way to find that an API key is not one.
///
/// Those ways do the same work, as far as that can be had; what is left are the few nanoseconds by which a table is
/// slower to say yes than no. Nobody is kept from anything by such a wait, and a source may fail only so often.
const REFUSAL_TIME: Duration = Duration::from_micros(25);

/// Waits until a refusal has taken its time. No timer is as fine, so this one looks at the clock.
///
/// To look takes some nanoseconds, in whose rhythm the time before could still be heard: it ends at random in the
/// next microsecond.
fn wait_out(began: Instant) {
    let mut random = [0; 1];
    let _ = aws_lc_rs::rand::fill(&mut random);
    let until = REFUSAL_TIME + Duration::from_nanos(4 * u64::from(u8::from_ne_bytes(random)));
    while began.elapsed() < until {
        std::hint::spin_loop();
    }
}

/// Finds out who calls.
#[derive(Debug)]
pub struct Identities {
    runs: Arc<Runs>,
    tokens: Tokens,
    bounds: RunsSpec,
    metadata: Metadata,
    /// One session begins at a time, so that those before it are counted. The store writes one at a time anyway.
    beginning: tokio::sync::Mutex<()>,
}

impl Identities {
    /// Identities whose runs are kept in `runs`, and whose tokens a server takes or issues.
    #[must_use]
    pub fn new(runs: Arc<Runs>, spec: &IdentitySpec, egress: &Egress) -> Self {
        let tokens = Tokens::new(spec, egress, &runs);
        let metadata = Metadata::new(spec);
        Self { runs, tokens, bounds: spec.runs, metadata, beginning: tokio::sync::Mutex::default() }
    }

    /// Identifies a call, and finds the run that it belongs to.
    ///
    /// # Errors
    /// When the caller does not prove who it is, or its run cannot be found.
    pub async fn identify(&self, clients: &Clients, call: Call) -> Result<Identified, IdentityError> {
        let now = call.received;
        let caller = self.authenticate(clients, &call.proof, call.origin.source, now).await?;
        let (run, bound) = self.run(&caller, &call.proof, now).await?;
        let standing = caller.standing(bound.then(|| run.id()));
        let ground = Some(Ground { runs: Arc::clone(&self.runs), standing });
        Ok(Identified { call, caller, run: run.with_call(), ground })
    }

    /// Who shows this proof? Spends nothing and changes nothing.
    ///
    /// # Errors
    /// When the proof proves nothing, was taken away, or is shown from where its client may not call.
    pub async fn authenticate(
        &self,
        clients: &Clients,
        proof: &Proof,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Caller, IdentityError> {
        let began = Instant::now();
        let caller = self.authenticate_at_once(clients, proof, source, now).await;
        if caller.is_err() {
            wait_out(began);
        }
        caller
    }

    async fn authenticate_at_once(
        &self,
        clients: &Clients,
        proof: &Proof,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Caller, IdentityError> {
        let (caller, refusal) = self.claimed(clients, proof, now).await?;
        if let Some(run) = caller.grant().and_then(|grant| grant.run) {
            self.runs.hear_of(&run).await?; // another process may have begun it a moment ago
        }
        // A local process has no address, and needs none.
        let asserted = caller.authentication == Authentication::Asserted;
        self.settle(caller, refusal, source, asserted, now)
    }

    /// Takes a caller that may call from there and that still stands, unless it is refused already. That is asked of
    /// one that is refused, too: a key that was taken back is not to be told from a wrong one by its time.
    fn settle(
        &self,
        caller: Caller,
        refusal: Option<IdentityError>,
        source: Option<IpAddr>,
        from_anywhere: bool,
        now: Timestamp,
    ) -> Result<Caller, IdentityError> {
        let may_call_from_there = from_anywhere || caller.client.may_call_from(source);
        let stands = self.runs.check(&caller.standing(None), now);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if !may_call_from_there {
            return Err(IdentityError::WrongSource(caller.client.name().clone()));
        }
        stands?;
        if let Some(key) = &caller.key {
            self.runs.key_used(key, now);
        }
        Ok(caller)
    }

    /// Who a key would be of, and why it is not taken.
    fn keyed(
        &self,
        clients: &Clients,
        key: &ApiKey<'_>,
        now: Timestamp,
    ) -> Result<(Caller, Option<IdentityError>), IdentityError> {
        let Claimed { client, id, refusal } = clients.by_key(key, self.runs.key(key.id()).as_deref(), now)?;
        Ok((Caller { client, authentication: Authentication::ApiKey, key: Some(id), grant: None }, refusal))
    }

    async fn claimed(
        &self,
        clients: &Clients,
        proof: &Proof,
        now: Timestamp,
    ) -> Result<(Caller, Option<IdentityError>), IdentityError> {
        let known =
            |client, authentication| (Caller { client, authentication, key: None, grant: None }, None);
        match (&proof.claim, &proof.certificate) {
            (Claim::Nothing, None) => Err(IdentityError::Nothing),
            (Claim::Nothing, Some(certificate)) => {
                let client = clients.by_certificate(certificate).ok_or(IdentityError::UnknownCertificate)?;
                Ok(known(client, Authentication::Certificate))
            }
            (Claim::Bearer(text), certificate) => match Bearer::of(text.expose_secret()) {
                Some(Bearer::Key(key)) => self.keyed(clients, &key, now),
                Some(Bearer::Token(token)) => {
                    let caller = self.tokens.caller(clients, token, certificate.as_deref(), now).await?;
                    Ok((caller, None))
                }
                None => Err(IdentityError::Malformed),
            },
            (Claim::Asserted(name), _) => {
                let client = clients.named(name).ok_or_else(|| IdentityError::UnknownClient(name.clone()))?;
                if !client.may_be_asserted() {
                    return Err(IdentityError::NotForStdio(name.clone()));
                }
                Ok(known(client, Authentication::Asserted))
            }
        }
    }

    /// The run that a call belongs to, and whether its caller is bound to it.
    ///
    /// A token's run is the harness's word, and outweighs what a client says of itself.
    async fn run(
        &self,
        caller: &Caller,
        proof: &Proof,
        now: Timestamp,
    ) -> Result<(Run, bool), IdentityError> {
        let principal = caller.principal();
        if let Some(id) = caller.grant().and_then(|grant| grant.run) {
            return Ok((self.runs.resume(&id, &principal, now).await?, true));
        }
        match &proof.run {
            Some(RunClaim::Session(session)) => {
                Ok((self.runs.session(session.expose_secret(), &principal, now).await?, true))
            }
            Some(RunClaim::Process(id)) => {
                let id = RunId::parse(id).ok_or(IdentityError::Run(RunError::Unknown))?;
                Ok((self.runs.resume(&id, &principal, now).await?, true))
            }
            None => Ok((self.runs.default_run(&principal, now).await?, false)),
        }
    }

    /// The run that a caller's requests belong to.
    ///
    /// # Errors
    /// When it has ended, is somebody else's, or cannot be found.
    pub async fn run_of(&self, caller: &Caller, proof: &Proof, now: Timestamp) -> Result<Run, IdentityError> {
        Ok(self.run(caller, proof, now).await?.0)
    }

    /// What is known of a caller that was identified, and has lost its right since: its run is the one it would be
    /// in. None begins for it.
    #[must_use]
    pub fn facts_of(&self, caller: &Caller, session: Option<RunId>, now: Timestamp) -> CallerFacts {
        let bound = caller.grant().and_then(|grant| grant.run).or(session);
        let run = bound.or_else(|| self.runs.live_default(&caller.principal(), now));
        caller_facts(caller, run.map(|run| run.to_string()).unwrap_or_default())
    }

    /// Begins the run of a local process, and gives the proof that its calls show from then on.
    ///
    /// # Errors
    /// When the process may not claim to be that client, or no run can be begun.
    pub async fn begin_process(
        &self,
        clients: &Clients,
        proof: Proof,
        now: Timestamp,
    ) -> Result<(Proof, RunId), IdentityError> {
        let caller = self.authenticate(clients, &proof, None, now).await?;
        let run = NewRun { lifetime: PROCESS_MAX, ..self.new_run(&caller, RunKind::Stdio, None) };
        let run = self.runs.begin(&run, now).await?;
        Ok((Proof { run: Some(RunClaim::Process(run.id().to_string())), ..proof }, run.id()))
    }

    /// Begins a session, and gives its id: the one thing that its client has to show besides its proof.
    ///
    /// # Errors
    /// When there are as many as there may be, or the store does not answer.
    pub async fn begin_session(&self, caller: &Caller, now: Timestamp) -> Result<String, SessionError> {
        Ok(self.begin_stream(caller, now).await?.0)
    }

    /// The same, and the run that the session is.
    ///
    /// # Errors
    /// When there are as many as there may be, or the store does not answer.
    pub async fn begin_stream(
        &self,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(String, RunId), SessionError> {
        let _turn = self.beginning.lock().await;
        let max = |max: NonZeroU32| usize::try_from(max.get()).unwrap_or(usize::MAX);
        if self.runs.sessions_of(caller.client.name()) >= max(self.bounds.sessions) {
            return Err(SessionError::OfClient { max: self.bounds.sessions });
        }
        if self.runs.sessions() >= max(self.bounds.sessions_in_all) {
            return Err(SessionError::InAll { max: self.bounds.sessions_in_all });
        }
        let id = self.new_session_id()?;
        let run = self.runs.begin(&self.new_run(caller, RunKind::Session, Some(&id)), now).await?.id();
        Ok((id, run))
    }

    /// How many sessions a client may have.
    #[must_use]
    pub const fn sessions_max(&self) -> NonZeroU32 {
        self.bounds.sessions
    }

    /// An id for a session that nobody can guess.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new_session_id(&self) -> Result<String, SessionError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| RunsError::NoRandom)?;
        Ok(hex::encode(id))
    }

    /// Whether a caller and a run still stand that a session or a stream was begun with. Asks memory only, and is no
    /// use of the run. What the caller showed may have expired: the session's calls are made with proofs of their own.
    #[must_use]
    pub fn stands(&self, caller: &Caller, run: Option<RunId>, now: Timestamp) -> bool {
        let standing = Standing { expires: None, ..caller.standing(run) };
        match self.runs.check(&standing, now) {
            // Nobody knows for now: calls are refused, and who waits goes on waiting.
            Ok(()) | Err(StandingError::Stale { .. }) => true,
            Err(_) => false,
        }
    }

    /// How often a process that makes no calls has to say that it is still there.
    #[must_use]
    pub fn keep_every(&self) -> Duration {
        self.bounds.idle.duration() / 4
    }

    /// Says that a process is still there: its run is not idle while it lives.
    pub async fn keep_process(&self, clients: &Clients, proof: &Proof) {
        let now = Timestamp::now();
        if let Ok(caller) = self.authenticate(clients, proof, None, now).await {
            // A run that has ended meanwhile stays so: the next call is refused, and says why on record.
            let _ = self.run(&caller, proof, now).await;
        }
    }

    fn new_run<'a>(&self, caller: &Caller, kind: RunKind, session: Option<&'a str>) -> NewRun<'a> {
        NewRun {
            principal: caller.principal(),
            kind,
            lifetime: self.bounds.lifetime.duration(),
            idle: self.bounds.idle.duration(),
            destinations: Vec::new(),
            session,
        }
    }

    /// Ends a run that nobody is going to use any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end(&self, run: &RunId, why: EndReason) -> Result<Option<EndedRun>, RunsError> {
        self.runs.end(run, why, Timestamp::now()).await
    }

    /// What this server tells of itself to whoever asks for tokens.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether tokens of an issuer are taken.
    #[must_use]
    pub fn knows_issuer(&self, issuer: &str) -> bool {
        self.tokens.knows_issuer(issuer)
    }

    /// The public keys of its own tokens, as a set (RFC 7517 §5).
    ///
    /// # Errors
    /// When there is none, and none can be made.
    pub async fn published_keys(&self) -> Result<Option<Value>, MintError> {
        match self.tokens.own() {
            Some(own) => own.published(Timestamp::now()).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether a session is the caller's own.
    ///
    /// # Errors
    /// When there is none of this id, or it is somebody else's.
    pub async fn session(
        &self,
        caller: &Caller,
        session: &str,
        now: Timestamp,
    ) -> Result<Run, IdentityError> {
        // A token that is bound to a run has nothing to do with what its client does elsewhere.
        if caller.grant().is_some_and(|grant| grant.run.is_some()) {
            return Err(IdentityError::Run(RunError::Foreign));
        }
        Ok(self.runs.session(session, &caller.principal(), now).await?)
    }
}

/// A bearer token, by its form.
enum Bearer<'a> {
    Key(ApiKey<'a>),
    Token(&'a str),
}

impl<'a> Bearer<'a> {
    fn of(text: &'a str) -> Option<Self> {
        if text.starts_with("cg_") {
            return ApiKey::parse(text).map(Self::Key);
        }
        text.contains('.').then_some(Self::Token(text))
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
    let caller = Caller { client, authentication: Authentication::Rehearsed, key: None, grant: None };
    Ok(Identified { call, caller, run, ground: None })
}

//! The pipeline: the one place where the order of the guards is written.
//!
//! Each stage takes the previous stage's type by value and returns its own, and
//! those types have private fields, so a stage cannot be skipped, repeated or
//! reordered without a compile error. What was checked is what is carried out:
//!
//! ```
//! use callgate::{audit::Committed, backend::{Backends, Routes}};
//! async fn carry_out(backends: &Backends, routes: &Routes, call: Committed) {
//!     let _ = backends.execute(routes, call).await;
//! }
//! ```
//!
//! A call that is not on record cannot be carried out:
//!
//! ```compile_fail
//! use callgate::{approval::Approved as Committed, backend::{Backends, Routes}};
//! async fn carry_out(backends: &Backends, routes: &Routes, call: Committed) {
//!     let _ = backends.execute(routes, call).await;
//! }
//! ```
//!
//! A stage's value can be handed on, and only the stage itself can make one:
//!
//! ```
//! use callgate::catalog::Admitted;
//! fn forge(call: Admitted) -> Admitted { Admitted::from(call) }
//! ```
//!
//! ```compile_fail
//! use callgate::{catalog::Admitted, identity::Identified};
//! fn forge(call: Identified) -> Admitted { Admitted::from(call) }
//! ```
//!
//! ```compile_fail
//! use callgate::catalog::Admitted;
//! fn forge(call: Admitted) -> Admitted { Admitted { ..call } }
//! ```

mod edge;
mod error;
mod reply;
mod tasks;
mod view;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    panic::AssertUnwindSafe,
    sync::Arc,
};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    approval::Approvals,
    audit::{Audit, AuditError, Change, ChangeEnding, Ending},
    backend::Backends,
    call::{Call, CallId, Origin, Outcome, Proof, Refusal as _, Stage, Trail},
    catalog::{AdmitError, Tool},
    egress::Registered,
    identity::{
        self, Caller, ClientProof, Identities, IdentityError, Metadata, MintError, NewAccessToken,
        SessionError, TokenRefusal, TokenRequest,
    },
    limits::Limits,
    manifest::{ClientName, Label, TasksSpec},
    output::Released,
    plan::Outgoing,
    rounds::Rounds,
    rules::Rules,
    runs::{EndReason, EndedRun, Principal, Run, RunId, Runs},
    schema::Lane,
    tasks::Tasks,
};

pub use edge::EdgeError;
pub use error::CallError;
pub use reply::{Answer, Fault, Notice, Reply};
pub use tasks::{Attended, TaskRefusal};
pub use view::{ListDigest, Turns, View, WatchPlace};

/// The gate: one release at a time, and what it works with.
#[derive(Debug)]
pub struct Gateway {
    rules: ArcSwap<Rules>,
    identities: Identities,
    limits: Limits,
    lane: Lane,
    approvals: Approvals,
    audit: Audit,
    backends: Backends,
    rounds: Rounds,
    runs: Arc<Runs>,
    /// Counts the releases that were put in force.
    releases: watch::Sender<u64>,
    watching: view::Watching,
    tasks: Tasks,
    under_way: TaskTracker,
    /// A fault that a test plants between the intent and the request.
    #[cfg(test)]
    pub(crate) fault: std::sync::atomic::AtomicBool,
}

impl Gateway {
    /// A gate of one release.
    #[must_use]
    pub fn new(
        rules: Rules,
        runs: Arc<Runs>,
        identities: Identities,
        audit: Audit,
        backends: Backends,
        rounds: Rounds,
    ) -> Self {
        let limits = Limits::build(&rules.clients, &rules.catalog);
        Self {
            rules: ArcSwap::from_pointee(rules),
            identities,
            limits,
            lane: Lane::start(),
            approvals: Approvals::default(),
            audit,
            backends,
            rounds,
            runs,
            releases: watch::Sender::default(),
            watching: view::Watching::default(),
            tasks: Tasks::new(TasksSpec::default()),
            under_way: TaskTracker::new(),
            #[cfg(test)]
            fault: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Keeps all calls away from an address where the gate itself listens, until the answer is dropped.
    pub fn listens_on(&self, address: SocketAddr) -> Registered {
        self.backends.egress().listeners().register(address)
    }

    /// Answers one call. However it ends, its outcome is on record first.
    ///
    /// Run it as a task of its own, so that a client that hangs up cannot drop it between effect
    /// and record.
    pub async fn call(&self, call: Call) -> Reply {
        let rules = self.rules.load_full(); // one release for the whole call
        let mut trail = Trail::begin(&call, &rules.digest);
        let outcome = match AssertUnwindSafe(self.guard(&rules, call, &mut trail)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::Panic { sent: trail_left(&trail) }),
        };
        self.seal(trail, outcome).await
    }

    async fn guard(&self, rules: &Rules, call: Call, trail: &mut Trail) -> Result<Released, CallError> {
        let identified = trail.note(self.identities.identify(&rules.clients, call).await)?;
        let admitted = trail.note(rules.catalog.admit(identified))?;
        let metered = trail.note(self.limits.spend(admitted))?;
        let validated = trail.note(rules.schemas.validate(metered, &self.lane).await)?;
        let authorized = trail.note(rules.policies.authorize(validated))?;
        let planned = rules.plans.plan(self.backends.egress(), &self.rounds, &rules.digest, authorized).await;
        let planned = trail.note(planned)?;
        let approved = trail.note(self.approvals.settle(planned))?;
        let committed = self.audit.commit(approved, trail).await;
        let committed = trail.note(committed)?;
        if !matches!(committed.outgoing(), Outgoing::Mcp(_)) {
            committed.is_under_way(); // another server says itself whether it takes its time
        }
        #[cfg(test)]
        assert!(!self.fault.load(std::sync::atomic::Ordering::Relaxed), "planted");
        let executed = trail.note(self.backends.execute(&rules.routes, committed).await)?;
        let mut released = trail.note(rules.output.release(&rules.policies, executed, &self.lane).await)?;
        self.absorb(&released).await?; // what was seen is remembered before it is answered
        let now = Timestamp::now();
        let seal = |released: &Released, state| self.rounds.seal(&released.round(&rules.digest), state, now);
        released.seal(seal).map_err(CallError::Round)?;
        released.may_be_answered().map_err(CallError::Fallen)?;
        Ok(released)
    }

    async fn absorb(&self, released: &Released) -> Result<(), CallError> {
        self.runs.absorb(released.run(), released.labels()).await.map_err(CallError::Runs)
    }

    /// Puts the outcome on record, and only then makes a reply of it.
    async fn seal(&self, mut trail: Trail, outcome: Result<Released, CallError>) -> Reply {
        self.audit.note_judged(&mut trail);
        if let Ok(released) = &outcome {
            let (value, record) = (released.content().value(), released.tool().manifest().record);
            self.audit.note_result(&mut trail, value, record);
        }
        if let Err(CallError::Identity(refusal)) = &outcome
            && trail.facts.caller.is_none()
        {
            self.audit.unidentified(trail.origin.source, refusal.code());
            return Reply { id: None, ..Reply::refused(&trail, outcome.as_ref().err()) }; // counted, not on record
        }
        let ending = ending(&outcome);
        log(&trail, &ending);
        match self.audit.seal(&trail, &ending).await {
            Ok(_receipt) => Reply::new(&trail, outcome),
            Err(error) => Reply::unrecorded(&trail, &error), // carries no answer
        }
    }

    /// The tools that exist for a caller, by name. Spends no budget and leaves no record.
    ///
    /// # Errors
    /// When the caller does not prove who it is.
    pub async fn list(&self, proof: &Proof, source: Option<IpAddr>) -> Result<Vec<Arc<Tool>>, IdentityError> {
        let rules = self.rules.load_full();
        let now = Timestamp::now();
        let caller = self.identities.authenticate(&rules.clients, proof, source, now).await?;
        Ok(self.standing(rules.catalog.list(&caller)))
    }

    /// The resources that exist for a caller, by name, the templates among them. Spends no budget and leaves no
    /// record.
    ///
    /// # Errors
    /// When the caller does not prove who it is.
    pub async fn list_resources(
        &self,
        proof: &Proof,
        source: Option<IpAddr>,
    ) -> Result<Vec<Arc<Tool>>, IdentityError> {
        let rules = self.rules.load_full();
        let caller = self.identities.authenticate(&rules.clients, proof, source, Timestamp::now()).await?;
        Ok(self.standing(rules.catalog.list_resources(&caller)))
    }

    /// The same for prompts.
    ///
    /// # Errors
    /// When the caller does not prove who it is.
    pub async fn list_prompts(
        &self,
        proof: &Proof,
        source: Option<IpAddr>,
    ) -> Result<Vec<Arc<Tool>>, IdentityError> {
        let rules = self.rules.load_full();
        let caller = self.identities.authenticate(&rules.clients, proof, source, Timestamp::now()).await?;
        Ok(self.standing(rules.catalog.list_prompts(&caller)))
    }

    /// Those with something behind them: what is in quarantine can only be refused.
    fn standing<'a>(&self, tools: impl Iterator<Item = &'a Arc<Tool>>) -> Vec<Arc<Tool>> {
        tools.filter(|tool| self.backends.stand_behind(tool)).cloned().collect()
    }

    /// Who shows this proof? A failure is counted on record.
    ///
    /// # Errors
    /// When it proves nothing.
    pub async fn authenticate(&self, proof: &Proof, origin: Origin) -> Result<Caller, IdentityError> {
        let rules = self.rules.load_full();
        let caller = self.identities.authenticate(&rules.clients, proof, origin.source, Timestamp::now());
        caller.await.inspect_err(|refusal| self.audit.unidentified(origin.source, refusal.code()))
    }

    /// What this server tells of itself to whoever asks for tokens.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        self.identities.metadata()
    }

    /// Whether tokens of an issuer are taken.
    #[must_use]
    pub fn knows_issuer(&self, issuer: &str) -> bool {
        self.identities.knows_issuer(issuer)
    }

    /// The public keys of the tokens that are issued here.
    ///
    /// # Errors
    /// When there is none, and none can be made.
    pub async fn published_keys(&self) -> Result<Option<Value>, MintError> {
        self.identities.published_keys().await
    }

    /// Makes a token for a client that asks for one. A failure to prove who it is is counted on record.
    ///
    /// # Errors
    /// When the client does not prove who it is, or asks for what it may not have.
    pub async fn mint(
        &self,
        request: &TokenRequest,
        proof: &Proof,
        origin: Origin,
    ) -> Result<NewAccessToken, TokenRefusal> {
        let rules = self.rules.load_full();
        let (certificate, now) = (proof.certificate.as_deref(), Timestamp::now());
        let minted = self.identities.mint(&rules.clients, request, certificate, origin.source, now).await;
        let minted = minted.inspect_err(|refusal| self.count_refusal(refusal, origin))?;
        let user = minted.user.as_ref().map(|user| format!(" for user {}", user.subject)).unwrap_or_default();
        let what = format!("token {} in run {}{user}", minted.id, minted.run);
        self.put_change("mint", format!("client:{}", minted.client), what, String::new(), origin.source)
            .await
            .map_err(|_| TokenRefusal::Unavailable(MintError::Unrecorded))?; // and so nobody gets it
        Ok(minted)
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// When the client does not prove who it is, or the store does not answer.
    pub async fn take_back(
        &self,
        client: &ClientProof,
        token: &SecretString,
        proof: &Proof,
        origin: Origin,
    ) -> Result<(), TokenRefusal> {
        let rules = self.rules.load_full();
        let (certificate, now) = (proof.certificate.as_deref(), Timestamp::now());
        let taken = self.identities.take_back(&rules.clients, client, token, certificate, origin.source, now);
        let taken = taken.await.inspect_err(|refusal| self.count_refusal(refusal, origin))?;
        let Some((client, id)) = taken else { return Ok(()) };
        let (actor, what) = (format!("client:{client}"), format!("token {}", id.id));
        self.put_change("revoke", actor, what, "taken back by its client".into(), origin.source)
            .await
            .map_err(|_| TokenRefusal::Unavailable(MintError::Unrecorded))
    }

    /// Puts on record what somebody changed of who may do what.
    async fn put_change(
        &self,
        act: &'static str,
        actor: String,
        what: String,
        reason: String,
        source: Option<IpAddr>,
    ) -> Result<(), AuditError> {
        let id = CallId::random(Timestamp::now());
        let change = Change { act, actor, id, key: None, reason, what };
        let ending = ChangeEnding { outcome: Outcome::Allowed, code: None, detail: None };
        let put = self.audit.end_change(&change, &ending, source).await;
        put.inspect_err(|error| tracing::warn!(%error, act, change.what, "a change is not on record"))
    }

    fn count_refusal(&self, refusal: &TokenRefusal, origin: Origin) {
        let code = match refusal {
            TokenRefusal::Client(refusal) => refusal.code(),
            other => other.code(),
        };
        self.audit.unidentified(origin.source, code);
    }

    /// Begins the run of a local process, and gives the proof that its calls show from then on.
    ///
    /// # Errors
    /// When the process may not claim to be that client, or no run can be begun.
    pub async fn begin_process(&self, proof: Proof) -> Result<(Proof, RunId), IdentityError> {
        let rules = self.rules.load_full();
        self.identities.begin_process(&rules.clients, proof, Timestamp::now()).await
    }

    /// Keeps the run of a process from being idle, for as long as this is waited for.
    pub async fn keep_process(&self, proof: &Proof) -> Infallible {
        loop {
            tokio::time::sleep(self.identities.keep_every()).await;
            self.identities.keep_process(&self.rules.load_full().clients, proof).await;
        }
    }

    /// Begins a session of an older revision, and gives its id.
    ///
    /// # Errors
    /// When there are as many as there may be, or the store does not answer.
    pub async fn begin_session(&self, caller: &Caller) -> Result<String, SessionError> {
        self.identities.begin_session(caller, Timestamp::now()).await
    }

    /// The same, and the run that the session is.
    ///
    /// # Errors
    /// When there are as many as there may be, or the store does not answer.
    pub async fn begin_stream(&self, caller: &Caller) -> Result<(String, RunId), SessionError> {
        self.identities.begin_stream(caller, Timestamp::now()).await
    }

    /// How many sessions a client may have.
    #[must_use]
    pub const fn sessions_max(&self) -> NonZeroU32 {
        self.identities.sessions_max()
    }

    /// An id for a session that nobody can guess.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new_session_id(&self) -> Result<String, SessionError> {
        self.identities.new_session_id()
    }

    /// Whether a caller and a run still stand that a session or a stream was begun with.
    #[must_use]
    pub fn stands(&self, caller: &Caller, run: Option<RunId>) -> bool {
        self.identities.stands(caller, run, Timestamp::now())
    }

    /// The run of a session that is the caller's own.
    ///
    /// # Errors
    /// When there is none of this id, or it is somebody else's.
    pub async fn session(&self, caller: &Caller, session: &str) -> Result<RunId, IdentityError> {
        Ok(self.identities.session(caller, session, Timestamp::now()).await?.id())
    }

    /// Whether a run goes on. What is in use does, however long that takes.
    #[must_use]
    pub fn is_live(&self, run: &RunId) -> bool {
        self.runs.is_live(run, Timestamp::now())
    }

    /// Ends the run of a session or a process that is over.
    pub async fn end_run(&self, run: &RunId) {
        match self.identities.end(run, EndReason::Closed).await {
            Ok(Some(ended)) => self.put_end(format!("client:{}", ended.principal.client), &ended).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%run, %error, "the run of what is over could not be ended; it ends by its idle limit");
            }
        }
    }

    /// Puts on record that a run has ended, and who ended it.
    pub async fn put_end(&self, actor: String, run: &EndedRun) {
        let _ =
            self.put_change("end-run", actor, format!("run {}", run.id), run.why.word().into(), None).await;
    }

    /// Refuses a call now that lacks only scopes, for transports that must say so early.
    /// Every other call is handed back, to be made as usual.
    ///
    /// # Errors
    /// The call, where it is not one for a step-up.
    pub async fn step_up(&self, call: Call) -> Result<(Reply, Vec<String>), Call> {
        let rules = self.rules.load_full();
        let source = call.origin.source;
        let caller = self.identities.authenticate(&rules.clients, &call.proof, source, call.received).await;
        let Ok(caller) = caller else { return Err(call) };
        if !rules.catalog.needs_step_up(&caller, &call.kind) {
            return Err(call);
        }
        let mut trail = Trail::begin(&call, &rules.digest);
        let admitted = match trail.note(self.identities.identify(&rules.clients, call).await) {
            Ok(identified) => trail.note(rules.catalog.admit(identified)).map_err(CallError::from),
            Err(refusal) => Err(refusal.into()),
        };
        // The same rules give the same answer: what lacked a scope above is not admitted here.
        let outcome = admitted.and_then(|_| Err(CallError::Panic { sent: false }));
        let scopes = match &outcome {
            Err(CallError::Admit(AdmitError::MissingScope { tool, .. })) => {
                tool.manifest().scopes.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        Ok((self.seal(trail, outcome).await, scopes))
    }

    /// Refuses a call whose message is not one to act on, and puts that on record. A call that names
    /// no tool stands for a message of which nothing can be said.
    pub async fn refuse_at_edge(&self, call: Call, refusal: EdgeError) -> Reply {
        self.refuse_of(call, refusal, None).await
    }

    /// The same for a call whose caller is known, and the run of its session where it is in one: should the caller
    /// have lost its right since, that is what is on record.
    pub async fn refuse_known_at_edge(
        &self,
        call: Call,
        refusal: EdgeError,
        caller: &Caller,
        session: Option<RunId>,
    ) -> Reply {
        self.refuse_of(call, refusal, Some((caller, session))).await
    }

    async fn refuse_of(
        &self,
        call: Call,
        refusal: EdgeError,
        known: Option<(&Caller, Option<RunId>)>,
    ) -> Reply {
        let (rules, now) = (self.rules.load_full(), call.received);
        let mut trail = Trail::begin(&call, &rules.digest);
        if trail.target.is_empty() {
            trail.kind = "message";
        }
        let outcome = match trail.note(self.identities.identify(&rules.clients, call).await) {
            Ok(_) => Err(CallError::Edge(refusal)),
            Err(lost) => {
                trail.facts.caller =
                    known.map(|(caller, session)| self.identities.facts_of(caller, session, now));
                Err(lost.into())
            }
        };
        self.seal(trail, outcome).await
    }

    /// Counts a request that was turned away before it was known whose it is, or for want of room.
    pub fn count(&self, source: Option<IpAddr>, code: &'static str) {
        self.audit.unidentified(source, code);
    }

    /// The tool of a name, if it exists for a caller.
    #[must_use]
    pub fn visible(&self, caller: &Caller, name: &str) -> Option<Arc<Tool>> {
        self.rules.load().catalog.visible(caller, name).cloned()
    }

    /// Can calls be taken?
    ///
    /// # Errors
    /// When nothing can be put on record: why, in a line.
    pub fn ready(&self) -> Result<(), &'static str> {
        self.audit.ready()
    }

    /// The release in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// The log of this process.
    #[must_use]
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }
}

/// Judges a call as if `client` made it, and carries nothing out.
///
/// # Errors
/// The refusal, as the call would get it.
pub fn rehearse(
    rules: &Rules,
    client: &ClientName,
    labels: impl IntoIterator<Item = Label>,
    call: Call,
    trail: &mut Trail,
) -> Result<(), CallError> {
    let run = Run::rehearsal(Principal::client(client.clone()), labels.into_iter().collect());
    let limits = Limits::build(&rules.clients, &rules.catalog); // a rehearsal spends nobody's budget
    let identified = trail.note(identity::rehearse(&rules.clients, client, run, call))?;
    let admitted = trail.note(rules.catalog.admit(identified))?;
    let metered = trail.note(limits.spend(admitted))?;
    let validated = trail.note(rules.schemas.rehearse(metered))?;
    let authorized = trail.note(rules.policies.authorize(validated))?;
    let planned = trail.note(rules.plans.rehearse(authorized))?;
    trail.note(Approvals::default().settle(planned))?;
    Ok(())
}

/// Whether the call may have left when its trail ends here: it was on record to leave.
fn trail_left(trail: &Trail) -> bool {
    trail.stages.iter().any(|note| note.stage == Stage::Audit && note.verdict == "passed")
}

fn ending(outcome: &Result<Released, CallError>) -> Ending {
    match outcome {
        Ok(released) => {
            Ending { outcome: reply::outcome_of(released), stage: None, code: None, detail: None }
        }
        Err(error) => Ending {
            outcome: error.outcome(),
            stage: Some(error.stage()),
            code: Some(error.code()),
            detail: Some(error.to_string()),
        },
    }
}

/// One line per call, with the same fields for a denial as for an allow.
fn log(trail: &Trail, ending: &Ending) {
    tracing::info!(
        call = %trail.id,
        client = trail.facts.caller.as_ref().map(|caller| caller.client.as_str()),
        tool = %trail.target.escape_debug(),
        outcome = %ending.outcome,
        stage = ending.stage.map(Stage::word),
        code = ending.code,
        micros = u64::try_from(trail.elapsed().as_micros()).unwrap_or(u64::MAX),
        "call"
    );
}

//! The door of the backend stage.

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Answer, BackendError, Backends, Body, CallLimits, TimeLimit, mcp, offers, own};
use crate::{
    audit::Committed,
    call::{AnswerFacts, CallKind, Facts, Outcome, Passed, Refusal, Stage},
    credential::{CredentialError, Credentials, Lease, LeaseRequest},
    egress::{Allowances, Departure},
    manifest::{BackendSpec, CredentialChoice, CredentialName, Effects, ServiceName, ToolName},
    plan::{Outgoing, OutgoingCall},
    runs::StandingError,
};

/// A call that a backend answered.
#[derive(Debug)]
pub struct Executed {
    committed: Committed,
    answer: Answer,
    credential: Option<CredentialName>,
    /// Whether the service refused the credential first, and took it once it was got anew.
    is_refreshed: bool,
    /// What went along stays registered until the answer was searched for it, also if it is replaced meanwhile.
    _leases: Vec<Arc<Lease>>,
}

impl Executed {
    /// Takes the answer's body out, to be judged. Only the first taker gets it.
    pub const fn take_body(&mut self) -> Body {
        std::mem::replace(&mut self.answer.body, Body::Json(Value::Null))
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        self.answer.status
    }

    /// The address that answered.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.answer.peer
    }
}

impl Deref for Executed {
    type Target = Committed;
    fn deref(&self) -> &Committed {
        &self.committed
    }
}

impl Passed for Executed {
    const STAGE: Stage = Stage::Backend;
    fn describe(&self, facts: &mut Facts) {
        facts.credential = self.credential.as_ref().map(ToString::to_string);
        facts.credential_refreshed = self.is_refreshed;
        facts.answer = Some(AnswerFacts {
            service: self.tool().manifest().backend.service().to_string(),
            status: self.answer.status,
            peer: self.answer.peer.map(|peer| peer.to_string()),
            bytes: Some(self.answer.bytes),
        });
    }
}

/// Why a call was not carried out, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The backend gave no usable answer.
    #[error("`{service}`: {source}")]
    Backend {
        /// The service that was called.
        service: ServiceName,
        /// What the tool changes.
        effects: Effects,
        /// The credential that went along.
        credential: Option<CredentialName>,
        /// Whether the credential was got anew for a second try, which this is the end of.
        is_refreshed: bool,
        /// Why.
        source: BackendError,
    },
    /// The credential may not serve this call.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The caller's right was taken away after the call arrived.
    #[error("the caller's right was taken away: {0}")]
    Fallen(#[from] StandingError),
    /// The tool has no route: it is not of this release.
    #[error("tool `{tool}` has no route")]
    NoRoute {
        /// The tool.
        tool: ToolName,
    },
}

impl Refusal for ExecuteError {
    fn stage(&self) -> Stage {
        Stage::Backend
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Backend { source, .. } => source.code(),
            Self::Credential(error) => error.code(),
            Self::Fallen(_) => "revoked",
            Self::NoRoute { .. } => "no_route",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Backend { source, .. } => source.public_message(),
            Self::Fallen(_) => "authentication failed".into(),
            Self::Credential(_) | Self::NoRoute { .. } => "temporarily unavailable".into(),
        }
    }
    fn outcome(&self) -> Outcome {
        match self {
            Self::Backend {
                source: BackendError::Egress { sent: false, .. } | BackendError::NotReady(_),
                ..
            } => Outcome::Denied,
            // A read that may have happened has changed nothing.
            Self::Backend { source, effects, .. }
                if *effects != Effects::Read && source.effect_possible() =>
            {
                Outcome::Unknown
            }
            Self::Backend { .. } => Outcome::Failed,
            Self::Fallen(_) | Self::Credential(_) | Self::NoRoute { .. } => Outcome::Denied,
        }
    }
    fn describe(&self, facts: &mut Facts) {
        if let Self::Backend { service, source, credential, is_refreshed, .. } = self {
            let status = match source {
                BackendError::Status { code } | BackendError::Redirected { code } => Some(*code),
                _ => None,
            };
            facts.credential = credential.as_ref().map(ToString::to_string);
            facts.credential_refreshed = *is_refreshed;
            facts.answer =
                Some(AnswerFacts { service: service.to_string(), status, peer: None, bytes: None });
        }
    }
}

/// How the tools of a release reach their backends.
#[derive(Debug)]
pub struct Routes {
    tools: HashMap<ToolName, Route>,
    credentials: Credentials,
}

/// How one tool reaches its backend.
#[derive(Debug)]
pub struct Route {
    /// Bounds on each call.
    pub limits: CallLimits,
    /// Where its calls may go besides public addresses.
    pub allowances: Allowances,
    /// The credentials that go along.
    pub credential: Option<CredentialChoice>,
}

impl Routes {
    /// Routes that use these credentials.
    #[must_use]
    pub fn new(tools: HashMap<ToolName, Route>, credentials: Credentials) -> Self {
        Self { tools, credentials }
    }

    /// The credentials.
    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

impl Route {
    /// The credential that goes with a client's calls.
    fn credential(&self, tool: &ToolName, client: &str) -> Result<Option<&CredentialName>, CredentialError> {
        let Some(choice) = &self.credential else { return Ok(None) };
        let missing = || CredentialError::NotForClient { tool: tool.clone(), client: client.to_owned() };
        choice.of(client).ok_or_else(missing).map(Some)
    }
}

impl Backends {
    /// Carries out a call that is on record, on the credential of its tool and client alone.
    ///
    /// # Errors
    /// When no usable answer came; the error says whether something may have happened.
    pub async fn execute(&self, routes: &Routes, committed: Committed) -> Result<Executed, ExecuteError> {
        let manifest = committed.tool().manifest();
        let (tool, service) = (&manifest.tool, manifest.backend.service());
        let client = committed.caller().client().name().as_str();
        let route = routes.tools.get(tool).ok_or_else(|| ExecuteError::NoRoute { tool: tool.clone() })?;
        let deadline = Instant::now() + route.limits.timeout;
        let credential = route.credential(tool, client)?.cloned();
        let request = credential.as_ref().map(|name| {
            let user = user(&committed);
            LeaseRequest { tool, service, name, client, user, deadline }
        });
        let lease = match request {
            Some(request) => Some(Arc::new(self.lease(&routes.credentials, request, &committed).await?)),
            None => None,
        };
        let (mut is_refreshed, mut leases) = (false, Vec::new());
        let mut outcome = self.attempt(&committed, route, lease.as_ref(), deadline).await?;
        if let (Err(BackendError::Status { code: 401 }), Some(lease), Some(request)) =
            (&outcome, &lease, request)
        {
            let may_repeat = manifest.idempotent || manifest.effects == Effects::Read;
            if !may_repeat {
                routes.credentials.reject(lease);
            } else if let Some(renewed) = routes.credentials.renew(&self.egress, request, lease).await {
                is_refreshed = true;
                let renewed = Arc::new(renewed);
                outcome = self.attempt(&committed, route, Some(&renewed), deadline).await?;
                leases.push(renewed);
            }
        }
        match outcome {
            Ok(answer) => {
                leases.extend(lease);
                Ok(Executed { committed, answer, credential, is_refreshed, _leases: leases })
            }
            Err(source) => Err(ExecuteError::Backend {
                service: service.clone(),
                effects: manifest.effects,
                credential,
                is_refreshed,
                source,
            }),
        }
    }

    /// Waits for a credential, unless the caller gives up.
    async fn lease(
        &self,
        credentials: &Credentials,
        request: LeaseRequest<'_>,
        committed: &Committed,
    ) -> Result<Lease, ExecuteError> {
        tokio::select! {
            biased;
            lease = credentials.lease(&self.egress, request) => Ok(lease?),
            () = committed.cancel.cancelled() => Err(ExecuteError::Backend {
                service: request.service.clone(),
                effects: committed.tool().manifest().effects,
                credential: None,
                is_refreshed: false,
                source: BackendError::Cancelled { sent: false },
            }),
        }
    }

    /// Sends the request once, in what is left of the call's time. The outer error is for a request that did not leave.
    async fn attempt(
        &self,
        committed: &Committed,
        route: &Route,
        lease: Option<&Arc<Lease>>,
        deadline: Instant,
    ) -> Result<Result<Answer, BackendError>, ExecuteError> {
        let backend = self.within_as(&route.allowances, lease.and_then(|lease| lease.identity()));
        let whole = route.limits;
        let left = CallLimits { timeout: deadline.saturating_duration_since(Instant::now()), ..whole };
        // What came before may have taken long. Connecting may, too, and is followed by another look.
        committed.still_stands()?;
        let departure = Departure::new(committed.standing());
        let outcome = match committed.outgoing() {
            Outgoing::Http(request) => {
                backend.carry_out(request, lease.map(Arc::as_ref), left, &committed.cancel, &departure).await
            }
            Outgoing::Own => own::answer(committed.tool().manifest(), committed),
            Outgoing::Mcp(call) => self.call_tool(committed, call, lease, left.timeout, &departure).await,
        };
        if matches!(outcome, Err(BackendError::Fallen { sent: false })) {
            committed.still_stands()?;
        }
        Ok(outcome.map_err(|error| match error {
            BackendError::TimedOut { limit: TimeLimit::Total, sent, .. } => {
                BackendError::TimedOut { limit: TimeLimit::Total, after: whole.timeout, sent }
            }
            error => error,
        }))
    }
}

impl Backends {
    async fn call_tool(
        &self,
        committed: &Committed,
        call: &OutgoingCall,
        lease: Option<&Arc<Lease>>,
        timeout: Duration,
        departure: &Arc<Departure>,
    ) -> Result<Answer, BackendError> {
        let BackendSpec::Mcp(backend) = &committed.tool().manifest().backend else {
            return Err(BackendError::NotMcp); // a plan is made of its manifest
        };
        let leaving = mcp::Leaving { committed, lease, departure, timeout };
        match &committed.kind {
            CallKind::Completion(completion) => match own::suggested(committed.tool().manifest(), completion)
            {
                Some(answer) => Ok(answer),
                None => offers::complete(&self.upstreams, backend, completion, &leaving).await,
            },
            CallKind::Subscription { updates, .. } => {
                offers::subscribe(&self.upstreams, backend, updates, &leaving).await
            }
            CallKind::Tool { .. } | CallKind::Resource { .. } | CallKind::Prompt { .. } => {
                mcp::call(&self.upstreams, backend, call, &leaving).await
            }
        }
    }
}

/// The user that a call is made for: the issuer, and the subject there.
fn user(committed: &Committed) -> Option<(&str, &str)> {
    committed.caller().user().map(|user| (user.issuer.as_str(), user.subject.as_str()))
}

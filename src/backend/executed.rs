//! The door of the backend stage.

use std::{collections::HashMap, net::SocketAddr, ops::Deref};

use serde_json::Value;

use super::{Answer, BackendError, Backends, CallLimits};
use crate::{
    audit::Committed,
    call::{AnswerFacts, Facts, Outcome, Passed, Refusal, Stage},
    credential::{CredentialError, Credentials},
    egress::Allowances,
    manifest::{CredentialName, Effects, ServiceName, ToolName},
    runs::StandingError,
};

/// A call that a backend answered.
#[derive(Debug)]
pub struct Executed {
    committed: Committed,
    answer: Answer,
    credential: Option<CredentialName>,
}

impl Executed {
    /// Takes the answer's body out, to be judged. Only the first taker gets it.
    pub fn take_body(&mut self) -> Value {
        self.answer.body.take()
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
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
        facts.answer = Some(AnswerFacts {
            service: self.tool().manifest().backend.service().to_string(),
            status: Some(self.answer.status),
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
            Self::Credential(_) => "credential",
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
            Self::Backend { source: BackendError::Egress { sent: false, .. }, .. } => Outcome::Denied,
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
        if let Self::Backend { service, source, credential, .. } = self {
            let status = match source {
                BackendError::Status { code } | BackendError::Redirected { code } => Some(*code),
                _ => None,
            };
            facts.credential = credential.as_ref().map(ToString::to_string);
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
    /// The credential that goes along.
    pub credential: Option<CredentialName>,
}

impl Routes {
    /// Routes that use these credentials.
    #[must_use]
    pub fn new(tools: HashMap<ToolName, Route>, credentials: Credentials) -> Self {
        Self { tools, credentials }
    }
}

impl Backends {
    /// Carries out a call that is on record, on the credential of its tool alone.
    ///
    /// # Errors
    /// When no usable answer came; the error says whether something may have happened.
    pub async fn execute(&self, routes: &Routes, committed: Committed) -> Result<Executed, ExecuteError> {
        let manifest = committed.tool().manifest();
        let (name, service) = (&manifest.tool, manifest.backend.service());
        let route = routes.tools.get(name).ok_or_else(|| ExecuteError::NoRoute { tool: name.clone() })?;
        let credential = route.credential.clone();
        let lease = match &credential {
            Some(credential) => Some(routes.credentials.lease(name, service, credential)?),
            None => None,
        };
        let backend = self.within(&route.allowances);
        // The last look before the request leaves: what came before may have taken long.
        committed.still_stands()?;
        match backend.carry_out(committed.request(), lease.as_ref(), route.limits, &committed.cancel).await {
            Ok(answer) => Ok(Executed { committed, answer, credential }),
            Err(source) => Err(ExecuteError::Backend {
                service: service.clone(),
                effects: manifest.effects,
                credential,
                source,
            }),
        }
    }
}

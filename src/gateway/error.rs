//! Why a call was not answered, from whichever stage.

use super::EdgeError;
use crate::{
    approval::ApprovalError,
    audit::AuditError,
    backend::ExecuteError,
    call::{Outcome, Refusal, Stage},
    catalog::AdmitError,
    identity::IdentityError,
    limits::LimitError,
    output::OutputError,
    plan::Unsendable,
    policy::AuthorizeError,
    rounds::RoundError,
    runs::{RunsError, StandingError},
    schema::SchemaError,
};

/// Why a call was not answered. `Display` is for the log and the record.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The message that makes it is not one to act on.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The caller does not prove who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The tool does not exist for the caller.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// A budget is spent.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The arguments do not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Policy does not permit it.
    #[error(transparent)]
    Policy(#[from] AuthorizeError),
    /// The arguments make no request.
    #[error(transparent)]
    Plan(#[from] Unsendable),
    /// A person has to agree.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// It cannot be put on record.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The backend gave no usable answer.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The answer may not leave.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// What the run has seen cannot be remembered.
    #[error(transparent)]
    Runs(RunsError),
    /// The caller, or its run, lost its right while the call was under way: the answer is there, and not for it.
    #[error("the caller's right was taken away: {0}")]
    Fallen(StandingError),
    /// What the caller is asked cannot be sealed for its way there and back.
    #[error(transparent)]
    Round(RoundError),
    /// A stage panicked.
    #[error("a stage panicked")]
    Panic {
        /// Whether the call may have left before.
        sent: bool,
    },
}

impl CallError {
    /// The stage's own refusal, where a stage made it.
    fn refusal(&self) -> Option<&dyn Refusal> {
        match self {
            Self::Edge(refusal) => Some(refusal),
            Self::Identity(refusal) => Some(refusal),
            Self::Admit(refusal) => Some(refusal),
            Self::Limit(refusal) => Some(refusal),
            Self::Schema(refusal) => Some(refusal),
            Self::Policy(refusal) => Some(refusal),
            Self::Plan(refusal) => Some(refusal),
            Self::Approval(refusal) => Some(refusal),
            Self::Audit(refusal) => Some(refusal),
            Self::Execute(refusal) => Some(refusal),
            Self::Output(refusal) => Some(refusal),
            Self::Runs(_) | Self::Fallen(_) | Self::Round(_) | Self::Panic { .. } => None,
        }
    }
}

impl Refusal for CallError {
    fn stage(&self) -> Stage {
        match self {
            Self::Runs(_) | Self::Fallen(_) | Self::Round(_) => Stage::Output,
            _ => self.refusal().map_or(Stage::Gateway, Refusal::stage),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Runs(_) => "runs_unavailable",
            Self::Fallen(_) => "revoked",
            Self::Round(_) => "request_state",
            _ => self.refusal().map_or("panic", Refusal::code),
        }
    }

    fn public_message(&self) -> String {
        match self {
            // As it would be told now.
            Self::Fallen(_) => "authentication failed".into(),
            Self::Runs(_) | Self::Round(_) => format!("answer withheld (rule `{}`)", self.code()),
            _ => self.refusal().map_or_else(|| "internal error".into(), Refusal::public_message),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Runs(_) | Self::Fallen(_) | Self::Round(_) => Outcome::Withheld,
            Self::Panic { sent: true } => Outcome::Unknown,
            _ => self.refusal().map_or(Outcome::Failed, Refusal::outcome),
        }
    }
}

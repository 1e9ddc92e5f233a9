//! What a caller gets: an answer, or a notice that it can act on.

use serde_json::Value;

use super::CallError;
use crate::{
    audit::AuditError,
    backend::{BackendError, ExecuteError},
    call::{CallId, Outcome, Refusal as _, Trail},
    catalog::AdmitError,
    hygiene,
    output::{Content, Released, Removal},
    plan::Unsendable,
    rounds::RoundError,
};

/// Longer messages are cut.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// The reply to one call.
#[derive(Debug)]
pub struct Reply {
    /// The call's id, which its record carries. None where nothing is on record.
    pub id: Option<CallId>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the caller gets.
    pub body: Result<Answer, Notice>,
}

/// An answer, as far as it may leave.
#[derive(Debug)]
pub struct Answer {
    /// What leaves.
    pub content: Content,
    /// What was removed from it.
    pub removed: Vec<Removal>,
}

/// What a caller is told in place of an answer.
#[derive(Debug)]
pub enum Notice {
    /// What it asked for does not exist for it.
    Unknown(String),
    /// It was refused, or failed; the text can be acted on.
    Refused {
        /// The reason in one word.
        code: &'static str,
        /// The reason in a sentence.
        message: String,
        /// What is at fault, where the protocol has an error of its own for that.
        fault: Option<Fault>,
    },
}

/// What is wrong with a request that is its client's to mend, and not its model's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// A parameter that no model writes, such as `requestState`.
    Params,
    /// The client lacks these abilities (MCP `ClientCapabilities`), and the call needs them.
    Abilities(Vec<&'static str>),
}

impl Reply {
    /// The reply to a call whose outcome is on record.
    pub(super) fn new(trail: &Trail, outcome: Result<Released, CallError>) -> Self {
        match outcome {
            Ok(released) => {
                let outcome = outcome_of(&released);
                let (content, removed) = released.into_parts();
                Self { id: Some(trail.id), outcome, body: Ok(Answer { content, removed }) }
            }
            Err(error) => Self::refused(trail, Some(&error)),
        }
    }

    pub(super) fn refused(trail: &Trail, error: Option<&CallError>) -> Self {
        let message = error.map_or_else(|| "internal error".into(), CallError::public_message);
        // A message may repeat a name that the caller made up.
        let message: String = hygiene::clean(&message).0.chars().take(MESSAGE_CHARS_MAX).collect();
        let body = match error {
            Some(CallError::Admit(
                AdmitError::UnknownTool { .. }
                | AdmitError::NotListed { .. }
                | AdmitError::UnknownResource { .. }
                | AdmitError::UnknownPrompt { .. },
            )) => Notice::Unknown(message),
            Some(error) => Notice::Refused { code: error.code(), message, fault: fault(error) },
            None => Notice::Refused { code: "failed", message, fault: None },
        };
        let outcome = error.map_or(Outcome::Failed, |error| error.outcome());
        Self { id: Some(trail.id), outcome, body: Err(body) }
    }

    /// The reply to a call whose outcome is not on record: it carries no answer.
    pub(super) fn unrecorded(trail: &Trail, error: &AuditError) -> Self {
        tracing::error!(call = %trail.id, %error, "the outcome of a call is not on record, and its answer stays here");
        let notice = Notice::Refused { code: error.code(), message: error.public_message(), fault: None };
        Self { id: None, outcome: Outcome::Withheld, body: Err(notice) }
    }
}

fn fault(error: &CallError) -> Option<Fault> {
    match error {
        CallError::Plan(Unsendable::Round(RoundError::Foreign | RoundError::Expired | RoundError::Used)) => {
            Some(Fault::Params)
        }
        CallError::Execute(ExecuteError::Backend { source: BackendError::Unable { needs }, .. }) => {
            Some(Fault::Abilities(needs.clone()))
        }
        _ => None,
    }
}

/// How a call ended that was carried out: one that its caller is asked about is not over.
pub(super) const fn outcome_of(released: &Released) -> Outcome {
    match released.content() {
        Content::Questions { .. } => Outcome::Pending,
        Content::Structured(_)
        | Content::Unchecked(_)
        | Content::Result(_)
        | Content::Contents(_)
        | Content::Messages(_)
        | Content::Completion { .. }
        | Content::Done => Outcome::Allowed,
    }
}

impl Answer {
    /// The value that leaves.
    #[must_use]
    pub const fn value(&self) -> &Value {
        self.content.value()
    }
}

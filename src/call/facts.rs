//! What the guards found out about a call, for its record.
//!
//! Members that are written are declared in the order of their names, which is the canonical one (RFC 8785).

use std::{fmt, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::User;
use crate::hygiene::Findings;

/// What is known of a call. Guards fill it in as the call passes them.
///
/// Holds names and digests: never a secret, never an argument's or an answer's text, but for `judged`,
/// which no record holds.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Who called.
    pub caller: Option<CallerFacts>,
    /// The tool that was called, where it exists for the caller.
    pub tool: Option<ToolFacts>,
    /// A salted digest of the validated arguments.
    pub arguments_digest: Option<String>,
    /// What the policies decided.
    pub decision: Option<DecisionFacts>,
    /// A salted digest of what the policies decided on besides the arguments, where that is kept.
    pub decision_input_digest: Option<String>,
    /// What the policies decided on, on its way to the encrypted store.
    pub judged: Option<Arc<Judged>>,
    /// The name of the credential that went with the request.
    pub credential: Option<String>,
    /// Whether the service refused the credential, and it was got anew for a second try.
    pub credential_refreshed: bool,
    /// What the backend did.
    pub answer: Option<AnswerFacts>,
    /// A salted digest of the released answer.
    pub result_digest: Option<String>,
    /// The labels that the answer put on the run.
    pub labels: Vec<String>,
    /// The labels whose fields were removed from the answer.
    pub removed: Vec<String>,
    /// How many fields of the answer its schema did not name, and were dropped.
    pub dropped: usize,
    /// Characters that no reader sees, which were removed.
    pub hidden: HiddenFacts,
}

/// Characters that no reader sees, counted where they were removed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct HiddenFacts {
    /// Of the answer.
    #[serde(skip_serializing_if = "Findings::is_clean")]
    pub answer: Findings,
    /// Of the arguments.
    #[serde(skip_serializing_if = "Findings::is_clean")]
    pub arguments: Findings,
}

impl HiddenFacts {
    /// Was nothing removed?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.arguments.is_clean() && self.answer.is_clean()
    }
}

/// What the policies decided on, of a call that is kept whole (`record: full`).
pub struct Judged {
    /// The arguments, as they were validated.
    pub arguments: Value,
    /// The rest, but for the release: `docs/audit-format.md` says how it is written.
    pub input: Value,
}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judged")
    }
}

/// Who called.
#[derive(Clone, Debug, Serialize)]
pub struct CallerFacts {
    /// How it proved who it is.
    pub authentication: &'static str,
    /// The client.
    pub client: String,
    /// The id of the key it showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The run the call belongs to. Empty where its caller lost its right before it was in one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The run that ended, by being idle, before this one began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_ended: Option<String>,
    /// The access token it showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenFacts>,
    /// The user it acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
}

/// An access token, by what is no secret of it.
#[derive(Clone, Debug, Serialize)]
pub struct TokenFacts {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who issued it.
    pub issuer: String,
}

/// The tool that was called.
#[derive(Clone, Debug, Serialize)]
pub struct ToolFacts {
    /// The digest of its definition.
    pub digest: String,
    /// What it changes.
    pub effects: &'static str,
}

/// What the policies decided.
#[derive(Clone, Debug, Serialize)]
pub struct DecisionFacts {
    /// The groups that have to agree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
    /// The policies that decided.
    pub policies: Vec<PolicyFact>,
    /// The decision.
    pub verdict: DecisionVerdict,
}

/// A decision in one word.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionVerdict {
    /// It may go.
    Allow,
    /// It may not.
    Deny,
    /// A person has to agree.
    Pending,
}

/// A policy that decided.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PolicyFact {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the backend did.
#[derive(Clone, Debug, Serialize)]
pub struct AnswerFacts {
    /// The size of the answer in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// The address that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The service.
    pub service: String,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

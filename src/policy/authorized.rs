//! The door of the policy stage.

use std::{ops::Deref, sync::Arc};

use super::{CallFacts, Deciding, Decision, DecisionInput, Obligation, Policies, PolicyError, Verdict};
use crate::{
    call::{DecisionFacts, DecisionVerdict, Facts, Judged, Passed, PolicyFact, Refusal, Stage},
    manifest::ToolRecord,
    schema::Validated,
};

/// A call that policy permits, if the people it names agree.
#[derive(Debug)]
pub struct Authorized {
    validated: Validated,
    decision: Decision,
    judged: Option<Arc<Judged>>,
}

impl Authorized {
    /// Who has to agree; nobody, for most calls.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        match &self.decision.verdict {
            Verdict::Pending(obligations) => obligations,
            Verdict::Allow | Verdict::Deny => &[],
        }
    }

    /// What was decided, and by which policies.
    #[must_use]
    pub const fn decision(&self) -> &Decision {
        &self.decision
    }
}

impl Deref for Authorized {
    type Target = Validated;
    fn deref(&self) -> &Validated {
        &self.validated
    }
}

impl Passed for Authorized {
    const STAGE: Stage = Stage::Policy;
    fn describe(&self, facts: &mut Facts) {
        facts.decision = Some(self.decision.facts());
        facts.judged.clone_from(&self.judged);
    }
}

/// Why policy does not permit a call.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    /// The policies say no.
    #[error("not permitted, decided by {}", by(decision))]
    Denied {
        /// The decision.
        decision: Decision,
        /// What it was made on, where that is kept.
        judged: Option<Arc<Judged>>,
    },
    /// The policies could not be evaluated, which is a no.
    #[error("not permitted: {error}")]
    Undecided {
        /// Why.
        error: PolicyError,
        /// What was to be decided on, where that is kept.
        judged: Option<Arc<Judged>>,
    },
}

fn by(decision: &Decision) -> String {
    if decision.policies.is_empty() {
        return "no policy that permits it".into();
    }
    decision.policies.iter().map(|policy| format!("`{}`", policy.id)).collect::<Vec<_>>().join(", ")
}

impl Refusal for AuthorizeError {
    fn stage(&self) -> Stage {
        Stage::Policy
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "not_permitted",
            Self::Undecided { .. } => "policy_undecided",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Denied { decision, .. } => {
                let reasons: Vec<&str> =
                    decision.policies.iter().filter_map(|policy| policy.reason.as_deref()).collect();
                if reasons.is_empty() {
                    "not permitted".into()
                } else {
                    format!("not permitted: {}", reasons.join("; "))
                }
            }
            Self::Undecided { error, .. } => error.public_message(),
        }
    }
    fn describe(&self, facts: &mut Facts) {
        let (Self::Denied { judged, .. } | Self::Undecided { judged, .. }) = self;
        facts.judged.clone_from(judged);
        if let Self::Denied { decision, .. } = self {
            facts.decision = Some(decision.facts());
        }
    }
}

impl Decision {
    /// Whether the answer is a plain yes.
    #[must_use]
    pub const fn is_allow(&self) -> bool {
        matches!(self.verdict, Verdict::Allow)
    }

    /// The decision, for the record.
    #[must_use]
    pub fn facts(&self) -> DecisionFacts {
        let (verdict, obligations) = match &self.verdict {
            Verdict::Allow => (DecisionVerdict::Allow, &[][..]),
            Verdict::Deny => (DecisionVerdict::Deny, &[][..]),
            Verdict::Pending(obligations) => (DecisionVerdict::Pending, obligations.as_slice()),
        };
        DecisionFacts {
            verdict,
            policies: self.policies.iter().map(Deciding::fact).collect(),
            approvals: obligations.iter().map(|one| format!("{}:{}", one.group, one.people)).collect(),
        }
    }
}

impl PolicyError {
    /// What the agent is told: it can mend an argument, and nothing else.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Argument { .. } => format!("not permitted: {self}"),
            Self::UnknownClient { .. }
            | Self::UnknownTool { .. }
            | Self::Facts { .. }
            | Self::Evaluation { .. } => "not permitted".into(),
        }
    }
}

impl Deciding {
    fn fact(&self) -> PolicyFact {
        PolicyFact { id: self.id.to_string(), reason: self.reason.as_deref().map(str::to_owned) }
    }
}

/// What is kept of a decision, where the tool says that its calls are kept whole.
fn judged(call: &Validated, facts: CallFacts) -> Option<Arc<Judged>> {
    if call.tool().manifest().record != ToolRecord::Full {
        return None;
    }
    let input = DecisionInput::new(facts, call.run().id().to_string(), call.tool().name().clone());
    let input = serde_json::to_value(input).ok()?;
    Some(Arc::new(Judged { arguments: call.arguments().as_value().clone(), input }))
}

impl Policies {
    /// Lets a call go on that policy permits, or would permit if people agree.
    ///
    /// # Errors
    /// When policy does not permit it, or cannot tell.
    pub fn authorize(&self, validated: Validated) -> Result<Authorized, AuthorizeError> {
        let facts = CallFacts::of(&validated);
        let decided = self.decide(&facts.question(), validated.tool().name(), validated.arguments().as_map());
        let judged = judged(&validated, facts);
        match decided {
            Ok(decision) if decision.verdict == Verdict::Deny => {
                Err(AuthorizeError::Denied { decision, judged })
            }
            Ok(decision) => Ok(Authorized { validated, decision, judged }),
            Err(error) => Err(AuthorizeError::Undecided { error, judged }),
        }
    }
}

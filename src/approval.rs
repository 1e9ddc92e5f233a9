//! `Planned → Approved`: does a person have to agree, and has one?
//!
//! Nobody can be asked yet: a call that needs a person is refused, on record.

use std::ops::Deref;

use crate::{
    call::{CallId, Facts, Outcome, Passed, Refusal, Stage},
    plan::Planned,
    policy::Obligation,
};

/// A call that everybody agreed to who has to.
#[derive(Debug)]
pub struct Approved {
    planned: Planned,
}

impl Deref for Approved {
    type Target = Planned;
    fn deref(&self) -> &Planned {
        &self.planned
    }
}

impl Passed for Approved {
    const STAGE: Stage = Stage::Approval;
    fn describe(&self, _: &mut Facts) {}
}

/// Why a call is not approved.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// People have to agree, and have not.
    #[error("approval required from {}", groups(obligations))]
    Required {
        /// The call that waits.
        id: CallId,
        /// Who has to agree.
        obligations: Vec<Obligation>,
    },
}

fn groups(obligations: &[Obligation]) -> String {
    let groups = obligations.iter().map(|obligation| match obligation.people.get() {
        1 => format!("`{}`", obligation.group),
        people => format!("{people} of `{}`", obligation.group),
    });
    groups.collect::<Vec<_>>().join(" and ")
}

impl Refusal for ApprovalError {
    fn stage(&self) -> Stage {
        Stage::Approval
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Required { .. } => "approval_required",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Required { id, .. } => {
                format!(
                    "{self} (pending {id}); this gate cannot ask them yet, so a retry gets the same answer"
                )
            }
        }
    }
    fn outcome(&self) -> Outcome {
        match self {
            Self::Required { .. } => Outcome::Pending,
        }
    }
}

/// Asks the people whom a decision names.
#[derive(Debug, Default)]
pub struct Approvals {}

impl Approvals {
    /// Lets a call go on that nobody has to agree to.
    ///
    /// # Errors
    /// When somebody has to.
    pub fn settle(&self, planned: Planned) -> Result<Approved, ApprovalError> {
        if planned.obligations().is_empty() {
            return Ok(Approved { planned });
        }
        Err(ApprovalError::Required { id: planned.id, obligations: planned.obligations().to_vec() })
    }
}

//! `Authorized → Planned`: what exactly would be sent?
//!
//! A [`Plan`] is compiled once, when a tool is loaded; each call makes it an
//! [`OutgoingRequest`], purely. It is made before a person is asked and before
//! the intent is on record: what they agree to, and what stands on record, is
//! what is sent, and an argument that cannot be sent leaves no intent behind.

mod http;
#[cfg(test)]
mod naive;
mod request;
mod slot;
mod urls;

use std::{collections::HashMap, ops::Deref};

use crate::{
    call::{Facts, Passed, Refusal, Stage},
    manifest::ToolName,
    policy::Authorized,
};

pub use http::{Plan, PlanError};
pub use request::OutgoingRequest;
pub(crate) use urls::unsaid as urls_unsaid;

/// A call whose request is ready but for its credential.
#[derive(Debug)]
pub struct Planned {
    authorized: Authorized,
    request: OutgoingRequest,
}

impl Planned {
    /// What is sent.
    #[must_use]
    pub const fn request(&self) -> &OutgoingRequest {
        &self.request
    }
}

impl Deref for Planned {
    type Target = Authorized;
    fn deref(&self) -> &Authorized {
        &self.authorized
    }
}

impl Passed for Planned {
    const STAGE: Stage = Stage::Plan;
    fn describe(&self, _: &mut Facts) {}
}

/// Why arguments make no request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsendable {
    /// An argument cannot take its place in the request.
    #[error("{} {reason}", subject(pointer))]
    Argument {
        /// The argument's JSON pointer (RFC 6901); empty where it is all of them together.
        pointer: String,
        /// What is wrong with it, as the end of a sentence.
        reason: &'static str,
    },
    /// The tool has no plan: it is not of this release.
    #[error("tool `{tool}` has no plan")]
    NoPlan {
        /// The tool.
        tool: ToolName,
    },
}

fn subject(pointer: &str) -> String {
    if pointer.is_empty() { "an argument".to_owned() } else { format!("argument `{pointer}`") }
}

impl Refusal for Unsendable {
    fn stage(&self) -> Stage {
        Stage::Plan
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "argument_unsendable",
            Self::NoPlan { .. } => "no_plan",
        }
    }
    fn public_message(&self) -> String {
        match self {
            // The agent wrote the argument, and can mend it.
            Self::Argument { .. } => self.to_string(),
            Self::NoPlan { .. } => "temporarily unavailable".into(),
        }
    }
}

/// How the tools of a release become requests.
#[derive(Debug, Default)]
pub struct Plans {
    tools: HashMap<ToolName, Plan>,
}

impl Plans {
    /// Adds the plan of a tool.
    pub fn insert(&mut self, tool: ToolName, plan: Plan) {
        self.tools.insert(tool, plan);
    }

    /// Makes the request of a call.
    ///
    /// # Errors
    /// When an argument cannot take its place in it.
    pub fn plan(&self, authorized: Authorized) -> Result<Planned, Unsendable> {
        let name = authorized.tool().name();
        let plan = self.tools.get(name).ok_or_else(|| Unsendable::NoPlan { tool: name.clone() })?;
        let request = plan.request(authorized.arguments().as_map())?;
        Ok(Planned { authorized, request })
    }
}

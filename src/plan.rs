//! `Authorized → Planned`: what exactly would be sent?
//!
//! A [`Plan`] is compiled once, when a tool is loaded; each call makes it
//! [`Outgoing`], purely. It is made before a person is asked and before
//! the intent is on record: what they agree to, and what stands on record, is
//! what is sent, and an argument that cannot be sent leaves no intent behind.

mod http;
mod mcp;
#[cfg(test)]
mod naive;
mod request;
mod slot;
mod urls;

use std::{collections::HashMap, ops::Deref};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    call::{Facts, Passed, Refusal, Stage},
    egress::{Allowances, CONNECT_TIMEOUT, Egress, EgressRefusal, Way},
    manifest::ToolName,
    policy::Authorized,
    rounds::{Round, RoundError, Rounds},
};

pub use http::{HttpPlan, PlanError};
pub use mcp::{McpPlan, OutgoingCall, Resumed};
pub use request::OutgoingRequest;
pub(crate) use urls::unsaid as urls_unsaid;

/// How many URLs that are judged one call may hold.
const URLS_MAX: usize = 32;

/// A call whose request is ready but for its credential.
#[derive(Debug)]
pub struct Planned {
    authorized: Authorized,
    outgoing: Outgoing,
}

/// How one tool's arguments become what is sent.
#[derive(Clone, Debug)]
pub enum Plan {
    /// A request to an HTTP API.
    Http(HttpPlan),
    /// A call of a tool of another MCP server.
    Mcp(McpPlan),
    /// Nothing is sent: the project answers by itself.
    Own,
}

/// What is sent, but for its credential.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A request to an HTTP API.
    Http(OutgoingRequest),
    /// A call of a tool of another MCP server, with the arguments as they are.
    Mcp(OutgoingCall),
    /// Nothing: the project answers by itself.
    Own,
}

impl Plan {
    fn outgoing(&self, arguments: &Map<String, Value>) -> Result<Outgoing, Unsendable> {
        Ok(match self {
            Self::Http(plan) => Outgoing::Http(plan.request(arguments)?),
            Self::Mcp(plan) => Outgoing::Mcp(plan.call()),
            Self::Own => Outgoing::Own,
        })
    }

    fn urls<'a>(&self, arguments: &'a Map<String, Value>) -> Vec<(String, &'a str)> {
        match self {
            Self::Http(plan) => plan.urls(arguments),
            Self::Mcp(plan) => plan.urls(arguments),
            Self::Own => Vec::new(),
        }
    }
}

impl Planned {
    /// What is sent.
    #[must_use]
    pub const fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }
}

impl Planned {
    /// The call, as a state is bound to it that its caller brings back.
    #[must_use]
    pub fn round<'a>(&'a self, release: &'a str) -> Round<'a> {
        Round {
            principal: self.run().principal(),
            kind: self.kind.word(),
            target: self.kind.target(),
            definition: self.tool().digest(),
            arguments: self.arguments().as_value(),
            release,
        }
    }

    /// Takes what the caller brings to a call that asked it something. A state is good once: it is used up here.
    async fn resume(&mut self, rounds: &Rounds, release: &str) -> Result<(), RoundError> {
        let Some(retry) = &self.retry else { return Ok(()) };
        // Whoever was asked was given a state, also where the server wanted none. Without one it is a first call,
        // whose answers are to nothing that was asked, and stay here.
        let Some(sealed) = &retry.state else { return Ok(()) };
        let Outgoing::Mcp(call) = &self.outgoing else { return Err(RoundError::Foreign) };
        let state = rounds.resume(&self.round(release), sealed, Timestamp::now()).await?;
        let resumed = Resumed { responses: retry.responses.clone(), state };
        self.outgoing = Outgoing::Mcp(call.resume(resumed));
        Ok(())
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
#[derive(Debug, thiserror::Error)]
pub enum Unsendable {
    /// An argument cannot take its place in the request.
    #[error("{} {reason}", subject(pointer))]
    Argument {
        /// The argument's JSON pointer (RFC 6901); empty where it is all of them together.
        pointer: String,
        /// What is wrong with it, as the end of a sentence.
        reason: &'static str,
    },
    /// An argument is a URL that the service may not call.
    #[error("argument `{pointer}` is a URL that may not be called: {refusal}")]
    Egress {
        /// The argument's JSON pointer.
        pointer: String,
        /// Why.
        refusal: EgressRefusal,
    },
    /// The call cannot be the continuation of one that asked its caller something.
    #[error(transparent)]
    Round(#[from] RoundError),
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
            Self::Egress { .. } => "egress_refused",
            Self::Round(RoundError::Runs(_)) => "runs_unavailable",
            Self::Round(_) => "request_state",
            Self::NoPlan { .. } => "no_plan",
        }
    }
    fn public_message(&self) -> String {
        match self {
            // The agent wrote the argument, and can mend it.
            Self::Argument { .. } => self.to_string(),
            // Where a name leads is not the agent's to learn.
            Self::Egress { pointer, .. } => format!("argument `{pointer}` is a URL that may not be called"),
            Self::Round(RoundError::Foreign | RoundError::Expired | RoundError::Used) => {
                format!("{self}: make the call without it")
            }
            Self::NoPlan { .. } | Self::Round(_) => "temporarily unavailable".into(),
        }
    }
}

/// How the tools of a release become requests.
#[derive(Debug, Default)]
pub struct Plans {
    tools: HashMap<ToolName, Entry>,
}

#[derive(Debug)]
struct Entry {
    plan: Plan,
    /// Where the service's own calls may go, and so those that its arguments make it do.
    allowances: Allowances,
}

impl Plans {
    /// Adds the plan of a tool, whose service is allowed this.
    pub fn insert(&mut self, tool: ToolName, plan: Plan, allowances: Allowances) {
        self.tools.insert(tool, Entry { plan, allowances });
    }

    /// Makes the request of a call, and judges the URLs among its arguments.
    ///
    /// # Errors
    /// When an argument cannot take its place in it, or leads where the service may not go, or when it is no
    /// continuation of the call that it says it continues.
    pub async fn plan(
        &self,
        egress: &Egress,
        rounds: &Rounds,
        release: &str,
        authorized: Authorized,
    ) -> Result<Planned, Unsendable> {
        let mut planned = self.rehearse(authorized)?;
        let Entry { plan, allowances } = self.of(&planned)?;
        let urls = plan.urls(planned.arguments().as_map());
        if let Some((pointer, _)) = urls.get(URLS_MAX) {
            let reason = "is one URL too many: a call may hold 32";
            return Err(Unsendable::Argument { pointer: pointer.clone(), reason });
        }
        if !urls.is_empty() {
            judge(&egress.way(allowances), urls).await?;
        }
        planned.resume(rounds, release).await?;
        Ok(planned)
    }

    /// Makes the request of a call that is not carried out. URLs among its arguments are not looked up.
    ///
    /// # Errors
    /// When an argument cannot take its place in it.
    pub fn rehearse(&self, authorized: Authorized) -> Result<Planned, Unsendable> {
        let outgoing = self.of(&authorized)?.plan.outgoing(authorized.arguments().as_map())?;
        Ok(Planned { authorized, outgoing })
    }

    fn of(&self, authorized: &Authorized) -> Result<&Entry, Unsendable> {
        let name = authorized.tool().name();
        self.tools.get(name).ok_or_else(|| Unsendable::NoPlan { tool: name.clone() })
    }
}

/// Judges URLs one after the other, in the time that one connection may take.
async fn judge(way: &Way, urls: Vec<(String, &str)>) -> Result<(), Unsendable> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    for (pointer, url) in urls {
        let judged = timeout_at(deadline, way.judge_url(url)).await;
        judged
            .unwrap_or(Err(EgressRefusal::Unresolved))
            .map_err(|refusal| Unsendable::Egress { pointer, refusal })?;
    }
    Ok(())
}

//! Backends: where calls are carried out.
//!
//! [`Backends::carry_out`] sends a planned request inside the call's limits.
//! What comes back is an [`Answer`] or a [`BackendError`], and neither prints
//! what a backend wrote.

#[cfg(test)]
mod contract;
mod error;
mod executed;
mod http;
mod mcp;
mod offers;
mod own;
mod response;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Tool,
    credential::Lease,
    egress::{Allowances, ClientIdentity, Departure, Egress, Way},
    manifest::BackendSpec,
    plan::OutgoingRequest,
    upstream::Upstreams,
};

pub use error::{BackendError, TimeLimit};
pub use executed::{ExecuteError, Executed, Route, Routes};

/// How many values a completion may have (MCP 2026-07-28 completion).
pub const COMPLETIONS_MAX: usize = 100;

/// All backends, behind the one way out.
#[derive(Clone, Debug)]
pub struct Backends {
    egress: Egress,
    upstreams: Upstreams,
}

/// The backend of one service, behind what the service's egress allows.
#[derive(Clone, Debug)]
pub struct Backend {
    way: Way,
}

/// Bounds on one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallLimits {
    /// How long connecting, sending and reading the whole answer may take together.
    pub timeout: Duration,
    /// How long it may take from the beginning of the call to the end of the answer's head.
    pub head_timeout: Duration,
    /// How long nothing may come while the answer's body is read.
    pub idle_timeout: Duration,
    /// How many bytes the answer's body may have, as it arrives and decoded.
    pub response_bytes_max: usize,
    /// How many JSON values the answer may hold.
    pub response_values_max: usize,
}

/// A backend's answer: whole, and JSON.
///
/// `Debug` leaves the body out: no guard has looked at it yet.
#[derive(Clone, PartialEq)]
pub struct Answer {
    /// The status of an HTTP API, from 200 to 299.
    pub status: Option<u16>,
    /// The body.
    pub body: Body,
    /// How many bytes the body had, once decoded.
    pub bytes: usize,
    /// The address that answered.
    pub peer: Option<SocketAddr>,
}

#[cfg(test)]
impl Answer {
    /// The value of an HTTP API.
    pub(crate) fn json(&self) -> &Value {
        match &self.body {
            Body::Json(value) => value,
            _ => panic!("no answer of an HTTP API"),
        }
    }
}

/// What a backend answered.
#[derive(Clone, PartialEq)]
pub enum Body {
    /// An HTTP API's value; `null` where there is none.
    Json(Value),
    /// The result of a tool of another MCP server.
    Tool(ToolResult),
    /// What another MCP server asks the caller before it goes on.
    Questions(Questions),
    /// The contents of a resource, as they came.
    Contents(Vec<Value>),
    /// The messages of a prompt.
    Prompt(PromptResult),
    /// What an argument could be.
    Completion(CompletionResult),
    /// Nothing but that it was done.
    Done,
}

/// What an argument could be (MCP 2026-07-28 completion).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionResult {
    /// The values, as they came.
    pub values: Vec<Value>,
    /// How many there are in all.
    pub total: Option<u64>,
    /// Whether there are more.
    pub has_more: Option<bool>,
}

/// The messages of a prompt (MCP 2026-07-28 prompts).
#[derive(Clone, PartialEq)]
pub struct PromptResult {
    /// What it is for.
    pub description: Option<String>,
    /// The messages, as they came.
    pub messages: Vec<Value>,
}

/// The result of a tool of another MCP server (MCP 2026-07-28 tools, "Tool Result").
#[derive(Clone, PartialEq)]
pub struct ToolResult {
    /// The content blocks, as they came.
    pub content: Vec<Value>,
    /// The structured content.
    pub structured: Option<Value>,
    /// Whether the tool says that it failed.
    pub is_error: bool,
}

/// What another MCP server asks the caller (MCP 2026-07-28, "Multi Round-Trip Requests").
#[derive(Clone, PartialEq)]
pub struct Questions {
    /// The questions, by key.
    pub requests: Map<String, Value>,
    /// What the server wants to see again.
    pub state: Option<String>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.bytes)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Backends {
    /// HTTP APIs that are reached by `egress`, and other MCP servers.
    #[must_use]
    pub const fn new(egress: Egress, upstreams: Upstreams) -> Self {
        Self { egress, upstreams }
    }

    /// The backend of a service that is allowed this.
    #[must_use]
    pub fn within(&self, allowances: &Allowances) -> Backend {
        self.within_as(allowances, None)
    }

    /// The same, over connections on which the gate shows a certificate.
    #[must_use]
    pub fn within_as(&self, allowances: &Allowances, identity: Option<&ClientIdentity>) -> Backend {
        Backend { way: self.egress.way_as(allowances, identity) }
    }

    /// The other MCP servers.
    #[must_use]
    pub const fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Whether there is something behind a tool, as far as is known: one that an upstream no longer has, or has
    /// otherwise than it was reviewed, can only be refused.
    #[must_use]
    pub fn stand_behind(&self, tool: &Tool) -> bool {
        let BackendSpec::Mcp(mcp) = &tool.manifest().backend else { return true };
        !self.upstreams.is_quarantined(&mcp.upstream, (mcp.kind, &mcp.tool), mcp.definition)
    }

    /// Whether the upstream of a tool, a resource or a prompt may know what its arguments could be. It may as long as
    /// it has not said that it does not.
    #[must_use]
    pub fn may_complete(&self, tool: &Tool) -> bool {
        let BackendSpec::Mcp(mcp) = &tool.manifest().backend else { return false };
        self.upstreams.standing(&mcp.upstream).is_some_and(|standing| standing.completes != Some(false))
    }

    /// The way out.
    #[must_use]
    pub const fn egress(&self) -> &Egress {
        &self.egress
    }
}

impl Backend {
    /// Sends one request, once: nothing is repeated and no redirect is followed.
    ///
    /// # Errors
    /// When no usable answer came inside the limits. [`BackendError::effect_possible`] tells whether something may
    /// have happened all the same.
    pub(crate) async fn carry_out(
        &self,
        request: &OutgoingRequest,
        lease: Option<&Lease>,
        limits: CallLimits,
        cancel: &CancellationToken,
        departure: &Arc<Departure>,
    ) -> Result<Answer, BackendError> {
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled { sent: false });
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BackendError::Cancelled { sent: true }),
            outcome = tokio::time::timeout(limits.timeout, http::exchange(&self.way, request, lease, limits, departure)) => {
                outcome.unwrap_or(Err(BackendError::TimedOut { limit: TimeLimit::Total, after: limits.timeout, sent: true }))
            }
        }
    }
}

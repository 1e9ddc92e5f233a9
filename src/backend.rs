//! Backends: where calls are carried out.
//!
//! A [`Plan`] is compiled once, when a tool is loaded; each call makes it an
//! [`OutgoingRequest`], purely, and [`Backends::send`] carries that out inside
//! the call's limits. What comes back is an [`Answer`] or a [`BackendError`],
//! and neither prints what a backend wrote.

#[cfg(test)]
mod contract;
mod error;
mod executed;
mod http;
mod plan;
mod request;
mod response;

use std::{fmt, net::SocketAddr, time::Duration};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{credential::Lease, egress::Egress};

pub use error::{BackendError, TimeLimit};
pub use executed::{ExecuteError, Executed, Route, Routes};
pub use plan::{Plan, PlanError};
pub use request::OutgoingRequest;

/// All backends, behind the one way out.
#[derive(Clone, Debug)]
pub struct Backends {
    egress: Egress,
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
    /// The status, from 200 to 299.
    pub status: u16,
    /// The body; `null` where there is none.
    pub body: Value,
    /// How many bytes the body had, once decoded.
    pub bytes: usize,
    /// The address that answered.
    pub peer: Option<SocketAddr>,
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
    /// Backends that are reached by `egress`.
    #[must_use]
    pub const fn new(egress: Egress) -> Self {
        Self { egress }
    }

    /// Carries out one call, once: nothing is repeated and no redirect is followed.
    ///
    /// # Errors
    /// When the arguments make no request, or no usable answer came inside the
    /// limits. [`BackendError::effect_possible`] tells whether something may
    /// have happened all the same.
    pub async fn send(
        &self,
        plan: &Plan,
        arguments: &Map<String, Value>,
        lease: Option<&Lease>,
        limits: CallLimits,
        cancel: &CancellationToken,
    ) -> Result<Answer, BackendError> {
        let request = plan.request(arguments)?;
        if let Some(lease) = lease {
            plan.refuse_clash(lease)?;
        }
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled { sent: false });
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(BackendError::Cancelled { sent: true }),
            outcome = tokio::time::timeout(limits.timeout, http::exchange(&self.egress, request, lease, limits)) => {
                outcome.unwrap_or(Err(BackendError::TimedOut { limit: TimeLimit::Total, after: limits.timeout, sent: true }))
            }
        }
    }
}

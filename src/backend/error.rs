//! Why a backend gave no usable answer.

use std::time::Duration;

use crate::egress::EgressRefusal;

/// Why a backend gave no usable answer.
///
/// `Display` is for the log and the record: facts of our own, never what the
/// backend wrote, a URL, a secret, or the HTTP client's text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// The service is at an address that its egress does not allow.
    #[error("{refusal}")]
    Egress {
        /// Why.
        refusal: EgressRefusal,
        /// Whether the request was sent before that was seen.
        sent: bool,
    },
    /// No connection: resolving, connecting or the TLS handshake failed.
    #[error("cannot connect to the backend")]
    Unreachable,
    /// The time was over.
    #[error("timed out after {after:?}")]
    TimedOut {
        /// The limit that ran out.
        after: Duration,
        /// Whether the request may have been sent by then.
        sent: bool,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled {
        /// Whether the request may have been sent by then.
        sent: bool,
    },
    /// The connection broke before the answer was whole.
    #[error("the connection to the backend broke")]
    Interrupted,
    /// The answer is larger than the limit.
    #[error("the backend's answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The backend answered with a status other than success.
    #[error("the backend answered {code}")]
    Status {
        /// The status (RFC 9110 §15).
        code: u16,
    },
    /// The backend points elsewhere, where we do not go.
    #[error("the backend answered {code}, a redirect, which is not followed")]
    Redirected {
        /// The status (RFC 9110 §15.4).
        code: u16,
    },
    /// The answer is not JSON, by its own word or in fact.
    #[error("the backend's answer is not JSON")]
    NotJson,
    /// The answer has a content coding, though none was asked for.
    #[error("the backend's answer is compressed or otherwise encoded")]
    Encoded,
}

impl BackendError {
    /// Whether the request may have reached the backend.
    #[must_use]
    pub const fn sent(&self) -> bool {
        match self {
            Self::Unreachable => false,
            Self::Egress { sent, .. } | Self::TimedOut { sent, .. } | Self::Cancelled { sent } => *sent,
            Self::Interrupted
            | Self::TooLarge { .. }
            | Self::Status { .. }
            | Self::Redirected { .. }
            | Self::NotJson
            | Self::Encoded => true,
        }
    }

    /// Whether a write may have happened all the same, so that its outcome is unknown.
    ///
    /// A 4xx says that it did not (RFC 9110 §15.5). A 5xx does not say: a
    /// server, or a proxy before it, can fail after the deed (§15.6).
    #[must_use]
    pub const fn effect_possible(&self) -> bool {
        match self {
            Self::Status { code } => !matches!(*code, 400..=499),
            _ => self.sent(),
        }
    }

    /// The error in one word, stable over versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Egress { .. } => "egress_refused",
            Self::Unreachable => "backend_unreachable",
            Self::TimedOut { .. } => "backend_timed_out",
            Self::Cancelled { .. } => "cancelled",
            Self::Interrupted => "backend_interrupted",
            Self::TooLarge { .. } => "backend_too_large",
            Self::Status { .. } => "backend_status",
            Self::Redirected { .. } => "backend_redirected",
            Self::NotJson => "backend_not_json",
            Self::Encoded => "backend_encoded",
        }
    }

    /// What the agent is told.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::TimedOut { after, .. } => format!("timed out after {after:?}"),
            Self::Cancelled { .. } => "cancelled".to_owned(),
            Self::Status { code } => format!("backend answered {code}"),
            Self::TooLarge { limit } => format!("backend failed: its answer is larger than {limit} bytes"),
            Self::Egress { .. }
            | Self::Unreachable
            | Self::Interrupted
            | Self::Redirected { .. }
            | Self::NotJson
            | Self::Encoded => "backend failed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    #[test]
    fn the_agent_is_told_little() {
        let messages = [
            BackendError::Unreachable,
            BackendError::TimedOut { after: AFTER, sent: true },
            BackendError::Status { code: 404 },
            BackendError::Redirected { code: 302 },
            BackendError::TooLarge { limit: 65536 },
            BackendError::NotJson,
        ]
        .map(|error| error.public_message());
        insta::assert_snapshot!(messages.join("\n"), @r"
        backend failed
        timed out after 5s
        backend answered 404
        backend failed
        backend failed: its answer is larger than 65536 bytes
        backend failed
        ");
    }

    #[test]
    fn an_effect_is_possible_from_the_moment_of_sending_on() {
        let possible = [
            BackendError::TimedOut { after: AFTER, sent: true },
            BackendError::Cancelled { sent: true },
            BackendError::Interrupted,
            BackendError::TooLarge { limit: 1 },
            BackendError::Status { code: 500 },
            BackendError::Redirected { code: 303 },
            BackendError::NotJson,
            BackendError::Encoded,
        ];
        assert!(possible.iter().all(BackendError::effect_possible));
        let impossible = [
            BackendError::Unreachable,
            BackendError::TimedOut { after: AFTER, sent: false },
            BackendError::Cancelled { sent: false },
        ];
        assert!(!impossible.iter().any(|error| error.sent() || error.effect_possible()));
    }

    #[test]
    fn a_request_that_the_backend_refused_has_arrived_and_done_nothing() {
        for code in [400, 404, 409, 422, 429, 499] {
            let error = BackendError::Status { code };
            assert!(error.sent() && !error.effect_possible());
        }
    }
}

//! Why a backend gave no usable answer.

use std::{fmt, time::Duration};

use crate::{
    egress::EgressRefusal,
    strict::Rule,
    upstream::{NotReady, UpstreamError},
};

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
    #[error("timed out after {after:?}, the limit on {limit}")]
    TimedOut {
        /// The limit that ran out.
        limit: TimeLimit,
        /// How long it is.
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
    /// The caller's right was taken away while the request waited for a connection.
    #[error("the caller's right was taken away while the request waited for a connection")]
    Fallen {
        /// Whether the request may have been sent all the same, over another connection.
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
    /// The head of the answer has too many header fields, or too large ones.
    #[error("the head of the backend's answer is too large")]
    HeadTooLarge,
    /// The answer breaks HTTP's framing, or leaves open where it ends.
    #[error("the backend's answer is malformed HTTP")]
    Malformed,
    /// The answer is not JSON, by its own word.
    #[error("the backend's answer is not JSON")]
    NotJson,
    /// The answer is not JSON that all readers read alike.
    #[error("the backend's answer is not strict JSON: {rule} at byte {offset}")]
    NotStrict {
        /// The rule it breaks.
        rule: Rule,
        /// Where, in bytes from the beginning of the decoded body.
        offset: usize,
    },
    /// The answer has a content coding that is not decoded, or more than one.
    #[error("the backend's answer is compressed or otherwise encoded")]
    Encoded,
    /// Another MCP server's tool cannot be called now.
    #[error(transparent)]
    NotReady(Box<NotReady>),
    /// Another MCP server gave no usable answer.
    #[error(transparent)]
    Upstream(Box<UpstreamError>),
    /// Another MCP server's answer is not the result of a tool.
    #[error("the upstream's answer is not the result of a tool")]
    NotMcp,
    /// Another MCP server asks the caller what it may not, or what cannot be asked, or too often.
    #[error("the upstream asks the caller what it may not ask, or what nobody is there to answer")]
    Asks,
    /// Another MCP server has to ask the caller what it cannot answer.
    #[error("the upstream has to ask the caller for {}, which it cannot answer", needs.join(", "))]
    Unable {
        /// The abilities that the caller lacks (MCP `ClientCapabilities`).
        needs: Vec<&'static str>,
    },
    /// The answer is not the gzip that it says it is.
    #[error("the backend's answer is not one whole gzip member")]
    Undecodable,
}

/// What a time limit is a limit on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeLimit {
    /// Resolving, connecting and the TLS handshake.
    Connect,
    /// Everything up to the end of the answer's head.
    Head,
    /// A pause in the answer's body.
    Idle,
    /// The whole exchange.
    Total,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Head => "waiting for the answer's head",
            Self::Idle => "a pause in the answer",
            Self::Total => "the whole call",
        })
    }
}

impl BackendError {
    /// Whether the request may have reached the backend.
    #[must_use]
    pub const fn sent(&self) -> bool {
        match self {
            Self::Unreachable | Self::NotReady(_) => false,
            Self::Upstream(error) => error.sent(),
            Self::Egress { sent, .. }
            | Self::TimedOut { sent, .. }
            | Self::Cancelled { sent }
            | Self::Fallen { sent } => *sent,
            Self::Interrupted
            | Self::TooLarge { .. }
            | Self::Status { .. }
            | Self::Redirected { .. }
            | Self::HeadTooLarge
            | Self::Malformed
            | Self::NotJson
            | Self::NotStrict { .. }
            | Self::Encoded
            | Self::NotMcp
            | Self::Asks
            | Self::Unable { .. }
            | Self::Undecodable => true,
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
            // JSON-RPC 2.0 §5.1: the method, or its parameters, were refused.
            Self::Upstream(error) => match **error {
                UpstreamError::Refused { code, .. } => !matches!(code, -32602..=-32600),
                _ => error.sent(),
            },
            // MCP 2026-07-28, "Capability negotiation": such a request is refused, and not begun.
            Self::Unable { .. } => false,
            _ => self.sent(),
        }
    }

    /// Whether the backend broke a rule or a bound in an answer that may have been whole, so that its connection
    /// would be used again.
    #[must_use]
    pub(super) const fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::Malformed
                | Self::NotJson
                | Self::NotStrict { .. }
                | Self::Encoded
                | Self::Undecodable
        )
    }

    /// The error in one word, stable over versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Egress { .. } => "egress_refused",
            Self::Unreachable => "backend_unreachable",
            Self::TimedOut { limit: TimeLimit::Connect, .. } => "backend_connect_timed_out",
            Self::TimedOut { limit: TimeLimit::Head, .. } => "backend_head_timed_out",
            Self::TimedOut { limit: TimeLimit::Idle, .. } => "backend_idle_timed_out",
            Self::TimedOut { limit: TimeLimit::Total, .. } => "backend_timed_out",
            Self::Cancelled { .. } => "cancelled",
            Self::Fallen { .. } => "revoked",
            Self::Interrupted => "backend_interrupted",
            Self::TooLarge { .. } => "backend_too_large",
            Self::Status { .. } => "backend_status",
            Self::Redirected { .. } => "backend_redirected",
            Self::HeadTooLarge => "backend_head_too_large",
            Self::Malformed => "backend_malformed",
            Self::NotJson => "backend_not_json",
            Self::NotStrict { .. } => "backend_not_strict",
            Self::Encoded => "backend_encoded",
            Self::NotReady(error) => error.code(),
            Self::Upstream(error) => match **error {
                UpstreamError::Refused { .. } => "upstream_refused",
                _ => "upstream_failed",
            },
            Self::NotMcp => "upstream_no_result",
            Self::Asks => "upstream_asks",
            Self::Unable { .. } => "missing_ability",
            Self::Undecodable => "backend_undecodable",
        }
    }

    /// What the agent is told.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::TimedOut { after, .. } => format!("timed out after {after:?}"),
            Self::Cancelled { .. } => "cancelled".to_owned(),
            Self::Fallen { .. } => "authentication failed".to_owned(),
            Self::Status { code } => format!("backend answered {code}"),
            Self::TooLarge { limit } => format!("backend failed: its answer is larger than {limit} bytes"),
            Self::NotReady(error) => match **error {
                NotReady::Quarantined(_) => {
                    "the tool is in quarantine: its server has changed it since it was reviewed".to_owned()
                }
                _ => "temporarily unavailable".to_owned(),
            },
            Self::Upstream(error) => match **error {
                UpstreamError::Refused { code, .. } => {
                    format!("the tool's server refused the call with JSON-RPC error {code}")
                }
                _ => "backend failed".to_owned(),
            },
            Self::Asks => {
                "the tool asks for something that it may not ask, or that you cannot answer".to_owned()
            }
            Self::Unable { needs } => {
                format!("the call needs a client that can be asked for {}", needs.join(", "))
            }
            Self::Egress { .. }
            | Self::Unreachable
            | Self::NotMcp
            | Self::Interrupted
            | Self::Redirected { .. }
            | Self::HeadTooLarge
            | Self::Malformed
            | Self::NotJson
            | Self::NotStrict { .. }
            | Self::Encoded
            | Self::Undecodable => "backend failed".to_owned(),
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
            BackendError::TimedOut { limit: TimeLimit::Total, after: AFTER, sent: true },
            BackendError::Status { code: 404 },
            BackendError::Redirected { code: 302 },
            BackendError::TooLarge { limit: 65536 },
            BackendError::NotJson,
            BackendError::NotStrict { rule: Rule::DuplicateKey, offset: 17 },
        ]
        .map(|error| error.public_message());
        insta::assert_snapshot!(messages.join("\n"), @r"
        backend failed
        timed out after 5s
        backend answered 404
        backend failed
        backend failed: its answer is larger than 65536 bytes
        backend failed
        backend failed
        ");
    }

    #[test]
    fn an_effect_is_possible_from_the_moment_of_sending_on() {
        let possible = [
            BackendError::TimedOut { limit: TimeLimit::Total, after: AFTER, sent: true },
            BackendError::Cancelled { sent: true },
            BackendError::Fallen { sent: true },
            BackendError::Interrupted,
            BackendError::TooLarge { limit: 1 },
            BackendError::Status { code: 500 },
            BackendError::Redirected { code: 303 },
            BackendError::HeadTooLarge,
            BackendError::Malformed,
            BackendError::NotJson,
            BackendError::NotStrict { rule: Rule::DuplicateKey, offset: 17 },
            BackendError::Encoded,
            BackendError::Undecodable,
        ];
        assert!(possible.iter().all(BackendError::effect_possible));
        let impossible = [
            BackendError::Unreachable,
            BackendError::TimedOut { limit: TimeLimit::Total, after: AFTER, sent: false },
            BackendError::Cancelled { sent: false },
            BackendError::Fallen { sent: false },
        ];
        assert!(!impossible.iter().any(|error| error.sent() || error.effect_possible()));
    }

    #[test]
    fn the_record_says_which_limit_ran_out() {
        let errors = [TimeLimit::Connect, TimeLimit::Head, TimeLimit::Idle, TimeLimit::Total]
            .map(|limit| BackendError::TimedOut { limit, after: AFTER, sent: true })
            .map(|error| format!("{}: {error}", error.code()));
        insta::assert_snapshot!(errors.join("\n"), @r"
        backend_connect_timed_out: timed out after 5s, the limit on connecting
        backend_head_timed_out: timed out after 5s, the limit on waiting for the answer's head
        backend_idle_timed_out: timed out after 5s, the limit on a pause in the answer
        backend_timed_out: timed out after 5s, the limit on the whole call
        ");
    }

    #[test]
    fn the_record_says_where_an_answer_stops_being_strict() {
        let error = BackendError::NotStrict { rule: Rule::DuplicateKey, offset: 17 };
        insta::assert_snapshot!(error, @"the backend's answer is not strict JSON: duplicate key at byte 17");
    }

    #[test]
    fn a_request_that_the_backend_refused_has_arrived_and_done_nothing() {
        for code in [400, 404, 409, 422, 429, 499] {
            let error = BackendError::Status { code };
            assert!(error.sent() && !error.effect_possible());
        }
    }
}

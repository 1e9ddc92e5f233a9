//! Why an upstream gave no usable answer.

use std::{io, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{egress::EgressRefusal, strict::Rule};

/// Why an upstream gave no usable answer.
///
/// `Display` is for the log and the record: facts of our own, never what the upstream wrote, a URL or a secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream's program cannot be started.
    #[error("the upstream's program cannot be started: {kind}")]
    Start {
        /// What the operating system says.
        kind: io::ErrorKind,
    },
    /// A file of the upstream's program is not the one that was reviewed.
    #[error("a file of the upstream's program is not the one that was reviewed")]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// The upstream is at an address that its egress does not allow.
    #[error("{refusal}")]
    Egress {
        /// Why.
        refusal: EgressRefusal,
        /// Whether the request was sent before that was seen.
        sent: bool,
    },
    /// No connection: resolving, connecting or the TLS handshake failed.
    #[error("cannot connect to the upstream")]
    Unreachable,
    /// The upstream has failed a moment ago, and is not tried again yet.
    #[error("the upstream has failed {failures} times in a row and is tried again in {retry_in:?}")]
    BackingOff {
        /// How often in a row.
        failures: u32,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// All connections that there may be are in use.
    #[error("all {connections_max} connections to the upstream are in use")]
    Busy {
        /// How many there may be.
        connections_max: usize,
    },
    /// More requests wait for an answer than may.
    #[error("{requests_max} requests to the upstream are under way already")]
    Crowded {
        /// How many may be.
        requests_max: usize,
    },
    /// The upstream speaks no version of the protocol that the gate does.
    #[error("the upstream speaks no version of the protocol that the gate speaks")]
    Version,
    /// The time was over.
    #[error("the upstream's answer took too long")]
    TimedOut {
        /// Whether the request may have been sent by then.
        sent: bool,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled {
        /// Whether the request may have been sent by then.
        sent: bool,
    },
    /// The caller's right was taken away while the request waited to be sent.
    #[error("the caller's right was taken away while the request waited to be sent")]
    Fallen {
        /// Whether the request may have been sent all the same.
        sent: bool,
    },
    /// The connection was closed, or broke, or the session is gone.
    #[error("the connection to the upstream was closed")]
    Closed {
        /// Whether the request may have been sent by then.
        sent: bool,
    },
    /// A message is longer than the limit.
    #[error("a message of the upstream is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// There is more of something than the limit.
    #[error("the upstream has more than {max} {things}")]
    TooMany {
        /// Of what.
        things: &'static str,
        /// The limit.
        max: usize,
    },
    /// A message is not JSON that all readers read alike.
    #[error("a message of the upstream is not strict JSON: {rule} at byte {offset}")]
    NotStrict {
        /// The rule it breaks.
        rule: Rule,
        /// Where, in bytes from the beginning of the message.
        offset: usize,
    },
    /// A message is not what the protocol has there.
    #[error("the upstream breaks the protocol: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The answer is neither JSON nor a stream of events, by its own word.
    #[error("the upstream's answer is neither JSON nor an event stream")]
    ContentType,
    /// The answer has a content coding.
    #[error("the upstream's answer is compressed or otherwise encoded")]
    Encoded,
    /// The upstream answered with a status other than success, and nothing that says more.
    #[error("the upstream answered {code}")]
    Status {
        /// The status (RFC 9110 §15).
        code: u16,
    },
    /// The upstream points elsewhere, where we do not go.
    #[error("the upstream answered {code}, a redirect, which is not followed")]
    Redirected {
        /// The status (RFC 9110 §15.4).
        code: u16,
    },
    /// The upstream answered with a JSON-RPC error. Its own words are kept for who may see them.
    #[error("the upstream refused the request with JSON-RPC error {code}")]
    Refused {
        /// The code.
        code: i64,
        /// The upstream's message.
        message: String,
        /// What it says besides.
        data: Option<Value>,
    },
}

impl UpstreamError {
    /// Whether the request may have reached the upstream, and so may have had an effect.
    #[must_use]
    pub const fn sent(&self) -> bool {
        match self {
            Self::Start { .. }
            | Self::Altered { .. }
            | Self::Unreachable
            | Self::BackingOff { .. }
            | Self::Busy { .. }
            | Self::Crowded { .. }
            | Self::Version => false,
            Self::Egress { sent, .. }
            | Self::TimedOut { sent }
            | Self::Cancelled { sent }
            | Self::Fallen { sent }
            | Self::Closed { sent } => *sent,
            Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::NotStrict { .. }
            | Self::Malformed { .. }
            | Self::ContentType
            | Self::Encoded
            | Self::Status { .. }
            | Self::Redirected { .. }
            | Self::Refused { .. } => true,
        }
    }
}

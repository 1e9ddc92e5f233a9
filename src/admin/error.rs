//! What a request to the admin listener is refused with.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{audit::AuditError, runs::RunsError};

/// A refusal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// The refusal in one word.
    pub code: &'static str,
    /// The refusal in a sentence.
    pub message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn unknown(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        json!({ "error": { "code": self.code, "message": self.message } })
    }
}

impl From<RunsError> for ApiError {
    fn from(error: RunsError) -> Self {
        use RunsError as E;
        let (status, code) = match &error {
            E::Store(_) | E::Damaged(_) | E::WentBack { .. } | E::Watcher(_) | E::NoRandom | E::Contended => {
                (StatusCode::SERVICE_UNAVAILABLE, "state_unavailable")
            }
            E::TooManyRuns { .. }
            | E::TooManyOfClient { .. }
            | E::TooManyLabels { .. }
            | E::TooManyRevocations { .. }
            | E::TooManyKeys { .. } => (StatusCode::CONFLICT, "too_many"),
            E::Destinations { .. } | E::TooLong { .. } => (StatusCode::BAD_REQUEST, "too_long"),
            E::Ended => (StatusCode::CONFLICT, "ended"),
            E::KeyExists(_) => (StatusCode::CONFLICT, "key_exists"),
            E::UnknownKey(_) => (StatusCode::NOT_FOUND, "unknown_key"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<AuditError> for ApiError {
    fn from(error: AuditError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "record_unavailable", error.to_string())
    }
}

//! Why the edge refuses, and how it says so.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    headers::HeaderError,
    host::NameError,
    refusal::{
        Answer, BUSY, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, MISSING_SCOPE,
        Refusal, UNSUPPORTED_VERSION,
    },
    source::SourceError,
};
use crate::{
    gateway::{Notice, Reply},
    hygiene,
    limits::whole_seconds,
    strict,
};

/// A refusal of a request that is not one of this protocol.
pub(super) fn refuse(status: StatusCode, word: &'static str, message: &'static str) -> Result<(), Refusal> {
    Err(Refusal::new(status, INVALID_REQUEST, word, message))
}

/// The request means another server, or comes from a page that may not call this one.
pub(super) fn misnamed(error: NameError) -> Refusal {
    let (status, word, message) = match error {
        NameError::BadHost => (StatusCode::BAD_REQUEST, "bad_host", "the request must name exactly one host"),
        NameError::ForeignHost => {
            (StatusCode::FORBIDDEN, "foreign_host", "the request's host is not one of this server's")
        }
        NameError::ForeignOrigin => {
            (StatusCode::FORBIDDEN, "foreign_origin", "the request's origin may not call this server")
        }
    };
    Refusal::new(status, INVALID_REQUEST, word, message)
}

/// What a trusted proxy says of its client, in a way that cannot be believed.
pub(super) fn unforwarded(error: SourceError) -> Refusal {
    let message = error.to_string().into();
    Refusal { message, ..Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "bad_forwarded", "") }
}

pub(super) fn token_in_query() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        INVALID_REQUEST,
        "token_in_query",
        "a token belongs into the `Authorization` header, never into the URL",
    )
}

pub(super) fn too_many_failures(retry: Duration) -> Answer {
    let message = "too many failed attempts from this address: come back later";
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, BUSY, "failures_spent", message);
    let mut answer = refusal.answer(&Value::Null);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry)));
    answer
}

/// A message that is not strict JSON, or no message.
pub(super) fn malformed(refused: strict::Refused) -> Refusal {
    let message = refused.message.into();
    Refusal { message, ..Refusal::new(StatusCode::BAD_REQUEST, refused.code, refused.word, "") }
}

pub(super) fn misfit() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_PARAMS, "params", "the parameters do not fit the method")
}

pub(super) fn misfit_meta() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_PARAMS, "params", "`_meta` must be an object")
}

/// A method that the client's revision does not have. Such revisions know a 404 only as the end of a session.
pub(super) fn two_lengths() -> Refusal {
    let message = "the request says in two ways where its body ends";
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "framing", message)
}

pub(super) fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "too_large", "the request is too large")
}

pub(super) fn no_stream() -> Refusal {
    let message = "the request's `Accept` must list `text/event-stream`";
    Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, "accept", message)
}

pub(super) fn full() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "in_flight_full", "the server is busy: try again")
}

pub(super) fn streams_full() -> Refusal {
    let message = "there are as many streams as there may be: close one, or try again later";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "streams_full", message)
}

/// The path is there, and not for this method.
pub(super) fn wrong_method(message: &'static str, allowed: &'static str) -> Answer {
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "http_method", message);
    let mut answer = refusal.answer(&Value::Null);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(super) fn failed() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "failed", "internal error")
}

pub(super) fn disagreeing(error: HeaderError, known: &[&str]) -> Refusal {
    let status = StatusCode::BAD_REQUEST;
    match error {
        HeaderError::Mismatch(_) => Refusal {
            message: error.to_string().into(),
            ..Refusal::new(status, HEADER_MISMATCH, "header_mismatch", "")
        },
        HeaderError::UnknownVersion(requested) => Refusal {
            data: Some(json!({ "requested": shown(&requested), "supported": known })),
            ..Refusal::new(status, UNSUPPORTED_VERSION, "unsupported_version", "unsupported protocol version")
        },
    }
}

/// What a client wrote, as it is repeated to it.
fn shown(text: &str) -> String {
    hygiene::clean(text).0.chars().take(64).collect()
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "unavailable", "temporarily unavailable")
}

/// An answer with a challenge (RFC 6750 §3, RFC 9728 §5.1).
pub(super) fn challenged(mut answer: Answer, error: &str, rest: &str) -> Answer {
    let challenge = format!("Bearer realm=\"callgate\"{error}{rest}");
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// RFC 6750 §3.1 and MCP 2026-07-28 authorization: names all scopes that the operation needs.
pub(super) fn insufficient_scope(id: &Value, reply: &Reply, challenge: &str) -> Answer {
    let message = match &reply.body {
        Err(Notice::Refused { message, .. } | Notice::Unknown(message)) => message.clone(),
        Ok(_) => "insufficient scope".to_owned(),
    };
    let refusal = Refusal {
        message: message.into(),
        ..Refusal::new(StatusCode::FORBIDDEN, MISSING_SCOPE, "missing_scope", "")
    };
    challenged(refusal.answer(id), ", error=\"insufficient_scope\"", challenge)
}

/// The last answer of its connection.
pub(super) fn farewell(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

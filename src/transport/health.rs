//! Is the process alive, and can it take calls? For whoever restarts it or sends it traffic.
//!
//! Both answers are one word and tell nothing else, so neither a key nor a name of the host is asked for: a
//! probe has neither.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};

use super::refusal::Answer;
use crate::gateway::Gateway;

/// Answers `GET /livez` and `GET /readyz`.
pub(super) fn answer(parts: &Parts, gateway: &Gateway) -> Option<Answer> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    match parts.uri.path() {
        "/livez" => Some(word(StatusCode::OK, "alive\n")),
        "/readyz" => Some(match gateway.ready() {
            Ok(()) => word(StatusCode::OK, "ready\n"),
            Err(reason) => word(StatusCode::SERVICE_UNAVAILABLE, reason),
        }),
        _ => None,
    }
}

fn word(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut answer = Response::new(body.map_err(|never: Infallible| match never {}).boxed());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

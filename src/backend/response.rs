//! Reading an answer: its head is judged before its body is read.

mod body;
mod head;

use ::http::StatusCode;
use reqwest::Response;
use serde_json::Value;

use self::head::{Content, Head};
use super::{Answer, BackendError, Body, CallLimits};
use crate::strict::{self, Bounds, Fault};

/// How deep the JSON of an answer may be nested.
const DEPTH_MAX: usize = 64;

/// Reads an answer of strict JSON.
///
/// Whatever is refused is dropped unread, and its connection with it: draining
/// it would mean reading as much as a backend cares to send.
pub(super) async fn read(response: Response, limits: CallLimits) -> Result<Answer, BackendError> {
    let (status, peer) = (response.status(), response.remote_addr());
    let head = Head::judge(status, response.headers())?;
    let body = body::collect(response, &head, limits).await?;
    let value = match status {
        _ if body.is_empty() => Value::Null,
        // RFC 9110 §15.3.5 and §15.3.6: no content.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => return Err(BackendError::Malformed),
        _ if head.content == Content::Json => parse(&body, limits)?,
        _ => return Err(BackendError::NotJson),
    };
    Ok(Answer { status: Some(status.as_u16()), body: Body::Json(value), bytes: body.len(), peer })
}

/// Parses what every reader reads alike, and nothing else.
fn parse(body: &[u8], limits: CallLimits) -> Result<Value, BackendError> {
    let bounds = Bounds { depth_max: DEPTH_MAX, nodes_max: limits.response_values_max };
    strict::scan(body, bounds).map_err(|Fault { rule, offset }| BackendError::NotStrict { rule, offset })?;
    // INVARIANT: strict JSON is JSON, so this does not fail.
    serde_json::from_slice(body).map_err(|_| BackendError::NotJson)
}

//! Asking a token endpoint or a vault: one small JSON answer, bounded in size and time.

use http::{HeaderValue, header};
use reqwest::{Request, Response};
use secrecy::zeroize::Zeroizing;
use serde::de::DeserializeOwned;
use tokio::time;

use super::{EndpointError, timing::Timing};
use crate::{
    egress::{BodyError, SendError, Way, field_value, read_body},
    strict::{self, Bounds},
};

/// How many bytes an answer may have.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How an answer's JSON may be built.
const BOUNDS: Bounds = Bounds { depth_max: 16, nodes_max: 2_000 };

/// An answer: its status, and its body where that says it is JSON.
pub(super) struct Reply {
    pub(super) status: u16,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl Reply {
    /// Reads the body as strict JSON. What is wrong with it is not told: it may hold a secret.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, EndpointError> {
        let body = self.body.as_ref().ok_or(EndpointError::NotJson)?;
        strict::scan(body, BOUNDS).map_err(|_| EndpointError::NotJson)?;
        serde_json::from_slice(body).map_err(|_| EndpointError::NotJson)
    }
}

/// Sends one request, once, and reads the whole answer.
pub(super) async fn ask(way: &Way, mut request: Request, timing: Timing) -> Result<Reply, EndpointError> {
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let (url, after) = (request.url().clone(), timing.request_max);
    let reply = time::timeout(after, exchange(way, request)).await;
    let reply = reply.unwrap_or(Err(EndpointError::TimedOut { after }));
    if reply.is_err() {
        way.forget(&url); // what is left of a broken answer is nobody's
    }
    reply
}

async fn exchange(way: &Way, request: Request) -> Result<Reply, EndpointError> {
    let mut response = way.send(request).await.map_err(|error| match error {
        SendError::Refused { refusal, .. } => EndpointError::Egress(refusal),
        SendError::Http(error) if error.is_connect() => EndpointError::Unreachable,
        SendError::Http(_) => EndpointError::Interrupted, // its own text can hold more
    })?;
    let status = response.status();
    if status.is_redirection() {
        return Err(EndpointError::Redirected { code: status.as_u16() });
    }
    let mut body = Zeroizing::new(Vec::new());
    read_body(&mut response, &mut body, ANSWER_BYTES_MAX).await.map_err(|error| match error {
        BodyError::Broken => EndpointError::Interrupted,
        BodyError::TooLarge => EndpointError::TooLarge { bytes_max: ANSWER_BYTES_MAX },
    })?;
    Ok(Reply { status: status.as_u16(), body: is_plain_json(&response).then_some(body) })
}

fn is_plain_json(response: &Response) -> bool {
    let headers = response.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") && !headers.contains_key(header::CONTENT_ENCODING)
}

/// A header field's value that is a secret.
pub(super) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = field_value(text)?;
    value.set_sensitive(true);
    Some(value)
}

//! The HTTP backend: one request, one answer.

use reqwest::Request;

use super::{Answer, BackendError, CallLimits, OutgoingRequest, response};
use crate::{
    credential::Lease,
    egress::{CONNECT_TIMEOUT, SendError, Way},
};

/// Sends a request and reads its answer. Whoever calls keeps the time.
pub(super) async fn exchange(
    way: &Way,
    outgoing: OutgoingRequest,
    lease: Option<&Lease>,
    limits: CallLimits,
) -> Result<Answer, BackendError> {
    let mut request = Request::new(outgoing.method, outgoing.url);
    *request.headers_mut() = outgoing.headers;
    *request.body_mut() = outgoing.body.map(Into::into);
    if let Some(lease) = lease {
        lease.apply(&mut request);
    }
    let response = way.send(request).await.map_err(classify)?;
    response::read(response, limits.response_bytes_max).await
}

/// The error's own text is dropped here: it holds the URL, and can hold more.
fn classify(error: SendError) -> BackendError {
    let error = match error {
        SendError::Refused { refusal, sent } => return BackendError::Egress { refusal, sent },
        SendError::Http(error) => error,
    };
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => BackendError::TimedOut { after: CONNECT_TIMEOUT, sent: false },
        (true, false) => BackendError::Unreachable,
        // INVARIANT: only connecting has a limit inside the client; the
        // deadline over the whole exchange is kept outside of it.
        (false, _) => BackendError::Interrupted,
    }
}

#[cfg(test)]
mod tests;

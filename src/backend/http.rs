//! The HTTP backend: one request, one answer.

use std::{error::Error, io};

use reqwest::{Request, Response};
use tokio::time;

use super::{Answer, BackendError, CallLimits, OutgoingRequest, TimeLimit, response};
use crate::{
    credential::Lease,
    egress::{CONNECT_TIMEOUT, Egress},
};

/// Sends a request and reads its answer. Whoever calls keeps the time of the whole.
pub(super) async fn exchange(
    egress: &Egress,
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
    let response = head(egress, request, limits).await?;
    response::read(response, limits).await
}

async fn head(egress: &Egress, request: Request, limits: CallLimits) -> Result<Response, BackendError> {
    let sending = egress.send(request);
    let outcome = if limits.head_timeout < limits.timeout {
        let late = BackendError::TimedOut { limit: TimeLimit::Head, after: limits.head_timeout, sent: true };
        time::timeout(limits.head_timeout, sending).await.map_err(|_| late)?
    } else {
        sending.await
    };
    outcome.map_err(|error| classify(&error))
}

/// The error's own text is dropped here: it holds the URL, and can hold more.
pub(super) fn classify(error: &reqwest::Error) -> BackendError {
    match (error.is_connect(), error.is_timeout()) {
        (true, true) => {
            BackendError::TimedOut { limit: TimeLimit::Connect, after: CONNECT_TIMEOUT, sent: false }
        }
        (true, false) => BackendError::Unreachable,
        // INVARIANT: only connecting has a limit inside the client; all other
        // deadlines are kept outside of it.
        (false, _) => broken(error),
    }
}

/// Tells an answer that breaks the rules from a connection that broke.
fn broken(error: &reqwest::Error) -> BackendError {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_parse_too_large() {
                return BackendError::HeadTooLarge;
            }
            if error.is_parse() {
                return BackendError::Malformed;
            }
        }
        // How the client says that chunks or trailers are broken or too long.
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        {
            return BackendError::Malformed;
        }
        cause = error.source();
    }
    BackendError::Interrupted
}

#[cfg(test)]
mod tests;

//! The HTTP backend: one request, one answer.

use std::{
    error::Error,
    future::{Future as _, poll_fn},
    io,
    pin::pin,
    sync::LazyLock,
};

use reqwest::{Request, Response};
use tokio::{
    runtime::{Builder, Runtime},
    time,
};

use super::{Answer, BackendError, CallLimits, TimeLimit, response};
use crate::{
    credential::Lease,
    egress::{CONNECT_TIMEOUT, SendError, Way},
    plan::OutgoingRequest,
};

/// How many threads serve the connections to backends.
const CONNECTION_THREADS: usize = 4;

/// Where connections to backends are served: on threads of their own, away from the deadlines.
///
/// The HTTP client passes over interim answers without a pause for as long as
/// some are there to be read: two connections that are flooded with them keep
/// two threads busy for a second, and no timer on these threads runs meanwhile.
static CONNECTIONS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(CONNECTION_THREADS).thread_name("backends").enable_all().build().ok()
});

/// Sends a request and reads its answer. Whoever calls keeps the time of the whole.
pub(super) async fn exchange(
    way: &Way,
    outgoing: &OutgoingRequest,
    lease: Option<&Lease>,
    limits: CallLimits,
) -> Result<Answer, BackendError> {
    let mut request = outgoing.to_request();
    if let Some(lease) = lease {
        lease.apply(&mut request);
    }
    let response = head(way, request, limits).await?;
    let answer = response::read(response, limits).await;
    if answer.as_ref().is_err_and(ends_connections) {
        way.forget(outgoing.url());
    }
    answer
}

/// Whether the origin's connections are dropped for it. An answer that is too large can be whole, too.
const fn ends_connections(error: &BackendError) -> bool {
    error.is_misbehaviour() || matches!(error, BackendError::TooLarge { .. })
}

async fn head(way: &Way, request: Request, limits: CallLimits) -> Result<Response, BackendError> {
    let sending = send(way, request);
    if limits.head_timeout < limits.timeout {
        let late = BackendError::TimedOut { limit: TimeLimit::Head, after: limits.head_timeout, sent: true };
        time::timeout(limits.head_timeout, sending).await.unwrap_or(Err(late))
    } else {
        sending.await
    }
}

/// Waits for the head here, while whatever the client starts for it is started where connections are served.
async fn send(way: &Way, request: Request) -> Result<Response, BackendError> {
    let connections = CONNECTIONS.as_ref().ok_or(BackendError::Unreachable)?;
    let mut sending = pin!(way.send(request));
    let sent = poll_fn(|context| {
        let _entered = connections.enter();
        sending.as_mut().poll(context)
    });
    sent.await.map_err(|error| match error {
        SendError::Refused { refusal, sent } => BackendError::Egress { refusal, sent },
        SendError::Http(error) => classify(&error),
    })
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

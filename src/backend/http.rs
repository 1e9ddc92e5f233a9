//! The HTTP backend: one request, one answer.

use std::{
    error::Error,
    io, panic,
    sync::{Arc, LazyLock},
    time::Duration,
};

use ::http::{HeaderValue, Method, header};
use reqwest::{Request, Response};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time,
};

use super::{Answer, BackendError, CallLimits, TimeLimit, response};
use crate::{
    credential::Lease,
    egress::{CONNECT_TIMEOUT, Departure, SendError, Way},
    plan::OutgoingRequest,
};

/// How many threads serve the connections to backends.
const CONNECTION_THREADS: usize = 4;

/// How often it is asked whether a request may still leave that waits for its connection.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
    departure: &Arc<Departure>,
) -> Result<Answer, BackendError> {
    let mut request = outgoing.to_request();
    if request.method() == Method::HEAD {
        // A body that comes all the same, and late, would be read as the next call's answer.
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(lease) = lease {
        lease.apply(&mut request);
    }
    let response = head(way, request, limits, departure).await?;
    let answer = response::read(response, limits).await;
    if answer.as_ref().is_err_and(BackendError::is_misbehaviour) {
        way.forget(outgoing.url());
    }
    answer
}

async fn head(
    way: &Way,
    request: Request,
    limits: CallLimits,
    departure: &Arc<Departure>,
) -> Result<Response, BackendError> {
    let sending = send(way.clone(), request, departure);
    if limits.head_timeout < limits.timeout {
        let late = BackendError::TimedOut { limit: TimeLimit::Head, after: limits.head_timeout, sent: true };
        time::timeout(limits.head_timeout, sending).await.unwrap_or(Err(late))
    } else {
        sending.await
    }
}

/// Waits for the head where connections are served. A wait that is given up ends the task.
///
/// That is a task of its own, which costs some 20 µs of a call, since a spawned task wakes a thread. To poll the
/// wait here and enter their runtime for it costs as much, and wakes none: while the one thread that heard of
/// news is busy with a flood, nobody listens for more, and other calls run into their deadlines.
async fn send(way: Way, request: Request, departure: &Arc<Departure>) -> Result<Response, BackendError> {
    let connections = CONNECTIONS.as_ref().ok_or(BackendError::Unreachable)?;
    let mut task = JoinSet::new();
    let sending = async move { way.send(request).await };
    task.spawn_on(Arc::clone(departure).of(sending), connections.handle());
    let done = tokio::select! {
        biased;
        done = task.join_next() => done,
        () = may_not_leave(departure) => {
            task.abort_all();
            task.join_next().await
        }
    };
    match done {
        Some(Ok(Ok(response))) => Ok(response),
        Some(Ok(Err(SendError::Refused { refusal, sent }))) => Err(BackendError::Egress { refusal, sent }),
        Some(Ok(Err(SendError::Http(_)))) if departure.is_given_up() => {
            Err(BackendError::Fallen { sent: false })
        }
        Some(Ok(Err(SendError::Http(error)))) => Err(classify(&error)),
        Some(Err(error)) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        Some(Err(_)) | None if departure.may_leave() => Err(BackendError::Interrupted),
        Some(Err(_)) | None => Err(BackendError::Fallen { sent: !departure.is_given_up() }),
    }
}

/// Waits until a request that waits for its connection may not leave any more.
///
/// The connector looks when the connection is there. But the request could leave before that, over another
/// connection that becomes free.
async fn may_not_leave(departure: &Departure) {
    loop {
        time::sleep(LOOK_EVERY).await;
        if departure.is_connecting() && !departure.may_leave() {
            return;
        }
    }
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

//! Streamable HTTP: each message is a request of its own, answered by JSON or by a stream of events.

mod answer;
mod stream;

use std::{
    sync::{
        Arc, LazyLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Request, Response};
use serde_json::{Map, Value};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time,
};
use url::Url;

use super::{
    Bounds, HttpEndpoint, UpstreamError,
    desk::Desk,
    links::Wire,
    meta::{self, Fields},
};
use crate::{
    credential::Lease,
    egress::{Departure, SendError, Way},
};

/// How many threads serve the connections to upstreams.
const CONNECTION_THREADS: usize = 2;

/// How often it is asked whether a request may still leave that waits for its connection.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long what nobody waits for may take: answers to questions, notifications, the end of a session.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How many messages that nobody waits for may be on their way.
const TELLING_MAX: usize = 64;

/// How long a session's id may be.
const SESSION_ID_BYTES_MAX: usize = 1_024;

const SESSION_ID: &str = "mcp-session-id";

/// Connections are served on threads of their own, away from the deadlines: the HTTP client passes over interim
/// answers without a pause for as long as some are there to be read.
static CONNECTIONS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(CONNECTION_THREADS).thread_name("upstreams").enable_all().build().ok()
});

/// A server.
pub(super) struct Http {
    url: Url,
    way: Way,
    lease: Option<Arc<Lease>>,
    bounds: Bounds,
    spoken: RwLock<Spoken>,
    telling: Arc<tokio::sync::Semaphore>,
    itself: Weak<Self>,
}

/// What was agreed on.
#[derive(Clone, Debug, Default)]
struct Spoken {
    version: Option<&'static str>,
    session: Option<HeaderValue>,
}

/// A request to send.
pub(super) struct Outgoing {
    pub(super) id: i64,
    pub(super) fields: Fields,
    pub(super) message: Vec<u8>,
    pub(super) departure: Arc<Departure>,
    pub(super) sent: Arc<AtomicBool>,
}

impl Http {
    pub(super) fn new(endpoint: &HttpEndpoint, lease: Option<Arc<Lease>>, bounds: Bounds) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            url: endpoint.url.clone(),
            way: endpoint.way.clone(),
            lease,
            bounds,
            spoken: RwLock::default(),
            telling: Arc::new(tokio::sync::Semaphore::new(TELLING_MAX)),
            itself: itself.clone(),
        })
    }

    /// From now on this version is spoken; none before it is known.
    pub(super) fn speak(&self, version: Option<&'static str>) {
        self.spoken.write().unwrap_or_else(PoisonError::into_inner).version = version;
    }

    pub(super) fn is_stateless(&self) -> bool {
        self.spoken().version == Some(meta::STATELESS)
    }

    /// The header fields that repeat parts of a request, where the version has them.
    pub(super) fn fields(
        &self,
        method: &str,
        params: &Map<String, Value>,
        input_schema: Option<&Map<String, Value>>,
    ) -> Fields {
        if self.is_stateless() { meta::fields(method, params, input_schema) } else { Fields::new() }
    }

    /// Sends a request, and reads what comes until it is answered. Failures are answers too.
    pub(super) fn spawn(
        &self,
        outgoing: Outgoing,
        desk: Arc<Desk>,
        wire: Arc<Wire>,
    ) -> Result<JoinHandle<()>, UpstreamError> {
        let http = self.itself.upgrade().ok_or(UpstreamError::Closed { sent: false })?;
        spawn(async move {
            let id = outgoing.id;
            let exchange = async {
                let response = http.post(&outgoing).await?;
                http.answer(id, response, &desk, &wire).await
            };
            if let Err(error) = exchange.await {
                desk.settle(id, Err(error));
            }
        })
    }

    /// Sends what nobody waits for.
    pub(super) fn tell(&self, message: Vec<u8>) {
        let _ = self.telling(message);
    }

    /// Sends a notification, and waits until the server has it.
    pub(super) async fn deliver(&self, message: Vec<u8>) {
        if let Some(telling) = self.telling(message) {
            let _ = telling.await;
        }
    }

    fn telling(&self, message: Vec<u8>) -> Option<JoinHandle<()>> {
        let http = self.itself.upgrade()?;
        let permit = Arc::clone(&self.telling).try_acquire_owned().ok()?;
        let telling = async move {
            let _permit = permit;
            let request = http.request(Method::POST, Some(message), Fields::new());
            // Success has no body that matters (202), and failure has nobody to hear of it.
            let _ = time::timeout(TELL_TIMEOUT, http.way.send(request)).await;
        };
        spawn(telling).ok()
    }

    /// Ends the session, where there is one.
    pub(super) async fn end_session(&self) {
        if self.spoken().session.is_none() {
            return;
        }
        let Some(http) = self.itself.upgrade() else { return };
        let ending = spawn(async move {
            let request = http.request(Method::DELETE, None, Fields::new());
            let _ = time::timeout(TELL_TIMEOUT, http.way.send(request)).await;
        });
        if let Ok(ending) = ending {
            let _ = ending.await;
        }
    }

    async fn post(&self, outgoing: &Outgoing) -> Result<Response, UpstreamError> {
        let departure = &outgoing.departure;
        if !departure.may_leave() {
            return Err(UpstreamError::Fallen { sent: false });
        }
        let request = self.request(Method::POST, Some(outgoing.message.clone()), outgoing.fields.clone());
        outgoing.sent.store(true, Ordering::Release);
        let sending = Arc::clone(departure).of(self.way.send(request));
        let done = tokio::select! {
            biased;
            done = sending => done,
            () = may_not_leave(departure) => {
                // What was sending is gone by now, and the departure knows how far it came.
                return Err(UpstreamError::Fallen { sent: !departure.is_given_up() });
            }
        };
        match done {
            Ok(response) => Ok(response),
            Err(SendError::Refused { refusal, sent }) => Err(UpstreamError::Egress { refusal, sent }),
            Err(SendError::Http(_)) if departure.is_given_up() => Err(UpstreamError::Fallen { sent: false }),
            // The error's own text is dropped: it holds the URL, and can hold more.
            Err(SendError::Http(error)) if error.is_connect() => Err(UpstreamError::Unreachable),
            Err(SendError::Http(_)) => Err(UpstreamError::Closed { sent: true }),
        }
    }

    fn request(&self, method: Method, message: Option<Vec<u8>>, fields: Fields) -> Request {
        let is_get = method == Method::GET;
        let mut request = Request::new(method, self.url.clone());
        let headers = request.headers_mut();
        let accepted = if is_get { "text/event-stream" } else { "application/json, text/event-stream" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accepted));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let Spoken { version, session } = self.spoken();
        if let Some(version) = version {
            headers.insert("mcp-protocol-version", HeaderValue::from_static(version));
        }
        if let Some(session) = session {
            headers.insert(SESSION_ID, session);
        }
        for (name, value) in fields {
            headers.insert(name, value);
        }
        if let Some(message) = message {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(message.into());
        }
        if let Some(lease) = &self.lease {
            lease.apply(&mut request);
        }
        request
    }

    fn spoken(&self) -> Spoken {
        self.spoken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the id of the session that an answer begins.
    fn learn_session(&self, headers: &HeaderMap) -> Result<(), UpstreamError> {
        let Some(id) = headers.get(SESSION_ID) else { return Ok(()) };
        let is_visible = id.as_bytes().iter().all(|byte| matches!(byte, 0x21..=0x7E));
        if id.is_empty() || id.len() > SESSION_ID_BYTES_MAX || !is_visible {
            return Err(super::message::malformed("a session's id is not visible ASCII of bounded length"));
        }
        let mut spoken = self.spoken.write().unwrap_or_else(PoisonError::into_inner);
        // Only the first answer begins a session: before that, no version is spoken.
        if spoken.version.is_none() && spoken.session.is_none() {
            let mut id = id.clone();
            id.set_sensitive(true);
            spoken.session = Some(id);
        }
        Ok(())
    }

    /// A head that is no success, as far as it says why.
    fn judge_status(
        &self,
        status: StatusCode,
        request: Option<i64>,
        desk: &Desk,
    ) -> Result<(), UpstreamError> {
        if status == StatusCode::NOT_FOUND && self.spoken().session.is_some() {
            // A server that does not know the session has done nothing in it.
            let gone = UpstreamError::Closed { sent: false };
            match request {
                Some(id) => desk.close_over(id, gone.clone()),
                None => desk.close(),
            }
            return Err(gone);
        }
        if status.is_redirection() {
            return Err(UpstreamError::Redirected { code: status.as_u16() });
        }
        Ok(())
    }
}

/// Runs something where connections are served.
pub(super) fn spawn(
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>, UpstreamError> {
    CONNECTIONS.as_ref().map(|runtime| runtime.spawn(work)).ok_or(UpstreamError::Unreachable)
}

/// Waits until a request that waits for its connection may not leave any more.
async fn may_not_leave(departure: &Departure) {
    loop {
        time::sleep(LOOK_EVERY).await;
        if departure.is_connecting() && !departure.may_leave() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

//! The listener and its connections: few, short, and one request each. Who has a key is never kept waiting by who
//! has none.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    api::Api,
    error::ApiError,
    keys, request,
    strangers::{Stranger, Strangers},
};
use crate::{
    gateway::Gateway,
    manifest::{AdminKeys, AdminListener},
    runs::Runs,
    transport::{Ambiguous, OneRequest, answer_one},
    upstream::Upstreams,
};

/// How many requests with an admin key are answered at once.
const REQUESTS_MAX: usize = 32;
/// How large the head of a request may be.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How many headers a request may have.
const HEADERS_MAX: usize = 64;
/// How long the head of a request may take to arrive.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_MAX: Duration = Duration::from_secs(30);
/// How long requests may take to finish once the listener stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long the listener rests when no connection can be accepted.
const REST: Duration = Duration::from_millis(100);

/// Why the admin listener does not start.
#[derive(Debug, thiserror::Error)]
#[error("the admin listener cannot listen on {address}: {source}")]
pub struct AdminError {
    address: SocketAddr,
    source: io::Error,
}

/// A bound admin listener, not serving yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    keys: AdminKeys,
}

impl AdminServer {
    /// Binds the address.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub async fn bind(settings: &AdminListener) -> Result<Self, AdminError> {
        let address = settings.address.socket();
        let failed = |source| AdminError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, keys: settings.keys.clone() })
    }

    /// The address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then lets requests finish.
    pub async fn serve(
        self,
        gateway: Arc<Gateway>,
        runs: Arc<Runs>,
        upstreams: Upstreams,
        stop: CancellationToken,
    ) {
        let _registered = gateway.listens_on(self.address); // no call goes here
        let desk = Arc::new(Desk {
            keys: self.keys,
            room: Semaphore::new(REQUESTS_MAX),
            api: Api::new(gateway, runs, upstreams),
        });
        let strangers = Arc::new(Strangers::default());
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, source)) => {
                    let stranger = tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        stranger = strangers.welcome() => Arc::new(stranger),
                    };
                    connections.spawn(Arc::clone(&desk).welcome(stream, source, stranger, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "no admin connection could be accepted");
                    sleep(REST).await;
                }
            }
        }
        connections.close();
        let _ = timeout(DRAIN_MAX, connections.wait()).await;
    }
}

/// Who may ask, and what.
#[derive(Debug)]
struct Desk {
    keys: AdminKeys,
    room: Semaphore,
    api: Api,
}

impl Desk {
    async fn welcome(
        self: Arc<Self>,
        stream: TcpStream,
        source: SocketAddr,
        stranger: Arc<Stranger>,
        stop: CancellationToken,
    ) {
        let bounds = OneRequest { head_bytes_max: HEAD_BYTES_MAX, headers_max: HEADERS_MAX, head: HEAD_MAX };
        let answering = answer_one(stream, bounds, stop, |request| {
            let (desk, stranger) = (Arc::clone(&self), Arc::clone(&stranger));
            // A task of its own: a client that hangs up does not stop a change half-way.
            let answered = tokio::spawn(async move { desk.decide(source, &stranger, request).await });
            async move {
                let answered = answered.await.unwrap_or_else(|_| Err(broken()));
                response(&answered).map(|body| body.boxed())
            }
        });
        tokio::select! {
            _ = timeout(CONNECTION_MAX, answering) => {}
            () = stranger.hung_up() => {}
        }
    }

    async fn decide(
        &self,
        source: SocketAddr,
        stranger: &Stranger,
        request: Result<Request<Incoming>, Ambiguous>,
    ) -> Result<Value, ApiError> {
        let two_lengths = |_| ApiError::bad("framing", "the request says in two ways where its body ends");
        let (parts, body) = request.map_err(two_lengths)?.into_parts();
        request::check(&parts)?;
        let shown = request::bearer(&parts.headers).ok_or(keys::Unknown("admin_no_key"));
        let admin = shown.and_then(|shown| keys::authenticate(&self.keys, shown, Timestamp::now()));
        let admin = admin.map_err(|keys::Unknown(code)| {
            self.api.count(source, code);
            ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "authentication failed")
        })?;
        let _room = self.room.acquire().await.map_err(|_| broken())?;
        if !stranger.is_known_now() {
            return Err(broken());
        }
        let (method, path) = request::route(&parts);
        let request = Request::from_parts(parts, body);
        self.api.answer(admin, source, &method, &path, request).await
    }
}

fn broken() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
}

fn response(answer: &Result<Value, ApiError>) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(value) => (StatusCode::OK, value.to_string()),
        Err(refusal) => (refusal.status, refusal.body().to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"callgate admin\""));
    }
    response
}

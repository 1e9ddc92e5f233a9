//! Streamable HTTP on one endpoint, `/mcp`, for both protocol eras.
//!
//! Every request carries its own proof, also in a session of an older revision, which is nobody else's.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    front::Front,
    mcp::{Handler, Listening, Peer},
    media::prefers_stream,
    refusal::Answer,
    seats::Seats,
    serve::{self, Bounds},
    sessions::Sessions,
    sse::Streams,
    tls::{Tls, TlsError},
};
use crate::{gateway::Gateway, manifest::HttpListener};

type Service = StreamableHttpService<Handler, NeverSessionManager>;

/// The protocol behind the front, for requests that stand for themselves.
pub(super) struct Protocol {
    json: Service,
    stream: Service,
}

/// Why the listener does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Another program has the port.
    #[error("{0} is taken by another program: set another `address` under `listen: http:`, or `--listen`")]
    Taken(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be spoken.
    #[error("`listen: http: tls:`: {0}")]
    Tls(#[from] TlsError),
}

/// A bound listener, not serving yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    settings: HttpListener,
}

impl HttpServer {
    /// Binds the address, and reads the files of TLS, which are relative to `base`.
    ///
    /// # Errors
    /// When it is taken, or cannot be listened on, or a file cannot be used.
    pub async fn bind(settings: HttpListener, base: &Path) -> Result<Self, HttpError> {
        let tls = settings.tls.as_ref().map(|spec| Tls::open(spec, base)).transpose()?;
        let address = settings.address;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::Taken(address),
            _ => HttpError::Bind { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls, settings })
    }

    /// The address that clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How clients connect: `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves until `stop` is cancelled, then lets requests in flight finish.
    ///
    /// A listener that cannot accept rests and tries again.
    pub async fn serve(self, gateway: Arc<Gateway>, stop: CancellationToken) {
        let _registered = gateway.listens_on(self.address); // before anybody can call
        let (sessions, _sweeper) = Sessions::start(Arc::clone(&gateway), stop.clone());
        let (seats, _looking) = Seats::start(Arc::clone(&gateway), self.settings.connections);
        let streams = self.settings.sse.then(|| Arc::new(Streams::new(stop.clone())));
        let protocol = Protocol::new(&gateway, &self.settings, &stop);
        let finishing = Arc::clone(&gateway);
        let front = Front::new(gateway, &self.settings, protocol, sessions, seats, streams.clone());
        let bounds = Bounds {
            connections_max: self.settings.connections,
            head: self.settings.header_timeout.duration(),
            idle: self.settings.idle_timeout.duration(),
        };
        serve::serve(self.listener, self.tls, Arc::new(front), bounds, stop).await;
        finishing.finish_tasks().await;
        if let Some(streams) = streams {
            streams.finish().await; // so that the ends of their runs are on record before the record is closed
        }
    }
}

impl Protocol {
    fn new(gateway: &Arc<Gateway>, settings: &HttpListener, stop: &CancellationToken) -> Self {
        let listening = Listening::until(stop.clone());
        let service = |is_json| service(Arc::clone(gateway), settings, is_json, Arc::clone(&listening));
        Self { json: service(true), stream: service(false) }
    }

    /// Answers a request in the form that its client would rather have.
    pub(super) async fn handle(&self, request: Request<Full<Bytes>>) -> Answer {
        let service = if prefers_stream(request.headers()) { &self.stream } else { &self.json };
        service.handle(request).await
    }
}

fn service(
    gateway: Arc<Gateway>,
    settings: &HttpListener,
    is_json: bool,
    listening: Arc<Listening>,
) -> Service {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(is_json)
        // The front has judged both, more strictly.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(settings.body.bytes())
        // Not the listener's: that would cancel the calls that are to finish.
        .with_cancellation_token(CancellationToken::new());
    let factory =
        move || Ok(Handler::new(Arc::clone(&gateway), Peer::Http).listening(Arc::clone(&listening)));
    StreamableHttpService::new(factory, Arc::new(NeverSessionManager::default()), config)
}

//! Streamable HTTP on one endpoint, `/mcp`, for both protocol eras.
//!
//! Every request carries its own proof; there are no sessions that could be stolen.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    serve::ListenerExt as _,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::mcp::{Handler, Peer, Shown};
use crate::{
    call::{Call, CallId, CallKind, Origin, Proof, Transport},
    gateway::{Gateway, Notice, Reply},
    manifest::HttpListener,
};

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
    /// The listener failed.
    #[error("the listener failed: {0}")]
    Serve(#[from] io::Error),
}

/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests in flight may take to finish once the listener stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A bound listener, not serving yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    settings: HttpListener,
}

impl HttpServer {
    /// Binds the address.
    ///
    /// # Errors
    /// When it is taken, or cannot be listened on.
    pub async fn bind(settings: HttpListener) -> Result<Self, HttpError> {
        let address = settings.address;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::Taken(address),
            _ => HttpError::Bind { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, settings })
    }

    /// The address that clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled, then lets requests in flight finish.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, gateway: Arc<Gateway>, stop: CancellationToken) -> Result<(), HttpError> {
        let _registered = gateway.listens_on(self.address); // before anybody can call
        let service = self.service(&gateway);
        let front = Front { gateway, body_bytes_max: self.settings.body.bytes() };
        let router = Router::new()
            .route_service("/mcp", service)
            .layer(middleware::from_fn_with_state(front, identify))
            .into_make_service_with_connect_info::<SocketAddr>();
        let listener = self.listener.tap_io(|stream| {
            // Without it a reply may wait 40 ms for an acknowledgement.
            let _ = stream.set_nodelay(true);
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            served = serving => served?,
            // A connection that never ends its request does not keep the process.
            () = drained => {}
        }
        Ok(())
    }

    fn service(&self, gateway: &Arc<Gateway>) -> StreamableHttpService<Handler, NeverSessionManager> {
        let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        hosts.extend(self.settings.hosts.iter().cloned());
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_allowed_hosts(hosts)
            .with_allowed_origins(self.settings.origins.iter().cloned())
            .enforce_origin_validation()
            .with_max_request_body_bytes(self.settings.body.bytes())
            // Not `stop`: that would cancel the calls that are to finish.
            .with_cancellation_token(CancellationToken::new());
        let gateway = Arc::clone(gateway);
        let factory = move || Ok(Handler::new(Arc::clone(&gateway), Peer::Http));
        StreamableHttpService::new(factory, Arc::new(NeverSessionManager::default()), config)
    }
}

#[derive(Clone)]
struct Front {
    gateway: Arc<Gateway>,
    body_bytes_max: usize,
}

/// Lets in only who proves who it is, and answers early what a handler cannot: 401 and 403.
async fn identify(
    State(front): State<Front>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let origin = Origin { transport: Transport::Http, source: Some(source.ip()) };
    let proof = proof(&parts.headers);
    let call = |kind| {
        let received = Timestamp::now();
        let cancel = CancellationToken::new();
        Call { id: CallId::random(received), kind, proof: proof.clone(), origin, received, cancel }
    };
    let knock = call(CallKind::Resource { uri: String::new() });
    if front.gateway.authenticate(&knock).is_err() {
        return unauthorized(&proof);
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, front.body_bytes_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, &Value::Null, -32600, "the request is too large");
        }
        Err(_) => {
            return refusal(StatusCode::REQUEST_TIMEOUT, &Value::Null, -32600, "the request took too long");
        }
    };
    if parts.method == Method::POST
        && let Some((id, kind)) = tool_call(&body)
    {
        // A task of its own: a client that hangs up drops no record.
        let (gateway, call) = (Arc::clone(&front.gateway), call(kind));
        match tokio::spawn(async move { gateway.step_up(call).await }).await {
            Ok(Ok((reply, scopes))) => return insufficient_scope(&id, &reply, &scopes),
            Ok(Err(_)) => {} // not one for a step-up: the handler makes the call
            Err(_) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, &id, -32603, "internal error"),
        }
    }
    parts.extensions.insert(Shown { proof, origin });
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// What a request shows: one bearer token, or nothing. A token in the query is not looked at.
fn proof(headers: &HeaderMap) -> Proof {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Proof::Nothing };
    let Ok(text) = value.to_str() else { return Proof::Nothing };
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Proof::ApiKey(SecretString::from(token.trim().to_owned()))
        }
        _ => Proof::Nothing,
    }
}

/// The part of a request that says which tool it calls.
#[derive(Deserialize)]
struct Peek {
    jsonrpc: String,
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: PeekParams,
}

#[derive(Default, Deserialize)]
struct PeekParams {
    #[serde(default)]
    name: String,
}

fn tool_call(body: &Bytes) -> Option<(Value, CallKind)> {
    // An array would pass for the members of the struct, in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let peek: Peek = serde_json::from_slice(body).ok()?;
    let is_call =
        peek.jsonrpc == "2.0" && peek.method == "tools/call" && (peek.id.is_string() || peek.id.is_i64());
    is_call.then(|| {
        // A step-up is decided without arguments, and records none.
        let kind = CallKind::Tool { name: peek.params.name, arguments: Map::new().into() };
        (peek.id, kind)
    })
}

/// RFC 6750 §3: a challenge, with an error only where something was shown.
fn unauthorized(proof: &Proof) -> Response {
    let challenge = match proof {
        Proof::Nothing | Proof::Asserted(_) => "Bearer realm=\"callgate\"",
        Proof::ApiKey(_) => "Bearer realm=\"callgate\", error=\"invalid_token\"",
    };
    let mut response = refusal(StatusCode::UNAUTHORIZED, &Value::Null, -32001, "authentication failed");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

/// RFC 6750 §3.1 and MCP 2026-07-28 authorization: names all scopes that the operation needs.
fn insufficient_scope(id: &Value, reply: &Reply, scopes: &[String]) -> Response {
    let message = match &reply.body {
        Err(Notice::Refused { message, .. } | Notice::Unknown(message)) => message.as_str(),
        Ok(_) => "insufficient scope",
    };
    let mut response = refusal(StatusCode::FORBIDDEN, id, -32002, message);
    let scopes = scopes.join(" "); // scope tokens hold neither `"` nor `\` (RFC 6749 §3.3)
    let challenge = format!("Bearer realm=\"callgate\", error=\"insufficient_scope\", scope=\"{scopes}\"");
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn refusal(status: StatusCode, id: &Value, code: i32, message: &str) -> Response {
    let body = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, headers, body.to_string()).into_response()
}

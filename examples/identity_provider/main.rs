//! A small identity provider: an OAuth 2.1 authorization server to try Callgate's `identity: issuers:` with.
//!
//! `cargo run --example identity_provider -- --config provider.json`. It has no pages and asks nobody: whoever
//! opens its authorization endpoint is the user that `--user` or `login_hint` names. So it is for tests and for
//! trying out, on loopback only. Its configuration, with all that it may hold:
//!
//! ```json
//! {
//!   "resources": ["http://127.0.0.1:8787/mcp"],
//!   "lifetime_seconds": 300,
//!   "clients": {
//!     "desk": { "redirects": ["http://127.0.0.1/callback"], "scopes": ["orders:read", "refunds:write"] },
//!     "batch": { "secret": "a secret of this example", "scopes": ["orders:read"] }
//!   },
//!   "registered": { "scopes": ["orders:read"] }
//! }
//! ```
//!
//! Clients may register themselves if there is `registered`. All of them are one application to the gate: a token
//! names the client in `client_id`, and the entry of the configuration that it stands under in `app`.

mod form;
mod provider;
mod store;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use form::Form;
use provider::{Provider, Refusal};

/// A small identity provider to try Callgate with. It asks nobody, so it serves this machine only.
#[derive(Parser)]
struct Arguments {
    /// The port to listen on, at 127.0.0.1. 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The clients and resources that it knows (JSON).
    #[arg(long)]
    config: PathBuf,
    /// Who is signed in, unless a request says `login_hint`.
    #[arg(long, default_value = "dana")]
    user: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let text = fs::read(&arguments.config)
        .map_err(|error| format!("cannot read {}: {error}", arguments.config.display()))?;
    let config =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", arguments.config.display()))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listen = |error: io::Error| format!("cannot listen on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let issuer = format!("http://{}", listener.local_addr().map_err(listen)?);
    let provider =
        Provider::new(issuer.clone(), config, arguments.user).map_err(|error| error.to_string())?;
    eprintln!("identity provider on {issuer}");
    axum::serve(listener, routes(Arc::new(provider))).await.map_err(|error| error.to_string())
}

fn routes(provider: Arc<Provider>) -> Router {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata)) // RFC 8414 §3
        .route("/.well-known/openid-configuration", get(metadata)) // OpenID Connect Discovery §4
        .route("/jwks", get(jwks))
        .route("/register", post(register))
        .route("/authorize", get(authorize))
        .route("/token", post(token))
        // No standard's: for tests.
        .route("/rotate", post(rotate))
        .route("/counts", get(counts))
        .with_state(provider)
}

type Shared = State<Arc<Provider>>;

async fn metadata(State(provider): Shared) -> Json<Value> {
    Json(provider.metadata())
}

async fn jwks(State(provider): Shared) -> Json<Value> {
    Json(provider.jwks())
}

async fn rotate(State(provider): Shared) -> Response {
    match provider.rotate() {
        Ok(kid) => Json(json!({ "kid": kid })).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn counts(State(provider): Shared) -> Json<Value> {
    Json(provider.counts())
}

/// RFC 7591 §3.
async fn register(State(provider): Shared, body: Bytes) -> Response {
    match provider.register(&body) {
        Ok(client) => (StatusCode::CREATED, Json(client)).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// RFC 6749 §4.1.1, without anybody to ask.
async fn authorize(State(provider): Shared, RawQuery(query): RawQuery) -> Response {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    match query.and_then(|query| provider.authorize(&query)) {
        Ok(to) => match HeaderValue::from_str(to.as_str()) {
            Ok(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
            Err(_) => refused(&Refusal::new("invalid_request", "the redirect cannot be written")),
        },
        // Nobody is sent to where no client asked for (RFC 6749 §4.1.2.1).
        Err(refusal) => refused(&refusal),
    }
}

/// RFC 6749 §3.2.
async fn token(State(provider): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return refused(&Refusal::new("invalid_request", "the body is not a form"));
    }
    let answer = Form::parse(&body).and_then(|form| {
        let shown = form.client(headers.get(header::AUTHORIZATION))?;
        provider.token(&form, &shown)
    });
    match answer {
        Ok(token) => ([(header::CACHE_CONTROL, "no-store")], Json(token)).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// RFC 6749 §5.2.
fn refused(refusal: &Refusal) -> Response {
    let body = Json(json!({ "error": refusal.code, "error_description": refusal.description }));
    match refusal.code {
        "invalid_client" => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic")], body).into_response()
        }
        "server_error" => (StatusCode::INTERNAL_SERVER_ERROR, body).into_response(),
        _ => (StatusCode::BAD_REQUEST, body).into_response(),
    }
}

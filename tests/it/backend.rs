//! A real HTTP backend on a loopback port, which counts what reaches it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router, extract::State, http::StatusCode, http::Uri, response::IntoResponse, response::Response,
};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

/// A text that stands in answers, and may not stand in replies unless a test says so.
pub(crate) const MARK: &str = "the-words-of-the-backend";

/// Where no request gets through: bound, so that nobody else takes the port, and never listening.
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    _socket: TcpSocket,
}

impl Closed {
    pub(crate) fn bind() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { address: socket.local_addr().unwrap(), _socket: socket }
    }
}

/// A backend that behaves as the first segment of a path says.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let hits = Arc::new(AtomicUsize::new(0));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&hits));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, hits }
    }

    /// How many requests have reached it.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

async fn answer(State(hits): State<Arc<AtomicUsize>>, uri: Uri) -> Response {
    hits.fetch_add(1, Ordering::SeqCst);
    match uri.path().split('/').nth(1).unwrap_or_default() {
        "ok" => Json(json!({ "id": "1" })).into_response(),
        "slow" => std::future::pending().await,
        "large" => Json(json!({ "id": MARK.repeat(10_000) })).into_response(),
        "text" => MARK.into_response(),
        "failing" => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "id": MARK }))).into_response(),
        "misshapen" => Json(json!({ "id": [MARK] })).into_response(),
        "talkative" => Json(json!({ "id": "1", "internal_cost": MARK })).into_response(),
        "personal" => Json(json!({ "id": "1", "card": MARK })).into_response(),
        other => (StatusCode::NOT_FOUND, format!("no behaviour `{other}`")).into_response(),
    }
}

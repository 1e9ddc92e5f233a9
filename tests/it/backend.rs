//! A real HTTP backend on a loopback port, which counts what reaches it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, http::Uri,
    response::IntoResponse, response::Response,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

use crate::naughty::naughty_strings;

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
    seen: Seen,
}

/// The headers of every request.
type Seen = Arc<Mutex<Vec<HeaderMap>>>;

impl Backend {
    pub(crate) async fn start() -> Self {
        let (hits, seen) = (Arc::new(AtomicUsize::new(0)), Seen::default());
        let router = Router::new().fallback(answer).with_state((Arc::clone(&hits), Seen::clone(&seen)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, hits, seen }
    }

    /// The headers of every request that has reached it.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests have reached it.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

async fn answer(
    State((hits, seen)): State<(Arc<AtomicUsize>, Seen)>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response {
    hits.fetch_add(1, Ordering::SeqCst);
    seen.lock().unwrap().push(headers.clone());
    match uri.path().split('/').nth(1).unwrap_or_default() {
        "ok" => Json(json!({ "id": "1" })).into_response(),
        "echo" => Json(json!({ "id": echo(&headers, &uri, &body) })).into_response(),
        "naughty" => {
            let index: usize = uri.path().rsplit('/').next().unwrap().parse().unwrap();
            Json(json!({ "id": naughty_strings()[index] })).into_response()
        }
        "slow" => std::future::pending().await,
        "later" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Json(json!({ "id": "1" })).into_response()
        }
        "megabyte" => Json(json!({ "id": "x".repeat(1_000_000) })).into_response(),
        "large" => Json(json!({ "id": MARK.repeat(10_000) })).into_response(),
        "text" => MARK.into_response(),
        "failing" => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "id": MARK }))).into_response(),
        "misshapen" => Json(json!({ "id": [MARK] })).into_response(),
        "talkative" => Json(json!({ "id": "1", "internal_cost": MARK })).into_response(),
        "personal" => Json(json!({ "id": "1", "card": MARK })).into_response(),
        other => (StatusCode::NOT_FOUND, format!("no behaviour `{other}`")).into_response(),
    }
}

/// The one text of a request, wherever it stands: the last segment after `/echo/x/`, the query, a
/// header, or the body.
fn echo(headers: &HeaderMap, uri: &Uri, body: &Bytes) -> String {
    if let Some(value) = headers.get("x-text") {
        return value.to_str().unwrap().to_owned();
    }
    if !body.is_empty() {
        let body: Value = serde_json::from_slice(body).unwrap();
        return body["text"].as_str().unwrap().to_owned();
    }
    let url = reqwest::Url::parse(&format!("http://h{uri}")).unwrap();
    if let Some((_, text)) = url.query_pairs().next() {
        return text.into_owned();
    }
    let segment = url.path_segments().unwrap().next_back().unwrap();
    percent_encoding::percent_decode_str(segment).decode_utf8().unwrap().into_owned()
}

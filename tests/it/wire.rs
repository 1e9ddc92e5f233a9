//! `callgate serve` as it is seen over the wire by clients of every kind, and an identity provider beside it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse as _, routing::get};
use callgate::identity::jwt::{Algorithm, Signing};
use jiff::Timestamp;
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    backend::Backend,
    gate::{Answer, Era, records},
    process::{Spawned, configure, serve},
    project::Project,
};

/// What the gate's clients know it as. Nothing is there: it stands in tokens and metadata only.
pub(crate) const RESOURCE: &str = "https://gate.example.com/mcp";

/// A process that serves a project with an `identity:` section.
pub(crate) struct Wire {
    spawned: Spawned,
    pub(crate) backend: Arc<Backend>,
    pub(crate) http: reqwest::Client,
    folder: Arc<TempDir>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.spawned.child.kill();
        let _ = self.spawned.child.wait();
    }
}

impl Wire {
    pub(crate) async fn serve(project: Project, identity: Value) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (backend, folder) = (Arc::new(Backend::start().await), Arc::new(TempDir::new().unwrap()));
        project.write(folder.path(), backend.address, SocketAddr::from(([127, 0, 0, 1], 1)));
        configure(folder.path(), "identity", identity);
        Self::of(backend, folder).await
    }

    /// Another process that serves the same project, on the same state.
    pub(crate) async fn another(&self) -> Self {
        Self::of(Arc::clone(&self.backend), Arc::clone(&self.folder)).await
    }

    async fn of(backend: Arc<Backend>, folder: Arc<TempDir>) -> Self {
        let path = folder.path().to_owned();
        let spawned = tokio::task::spawn_blocking(move || serve(&path)).await.unwrap();
        Self { spawned, backend, http: reqwest::Client::new(), folder }
    }

    /// The memory that the process holds, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.spawned.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.spawned.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.http.get(self.url(path))).await
    }

    /// A request of the protocol, which may be changed before it is sent.
    pub(crate) fn request(&self, era: Era, method: &str, params: Value) -> RequestBuilder {
        era.request(self.http.post(self.url("/mcp")), method, params)
    }

    /// Calls a tool with a key or a token.
    pub(crate) async fn call(&self, era: Era, bearer: &str, tool: &str) -> Answer {
        let params = json!({ "name": tool, "arguments": { "id": "1" } });
        answer(self.request(era, "tools/call", params).bearer_auth(bearer)).await
    }

    /// The status of a call, which has to be answered with a result if it is 200.
    pub(crate) async fn status(&self, bearer: &str) -> u16 {
        let answer = self.call(Era::Modern, bearer, "get").await;
        if answer.status == 200 {
            assert_eq!(answer.json()["result"]["structuredContent"]["id"], "1", "{}", answer.text());
        }
        answer.status
    }

    /// Posts a form.
    pub(crate) fn form(&self, path: &str, form: &str) -> RequestBuilder {
        let request = self.http.post(self.url(path)).body(form.to_owned());
        request.header("Content-Type", "application/x-www-form-urlencoded")
    }

    /// The records of one kind so far.
    pub(crate) fn records_of(&self, kind: &str) -> Vec<Value> {
        let all = records(self.folder.path(), "serve-0", 0);
        all.into_iter().filter(|record| record["record"] == kind).collect()
    }
}

/// What comes back.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

/// Everything that a client can tell two answers apart by.
pub(crate) fn visible(answer: &Answer) -> (u16, Vec<String>, &[u8]) {
    (answer.status, headers(&answer.headers), &answer.body)
}

fn headers(all: &HeaderMap) -> Vec<String> {
    let kept = all.iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<String> = kept.map(|(name, value)| format!("{name}: {value:?}")).collect();
    headers.sort_unstable();
    headers
}

/// An identity provider: keys that are fetched, and tokens that are signed with them.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    keys: Mutex<Vec<Value>>,
    is_down: AtomicBool,
    fetches: AtomicUsize,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/jwks", get(jwks)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { issuer, shared }
    }

    /// Its entry under `issuers:`.
    pub(crate) fn entry(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks": format!("{}/jwks", self.issuer),
            "algorithms": ["ES256"],
            "egress": { "loopback": true }
        })
    }

    /// Publishes these keys, and no others.
    pub(crate) fn publish(&self, keys: &[&Signing]) {
        *self.shared.keys.lock().unwrap() = keys.iter().map(|key| key.public_jwk()).collect();
    }

    pub(crate) fn go_down(&self) {
        self.shared.is_down.store(true, Ordering::SeqCst);
    }

    /// How often its keys were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// What a good token says, for Dana at the client `bot`.
    pub(crate) fn claims(&self) -> Value {
        let now = Timestamp::now().as_second();
        json!({
            "iss": self.issuer, "aud": RESOURCE, "sub": "dana", "client_id": "bot-at-provider",
            "scope": "things:read", "jti": format!("t{now}"), "iat": now, "exp": now + 300
        })
    }
}

async fn jwks(State(shared): State<Arc<Shared>>) -> axum::response::Response {
    shared.fetches.fetch_add(1, Ordering::SeqCst);
    if shared.is_down.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    Json(json!({ "keys": *shared.keys.lock().unwrap() })).into_response()
}

pub(crate) fn new_key() -> Signing {
    Signing::generate(Algorithm::ES256).unwrap().signing
}

pub(crate) fn sign(key: &Signing, claims: &Value) -> String {
    key.sign("at+jwt", claims.as_object().unwrap()).unwrap()
}

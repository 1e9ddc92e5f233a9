//! Servers on loopback that play a token endpoint or a vault, and what they were asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{CredentialError, Credentials, Holder, Lease, LeaseRequest, LiveSecrets, timing::Timing};
use crate::egress::Egress;

/// Short, so that lives can be lived through.
pub(super) const TIMING: Timing = Timing {
    last: Duration::from_millis(200),
    wait_max: Duration::from_millis(1_500),
    request_max: Duration::from_millis(1_000),
    failure_kept: Duration::from_millis(300),
    look_every: Duration::from_millis(100),
};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: http::HeaderMap,
    pub(super) body: String,
}

impl Asked {
    /// A member of a form.
    pub(super) fn form(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.body.as_bytes());
        pairs.find(|(member, _)| member == name).map(|(_, value)| value.into_owned())
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What a server answers to its n-th request, and after which pause.
type Behaviour = Box<dyn Fn(usize, &Asked) -> (Duration, Response) + Send + Sync>;

/// A server that keeps what it was asked.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Stub {
    pub(super) async fn start(
        behaviour: impl Fn(usize, &Asked) -> (Duration, Response) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let behaviour = Arc::new(Mutex::new(Box::new(behaviour) as Behaviour));
        let (seen, behave) = (Arc::clone(&asked), Arc::clone(&behaviour));
        let router = Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let asked = Asked {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                headers: head.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            };
            let (pause, response) = {
                let mut seen = seen.lock().unwrap();
                seen.push(asked.clone());
                behave.lock().unwrap()(seen.len(), &asked)
            };
            tokio::time::sleep(pause).await;
            response
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked, behaviour }
    }

    /// Behaves otherwise from now on.
    pub(super) fn now(
        &self,
        behaviour: impl Fn(usize, &Asked) -> (Duration, Response) + Send + Sync + 'static,
    ) {
        *self.behaviour.lock().unwrap() = Box::new(behaviour);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// An answer of JSON, at once.
pub(super) fn answer(status: u16, body: &Value) -> (Duration, Response) {
    let response = Response::builder().status(status).header("content-type", "application/json");
    (Duration::ZERO, response.body(Body::from(body.to_string())).unwrap())
}

/// What a token endpoint answers at best.
pub(super) fn token(text: &str, expires_in: u64) -> (Duration, Response) {
    let body = json!({
        "access_token": text,
        "token_type": "Bearer",
        "expires_in": expires_in,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"
    });
    answer(200, &body)
}

/// Credentials, and the way out of them.
pub(super) struct World {
    pub(super) credentials: Credentials,
    pub(super) egress: Egress,
    pub(super) live: LiveSecrets,
}

impl World {
    /// One credential `key` for the tools `orders.get` and `orders.list`.
    pub(super) fn of(kind: &Value, vaults: &Value, environment: &BTreeMap<&str, String>) -> Self {
        let (world, problems) = Self::try_of(kind, vaults, environment, Path::new("."));
        assert!(problems.is_empty(), "{problems:?}");
        world
    }

    pub(super) fn try_of(
        kind: &Value,
        vaults: &Value,
        environment: &BTreeMap<&str, String>,
        base: &Path,
    ) -> (Self, Vec<(Holder, CredentialError)>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let spec = json!({ "service": "orders", "tools": ["orders.get", "orders.list"], "as": kind });
        let live = LiveSecrets::default();
        let (credentials, problems) = Credentials::resolve_with(
            &serde_json::from_value(json!({ "key": spec })).unwrap(),
            &serde_json::from_value(vaults.clone()).unwrap(),
            base,
            &|variable| environment.get(variable).map(Into::into),
            &live,
            TIMING,
        );
        (Self { credentials, egress: Egress::new(None).unwrap(), live }, problems)
    }

    pub(super) async fn lease_for(
        &self,
        tool: &str,
        client: &str,
        user: Option<(&str, &str)>,
    ) -> Result<Lease, CredentialError> {
        let request = LeaseRequest {
            tool: &tool.parse().unwrap(),
            service: &"orders".parse().unwrap(),
            name: &"key".parse().unwrap(),
            client,
            user,
            deadline: Instant::now() + Duration::from_secs(10),
        };
        self.credentials.lease(&self.egress, request).await
    }

    /// The `Authorization` that a call of `orders.get` would carry.
    pub(super) async fn shown(&self) -> Result<String, CredentialError> {
        self.lease_for("orders.get", "bot", None).await.map(|lease| authorization(&lease))
    }

    /// The secrets that are registered.
    pub(super) fn registered(&self) -> Vec<String> {
        let mut seen = Vec::new();
        self.live.for_each(|_, secret| seen.push(secrecy::ExposeSecret::expose_secret(secret).to_owned()));
        seen.sort();
        seen
    }
}

pub(super) fn authorization(lease: &Lease) -> String {
    let mut request = reqwest::Request::new(http::Method::GET, "http://example.com/".parse().unwrap());
    lease.apply(&mut request);
    request.headers().get("authorization").unwrap().to_str().unwrap().to_owned()
}

//! The HTTP backend against real servers on loopback.

mod misbehaving;
mod reuse;
mod servers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use self::servers::{echo, raw};
use crate::{
    backend::{
        Answer, Backend, BackendError, Backends, CallLimits, TimeLimit,
        contract::{self, Behaviour, SECRET, Subject},
    },
    credential::{Credentials, Lease, LeaseRequest, LiveSecrets},
    egress::{Allowances, Departure, Egress},
    manifest::{BaseUrl, EgressSpec, HttpBackend},
    plan::HttpPlan,
    upstream::Upstreams,
};

const LIMITS: CallLimits = CallLimits {
    timeout: Duration::from_secs(5),
    head_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(5),
    response_bytes_max: 4096,
    response_values_max: 100,
};

const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

fn plan(base: &BaseUrl, backend: Value) -> HttpPlan {
    let mut whole = json!({ "service": "orders", "method": "GET", "path": "/" });
    whole.as_object_mut().unwrap().extend(backend.as_object().unwrap().clone());
    let backend: HttpBackend = serde_json::from_value(whole).unwrap();
    HttpPlan::compile(&backend, base, &Map::new()).unwrap()
}

impl Backend {
    /// Plans a call, and sends it.
    async fn send(
        &self,
        plan: &HttpPlan,
        arguments: &Map<String, Value>,
        lease: Option<&Lease>,
        limits: CallLimits,
        cancel: &CancellationToken,
    ) -> Result<Answer, BackendError> {
        self.carry_out(&plan.request(arguments).unwrap(), lease, limits, cancel, &Departure::new(|| true))
            .await
    }
}

fn backends() -> Backend {
    on_loopback(Egress::new(None).unwrap())
}

fn on_loopback(egress: Egress) -> Backend {
    let spec = EgressSpec { loopback: true, ..EgressSpec::default() };
    Backends::new(egress, Upstreams::default()).within(&Allowances::new(&spec).unwrap())
}

/// Gets `/` from a server, without arguments or credential.
async fn get(base: &BaseUrl) -> Result<Answer, BackendError> {
    let plan = plan(base, json!({}));
    backends().send(&plan, &Map::new(), None, LIMITS, &CancellationToken::new()).await
}

async fn get_raw(answer: impl Into<Vec<u8>>) -> Result<Answer, BackendError> {
    get(&raw::answers(answer.into()).await).await
}

async fn lease(kind: Value) -> Lease {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let specs = json!({ "key": { "service": "orders", "tools": ["orders.get"], "as": kind } });
    let (credentials, problems) = Credentials::resolve(
        &serde_json::from_value(specs).unwrap(),
        &BTreeMap::new(),
        folder.path(),
        &LiveSecrets::default(),
    );
    assert!(problems.is_empty(), "{problems:?}");
    let request = LeaseRequest {
        tool: &"orders.get".parse().unwrap(),
        service: &"orders".parse().unwrap(),
        name: &"key".parse().unwrap(),
        client: "bot",
        user: None,
        deadline: Instant::now() + Duration::from_secs(5),
    };
    credentials.lease(&Egress::new(None).unwrap(), request).await.unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_bound() {
    let (base, _) = echo().await;
    let backend = json!({
        "method": "POST", "path": "/v1/orders/{order_id}/refunds",
        "query": ["dry"], "headers": { "X-Tenant": "tenant" }, "body": ["amount", "reason"]
    });
    let arguments =
        json!({ "order_id": "ord 1", "dry": true, "tenant": "acme", "amount": 1200, "extra": "not bound" });
    let answer = backends()
        .send(&plan(&base, backend), arguments.as_object().unwrap(), None, LIMITS, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(answer.status, Some(200));
    assert_eq!(answer.peer.unwrap().port(), base.url().port().unwrap());
    assert_eq!(answer.json()["method"], "POST");
    assert_eq!(answer.json()["path"], "/v1/orders/ord%201/refunds");
    assert_eq!(answer.json()["query"], "dry=true");
    assert_eq!(answer.json()["body"], json!({ "amount": 1200 }));
    assert_eq!(answer.json()["headers"]["x-tenant"], "acme");
    assert_eq!(answer.json()["headers"]["user-agent"], concat!("callgate/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_request_carries_the_headers_that_were_bound_and_no_others() {
    let (base, _) = echo().await;
    let names = |answer: Answer| -> BTreeSet<String> {
        answer.json()["headers"].as_object().unwrap().keys().cloned().collect()
    };
    let expected = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let none = expected(&["accept", "accept-encoding", "host", "user-agent"]);
    assert_eq!(names(get(&base).await.unwrap()), none);

    let put = plan(&base, json!({ "method": "PUT", "headers": { "If-Match": "tag" }, "body": ["a"] }));
    let arguments =
        json!({ "tag": "\"1\"", "a": 1, "Authorization": "Bearer mine", "headers": { "Cookie": "c" } });
    let answer = backends()
        .send(&put, arguments.as_object().unwrap(), None, LIMITS, &CancellationToken::new())
        .await
        .unwrap();
    let bound = expected(&["content-length", "content-type", "if-match"]);
    assert_eq!(names(answer), none.union(&bound).cloned().collect());
}

#[tokio::test]
async fn every_kind_of_credential_arrives_and_is_printed_nowhere() {
    let (base, _) = echo().await;
    let secret = json!("file:secret");
    let basic = "Basic ZGFuYTpodW50ZXIyLWlzLXRoZS1zZWNyZXQ=";
    for (kind, at, arrives) in [
        (json!({ "bearer": { "secret": secret } }), "/headers/authorization", format!("Bearer {SECRET}")),
        (
            json!({ "basic": { "username": "dana", "secret": secret } }),
            "/headers/authorization",
            basic.into(),
        ),
        (json!({ "header": { "name": "X-Api-Key", "secret": secret } }), "/headers/x-api-key", SECRET.into()),
        (json!({ "query": { "name": "key", "secret": secret } }), "/query", format!("a=1&key={SECRET}")),
    ] {
        let lease = lease(kind).await;
        let arguments = json!({ "a": 1 });
        let plan = plan(&base, json!({ "query": ["a"] }));
        let answer = backends()
            .send(&plan, arguments.as_object().unwrap(), Some(&lease), LIMITS, &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(answer.json().pointer(at).unwrap(), &arrives);
        assert!(!format!("{answer:?} {lease:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn the_contract_holds_with_a_secret_in_a_header_and_in_the_url() {
    let header = Http { lease: lease(json!({ "bearer": { "secret": "file:secret" } })).await };
    let url = Http { lease: lease(json!({ "query": { "name": "key", "secret": "file:secret" } })).await };
    tokio::join!(contract::holds(&header), contract::holds(&url));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (canary, hits) = echo().await;
    for code in [301, 302, 303, 307, 308] {
        let answer =
            format!("HTTP/1.1 {code} Moved\r\nLocation: {}stolen\r\nContent-Length: 0\r\n\r\n", canary.url());
        assert_eq!(get_raw(answer).await, Err(BackendError::Redirected { code }));
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
    get(&canary).await.unwrap();
    assert_eq!(hits.load(Ordering::SeqCst), 1, "the canary does count");
}

#[tokio::test]
async fn an_answer_of_the_limit_passes_and_one_byte_more_does_not() {
    let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
    let stated = |bytes| format!("{JSON}Content-Length: {bytes}\r\n\r\n{}", text(bytes));
    let unstated = |bytes| format!("{JSON}Connection: close\r\n\r\n{}", text(bytes));
    assert_eq!(get_raw(stated(4096)).await.unwrap().bytes, 4096);
    assert_eq!(get_raw(unstated(4096)).await.unwrap().bytes, 4096);
    let too_large = Err(BackendError::TooLarge { limit: 4096 });
    assert_eq!(get_raw(stated(4097)).await, too_large);
    assert_eq!(get_raw(unstated(4097)).await, too_large);
}

#[tokio::test]
async fn a_stated_length_over_the_limit_is_refused_before_the_body_comes() {
    let head = format!("{JSON}Content-Length: 4097\r\n\r\n");
    let base = raw::trickles(head.into_bytes(), b" ", Duration::from_secs(60)).await;
    let begun = Instant::now();
    assert_eq!(get(&base).await, Err(BackendError::TooLarge { limit: 4096 }));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn chunks_without_an_end_are_cut_off() {
    let head = format!("{JSON}Transfer-Encoding: chunked\r\n\r\n");
    let base = raw::floods(head.into_bytes(), b"10\r\n                \r\n").await;
    assert_eq!(get(&base).await, Err(BackendError::TooLarge { limit: 4096 }));
}

async fn times_out(base: &BaseUrl) {
    let limits = CallLimits { timeout: Duration::from_millis(1_500), ..LIMITS };
    let begun = Instant::now();
    let outcome =
        backends().send(&plan(base, json!({})), &Map::new(), None, limits, &CancellationToken::new()).await;
    let timed_out = BackendError::TimedOut { limit: TimeLimit::Total, after: limits.timeout, sent: true };
    assert_eq!(outcome, Err(timed_out));
    assert!(begun.elapsed() >= limits.timeout && begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_slow_head_times_out() {
    times_out(&raw::trickles(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X", Duration::from_secs(1)).await).await;
}

#[tokio::test]
async fn a_slow_body_times_out_though_bytes_keep_coming() {
    let head = format!("{JSON}Content-Length: 100\r\n\r\n");
    times_out(&raw::trickles(head.into_bytes(), b" ", Duration::from_secs(1)).await).await;
}

#[tokio::test]
async fn an_answer_that_is_not_json_by_its_own_word_is_refused() {
    for (kind, body) in [("text/html", "{}"), ("application/json; charset=utf-16", "{}"), ("", "{}")] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(get_raw(answer).await, Err(BackendError::NotJson), "{kind} {body}");
    }
    let untyped = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(get_raw(untyped).await, Err(BackendError::NotJson));
}

#[tokio::test]
async fn no_content_is_null() {
    for head in ["204 No Content", "205 Reset Content\r\nContent-Length: 0", "200 OK\r\nContent-Length: 0"] {
        let answer = get_raw(format!("HTTP/1.1 {head}\r\n\r\n")).await.unwrap();
        assert_eq!((answer.json(), answer.bytes), (&Value::Null, 0), "{head}");
    }
}

#[tokio::test]
async fn a_head_request_has_no_body_whatever_length_is_stated() {
    let base = raw::answers(format!("{JSON}Content-Length: 1000000\r\n\r\n").into_bytes()).await;
    let plan = plan(&base, json!({ "method": "HEAD" }));
    let answer = backends().send(&plan, &Map::new(), None, LIMITS, &CancellationToken::new()).await.unwrap();
    assert_eq!((answer.status, answer.json()), (Some(200), &Value::Null));
}

#[tokio::test]
async fn an_encoded_answer_is_refused() {
    for coding in ["br", "deflate", "zstd", "x-unheard-of", "identity, gzip", "gzip, gzip"] {
        let answer = format!("{JSON}Content-Encoding: {coding}\r\nContent-Length: 2\r\n\r\n{{}}");
        assert_eq!(get_raw(answer).await, Err(BackendError::Encoded), "{coding}");
    }
}

#[tokio::test]
async fn a_failure_keeps_its_code_and_nothing_else() {
    for code in [400, 401, 404, 409, 429, 500, 503] {
        let answer = format!(
            "HTTP/1.1 {code} stack trace\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n\"stack trace\""
        );
        let error = get_raw(answer).await.unwrap_err();
        assert_eq!(error, BackendError::Status { code });
        assert!(!format!("{error} {error:?}").contains("stack"));
    }
}

#[tokio::test]
async fn the_endless_body_of_a_failure_is_not_read() {
    let head = "HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (base, closed) = raw::floods_until_closed(head.into(), b"10\r\n                \r\n").await;
    assert_eq!(get(&base).await, Err(BackendError::Status { code: 500 }));
    tokio::time::timeout(Duration::from_secs(3), closed).await.expect("the connection is dropped").unwrap();
}

#[tokio::test]
async fn a_refused_connection_sends_nothing() {
    let error = get(&raw::nobody().await).await.unwrap_err();
    assert_eq!(error, BackendError::Unreachable);
    assert!(!error.effect_possible());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_unreachable_by_https() {
    let (base, hits) = echo().await;
    let https = BaseUrl::parse(&base.url().as_str().replace("http://", "https://")).unwrap();
    assert_eq!(get(&https).await, Err(BackendError::Unreachable));
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_timeout_while_connecting_sends_nothing() {
    let (base, _full) = raw::accepts_nobody().await;
    let backends = on_loopback(Egress::impatient(Duration::from_millis(200)));
    let error = backends
        .send(&plan(&base, json!({})), &Map::new(), None, LIMITS, &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, BackendError::TimedOut { limit: TimeLimit::Connect, sent: false, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_connection_that_closes_early_is_an_interruption() {
    let head = format!("{JSON}Content-Length: 100\r\n\r\n{{\"a\":");
    let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n\r\n7\r\n{{\"a\":1}}\r\n");
    for answer in [String::new(), "HTTP/1.1 200".to_owned(), head, chunked] {
        let error = get_raw(answer.clone()).await.unwrap_err();
        assert_eq!(error, BackendError::Interrupted, "{answer}");
        assert!(error.effect_possible());
    }
}

#[tokio::test]
async fn a_request_is_sent_once_even_when_its_connection_breaks() {
    let hits = Arc::new(AtomicUsize::new(0));
    let base = raw::counts_and_closes(Arc::clone(&hits)).await;
    assert_eq!(get(&base).await, Err(BackendError::Interrupted));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(hits.load(Ordering::SeqCst), 1);
}

/// The HTTP backend, as a subject of the contract.
struct Http {
    lease: Lease,
}

impl Subject for Http {
    async fn call(
        &self,
        behaviour: Behaviour,
        limits: CallLimits,
        cancel: &CancellationToken,
    ) -> Result<Answer, BackendError> {
        let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        let base = match behaviour {
            Behaviour::Prompt => {
                raw::answers(format!("{JSON}Content-Length: 11\r\n\r\n{{\"ok\":true}}").into_bytes()).await
            }
            Behaviour::Silent => raw::trickles(Vec::new(), b"", Duration::from_secs(60)).await,
            Behaviour::Trickle => raw::trickles(chunked, b"1\r\n \r\n", Duration::from_millis(50)).await,
            Behaviour::Flood => raw::floods(chunked, b"10\r\n                \r\n").await,
            Behaviour::BreaksOff => {
                raw::answers(format!("{JSON}Content-Length: 100\r\n\r\n{{\"{SECRET}").into_bytes()).await
            }
            Behaviour::Fails => {
                let text = format!("{{\"error\":\"bad token {SECRET}\"}}");
                let head = format!("HTTP/1.1 500 {SECRET}\r\nX-Token: {SECRET}\r\n");
                raw::answers(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes()).await
            }
            Behaviour::Away => raw::nobody().await,
        };
        backends().send(&plan(&base, json!({})), &Map::new(), Some(&self.lease), limits, cancel).await
    }
}

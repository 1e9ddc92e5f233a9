//! Credentials on real calls: which goes with which call, and what becomes of one that is refused.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use callgate::{
    call::{Call, CallKind, Origin, Outcome, Proof, Transport},
    gateway::Reply,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Closed,
    gate::{ERAS, Era, Gate},
    project::{Project, key, tool},
};

/// A server that keeps each request's path and `Authorization`, and answers as it is told.
struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Stub {
    async fn start(answer: impl Fn(usize, &str, &str) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<(String, String)>>>::default();
        let kept = Arc::clone(&seen);
        let router = Router::new().fallback(async move |request: Request| {
            let shown = request.headers().get("authorization").map_or("", |shown| shown.to_str().unwrap());
            let (path, shown) = (request.uri().path().to_owned(), shown.to_owned());
            let number = {
                let mut kept = kept.lock().unwrap();
                kept.push((path.clone(), shown.clone()));
                kept.len()
            };
            answer(number, &path, &shown)
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    /// A service that takes only the tokens that end in one of these.
    async fn service(accepted: &'static [&'static str]) -> Self {
        Self::start(move |_, _, shown| {
            if accepted.iter().any(|token| shown.ends_with(token)) {
                Json(json!({ "id": "1" })).into_response()
            } else {
                (StatusCode::UNAUTHORIZED, Json(json!({ "id": "refused" }))).into_response()
            }
        })
        .await
    }

    /// A token endpoint whose n-th token is `canary-token-n`.
    async fn tokens() -> Self {
        Self::start(|number, _, _| {
            let token = format!("canary-token-{number}");
            Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": 600 })).into_response()
        })
        .await
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }

    fn shown(&self) -> Vec<String> {
        self.seen().into_iter().map(|(_, shown)| shown).collect()
    }

    fn spec(&self) -> Value {
        json!({ "url": format!("http://{}/", self.address), "egress": { "loopback": true } })
    }
}

/// Files that only their owner can open.
struct Secrets(TempDir);

impl Secrets {
    fn new(secrets: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in secrets {
            write_secret(&folder.path().join(name), text);
        }
        Self(folder)
    }

    fn reference(&self, name: &str) -> String {
        format!("file:{}", self.0.path().join(name).display())
    }
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A tool of the service `orders` on a credential.
fn on(name: &str, effects: &str, credential: Value) -> Value {
    let mut tool = tool(name, effects, "ok");
    tool["backend"]["http"]["service"] = json!("orders");
    tool["credential"] = credential;
    tool
}

fn client_credentials(tokens: &Stub, secrets: &Secrets) -> Value {
    json!({ "client-credentials": {
        "token-url": format!("http://{}/token", tokens.address), "client": "gate",
        "secret": secrets.reference("secret"), "egress": { "loopback": true }
    } })
}

/// A project of tools on one credential that gets its tokens.
fn getting(service: &Stub, tokens: &Stub, secrets: &Secrets) -> Project {
    let names = ["t.read", "t.write", "t.put"];
    let mut put = on("t.put", "write", json!("got"));
    put["idempotent"] = json!(true);
    Project::new()
        .tool(on("t.read", "read", json!("got")))
        .tool(on("t.write", "write", json!("got")))
        .tool(put)
        .client("bot", json!({ "tools": ["*"], "stdio": true }))
        .policy("permit (principal, action, resource);")
        .service("orders", service.spec())
        .server(
            "credentials",
            json!({ "got": { "service": "orders", "tools": names, "as": client_credentials(tokens, secrets) } }),
        )
}

#[tokio::test]
async fn a_refused_token_is_got_anew_once_where_the_tool_may_be_repeated() {
    for tool in ["t.read", "t.put"] {
        let (service, tokens) = (Stub::service(&["canary-token-2"]).await, Stub::tokens().await);
        let secrets = Secrets::new(&[("secret", "canary-secret")]);
        let gate = Gate::serve(getting(&service, &tokens, &secrets)).await;
        let answer = gate.call(Era::Legacy, "bot", tool, json!({ "id": "1" })).await;
        assert!(!answer.is_error(), "{}", answer.text());
        assert_eq!(service.shown(), ["Bearer canary-token-1", "Bearer canary-token-2"]);
        assert_eq!(tokens.seen().len(), 2);
        let records = gate.records_of("outcome");
        let record = records.last().unwrap();
        assert_eq!((&record["credential"], &record["credential_refreshed"]), (&json!("got"), &json!(true)));
        // What was got stays in use, and the record says nothing of a refresh any more.
        gate.call(Era::Legacy, "bot", tool, json!({ "id": "1" })).await;
        assert_eq!(service.seen().len(), 3);
        let records = gate.records_of("outcome");
        assert_eq!(records.last().unwrap().get("credential_refreshed"), None);
    }
}

#[tokio::test]
async fn a_service_that_refuses_every_token_is_asked_twice_and_no_more() {
    let (service, tokens) = (Stub::service(&["none"]).await, Stub::tokens().await);
    let secrets = Secrets::new(&[("secret", "canary-secret")]);
    let gate = Gate::serve(getting(&service, &tokens, &secrets)).await;
    let answer = gate.call(Era::Modern, "bot", "t.read", json!({ "id": "1" })).await;
    assert_eq!(answer.message(), "backend answered 401");
    assert_eq!((service.seen().len(), tokens.seen().len()), (2, 2));
    let records = gate.records_of("outcome");
    let record = records.last().unwrap();
    assert_eq!((&record["code"], &record["credential_refreshed"]), (&json!("backend_status"), &json!(true)));
}

#[tokio::test]
async fn a_write_that_is_refused_is_not_repeated_and_the_next_call_gets_a_new_token() {
    let (service, tokens) = (Stub::service(&["canary-token-2"]).await, Stub::tokens().await);
    let secrets = Secrets::new(&[("secret", "canary-secret")]);
    let gate = Gate::serve(getting(&service, &tokens, &secrets)).await;
    let answer = gate.call(Era::Legacy, "bot", "t.write", json!({ "id": "1" })).await;
    assert_eq!(answer.message(), "backend answered 401");
    assert_eq!(service.shown(), ["Bearer canary-token-1"]);
    let answer = gate.call(Era::Legacy, "bot", "t.write", json!({ "id": "1" })).await;
    assert!(!answer.is_error(), "{}", answer.text());
    assert_eq!(service.shown(), ["Bearer canary-token-1", "Bearer canary-token-2"]);
}

#[tokio::test]
async fn a_token_endpoint_that_is_away_denies_the_call_on_record_and_nothing_is_sent() {
    let (service, closed) = (Stub::service(&[""]).await, Closed::bind());
    let tokens = Stub { address: closed.address, seen: Arc::default() };
    let secrets = Secrets::new(&[("secret", "canary-secret")]);
    let gate = Gate::serve(getting(&service, &tokens, &secrets)).await;
    for tool in ["t.read", "t.write"] {
        let answer = gate.call(Era::Legacy, "bot", tool, json!({ "id": "1" })).await;
        assert_eq!(answer.message(), "temporarily unavailable");
        let records = gate.records_of("outcome");
        let record = records.last().unwrap();
        assert_eq!(
            (&record["outcome"], &record["code"]),
            (&json!("denied"), &json!("credential_unavailable"))
        );
        assert_eq!(record["detail"], "the token endpoint of `got`: cannot connect");
    }
    assert!(service.seen().is_empty());
}

/// A project of two clients with credentials of their own, and a third without.
fn choosing(service: &Stub, secrets: &Secrets, default: bool) -> Project {
    let credential = |name: &str| json!({ "service": "orders", "tools": ["t.read"], "as": { "bearer": { "secret": secrets.reference(name) } } });
    let mut choice = json!({ "for": { "alpha": "of-alpha", "beta": "of-beta" } });
    if default {
        choice["default"] = json!("of-all");
    }
    let spec = || json!({ "tools": ["*"], "stdio": true, "limits": { "rate": "1000000/s" } });
    Project::new()
        .tool(on("t.read", "read", choice))
        .client("alpha", spec())
        .client("beta", spec())
        .client("gamma", spec())
        .policy("permit (principal, action, resource);")
        .service("orders", service.spec())
        .server(
            "credentials",
            json!({
                "of-alpha": credential("alpha"), "of-beta": credential("beta"), "of-all": credential("all")
            }),
        )
}

fn three_secrets() -> Secrets {
    Secrets::new(&[("alpha", "canary-alpha"), ("beta", "canary-beta"), ("all", "canary-all")])
}

#[tokio::test]
async fn each_client_carries_the_credential_that_its_tool_names_for_it() {
    let (service, secrets) =
        (Stub::service(&["canary-alpha", "canary-beta", "canary-all"]).await, three_secrets());
    let gate = Gate::serve(choosing(&service, &secrets, true)).await;
    for client in ["alpha", "beta", "gamma"] {
        assert!(!gate.call(Era::Legacy, client, "t.read", json!({ "id": "1" })).await.is_error());
    }
    assert_eq!(service.shown(), ["Bearer canary-alpha", "Bearer canary-beta", "Bearer canary-all"]);
    let names: Vec<_> =
        gate.records_of("outcome").iter().map(|record| record["credential"].clone()).collect();
    assert_eq!(names, ["of-alpha", "of-beta", "of-all"]);
}

#[tokio::test]
async fn a_client_for_whom_no_credential_is_named_is_refused_and_nothing_is_sent() {
    let (service, secrets) = (Stub::service(&[""]).await, three_secrets());
    let gate = Gate::serve(choosing(&service, &secrets, false)).await;
    let answer = gate.call(Era::Legacy, "gamma", "t.read", json!({ "id": "1" })).await;
    assert_eq!(answer.message(), "temporarily unavailable");
    let records = gate.records_of("outcome");
    let record = records.last().unwrap();
    assert_eq!(
        (&record["outcome"], &record["code"]),
        (&json!("denied"), &json!("credential_not_for_client"))
    );
    assert_eq!(record["detail"], "tool `t.read` has no credential for `gamma`");
    assert!(service.seen().is_empty());
}

async fn called(gate: &Gate, client: &str, shown: &str) -> Reply {
    let arguments: Map<String, Value> = serde_json::from_value(json!({ "id": client })).unwrap();
    let kind = CallKind::Tool { name: "t.read".into(), arguments: arguments.into() };
    let origin = Origin { transport: Transport::Http, source: Some([127, 0, 0, 1].into()) };
    gate.app.gateway.call(Call::now(kind, Proof::bearer(shown), origin, CancellationToken::new())).await
}

/// A token of a client, from the gate's own endpoint.
async fn minted(gate: &Gate, client: &str) -> String {
    let request = reqwest::Client::new()
        .post(format!("http://{}/oauth/token", gate.address))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .basic_auth(client, Some(key(client)))
        .body("grant_type=client_credentials");
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    made["access_token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

/// Calls by keys and by tokens, by 64 at once, over connections to the service that are used again; each tenth comes
/// in over HTTP as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)] // a core is left to the other tests
async fn ten_thousand_calls_of_two_clients_never_carry_each_others_credential() {
    let (service, secrets) = (Stub::service(&["canary-alpha", "canary-beta"]).await, three_secrets());
    let identity = json!({ "resource": "https://gate.example.com/mcp", "tokens": {} });
    let project = choosing(&service, &secrets, false).server("identity", identity);
    let gate = Arc::new(Gate::serve(project).await);
    let mut shown = Vec::new();
    for client in ["alpha", "beta"] {
        shown.push((client, key(client)));
        shown.push((client, minted(&gate, client).await));
    }
    let shown = Arc::new(shown);
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..64).map(|_| {
        let (gate, shown, next) = (Arc::clone(&gate), Arc::clone(&shown), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= 10_000 {
                    return;
                }
                let (client, shown) = &shown[(number / 3) % 4];
                if number % 10 == 0 {
                    let params = json!({ "name": "t.read", "arguments": { "id": client } });
                    let answer = gate.send(ERAS[number / 10 % 2], Some(shown), "tools/call", params).await;
                    assert!(!answer.is_error(), "{}", answer.text());
                } else {
                    let reply = called(&gate, client, shown).await;
                    assert_eq!(reply.outcome, Outcome::Allowed, "{reply:?}");
                }
            }
        })
    });
    for done in futures_join(workers).await {
        done.unwrap();
    }
    let seen = service.seen();
    assert_eq!(seen.len(), 10_000);
    for client in ["alpha", "beta"] {
        let own = seen.iter().filter(|(path, _)| *path == format!("/ok/{client}"));
        let (mut count, expected) = (0, format!("Bearer canary-{client}"));
        own.for_each(|(_, shown)| {
            count += 1;
            assert_eq!(*shown, expected);
        });
        assert!((4_990..=5_010).contains(&count), "{count}");
    }
}

async fn futures_join<T: Send + 'static>(
    tasks: impl Iterator<Item = tokio::task::JoinHandle<T>>,
) -> Vec<Result<T, tokio::task::JoinError>> {
    let mut done = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        done.push(task.await);
    }
    done
}

#[tokio::test]
async fn a_secret_file_that_changes_is_shown_after_a_401_at_once() {
    let service = Stub::service(&["canary-new"]).await;
    let secrets = Secrets::new(&[("alpha", "canary-old"), ("beta", "b"), ("all", "a")]);
    let gate = Gate::serve(choosing(&service, &secrets, false)).await;
    let answer = gate.call(Era::Legacy, "alpha", "t.read", json!({ "id": "1" })).await;
    assert_eq!(answer.message(), "backend answered 401");
    assert_eq!(service.shown(), ["Bearer canary-old"]); // the file says the same: it is not shown twice
    write_secret(&secrets.0.path().join("alpha"), "canary-new");
    let answer = gate.call(Era::Legacy, "alpha", "t.read", json!({ "id": "1" })).await;
    assert!(!answer.is_error(), "{}", answer.text());
    assert_eq!(service.shown().last().unwrap(), "Bearer canary-new");
}

fn callgate(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    command.arg("--config").arg(folder.join("callgate.yaml")).args(arguments);
    command.envs(environment.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_program_writes_holds_a_secret() {
    let (service, tokens) = (Stub::service(&["canary-token-2"]).await, Stub::tokens().await);
    let secrets = Secrets::new(&[("secret", "canary-secret")]);
    let folder = TempDir::new().unwrap();
    getting(&service, &tokens, &secrets).write(folder.path(), service.address, service.address);
    let path = folder.path().to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let arguments = ["call", "t.read", "--client", "bot", "--args", r#"{"id":"1"}"#];
        callgate(&path, &arguments, &[("CALLGATE_LOG", "trace"), ("RUST_LOG", "trace")])
    });
    let output = output.await.unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!((service.seen().len(), tokens.seen().len()), (2, 2));
    assert!(text.contains("TRACE") || text.contains("DEBUG"), "the log is on: {text}");
    let encoded = base64_of("gate:canary-secret");
    let mut files = 0;
    let mut pending = vec![folder.path().to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            files += 1;
            let bytes = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(!bytes.contains("canary") && !bytes.contains(&encoded), "{}", path.display());
        }
    }
    assert!(files > 5);
    assert!(!text.contains("canary") && !text.contains(&encoded), "{text}");
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn everything_that_is_wrong_with_credentials_is_told_at_once() {
    let (folder, nowhere) = (TempDir::new().unwrap(), Closed::bind().address);
    let credential =
        |service: &str, tools: Value, kind: Value| json!({ "service": service, "tools": tools, "as": kind });
    let token = |more: Value| {
        let mut spec = json!({ "token-url": "https://idp.example/token", "client": "gate" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "client-credentials": spec })
    };
    let choice = json!({ "default": "absent", "for": { "bot": "elsewhere", "nobody": "unlisted" } });
    Project::new()
        .tool(on("t.read", "read", choice))
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
        .service("orders", json!({ "url": "https://orders.example/" }))
        .server(
            "credentials",
            json!({
                "elsewhere": credential("api", json!(["t.read"]), json!({ "query": { "name": "key", "secret": "env:A" } })),
                "unlisted": credential("orders", json!([]), json!({ "bearer": { "secret": "vault:absent/secret/data/a#b" } })),
                "both": credential("orders", json!([]), token(json!({ "secret": "env:A", "key": "env:B", "alg": "ES256" }))),
                "no-alg": credential("orders", json!([]), token(json!({ "key": "env:B" }))),
                "at-home": credential("orders", json!([]), token(json!({ "secret": "env:A", "token-url": "http://10.1.2.3/token" }))),
                "shown-plain": credential("api", json!([]), json!({ "certificate": { "certificate": "file:c", "key": "file:k" } })),
                "other-tools": credential("orders", json!([]), token(json!({ "secret": "env:A", "scopes": { "t.absent": ["a"] } })))
            }),
        )
        .server(
            "vaults",
            json!({
                "two": { "url": "https://vault.example", "token": "env:A", "app-role": { "role-id": "r", "secret-id": "vault:two/secret/data/a#b" } },
                "none": { "url": "http://vault.example" }
            }),
        )
        .write(folder.path(), nowhere, nowhere);
    let checked = callgate(folder.path(), &["check"], &[]);
    assert!(!checked.status.success());
    let text = said(&checked);
    for expected in [
        "there is no credential `absent`",
        "the credential `elsewhere` belongs to the service `api`",
        "the credential `unlisted` does not list `t.read`",
        "there is no client `nobody`",
        "there is no vault `absent`",
        "a client has either a `secret` or a `key`",
        "a `key` needs its `alg`",
        "the token endpoint: the address is private",
        "a certificate is shown over `https` only",
        "there is no tool `t.absent`",
        "a vault has either a `token` or an `app-role`",
        "what opens a vault cannot be in one",
        "secrets are sent here in the clear",
        "stands in the URL, which servers and proxies log",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(text.matches("either a `token` or an `app-role`").count(), 2, "{text}");
}

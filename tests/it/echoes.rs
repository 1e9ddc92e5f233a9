//! Services that send back what they were shown: no secret of the gate's leaves in an answer or in a log.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    gate::{ERAS, Era, Gate},
    process::PROGRAM,
    project::{Project, tool},
};

const SECRET: &str = r#"canary-0123456789/"q"\+secret"#;

/// A server that sends `Authorization` back in the form and at the place that the path says, and tokens at `/token`.
#[derive(Clone)]
struct Echo {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    /// A call of `/ok/wait` is answered for each permit.
    answer: Arc<Semaphore>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Self { address, seen: Arc::default(), answer: Arc::new(Semaphore::new(0)) };
        let answering = echo.clone();
        let router = Router::new().fallback(move |request: Request| answering.clone().answer(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        echo
    }

    async fn answer(self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        if path == "/token" {
            let token = json!({ "access_token": SECRET.replace("canary", "canary-token"), "token_type": "Bearer", "expires_in": 600 });
            return Json(token).into_response();
        }
        let shown = request.headers().get("authorization").map_or("", |shown| shown.to_str().unwrap());
        let shown = shown.split_once(' ').map_or("", |(_, shown)| shown).to_owned();
        self.seen.lock().unwrap().push(shown.clone());
        let wanted = path.rsplit('/').next().unwrap();
        if wanted == "wait" {
            self.answer.acquire().await.unwrap().forget();
        }
        if wanted == "error" {
            return (StatusCode::BAD_REQUEST, format!("refused: {shown}")).into_response();
        }
        if wanted == "broken" {
            return Bytes::from(format!("{{\"id\": {shown}")).into_response();
        }
        let (form, place) = wanted.split_once('.').unwrap_or(("raw", "value"));
        let text = in_form(&shown, form);
        Json(match place {
            "long" => json!({ "id": format!("文 before {text} after 字") }),
            "key" => json!({ "id": "1", "more": { text: "v" } }),
            "nested" => json!({ "id": "1", "more": { "a": { "b": [1, [{ "c": text }]] } } }),
            "dropped" => json!({ "id": "1", "unnamed": text }),
            _ => json!({ "id": text }),
        })
        .into_response()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn in_form(secret: &str, form: &str) -> String {
    let percent = |upper: bool| -> String {
        let byte = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        secret.bytes().map(byte).collect()
    };
    match form {
        "raw" => secret.to_owned(),
        "json" => json!({ "inner": secret }).to_string(),
        "hex" => hex::encode(secret),
        "upper" => hex::encode_upper(secret),
        "base64" => STANDARD.encode(secret),
        "basic" => STANDARD.encode(format!("user:{secret}")),
        "inside" => STANDARD.encode(format!("ab{secret}cd")),
        "percent" => percent(true),
        "lower" => percent(false),
        "form" => url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        "half" => secret.chars().take(secret.len() / 2).collect(),
        "changed" => secret.replace("5", "6"),
        other => panic!("`{other}` is no form"),
    }
}

const FORMS: [&str; 10] =
    ["raw", "json", "hex", "upper", "base64", "basic", "inside", "percent", "lower", "form"];
const PLACES: [&str; 4] = ["value", "long", "key", "nested"];

/// A tool on a credential: its answers are checked, or leave as they are.
fn on(name: &str, credential: &str, unchecked: bool) -> Value {
    let mut tool = tool(name, "read", "ok");
    tool["backend"]["http"]["service"] = json!("orders");
    tool["credential"] = json!(credential);
    if unchecked {
        tool.as_object_mut().unwrap().remove("output");
        tool["deliberately"] = json!(["unchecked-output"]);
    } else {
        tool["output"]["properties"]["more"] = json!({ "type": "object", "additionalProperties": true });
    }
    tool
}

fn write_secret(folder: &Path, secret: &str) {
    let path = folder.join("secret");
    fs::write(&path, secret).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn project(echo: &Echo, secrets: &Path) -> Project {
    let names = ["t.checked", "t.open", "t.token"];
    let reference = format!("file:{}", secrets.join("secret").display());
    let token = json!({ "client-credentials": {
        "token-url": format!("http://{}/token", echo.address), "client": "gate",
        "secret": reference, "egress": { "loopback": true }
    } });
    Project::new()
        .tool(on("t.checked", "key", false))
        .tool(on("t.open", "key", true))
        .tool(on("t.token", "got", false))
        .client("bot", json!({ "tools": ["*"], "stdio": true, "limits": { "rate": "1000000/s" } }))
        .policy("permit (principal, action, resource);")
        .service(
            "orders",
            json!({ "url": format!("http://{}/", echo.address), "egress": { "loopback": true } }),
        )
        .server(
            "credentials",
            json!({
                "key": { "service": "orders", "tools": names, "as": { "bearer": { "secret": reference } } },
                "got": { "service": "orders", "tools": names, "as": token }
            }),
        )
}

struct World {
    echo: Echo,
    gate: Gate,
    secrets: TempDir,
}

impl World {
    async fn new() -> Self {
        let (echo, secrets) = (Echo::start().await, TempDir::new().unwrap());
        write_secret(secrets.path(), SECRET);
        let gate = Gate::serve(project(&echo, secrets.path())).await;
        Self { echo, gate, secrets }
    }

    /// Calls, and makes sure that the answer is withheld, on record, without a trace of the secret.
    async fn is_withheld(&self, era: Era, tool: &str, id: &str, credential: &str) {
        let before = self.echo.seen().len();
        let size = self.gate.log_size();
        let answer = self.gate.call(era, "bot", tool, json!({ "id": id })).await;
        assert_eq!(self.echo.seen().len(), before + 1, "the service was called: {tool} {id}");
        assert!(answer.is_error(), "{tool} {id}: {}", answer.text());
        assert_eq!(answer.message(), "answer withheld (rule `secret_in_answer`)", "{tool} {id}");
        let records = self.gate.records_from(size);
        let record = records.last().unwrap();
        assert_eq!(
            (&record["outcome"], &record["code"], &record["detail"]),
            (
                &json!("withheld"),
                &json!("secret_in_answer"),
                &json!(format!("the answer holds the secret of `{credential}`"))
            )
        );
        assert!(!format!("{}{records:?}", answer.text()).contains("0123456789"));
    }

    async fn leaves(&self, tool: &str, id: &str) -> String {
        let answer = self.gate.call(Era::Legacy, "bot", tool, json!({ "id": id })).await;
        assert!(!answer.is_error(), "{tool} {id}: {}", answer.text());
        answer.text().to_owned()
    }
}

#[tokio::test]
async fn a_secret_in_any_form_at_any_place_withholds_the_answer_and_is_on_record() {
    let world = World::new().await;
    for form in FORMS {
        for place in PLACES {
            for tool in ["t.checked", "t.open"] {
                world.is_withheld(Era::Legacy, tool, &format!("{form}.{place}"), "key").await;
            }
        }
    }
    world.is_withheld(Era::Modern, "t.checked", "raw.value", "key").await;
    assert!(world.echo.seen().iter().all(|shown| shown == SECRET));
}

#[tokio::test]
async fn what_is_not_the_secret_or_does_not_leave_withholds_nothing() {
    let world = World::new().await;
    for id in ["half.value", "half.key", "changed.value", "changed.nested"] {
        for tool in ["t.checked", "t.open"] {
            world.leaves(tool, id).await;
        }
    }
    // A field that the schema does not name is dropped first.
    assert!(!world.leaves("t.checked", "raw.dropped").await.contains("0123456789"));
    world.is_withheld(Era::Legacy, "t.open", "raw.dropped", "key").await;
}

#[tokio::test]
async fn a_token_that_was_got_is_withheld_like_any_secret() {
    let world = World::new().await;
    for era in ERAS {
        for form in FORMS {
            world.is_withheld(era, "t.token", &format!("{form}.value"), "got").await;
        }
    }
    assert!(world.echo.seen().iter().all(|shown| shown.starts_with("canary-token-")));
    // A token that another credential's call has got is no less one.
    assert!(world.gate.app.gateway.rules().routes.credentials().live().find(b"canary-token-0123").is_none());
}

#[tokio::test]
async fn a_service_that_fails_and_says_the_secret_is_not_quoted() {
    let world = World::new().await;
    for (id, said) in [("error", "backend answered 400"), ("broken", "backend failed")] {
        for tool in ["t.checked", "t.open"] {
            let answer = world.gate.call(Era::Legacy, "bot", tool, json!({ "id": id })).await;
            assert_eq!(answer.message(), said);
            assert!(!answer.text().contains("0123456789"));
        }
    }
    assert!(world.echo.seen().iter().all(|shown| shown == SECRET));
    assert!(!format!("{:?}", world.gate.records()).contains("0123456789"));
}

#[tokio::test]
async fn a_secret_that_is_replaced_is_searched_for_until_the_last_call_with_it_is_answered() {
    let world = Arc::new(World::new().await);
    let (waiting, size) = (Arc::clone(&world), world.gate.log_size());
    let call = tokio::spawn(async move {
        waiting.gate.call(Era::Legacy, "bot", "t.checked", json!({ "id": "wait" })).await
    });
    while world.echo.seen().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let next = SECRET.replace("canary", "canary-next");
    write_secret(world.secrets.path(), &next);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    world.is_withheld(Era::Legacy, "t.checked", "raw.value", "key").await;
    assert_eq!(world.echo.seen(), [SECRET, &next]);
    // The new one is in use; the call that carries the old one gets its answer now.
    world.echo.answer.add_permits(1);
    let answer = call.await.unwrap();
    assert_eq!(answer.message(), "answer withheld (rule `secret_in_answer`)");
    let records = world.gate.records_from(size);
    assert_eq!(records.iter().filter(|record| record["code"] == "secret_in_answer").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_has_a_note_in_place_of_a_secret() {
    let (echo, secrets, folder) = (Echo::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let secret = "canary-0123456789";
    write_secret(secrets.path(), secret);
    project(&echo, secrets.path()).write(folder.path(), echo.address, echo.address);
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(folder.path().join("callgate.yaml"));
    // A caller that knows the secret: the log says what it called.
    command.args(["call", secret, "--client", "bot", "--args", "{}"]).env("CALLGATE_LOG", "trace");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("tool=[secret of key]"), "{log}");
    assert!(!log.contains("0123456789"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_too_short_to_be_found_is_a_warning_of_check() {
    let (echo, secrets, folder) = (Echo::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let check = |secret: &str| {
        write_secret(secrets.path(), secret);
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(folder.path().join("callgate.yaml")).args(["check", "--secrets"]);
        let output = command.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    project(&echo, secrets.path()).write(folder.path(), echo.address, echo.address);
    let said = "a secret of the credential `key` has less than 8 bytes";
    assert!(check("1234567").contains(said));
    assert!(!check("12345678").contains("has less than"));
}

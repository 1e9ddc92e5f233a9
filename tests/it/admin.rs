//! The admin listener and its commands, with real servers on one state folder.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use callgate::admin::{AdminServer, NewAdminKey};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    gate::{open, records},
    process::{PROGRAM, Printed, configure, print},
    project::{Project, key, tool},
};

/// How long after `revoke` has returned a call may still be let in, by another process.
const REVOKED_WITHIN: Duration = Duration::from_millis(100);
const CLIENTS: usize = 12;

/// A project on disk, with a key for its admin listener.
struct Place {
    folder: TempDir,
    key: String,
    backend: Backend,
}

impl Place {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (folder, backend) = (TempDir::new().unwrap(), Backend::start().await);
        let mut project =
            Project::new().tool(tool("get", "read", "ok")).policy("permit (principal, action, resource);");
        for client in 0..CLIENTS {
            project = project.client(&format!("bot{client}"), json!({ "tools": ["get"] }));
        }
        project.write(folder.path(), backend.address, backend.address);
        let made = NewAdminKey::random().unwrap();
        let key = json!({ "id": made.id, "name": "dana", "sha256": made.sha256, "expires": "2100-01-01" });
        let listen = json!({
            "http": { "address": "127.0.0.1:0" },
            "admin": { "address": "127.0.0.1:0", "keys": [key] }
        });
        configure(folder.path(), "listen", listen);
        Self { folder, key: made.key, backend }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The records of changes in the log of the first server, without what differs from run to run.
    fn changes(&self) -> Vec<String> {
        let all = records(self.path(), "serve-0", 0).into_iter();
        let changes = all.filter(|record| record["record"] == "change");
        changes
            .map(|record| {
                let (change, text) =
                    (&record["change"], |value: &Value| value.as_str().unwrap_or("-").to_owned());
                assert_eq!(
                    (text(&change["actor"]), text(&record["source"])),
                    ("dana".into(), "127.0.0.1".into())
                );
                format!("{} {}: {}", text(&change["act"]), text(&record["outcome"]), text(&record["code"]))
            })
            .collect()
    }

    /// A command, with this key.
    fn command(&self, server: &Server, arguments: &[&str]) -> Printed {
        let mut command = self.bare_command(arguments);
        print(command.env("CALLGATE_ADMIN_URL", &server.admin).env("CALLGATE_ADMIN_KEY", &self.key))
    }

    fn bare_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(self.path()).env_remove("CALLGATE_ADMIN_KEY");
        command
    }
}

/// A server, until it is dropped.
struct Server {
    child: Child,
    mcp: String,
    admin: String,
    http: reqwest::Client,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(folder.join("callgate.yaml"));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut url = || {
            let line = lines.by_ref().find(|line| line.contains("http://")).expect("it serves");
            let rest = line.split_once("http://").unwrap().1;
            format!("http://{}", rest.split_once(';').map_or(rest, |(url, _)| url))
        };
        let (mcp, admin) = (url(), url());
        std::thread::spawn(move || lines.for_each(drop)); // a full pipe would stop the server
        Self { child, mcp, admin, http: reqwest::Client::new() }
    }

    /// Whether a call is answered with what the backend says.
    async fn lets_in(&self, key: &str) -> bool {
        let params = json!({ "name": "get", "arguments": { "id": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = self
            .http
            .post(&self.mcp)
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2025-11-25")
            .bearer_auth(key)
            .json(&body);
        let text = request.send().await.unwrap().text().await.unwrap();
        let is_answered = text.contains("structuredContent");
        assert!(is_answered || text.contains("authentication failed"), "{text}");
        is_answered
    }

    async fn ask(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> (u16, Value) {
        ask(&self.admin, method, path, key, body).await
    }

    fn stop(mut self) {
        let asked = Command::new("sh").arg("-c").arg(format!("kill {}", self.child.id())).status().unwrap();
        assert!(asked.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(admin: &str, method: Method, path: &str, key: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{admin}{path}")).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_revokes_the_other_refuses_within_100_ms_and_after_a_restart() {
    let place = Place::new().await;
    let (one, other) = (Server::start(place.path()), Server::start(place.path()));
    let mut latest = Duration::ZERO;
    for client in 0..CLIENTS {
        let name = format!("bot{client}");
        assert!(one.lets_in(&key(&name)).await && other.lets_in(&key(&name)).await);
        // Half of them by their key, whose id is the client's name.
        let kind = if client % 2 == 0 { "client" } else { "key" };
        let body = json!({ "kind": kind, "name": name, "reason": "left" });
        let (status, answer) = one.ask(Method::POST, "v1/revoke", &place.key, Some(body)).await;
        let revoked = Instant::now();
        assert_eq!((status, &answer["known"]), (200, &json!(true)), "{answer}");
        let started = loop {
            let started = revoked.elapsed();
            if !other.lets_in(&key(&name)).await {
                break started;
            }
            assert!(started < REVOKED_WITHIN, "a call that began {started:?} later was let in");
        };
        latest = latest.max(started);
        assert!(!one.lets_in(&key(&name)).await);
    }
    eprintln!("the latest first refusal began {latest:?} after the revocation");
    let hits = place.backend.hits();
    let again = Server::start(place.path());
    for client in 0..CLIENTS {
        assert!(!again.lets_in(&key(&format!("bot{client}"))).await);
    }
    assert_eq!(place.backend.hits(), hits);
    let (_, listed) = again.ask(Method::GET, "v1/revocations", &place.key, None).await;
    assert_eq!(listed["total"], CLIENTS);
    assert_eq!(listed["revocations"][0]["actor"], "dana");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_key_is_told_nothing_and_browsers_are_not_served() {
    let place = Place::new().await;
    let server = Server::start(place.path());
    let (but_one, last) = place.key.split_at(place.key.len() - 1);
    let wrong = format!("{but_one}{}", if last == "0" { "1" } else { "0" });
    let mut bodies = Vec::new();
    for shown in ["", "x", "cgadmin_x_y", &key("bot0"), &wrong] {
        for (method, path) in [(Method::GET, "v1/runs"), (Method::POST, "v1/revoke"), (Method::GET, "none")] {
            let (status, body) = server.ask(method, path, shown, None).await;
            assert_eq!(status, 401, "{shown}");
            bodies.push(body);
        }
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    // An admin key is no client's.
    assert!(!server.lets_in(&place.key).await);

    let http = reqwest::Client::new();
    let get = || http.get(format!("{}v1/runs", server.admin)).bearer_auth(&place.key);
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(get()).await, 200);
    assert_eq!(status(get().header("Origin", "http://localhost:8788")).await, 403);
    assert_eq!(status(get().header("Host", "evil.example.com")).await, 403);
    assert_eq!(status(get().query(&[("a", "b")])).await, 400);
    let post = |kind: &'static str, body: &'static str| {
        let request = http.post(format!("{}v1/revoke", server.admin)).bearer_auth(&place.key);
        status(request.header("Content-Type", kind).body(body))
    };
    let good = r#"{"kind":"client","name":"bot0"}"#;
    assert_eq!(post("text/plain", good).await, 415);
    assert_eq!(post("application/json", r#"{"kind":"client","name":"bot0","name":"bot1"}"#).await, 400);
    assert_eq!(post("application/json", r#"{"kind":"client","name":"bot0","more":1}"#).await, 400);
    assert_eq!(post("application/json", r#"{"kind":"client","name":"no name"}"#).await, 400);
    assert!(server.lets_in(&key("bot0")).await, "nothing was revoked");
    assert_eq!(post("application/json", good).await, 200);
    assert!(!server.lets_in(&key("bot0")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_rotated_and_revoked_and_each_change_is_on_record_before_and_after() {
    let place = Place::new().await;
    let server = Server::start(place.path());
    let post = async |path: &str, body: Value| server.ask(Method::POST, path, &place.key, Some(body)).await;
    let (status, made) = post("v1/keys", json!({ "client": "bot0", "expires": "2027-06-30" })).await;
    assert_eq!((status, &made["expires"]), (200, &json!("2027-06-30T00:00:00Z")), "{made}");
    let (status, rotated) = post("v1/keys/rotate", json!({ "id": made["id"], "overlap_s": 3600 })).await;
    assert_eq!((status, &rotated["old"]["id"], &rotated["client"]), (200, &made["id"], &json!("bot0")));
    assert_eq!(post("v1/keys/revoke", json!({ "id": made["id"] })).await.0, 200);
    for (path, body, status) in [
        ("v1/keys", json!({ "client": "nobody" }), 404),
        ("v1/keys", json!({ "client": "bot0", "expires": "2020-01-01" }), 400),
        ("v1/keys/rotate", json!({ "id": "bot0" }), 409), // that one is in the file
        ("v1/keys/rotate", json!({ "id": "nothing" }), 404),
        ("v1/keys/rotate", json!({ "id": made["id"] }), 409), // what was taken away is not given back
        // A revocation does not pass while the thing may still be good.
        ("v1/revoke", json!({ "kind": "client", "name": "bot1", "until": "2099-01-01T00:00:00Z" }), 400),
        ("v1/revoke", json!({ "kind": "key", "name": "bot1", "until": "2099-01-01T00:00:00Z" }), 400),
        (
            "v1/revoke",
            json!({ "kind": "token", "issuer": "i", "name": "t", "until": "2026-01-01T00:00:00Z" }),
            400,
        ),
        ("v1/keys/revoke", json!({ "id": "nothing" }), 404),
        ("v1/runs/end", json!({ "run": "00".repeat(16) }), 404),
    ] {
        assert_eq!(post(path, body.clone()).await.0, status, "{path} {body}");
    }
    let lost = json!({ "kind": "token", "issuer": "https://typo.example", "name": "t" });
    assert_eq!(post("v1/revoke", lost).await.1["known"], false, "nobody's tokens are taken from there");
    assert_eq!(post("v1/revoke", json!({ "kind": "client", "name": "bot1" })).await.0, 200);
    assert_eq!(post("v1/keys", json!({ "client": "bot1" })).await.0, 409);
    let (_, listed) = server.ask(Method::GET, "v1/keys", &place.key, None).await;
    let of_bot0: Vec<_> =
        listed["keys"].as_array().unwrap().iter().filter(|key| key["client"] == "bot0").collect();
    assert_eq!(of_bot0.len(), 3, "{of_bot0:?}");
    for key in of_bot0 {
        assert_eq!(key["revoked"] == true, key["id"] == made["id"], "{key}");
        assert!(key.get("key").is_none() && key.get("sha256").is_none(), "{key}");
    }
    server.stop();
    let expected = [
        "new-key -: -",
        "new-key allowed: -",
        "rotate-key -: -",
        "rotate-key allowed: -",
        "revoke -: -",
        "revoke allowed: -",
        "end-run -: -",
        "end-run failed: unknown_run",
        "revoke -: -",
        "revoke allowed: -",
        "revoke -: -",
        "revoke allowed: -",
    ];
    assert_eq!(place.changes(), expected);
    let secrets =
        [&made["key"], &rotated["key"]].map(|key| key.as_str().unwrap().rsplit('_').next().unwrap());
    for file in files(&place.path().join("state")) {
        let content = fs::read(&file).unwrap();
        for secret in secrets {
            assert!(
                !content.windows(secret.len()).any(|part| part == secret.as_bytes()),
                "{}",
                file.display()
            );
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_is_told_what_was_expected_and_little_of_what_it_sent() {
    let place = Place::new().await;
    let server = Server::start(place.path());
    let long = "a".repeat(60_000);
    for (path, body, message) in [
        (
            "v1/revoke",
            json!(["client", "bot0", null, "", null]),
            "the body has to be a JSON object, not an array",
        ),
        ("v1/revoke", json!({}), "`kind` is missing: `client`, `key`, `token` or `run`"),
        (
            "v1/revoke",
            json!({ "kind": "bot", "name": "a" }),
            "`kind` has to be `client`, `key`, `token` or `run`, not `bot`",
        ),
        (
            "v1/revoke",
            json!({ "kind": "key", "name": 5 }),
            "`name` has to be the name of what is revoked, not the number `5`",
        ),
        (
            "v1/revoke",
            json!({ "kind": "run", "name": "a", "who": 1 }),
            "`who` is not taken here: `kind`, `name`, `issuer`, `reason`, `until` are",
        ),
        ("v1/runs/end", json!({ "run": {} }), "`run` has to be the id of a run, not an object"),
        (
            "v1/keys/rotate",
            json!({ "id": "a", "overlap_s": "1" }),
            "`overlap_s` has to be a whole number of seconds, not `1`",
        ),
        (
            "v1/keys",
            json!({ "client": "bot0", "expires": "soon" }),
            "`expires` has to be a day such as `2027-06-30`, or a moment (RFC 3339), not `soon`",
        ),
    ] {
        let (status, answer) = server.ask(Method::POST, path, &place.key, Some(body)).await;
        assert_eq!((status, answer["error"]["message"].as_str()), (400, Some(message)), "{path}");
    }
    for (path, body) in [
        ("v1/revoke", json!({ "kind": "client", "name": long })),
        ("v1/revoke", json!({ "kind": "client\u{202e}", "name": long })),
        ("v1/revoke", json!({ "kind": "key", "name": long })),
        ("v1/revoke", json!({ "kind": long, "name": "a" })),
        ("v1/revoke", json!({ "kind": "client", "name": "a", (long.clone()): 1 })),
        ("v1/keys", json!({ "client": long })),
        ("v1/keys", json!({ "client": "bot0", "expires": long })),
        ("v1/keys/revoke", json!({ "id": long })),
        ("v1/keys/rotate", json!({ "id": long })),
        ("v1/runs/end", json!({ "run": long })),
    ] {
        let (status, answer) = server.ask(Method::POST, path, &place.key, Some(body)).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(status, 400, "{path}");
        assert!(message.len() < 300 && !message.contains('\u{202e}'), "{path}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_put_on_record_is_not_done() {
    let place = Place::new().await;
    let app = open(place.path(), "serve").await;
    let settings = app.project.files.as_ref().unwrap().server.1.listen.admin.clone().unwrap();
    let server = AdminServer::bind(&settings).await.unwrap();
    let admin = format!("http://{}/", server.address());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(
        Arc::clone(&app.gateway),
        Arc::clone(&app.runs),
        app.upstreams.clone(),
        stop.clone(),
    ));
    app.gateway.audit().close();
    let body = json!({ "kind": "client", "name": "bot0" });
    let (status, answer) = ask(&admin, Method::POST, "v1/revoke", &place.key, Some(body)).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("record_unavailable")), "{answer}");
    let (status, _) =
        ask(&admin, Method::POST, "v1/keys", &place.key, Some(json!({ "client": "bot0" }))).await;
    assert_eq!(status, 503);
    assert!(app.runs.revocations().is_empty() && app.runs.keys().is_empty());
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_do_what_they_say_and_say_why_they_cannot() {
    let place = Place::new().await;
    let server = Server::start(place.path());
    assert!(server.lets_in(&key("bot0")).await);

    let runs = place.command(&server, &["runs", "list"]).good();
    let run = runs.split('\t').next().unwrap().to_owned();
    assert_eq!((run.len(), runs.contains("\tbot0\tdefault\t")), (32, true), "{runs}");
    let ended = place.command(&server, &["runs", "end", &run, "--reason", "a try"]).good();
    assert_eq!(ended, format!("ended: run `{run}`\n"));
    assert_eq!(place.command(&server, &["runs", "list"]).good(), "");
    let refusal = place.command(&server, &["runs", "end", &run]).refusal();
    assert_eq!(refusal, format!("error: no live run `{run}`\n"));

    let made = place.command(&server, &["keys", "new", "bot1", "--expires", "2027-06-30"]);
    assert!(made.stderr.contains("of `bot1`, until 2027-06-30T00:00:00Z"), "{made:?}");
    let made = made.good();
    let id = made.trim().split('_').nth(1).unwrap();
    assert!(made.starts_with("cg_r-"), "{made}");
    let rotated = place.command(&server, &["keys", "rotate", id, "--json"]).json();
    assert_eq!(rotated["old"]["id"], id);
    place.command(&server, &["keys", "revoke", id]).good();
    let listed = place.command(&server, &["keys", "list"]).good();
    assert!(listed.contains(&format!("bot1\t{id}\tdana\trevoked\t")), "{listed}");
    assert!(listed.contains("bot0\tbot0\tclients.yaml\t2100-01-01\t2"), "with its last use: {listed}");

    let revoked = place.command(&server, &["revoke", "client", "bot0"]).good();
    assert_eq!(revoked, "revoked: client `bot0`\n");
    assert!(!server.lets_in(&key("bot0")).await);
    let unknown = place.command(&server, &["revoke", "client", "bot-0"]);
    assert!(unknown.stderr.contains("no client of this name is known"), "{unknown:?}");

    // What goes wrong.
    let with = |admin: &str, key: &str| {
        let mut command = place.bare_command(&["runs", "list"]);
        print(command.env("CALLGATE_ADMIN_URL", admin).env("CALLGATE_ADMIN_KEY", key)).refusal()
    };
    let wrong = with(&server.admin, "cgadmin_x_y");
    assert_eq!(wrong, format!("error: {} does not take the admin key\n", server.admin));
    assert!(with("http://192.0.2.1:8788/", &place.key).contains("the key would go there unencrypted"));
    let nowhere = with("http://127.0.0.1:1/", &place.key);
    assert!(nowhere.contains("no server answers at http://127.0.0.1:1/"), "{nowhere}");
    let mut keyless = place.bare_command(&["runs", "list"]);
    let keyless = print(keyless.env("CALLGATE_ADMIN_URL", &server.admin)).refusal();
    assert_eq!(keyless, "error: no admin key: set `CALLGATE_ADMIN_KEY`, or pass `--admin-key-file`\n");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_key_is_made_without_a_server_and_read_from_a_file_that_nobody_else_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new().await;
    let made = print(&mut place.bare_command(&["keys", "new", "--admin", "kim", "--json"])).json();
    let mut listen = made["listen"].clone();
    listen["http"] = json!({ "address": "127.0.0.1:0" });
    listen["admin"]["address"] = json!("127.0.0.1:0");
    configure(place.path(), "listen", listen);
    let server = Server::start(place.path());
    let file = place.path().join("admin.key");
    fs::write(&file, made["key"].as_str().unwrap()).unwrap();
    let list = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = place.bare_command(&["runs", "list", "--admin-key-file", "admin.key"]);
        print(command.env("CALLGATE_ADMIN_URL", &server.admin))
    };
    list(0o600).good();
    assert!(list(0o644).refusal().contains("admin.key"), "others can read it");

    // As text: the key alone on standard output, and what goes into the file beside it.
    let text = print(&mut place.bare_command(&["keys", "new", "--admin", "kim"]));
    assert!(text.stdout.starts_with("cgadmin_a-") && text.stdout.lines().count() == 1, "{text:?}");
    assert!(text.stderr.contains("name: \"kim\", sha256: "), "{text:?}");
    let secret = text.stdout.trim().rsplit('_').next().unwrap();
    assert!(!text.stderr.contains(secret));
}

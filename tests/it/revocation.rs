//! Revocation under load: once `callgate revoke` has returned, nothing of what it took away leaves the gate.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    gate::records,
    listening::{Listening, administered},
    project::{Project, key, key_entry, tool},
    tap::{Reply, Tap},
};

/// How long after `revoke` has returned a request may still reach a backend.
const REVOKED_WITHIN: Duration = Duration::from_millis(100);

/// For how long the clients go on after that.
const AFTERWARDS: Duration = Duration::from_millis(700);

const HAMMERS: usize = 3;
const ISSUER: &str = "https://gate.example.com";

/// A project on disk, with its backend.
struct Place {
    folder: TempDir,
    admin_key: String,
    backend: Tap,
}

fn ok(pause: Duration) -> Reply {
    (pause, 200, json!({ "id": "1" }).to_string())
}

/// A tool `get` of the backend, and the project's clients.
fn project() -> Project {
    let spec = |keys: Value| json!({ "tools": ["*"], "keys": keys, "limits": { "rate": "1000000/s" }, "scopes": ["a"] });
    let keys = |names: &[&str]| names.iter().map(|name| key_entry(name, "2100-01-01")).collect::<Value>();
    let mut project = Project::new()
        .tool(tool("get", "read", "ok"))
        .policy("permit (principal, action, resource);")
        .server("identity", json!({ "resource": format!("{ISSUER}/mcp"), "tokens": {} }));
    for (client, names) in
        [("gone", &["gone"] as &[&str]), ("stays", &["stays"]), ("two-keys", &["k-gone", "k-stays"])]
    {
        project = project.client(client, spec(keys(names)));
    }
    project.client("tokens", spec(keys(&["tokens"])))
}

impl Place {
    async fn new(project: Project, backend: Tap) -> Self {
        let folder = TempDir::new().unwrap();
        project.write(folder.path(), backend.address, backend.address);
        let admin_key = administered(folder.path(), json!({ "failures": "1000000/s" }));
        Self { folder, admin_key, backend }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Revokes by the command. What comes back is when it had returned.
    fn revoke(&self, at: &Listening, arguments: &[&str]) -> Instant {
        let arguments = [&["revoke"], arguments].concat();
        tokio::task::block_in_place(|| at.command(self.path(), &self.admin_key, &arguments).good());
        Instant::now()
    }

    /// When requests with an id have reached the backend.
    fn arrivals(&self, id: &str) -> Vec<Instant> {
        let target = format!("/ok/{id}");
        let requests = self.backend.requests();
        requests.iter().filter(|request| request.target() == target).map(|request| request.at).collect()
    }
}

/// Calls a tool: whether it was carried out, and refused for want of a proof otherwise.
async fn call(http: &reqwest::Client, mcp: &str, bearer: &str, tool: &str, id: &str) -> bool {
    let params = json!({ "name": tool, "arguments": { "id": id } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let request = http
        .post(mcp)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2025-11-25")
        .bearer_auth(bearer)
        .json(&body);
    let text = request.send().await.unwrap().text().await.unwrap();
    let carried_out = text.contains("structuredContent");
    assert!(carried_out || text.contains("authentication failed"), "{text}");
    carried_out
}

/// A token of the client `tokens`, its `jti`, and its run.
async fn token(gate: &Listening) -> (String, String, String) {
    let form = "grant_type=client_credentials";
    let request = reqwest::Client::new()
        .post(format!("{}/oauth/token", gate.origin()))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .basic_auth("tokens", Some(key("tokens")))
        .body(form);
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let token = text(&made["access_token"]);
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    (token, text(&claims["jti"]), text(&made["callgate_run"]))
}

/// Clients that call without a pause, each over connections of its own.
struct Hammering {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicUsize>>,
    tasks: Vec<JoinHandle<Vec<bool>>>,
}

impl Hammering {
    fn start(gates: &[&Listening], bearer: &str, id: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered: Vec<_> = (0..gates.len() * HAMMERS).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let one = |(gate, answered): (&&Listening, &Arc<AtomicUsize>)| {
            let answered = Arc::clone(answered);
            let (stop, mcp, bearer) = (Arc::clone(&stop), gate.mcp.clone(), bearer.to_owned());
            tokio::spawn(async move {
                let (http, mut answers) = (reqwest::Client::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let carried_out = call(&http, &mcp, &bearer, "get", id).await;
                    answers.push(carried_out);
                    answered.fetch_add(1, Ordering::Relaxed);
                    if !carried_out {
                        sleep(Duration::from_millis(5)).await;
                    }
                }
                answers
            })
        };
        let each = gates.iter().flat_map(|gate| (0..HAMMERS).map(move |_| gate)).zip(&answered);
        let tasks = each.map(one).collect();
        Self { stop, answered, tasks }
    }

    /// Waits until each of them has so many answers.
    async fn have(&self, answers: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.answered.iter().any(|answered| answered.load(Ordering::Relaxed) < answers) {
            assert!(Instant::now() < until, "{:?}", self.answered);
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) -> Vec<Vec<bool>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for task in self.tasks {
            answers.push(task.await.unwrap());
        }
        answers
    }
}

/// Takes rights away at the first of so many processes while clients call at all of them.
async fn revoked_under_load(processes: usize) {
    let pause = Duration::from_millis(15);
    let backend = Tap::start(move |_, _| ok(pause)).await;
    let place = Place::new(project(), backend).await;
    let gates: Vec<_> = (0..processes).map(|_| Listening::start(place.path(), &[])).collect();
    let (all, first) = (gates.iter().collect::<Vec<_>>(), &gates[0]);
    let (by_jti, jti, _) = token(first).await;
    let (by_run, _, run) = token(first).await;
    let (stays, _, _) = token(first).await;
    let (issuer, own) = (ISSUER, |id: &str| format!("cg_{id}_the-secret-of-{id}"));
    // What falls with each, and what stands beside it: another client, another key, token and run of the same.
    let cases: [(&'static str, &[&str], String, &'static str, String); 4] = [
        ("gone", &["client", "gone"], own("gone"), "stays", own("stays")),
        ("k-gone", &["key", "k-gone"], own("k-gone"), "k-stays", own("k-stays")),
        ("t-gone", &["token", &jti, "--issuer", issuer], by_jti, "t-stays", stays.clone()),
        ("r-gone", &["run", &run], by_run, "r-stays", stays),
    ];
    for (id, arguments, falls, other_id, other) in cases {
        let falling = Hammering::start(&all, &falls, id);
        let standing = Hammering::start(&all, &other, other_id);
        falling.have(3).await;
        standing.have(3).await;
        let returned = place.revoke(first, arguments);
        sleep(AFTERWARDS).await;
        let (fallen, stood) = (falling.stop().await, standing.stop().await);
        let arrived = place.arrivals(id);
        let latest = arrived.iter().max().unwrap();
        let late = latest.saturating_duration_since(returned);
        let after = place.arrivals(other_id).iter().filter(|at| **at > returned + REVOKED_WITHIN).count();
        eprintln!(
            "{processes} process(es), {arguments:?}: {} requests, the latest {late:?} after the return; beside it {after} later ones",
            arrived.len()
        );
        assert!(late <= REVOKED_WITHIN, "{arguments:?}: a request left {late:?} after `revoke` had returned");
        for answers in &fallen {
            assert!(answers[0], "{arguments:?}: it stood before");
            let refused = answers.iter().position(|carried_out| !carried_out).unwrap();
            assert!(answers[refused..].iter().all(|carried_out| !carried_out), "{arguments:?}: it came back");
        }
        assert!(
            stood.iter().flatten().all(|carried_out| *carried_out),
            "{arguments:?}: others are disturbed"
        );
        assert!(after > 10 * processes, "{arguments:?}: others go on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_leaves_once_its_right_was_taken_away() {
    revoked_under_load(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_leaves_another_process_once_its_right_was_taken_away() {
    revoked_under_load(2).await;
}

/// A tool `get` whose service is behind a credential that a token endpoint gives.
fn behind(project: Project, service: SocketAddr, tokens: Option<(&Tap, &Path)>) -> Project {
    let mut tool = tool("get", "read", "ok");
    tool["backend"]["http"]["service"] = json!("orders");
    let spec = |address| json!({ "url": format!("http://{address}/"), "egress": { "loopback": true } });
    let Some((tokens, secret)) = tokens else { return project.tool(tool).service("orders", spec(service)) };
    tool["credential"] = json!("got");
    let kind = json!({
        "token-url": format!("http://{}/token", tokens.address), "client": "gate",
        "secret": format!("file:{}", secret.display()), "egress": { "loopback": true }
    });
    let credential = json!({ "service": "orders", "tools": ["get"], "as": { "client-credentials": kind } });
    project.tool(tool).service("orders", spec(service)).server("credentials", json!({ "got": credential }))
}

fn two_clients() -> Project {
    let spec = || json!({ "tools": ["*"] });
    let policy = "permit (principal, action, resource);";
    Project::new().client("gone", spec()).client("stays", spec()).policy(policy)
}

/// Has two clients call, takes the right of one away, and says what became of both calls.
async fn revoked_while_waiting(place: &Place, gate: &Listening) -> (bool, bool) {
    let http = reqwest::Client::new();
    let calls = ["gone", "stays"].map(|client| {
        let (http, mcp) = (http.clone(), gate.mcp.clone());
        tokio::spawn(async move { call(&http, &mcp, &key(client), "get", client).await })
    });
    sleep(Duration::from_millis(100)).await;
    place.revoke(gate, &["client", "gone"]);
    let [gone, stays] = calls;
    (gone.await.unwrap(), stays.await.unwrap())
}

/// The code of the client's only outcome.
fn outcome_of(place: &Place, client: &str) -> (Value, Value) {
    let records = records(place.path(), "serve-0", 0).into_iter();
    let mut outcomes =
        records.filter(|record| record["record"] == "outcome" && record["caller"]["client"] == client);
    let outcome = outcomes.next().unwrap();
    assert!(outcomes.next().is_none());
    (outcome["outcome"].clone(), outcome["code"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_its_credential_does_not_leave_once_its_right_was_taken_away() {
    let backend = Tap::start(|_, _| ok(Duration::ZERO)).await;
    let tokens = Tap::start(|_, _| {
        let token = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 600 });
        (Duration::from_millis(1_000), 200, token.to_string())
    });
    let (tokens, folder) = (tokens.await, TempDir::new().unwrap());
    let secret = folder.path().join("secret");
    fs::write(&secret, "s").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let project = behind(two_clients(), backend.address, Some((&tokens, &secret)));
    let place = Place::new(project, backend).await;
    let gate = Listening::start(place.path(), &[]);
    assert_eq!(revoked_while_waiting(&place, &gate).await, (false, true));
    assert_eq!((place.arrivals("gone").len(), place.arrivals("stays").len()), (0, 1));
    assert_eq!(outcome_of(&place, "gone"), (json!("denied"), json!("revoked")));
}

/// A listener to which no connection comes through until it accepts those that are waiting.
async fn unreachable_for_now() -> (tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 10, "the queue of connections has no end");
    }
    (listener, waiting)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_its_connection_does_not_leave_once_its_right_was_taken_away() {
    let (listener, waiting) = unreachable_for_now().await;
    let address = listener.local_addr().unwrap();
    let unused = Tap::start(|_, _| ok(Duration::ZERO)).await;
    let mut place = Place::new(behind(two_clients(), address, None), unused).await;
    let gate = Listening::start(place.path(), &[]);
    let calling = revoked_while_waiting(&place, &gate);
    let accepting = async {
        sleep(Duration::from_millis(700)).await;
        drop(waiting);
        Tap::on(listener, |_, _| ok(Duration::ZERO))
    };
    let (answers, backend) = tokio::join!(calling, accepting);
    place.backend = backend;
    assert_eq!(answers, (false, true));
    assert_eq!((place.arrivals("gone").len(), place.arrivals("stays").len()), (0, 1));
    assert_eq!(outcome_of(&place, "gone"), (json!("denied"), json!("revoked")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_once_its_callers_right_was_taken_away_is_not_given() {
    let backend = Tap::start(|_, _| ok(Duration::from_millis(1_500))).await;
    let project = behind(two_clients(), backend.address, None);
    let place = Place::new(project, backend).await;
    let gate = Listening::start(place.path(), &[]);
    assert_eq!(revoked_while_waiting(&place, &gate).await, (false, true));
    assert_eq!(
        (place.arrivals("gone").len(), place.arrivals("stays").len()),
        (1, 1),
        "both were carried out"
    );
    assert_eq!(outcome_of(&place, "gone"), (json!("withheld"), json!("revoked")));
    assert_eq!(outcome_of(&place, "stays").0, json!("allowed"));
}

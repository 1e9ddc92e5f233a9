//! `kill -9` of a gate under load, again and again on one state folder, as its users see it.
//!
//! Each client makes one call after the other. So in each round at most one call of each client is without
//! an answer when the gate dies, and what the log holds of that client can be told exactly: an intent and an
//! outcome of each write that was answered, an outcome of each read, and of the one call without an answer
//! an intent if its request reached the backend. In every other round it is the backend that kills the gate,
//! at the moment in which it sees a write.
//!
//! `CALLGATE_KILL_ROUNDS` says how many rounds (100); `CALLGATE_KILL_SEED` makes the same choices again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    process::Child,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::{
    process::{Spawned, callgate, serve},
    project::{Project, key, tool},
};

const ROUNDS: u32 = 100;
const CLIENTS: usize = 4;
/// After how many answers a gate is killed, at the most.
const ANSWERS_MAX: u64 = 40;
/// How much later, at the most: so that any moment of a call may be the last.
const LATER_MICROS_MAX: u64 = 20_000;
/// How long a round goes on where nothing ends it.
const ROUND_MAX: Duration = Duration::from_secs(10);
/// From the start of the process to its first answer, half of the times: one start alone may wait for a
/// processor that other tests use.
const RESTART_MAX: Duration = Duration::from_secs(2);
const CALL_MAX: Duration = Duration::from_secs(10);

/// A call that was answered: its record's id, and whether it was a write.
struct Answered {
    record: String,
    write: bool,
}

/// What one client saw in one round.
#[derive(Default)]
struct Seen {
    answered: Vec<Answered>,
    /// The argument of the write that was under way when the gate died.
    unanswered_write: Option<String>,
}

/// What all clients saw in one round, by client.
type Round = BTreeMap<String, Seen>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gate_has_every_answered_call_and_every_request_on_record_exactly_once() {
    let rounds =
        number("CALLGATE_KILL_ROUNDS").and_then(|rounds| u32::try_from(rounds).ok()).unwrap_or(ROUNDS);
    let seed = number("CALLGATE_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{rounds} rounds, CALLGATE_KILL_SEED={seed}");
    let mut choices = Choices(seed);
    let backend = Backend::start().await;
    let folder = TempDir::new().unwrap();
    project().write(folder.path(), backend.address, SocketAddr::from(([127, 0, 0, 1], 1)));

    // Made once: a client takes a while to make, and a round does not.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::builder().timeout(CALL_MAX).pool_max_idle_per_host(0).build().unwrap();

    let (mut seen, mut starts) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (gate, took) = Gate::start(folder.path(), &http).await;
        starts.push(took);
        seen.push(one_round(round, gate, &http, &backend, &mut choices).await);
    }
    // The last start closes what the last kill left open.
    let (gate, took) = Gate::start(folder.path(), &http).await;
    starts.push(took);
    gate.kill();
    starts.sort_unstable();
    let (median, slowest) = (starts[starts.len() / 2], starts[starts.len() - 1]);

    assert!(median < RESTART_MAX, "half of the starts took more than {median:?}");
    let records = export(folder.path());
    check(&records, &seen, &backend.writes());
    let answered: usize = seen.iter().flat_map(BTreeMap::values).map(|seen| seen.answered.len()).sum();
    assert!(answered > seen.len() * 4, "only {answered} calls were answered: the test shows nothing");
    let verified = callgate(folder.path(), ["audit", "verify", "--json"]).json();
    assert_eq!(verified["ok"], true, "{verified}");
    eprintln!(
        "{} records, {answered} answered calls, {} requests of writes; start {median:?}, at worst {slowest:?}; verify: {verified}",
        records.len(),
        backend.writes().len(),
    );
}

fn project() -> Project {
    (0..CLIENTS).fold(
        Project::new()
            .tool(tool("get", "read", "read"))
            .tool(tool("set", "write", "write"))
            .policy("permit (principal, action, resource);"),
        |project, client| project.client(&format!("bot{client}"), json!({ "tools": ["*"] })),
    )
}

/// Lets every client call until the gate is killed, and says what they saw.
async fn one_round(
    round: u32,
    gate: Gate,
    http: &reqwest::Client,
    backend: &Backend,
    choices: &mut Choices,
) -> Round {
    let answers = Arc::new(Semaphore::new(0));
    if round.is_multiple_of(2) {
        backend.kill_at_write(1 + choices.next() % (ANSWERS_MAX / 2), &gate);
    }
    let calls = (0..CLIENTS).map(|client| {
        let calls =
            Calls { http: http.clone(), url: gate.url.clone(), client: format!("bot{client}"), round };
        tokio::spawn(calls.until_dead(Choices(choices.next()), Arc::clone(&answers)))
    });
    let calls: Vec<_> = calls.collect();
    let enough = if round.is_multiple_of(2) { ANSWERS_MAX * 2 } else { choices.next() % ANSWERS_MAX };
    let _ = timeout(ROUND_MAX, answers.acquire_many(u32::try_from(enough).unwrap())).await;
    tokio::time::sleep(Duration::from_micros(choices.next() % LATER_MICROS_MAX)).await;
    gate.kill();
    let mut seen = Round::new();
    for (client, calls) in calls.into_iter().enumerate() {
        seen.insert(format!("bot{client}"), calls.await.unwrap());
    }
    backend.forget_kill();
    seen
}

/// One client's calls in one round.
struct Calls {
    http: reqwest::Client,
    url: String,
    client: String,
    round: u32,
}

impl Calls {
    async fn until_dead(self, mut choices: Choices, answers: Arc<Semaphore>) -> Seen {
        let mut seen = Seen::default();
        for count in 0.. {
            let write = choices.next().is_multiple_of(2);
            let id = format!("{}-{}-{count}", self.round, self.client);
            let Some(answer) = self.call(if write { "set" } else { "get" }, &id).await else {
                seen.unanswered_write = write.then_some(id);
                break;
            };
            let record = answer["result"]["_meta"]["callgate/record"].as_str();
            let record = record.unwrap_or_else(|| panic!("no record is named by {answer}")).to_owned();
            assert_eq!(answer["result"]["structuredContent"]["id"], id, "{answer}");
            seen.answered.push(Answered { record, write });
            answers.add_permits(1);
        }
        // A round in which the gate dies early shall not wait for answers that do not come.
        answers.close();
        seen
    }

    /// Calls a tool. Without a whole answer, there is none.
    async fn call(&self, tool: &str, id: &str) -> Option<Value> {
        let params = json!({ "name": tool, "arguments": { "id": id } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = self
            .http
            .post(&self.url)
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2025-11-25")
            .bearer_auth(key(&self.client))
            .json(&body);
        let answer = request.send().await.ok()?;
        assert_eq!(answer.status(), 200, "an answer of the gate");
        let answer = answer.bytes().await.ok()?;
        serde_json::from_slice(&answer).ok()
    }
}

/// What the log says of one client in one round, in the order of the log.
#[derive(Default)]
struct Logged {
    intents: Vec<String>,
    /// The call's id, the tool, the outcome.
    outcomes: Vec<(String, String, String)>,
}

/// Compares the log with what clients and the backend saw.
fn check(records: &[Value], seen: &[Round], requests: &BTreeSet<String>) {
    let (logged, unknown) = sort(records, seen.len());
    for (round, (seen, logged)) in seen.iter().zip(&logged).enumerate() {
        for (client, seen) in seen {
            let place = format!("round {round}, {client}");
            let nothing = Logged::default();
            check_client(&place, seen, logged.get(client).unwrap_or(&nothing), requests, &unknown);
        }
    }
}

/// Sorts records by the round and the client that they are of; and the ids whose outcome is `unknown`.
fn sort(records: &[Value], rounds: usize) -> (Vec<BTreeMap<String, Logged>>, BTreeSet<String>) {
    let mut logged: Vec<BTreeMap<String, Logged>> = Vec::new();
    let (mut intents, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let mut unknown = BTreeSet::new();
    for record in records {
        let kind = record["record"].as_str().unwrap();
        if kind == "start" {
            logged.push(BTreeMap::new());
            continue;
        }
        let Some(id) = record["call"]["id"].as_str().map(str::to_owned) else { continue };
        let outcome = record["outcome"].as_str().unwrap_or_default().to_owned();
        match kind {
            "intent" => assert!(intents.insert(id.clone()), "two intents of {id}"),
            _ => assert!(ended.insert(id.clone()), "two outcomes of {id}"),
        }
        if outcome == "unknown" {
            assert!(intents.contains(&id), "an unknown outcome without an intent: {record}");
            unknown.insert(id);
            continue;
        }
        let client = record["caller"]["client"].as_str().unwrap_or_else(|| panic!("no client: {record}"));
        let of_client =
            logged.last_mut().expect("a log begins with a start").entry(client.to_owned()).or_default();
        if kind == "intent" {
            assert!(!ended.contains(&id), "an intent after its outcome: {record}");
            of_client.intents.push(id);
        } else {
            let tool = record["call"]["target"].as_str().unwrap().to_owned();
            assert!(
                tool != "set" || outcome == "denied" || intents.contains(&id),
                "no intent before {record}"
            );
            of_client.outcomes.push((id, tool, outcome));
        }
    }
    assert_eq!(logged.len(), rounds + 1, "one `start` for each start");
    let open: Vec<&String> = intents.difference(&ended).collect();
    assert!(open.is_empty(), "intents without an outcome: {open:?}");
    (logged, unknown)
}

fn check_client(
    place: &str,
    seen: &Seen,
    logged: &Logged,
    requests: &BTreeSet<String>,
    unknown: &BTreeSet<String>,
) {
    for Answered { record, write } in &seen.answered {
        let of_call = |(id, tool, outcome): &&(String, String, String)| {
            id == record && tool == if *write { "set" } else { "get" } && outcome == "allowed"
        };
        assert_eq!(logged.outcomes.iter().filter(of_call).count(), 1, "{place}: outcomes of {record}");
        assert_eq!(
            logged.intents.iter().filter(|id| *id == record).count(),
            usize::from(*write),
            "{place}: intents of {record}"
        );
    }
    let answered: BTreeSet<&String> = seen.answered.iter().map(|answered| &answered.record).collect();
    let others: Vec<&String> = logged.intents.iter().filter(|id| !answered.contains(id)).collect();
    let reached = seen.unanswered_write.as_ref().is_some_and(|id| requests.contains(id));
    assert!(
        others.len() <= usize::from(seen.unanswered_write.is_some()),
        "{place}: intents of nobody: {others:?}"
    );
    assert!(
        !reached || others.len() == 1,
        "{place}: the backend saw {:?}, the log did not",
        seen.unanswered_write
    );
    // A write that ended before the gate died has an outcome of its own; any other is unknown.
    for intent in others {
        let ended = logged.outcomes.iter().any(|(id, ..)| id == intent);
        assert!(ended != unknown.contains(intent), "{place}: {intent} has to end once");
    }
    assert!(logged.outcomes.len() <= seen.answered.len() + 1, "{place}: outcomes of nobody");
}

/// Every record of every log of a project.
fn export(project: &Path) -> Vec<Value> {
    let logs: Vec<_> =
        fs::read_dir(project.join("state/audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(logs.iter().filter(|path| path.join("lock").exists()).count(), 1, "one log: {logs:?}");
    let lines = callgate(project, ["audit", "export", "--format", "jsonl"]).json_lines();
    let record = |(index, mut line): (usize, Value)| {
        assert_eq!(line["index"], index, "{line}");
        line["record"].take()
    };
    lines.into_iter().enumerate().map(record).collect()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The gate's process, which anybody may kill.
#[derive(Clone)]
struct Gate {
    child: Arc<Mutex<Child>>,
    url: String,
}

impl Gate {
    /// Starts the gate of a project, and says how long its first answer took.
    async fn start(folder: &Path, http: &reqwest::Client) -> (Self, Duration) {
        let begun = Instant::now();
        let Spawned { child, address, .. } = serve(folder);
        let gate = Self { child: Arc::new(Mutex::new(child)), url: format!("http://{address}/mcp") };
        // Any answer will do; this one leaves no record.
        http.get(&gate.url).send().await.expect("the gate answers");
        (gate, begun.elapsed())
    }

    /// `kill -9`.
    fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // The last one ends the process, so that a failed test leaves none behind.
        if Arc::strong_count(&self.child) == 1 {
            self.kill();
        }
    }
}

/// A backend that notes which writes reached it, and may kill the gate at one of them.
struct Backend {
    address: SocketAddr,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    writes: Mutex<BTreeSet<String>>,
    /// After how many more writes which gate dies.
    kill: Mutex<Option<(u64, Gate)>>,
}

impl Backend {
    async fn start() -> Self {
        let watch = Arc::new(Watch::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&watch));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, watch }
    }

    fn kill_at_write(&self, writes: u64, gate: &Gate) {
        *self.watch.kill.lock().unwrap() = Some((writes, gate.clone()));
    }

    fn forget_kill(&self) {
        self.watch.kill.lock().unwrap().take();
    }

    /// The arguments of the writes that reached it.
    fn writes(&self) -> BTreeSet<String> {
        self.watch.writes.lock().unwrap().clone()
    }
}

async fn answer(State(watch): State<Arc<Watch>>, method: Method, uri: Uri) -> Response {
    let Some(id) = uri.path().rsplit('/').next().map(str::to_owned) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if method == Method::POST {
        assert!(watch.writes.lock().unwrap().insert(id.clone()), "{id} came twice");
        watch.count_down();
    }
    Json(json!({ "id": id })).into_response()
}

impl Watch {
    fn count_down(&self) {
        let mut kill = self.kill.lock().unwrap();
        if let Some((writes, gate)) = &mut *kill {
            *writes -= 1;
            if *writes == 0 {
                gate.kill();
                kill.take();
            }
        }
    }
}

/// A small generator (SplitMix64).
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

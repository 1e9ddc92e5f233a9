//! A real witness beside a real gate: what it cosigns, and what it refuses when the log was put back.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use callgate::audit::witness::{Head, WitnessKey};
use serde_json::{Value, json};
use signed_note::{Signature, key_id};
use tempfile::TempDir;

use crate::{
    backend::Backend,
    gate::records,
    process::{PROGRAM, Process, callgate, configure},
    project::{Project, tool},
};

const SOON: Duration = Duration::from_secs(15);
/// The bound on what witnesses may take at the end, and what a start and a stop take by themselves.
const STOP_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_cosigns_a_growing_log_and_tells_one_that_was_put_back() {
    let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
    project().write(folder.path(), backend.address, SocketAddr::from(([127, 0, 0, 1], 1)));
    // The first start makes the keys, which the witness has to know.
    Gate::start(folder.path()).stop();
    let log = folder.path().join("state/audit/serve-0");
    let witness = Witness::start(folder.path());
    watched_by(
        folder.path(),
        &[json!({ "url": witness.url, "key": witness.key, "egress": { "loopback": true } })],
    );

    let gate = Gate::start(folder.path());
    gate.call().await;
    // While it serves, and not only at its end.
    until(SOON, "the log is cosigned", async || log.join("cosignatures").exists()).await;
    assert_eq!(gate.ready().await, (200, "ready\n".into()));
    gate.stop();
    let before = witness.cosigned(&log);
    assert_eq!(before, records(folder.path(), "serve-0", 0).len() as u64, "the last checkpoint is cosigned");

    let copy = folder.path().join("copy");
    copy_folder(&log, &copy);
    let gate = Gate::start(folder.path());
    gate.call().await;
    gate.call().await;
    assert_eq!(gate.ready().await.0, 200);
    gate.stop();
    let after = witness.cosigned(&log);
    assert_eq!(after, before + 3, "a start and two reads");
    let (ok, verified) = verify(folder.path());
    assert!(ok, "{verified}");
    assert_eq!(verified["logs"][0]["witnessed"], after);

    // The older copy is a valid log, and only what is kept of the witness tells that there was more.
    let memory = fs::read(log.join("witness.json")).unwrap();
    fs::remove_dir_all(&log).unwrap();
    copy_folder(&copy, &log);
    fs::write(log.join("witness.json"), memory).unwrap();
    let (ok, verified) = verify(folder.path());
    assert!(!ok && verified["ok"] == false, "{verified}");
    fs::copy(copy.join("witness.json"), log.join("witness.json")).unwrap();
    assert!(verify(folder.path()).0, "now nothing but the witness itself can tell");
    let gate = Gate::start(folder.path());
    gate.call().await;
    until(SOON, "the gate is not ready", async || gate.ready().await.0 == 503).await;
    assert_eq!(gate.ready().await.1, "a witness has seen more of the record than there is\n");
    gate.call().await;
    let said = gate.stop();
    assert!(said.contains("rolled back: the witness has seen size"), "{said}");
    let found = of_kind(folder.path(), "witness");
    assert_eq!(found[0]["witness"], "witness.local/sample", "{found:?}");
    assert_eq!(found[0]["code"], "rolled_back");
    assert_eq!(found[0]["seen"], after);
    assert!(found[0]["size"].as_u64().unwrap() < after);
    assert_eq!(witness.cosigned(&log), before, "the witness signed nothing more");

    // A log that has grown beyond what the witness saw is still not the one it saw.
    let gate = Gate::start(folder.path());
    for _ in 0..4 {
        gate.call().await;
    }
    gate.stop();
    let gate = Gate::start(folder.path());
    until(SOON, "the gate is not ready", async || gate.ready().await.0 == 503).await;
    assert_eq!(gate.ready().await.1, "a witness has seen another record than there is\n");
    gate.stop();
    let found = of_kind(folder.path(), "witness");
    assert_eq!(found.last().unwrap()["code"], "inconsistent");
    assert!(verify(folder.path()).0, "the records of all this are in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn witnesses_that_are_down_or_hang_change_nothing_for_callers() {
    let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
    project().write(folder.path(), backend.address, SocketAddr::from(([127, 0, 0, 1], 1)));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}/", silent.local_addr().unwrap());
    let spec =
        |url: &str, name: &str| json!({ "url": url, "key": vkey(name), "egress": { "loopback": true } });
    watched_by(
        folder.path(),
        &[spec("http://127.0.0.1:1/", "w.local/down"), spec(&hanging, "w.local/hangs")],
    );
    let gate = Gate::start(folder.path());
    for _ in 0..10 {
        let begun = Instant::now();
        gate.call().await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    // Until it was asked, the test shows nothing.
    silent.set_nonblocking(true).unwrap();
    let silent = tokio::net::TcpListener::from_std(silent).unwrap();
    let _asked = tokio::time::timeout(SOON, silent.accept()).await.unwrap().unwrap();
    assert_eq!(gate.ready().await, (200, "ready\n".into()));
    let begun = Instant::now();
    let said = gate.stop();
    assert!(begun.elapsed() < STOP_MAX, "{:?}", begun.elapsed());
    assert!(said.contains("w.local/down") && said.contains("the witness cannot be reached"), "{said}");
    assert_eq!(of_kind(folder.path(), "outcome").len(), 10);
    assert_eq!(of_kind(folder.path(), "witness"), Vec::<Value>::new());
}

#[test]
fn a_witness_that_cannot_be_one_is_an_error_with_its_place() {
    let folder = TempDir::new().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    project().write(folder.path(), nobody, nobody);
    let server = format!(
        "services: {{ api: {{ url: 'http://127.0.0.1:1/', egress: {{ loopback: true }} }} }}
record:
  witnesses:
    - url: https://w.example/
      key: w.example+00000000+BAAA
    - url: http://127.0.0.1:9700/
      key: {one}
    - url: https://w.example/
      key: {one}
      egress: {{ private: [127.0.0.0/8] }}
    - url: https://w.example/
      key: {log}
",
        one = vkey("w.example/one"),
        log = vkey_of("w.example/log", 1),
    );
    fs::write(folder.path().join("callgate.yaml"), server).unwrap();
    let checked = callgate(folder.path(), ["check"]);
    assert_ne!(checked.code, 0);
    let text = checked.stdout;
    for expected in [
        "callgate.yaml:5:12: error: a witness's key has the form `name+id+base64`",
        "callgate.yaml:6:12: error: the witness: the address is loopback",
        "callgate.yaml:9:12: error: the witness `w.example/one` is already named",
        "callgate.yaml:10:27: error: `127.0.0.0/8` is loopback",
        "callgate.yaml:12:12: error: the key has signature type 0x01; a witness's has 0x04",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

fn project() -> Project {
    Project::new()
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
}

/// Names witnesses in `callgate.yaml`.
fn watched_by(folder: &Path, witnesses: &[Value]) {
    configure(folder, "record", json!({ "witnesses": witnesses }));
}

/// A verifier key of a witness that nobody has.
fn vkey(name: &str) -> String {
    vkey_of(name, 4)
}

fn vkey_of(name: &str, kind: u8) -> String {
    let public = [&[kind], [7; 32].as_slice()].concat();
    format!("{name}+{:08x}+{}", key_id(name, &public), BASE64_STANDARD.encode(public))
}

/// What `audit verify` says of a project's state.
fn verify(project: &Path) -> (bool, Value) {
    let printed = callgate(project, ["audit", "verify", "--json"]);
    (printed.code == 0, serde_json::from_str(&printed.stdout).unwrap())
}

fn of_kind(project: &Path, kind: &str) -> Vec<Value> {
    records(project, "serve-0", 0).into_iter().filter(|record| record["record"] == kind).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() { copy_folder(&path, &to) } else { fs::copy(path, to).map(drop).unwrap() }
    }
}

async fn until(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < limit, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `callgate serve`.
struct Gate(Process);

impl Gate {
    fn start(folder: &Path) -> Self {
        Self(Process::start(folder))
    }

    async fn call(&self) {
        let result = self.0.call("bot", "get", "1").await;
        assert_eq!(result["isError"], json!(false), "{result}");
    }

    async fn ready(&self) -> (u16, String) {
        self.0.get("/readyz").await
    }

    /// Ends it as an operator does, and returns what it said.
    fn stop(self) -> String {
        let (status, said) = self.0.stop_and_listen();
        assert!(status.success());
        said
    }
}

/// The sample witness, as a process.
struct Witness {
    child: Child,
    key: String,
    url: String,
}

impl Witness {
    /// Starts it for the logs of a project.
    fn start(project: &Path) -> Self {
        let log = fs::read_to_string(project.join("state/audit/keys.pub")).unwrap();
        let mut child = Command::new(sample())
            .args(["--listen", "127.0.0.1:0", "--log", log.trim()])
            .arg("--key")
            .arg(project.join("witness.key"))
            .arg("--state")
            .arg(project.join("witness-state.json"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let key = lines.next().expect("the witness says its key");
        let url = lines.next().expect("the witness says its address");
        Self { child, key, url: format!("{url}/") }
    }

    /// The size of the cosigned checkpoint in a log's folder, with its cosignature verified.
    fn cosigned(&self, log: &Path) -> u64 {
        let note = fs::read_to_string(log.join("cosignatures")).unwrap();
        let (head, key) = (Head::parse(&note).unwrap(), WitnessKey::parse(&self.key).unwrap());
        let lines = note.lines().filter(|line| line.starts_with('\u{2014}'));
        let mut lines = lines.map(|line| Signature::from_bytes(line.as_bytes()).unwrap());
        let line =
            lines.find(|line| key.is_named_by(line)).unwrap_or_else(|| panic!("no cosignature: {note}"));
        key.verify(head.text(), &line).expect("the cosignature is of this checkpoint");
        head.size
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's program: beside the gate's, where cargo builds examples with the tests.
fn sample() -> PathBuf {
    let path = Path::new(PROGRAM).parent().unwrap().join("examples/witness");
    if !path.exists() {
        // `--test it` alone does not build it.
        let built = Command::new(env!("CARGO")).args(["build", "--example", "witness"]).status().unwrap();
        assert!(built.success(), "the example does not build");
    }
    path
}

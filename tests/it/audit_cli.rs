//! The commands that read, prove and erase the record, as an operator and an auditor run them, on the
//! state folder of a gate that served.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use callgate::audit::side::{Bounds, Content, Kind, Salt, SideKey, SideStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    backend::Backend,
    process::{PROGRAM, Printed, Process, callgate, configure, print},
    project::{Project, tool},
};

/// Stands in the arguments of the call whose bodies are kept.
const BODY: &str = "words-in-a-body";

/// A folder with a project that has served.
struct Recorded {
    folder: TempDir,
    backend: Backend,
    /// The calls' ids: of a write whose bodies are kept, of a read, and of a denied call.
    kept: String,
    read: String,
    denied: String,
}

impl Recorded {
    async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// A project with these settings of its record.
    async fn with(record: Value) -> Self {
        let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
        let mut keeping = tool("notes.add", "write", "echo");
        keeping["record"] = json!("full");
        Project::new()
            .tool(keeping)
            .tool(tool("notes.get", "read", "ok"))
            .client("alice", json!({ "tools": ["*"] }))
            .client("bob", json!({ "tools": ["notes.get"] }))
            .policy("permit (principal, action, resource);")
            .write(folder.path(), backend.address, SocketAddr::from(([127, 0, 0, 1], 1)));
        configure(folder.path(), "record", record);
        let gate = Process::start(folder.path());
        let kept = id(&gate.call("alice", "notes.add", BODY).await);
        let read = id(&gate.call("bob", "notes.get", "1").await);
        // A tool that the client is not shown is an error of the protocol, and names no record.
        assert_eq!(gate.call("bob", "notes.add", "1").await, Value::Null);
        assert!(gate.stop().success());
        let denied =
            callgate(folder.path(), ["audit", "search", "--json", "--outcome", "denied"]).json_lines();
        let denied = denied[0]["record"]["call"]["id"].as_str().unwrap().to_owned();
        Self { folder, backend, kept, read, denied }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// `callgate audit …`, in the project's folder.
    fn audit(&self, arguments: &[&str]) -> Printed {
        callgate(self.path(), ["audit"].iter().chain(arguments))
    }

    /// A copy of the state folder, and nothing else of the project.
    fn copy(&self) -> (TempDir, String) {
        let folder = TempDir::new().unwrap();
        let state = folder.path().join("copy");
        copy(&self.state(), &state);
        let state = state.to_str().unwrap().to_owned();
        (folder, state)
    }
}

/// The record that a reply names.
fn id(result: &Value) -> String {
    result["_meta"]["callgate/record"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            drop(fs::copy(entry.path(), to))
        }
    }
}

fn segment(state: &Path, log: &str) -> PathBuf {
    state.join("audit").join(log).join("segments").join(format!("{:020}.log", 0))
}

/// Flips a byte in the middle of the first place where a text stands in a file.
fn flip(path: &Path, text: &str) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at + text.len() / 2] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The records that a listing shows, by place.
fn places(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| format!("{}/{}", line["log"].as_str().unwrap(), line["index"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_found_by_what_they_hold() {
    let recorded = Recorded::new().await;
    let tail = recorded.audit(&["tail"]).good();
    let shown: Vec<String> = tail
        .lines()
        .map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
            words.retain(|word| *word != "ms" && word.parse::<f64>().is_err());
            words.join(" ")
        })
        .collect();
    assert_eq!(
        shown,
        [
            "serve-0/0 start",
            "serve-0/1 alice notes.add intent",
            "serve-0/2 alice notes.add allowed",
            "serve-0/3 bob notes.get allowed",
            "serve-0/4 bob notes.add denied not_listed",
        ]
    );
    assert_eq!(places(&recorded.audit(&["tail", "-n", "1", "--json"]).json_lines()), ["serve-0/4"]);
    for (filter, expected) in [
        (&["--outcome", "denied"][..], &["serve-0/4"][..]),
        (&["--client", "bob"], &["serve-0/4", "serve-0/3"]),
        (&["--client", "bob", "--tool", "notes.get"], &["serve-0/3"]),
        (&["--code", "not_listed"], &["serve-0/4"]),
        (&["--call", &recorded.kept], &["serve-0/2", "serve-0/1"]),
        (&["--since", "1h", "--limit", "1"], &["serve-0/4"]),
        (&["--until", "1h"], &[]),
        (&["--log", "serve-0", "--tool", "notes.get"], &["serve-0/3"]),
    ] {
        let found = recorded.audit(&[&["search", "--json"], filter].concat()).json_lines();
        assert_eq!(places(&found), expected, "{filter:?}");
    }
    assert_eq!(recorded.audit(&["search", "--count-by", "outcome"]).good(), "allowed\t2\ndenied\t1\n");
    assert_eq!(
        recorded.audit(&["search", "--count-by", "client", "--json"]).json(),
        json!([{ "client": "bob", "calls": 2 }, { "client": "alice", "calls": 1 }])
    );
    // What can never fit is a slip, and not an empty answer.
    let slip = recorded.audit(&["search", "--log", "serve-1"]).refusal();
    assert_eq!(slip, "error: there is no log `serve-1`; there are: serve-0\n");
    assert_eq!(recorded.audit(&["search", "--outcome", "deny"]).code, 2);
    assert_eq!(recorded.audit(&["search", "--client", "carol"]).stderr, "no record fits\n");
    let wrong = callgate(recorded.path(), ["audit", "verify", "--state", "tools"]).refusal();
    assert_eq!(wrong, "error: `tools` is no state folder with a record: there is no folder `audit` in it\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_when_the_gate_is_started_again() {
    let recorded = Recorded::new().await;
    let mut tail = Command::new(PROGRAM)
        .args(["audit", "tail", "-f", "-n", "1", "--json"])
        .current_dir(recorded.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sent, lines) = mpsc::channel();
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sent.send(line)));
    let next = || -> Value {
        let line = lines.recv_timeout(Duration::from_secs(20)).expect("the tail goes on");
        serde_json::from_str(&line).unwrap()
    };
    assert_eq!(next()["index"], 4);
    for start in [5, 7] {
        let gate = Process::start(recorded.path());
        let read = id(&gate.call("bob", "notes.get", "1").await);
        let line = next();
        assert_eq!((&line["index"], &line["record"]["record"]), (&json!(start), &json!("start")));
        let line = next();
        assert_eq!((&line["index"], &line["record"]["call"]["id"]), (&json!(start + 1), &json!(read)));
        assert!(gate.stop().success());
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_shown_with_what_was_kept_of_it() {
    let recorded = Recorded::new().await;
    let shown = recorded.audit(&["show", &recorded.kept]).good();
    assert!(shown.starts_with("serve-0/1\n{\n") && shown.contains("\nserve-0/2\n{\n"), "{shown}");
    assert!(
        shown.ends_with("arguments  digest holds\ndecision   digest holds\nresult     digest holds\n"),
        "{shown}"
    );
    assert!(!shown.contains(BODY), "bodies are shown where they are asked for alone: {shown}");
    let shown = recorded.audit(&["show", "serve-0/2", "--bodies"]).good();
    let bodies = shown.split_once("arguments  digest holds\n").unwrap().1;
    let (arguments, bodies) = bodies.split_once("decision   digest holds\n").unwrap();
    let (decision, result) = bodies.split_once("result     digest holds\n").unwrap();
    let decision: Value = serde_json::from_str(decision).unwrap();
    assert_eq!((&decision["facts"]["client"], &decision["tool"]), (&json!("alice"), &json!("notes.add")));
    assert_eq!(serde_json::from_str::<Value>(arguments).unwrap(), json!({ "id": BODY }));
    assert!(result.contains(BODY), "{result}");
    let lines = recorded.audit(&["show", &recorded.kept, "--bodies", "--json"]).json_lines();
    assert_eq!(places(&lines[..2]), ["serve-0/1", "serve-0/2"]);
    assert_eq!(lines[2]["call"], recorded.kept);
    assert_eq!(lines[2]["kept"]["arguments"], json!({ "verdict": "digest holds", "body": { "id": BODY } }));
    // Of a tool that does not say `record: full` only the salt is kept; a denied call has no digest.
    let shown = recorded.audit(&["show", &recorded.read]).good();
    assert!(shown.ends_with("arguments  not kept\nresult     not kept\n"), "{shown}");
    let shown = recorded.audit(&["show", &recorded.denied]).good();
    assert!(shown.contains("not_listed") && shown.ends_with("}\n"), "{shown}");
    // Whoever has no key reads the record all the same.
    let (folder, state) = recorded.copy();
    fs::remove_file(folder.path().join("copy/audit/side.key")).unwrap();
    let shown = callgate(folder.path(), ["audit", "show", "serve-0/2", "--state", &state]);
    assert!(shown.stderr.contains("the digests are not checked: there is no `"), "{shown:?}");
    assert!(shown.good().contains("\"arguments_digest\""));
    let refused = callgate(folder.path(), ["audit", "show", "serve-0/2", "--bodies", "--state", &state]);
    assert!(refused.refusal().contains("side.key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_body_in_the_place_of_the_kept_one_does_not_hold() {
    let recorded = Recorded::new().await;
    recorded.audit(&["erase", &recorded.kept, "--yes", "--salt"]).good();
    // Whoever has the key of the store can put a body there, and a salt; the digest is in the log.
    let key = SideKey::open(&recorded.state().join("audit/side.key")).unwrap();
    let checkpoint = fs::read_to_string(recorded.state().join("audit/serve-0/checkpoint")).unwrap();
    let bounds = Bounds { bytes_max: 1 << 20, age_max: Duration::from_secs(3_600) };
    let folder = recorded.state().join("audit/serve-0/side");
    let store = SideStore::open(&folder, checkpoint.lines().next().unwrap(), key, bounds, 5).unwrap();
    let forged = vec![
        Content::Salt(Salt::from_bytes([7; 32])),
        Content::Body(Kind::Arguments, json!({ "id": BODY }).to_string().into_bytes()),
    ];
    store.put(u128::from_str_radix(&recorded.kept, 16).unwrap(), None, forged).unwrap();
    store.close();
    let shown = recorded.audit(&["show", &recorded.kept]);
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(shown.stdout.contains("\narguments  digest does not hold\ndecision   erased 2"), "{shown:?}");
    // A changed entry is damage, and is named.
    let (folder, state) = recorded.copy();
    let mut changed = 0;
    for file in fs::read_dir(Path::new(&state).join("audit/serve-0/side")).unwrap().map(Result::unwrap) {
        let mut bytes = fs::read(file.path()).unwrap();
        let last = bytes.len() - 20;
        bytes[last] ^= 1;
        fs::write(file.path(), bytes).unwrap();
        changed += 1;
    }
    assert!(changed > 0);
    let shown = callgate(folder.path(), ["audit", "show", &recorded.kept, "--state", &state]).refusal();
    assert!(
        shown.contains("is damaged at byte ") && shown.contains("an entry is not as it was sealed"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_lie_behind_damage_is_not_said_to_be_unknown() {
    let recorded = Recorded::new().await;
    let (folder, state) = recorded.copy();
    // An index that was made before the damage would still find it.
    fs::remove_file(Path::new(&state).join("audit/index.db")).unwrap();
    flip(&segment(Path::new(&state), "serve-0"), &recorded.read);
    for command in ["show", "prove"] {
        let refused =
            callgate(folder.path(), ["audit", command, &recorded.denied, "--state", &state]).refusal();
        assert!(refused.contains("in what can be read: ") && refused.contains("at record 3"), "{refused}");
    }
    // What is before it is shown, with the warning that it may not be all.
    let shown = callgate(folder.path(), ["audit", "show", &recorded.kept, "--state", &state]);
    assert!(shown.stdout.contains("serve-0/2") && shown.stderr.contains("at record 3"), "{shown:?}");
    assert_eq!(shown.code, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_the_file_and_the_record_of_one_flipped_byte() {
    let recorded = Recorded::new().await;
    let clean = recorded.audit(&["verify"]);
    assert!(clean.stderr.contains("with `--key` the folder's own word is not taken"), "{clean:?}");
    assert!(clean.good().starts_with("ok       serve-0  5 records, 5 signed, "));
    let (folder, state) = recorded.copy();
    let log = segment(Path::new(&state), "serve-0");
    flip(&log, &recorded.read);
    let damaged = callgate(folder.path(), ["audit", "verify", "--state", &state]);
    assert_eq!(damaged.code, 1);
    let place = format!("log `serve-0`, record 3: the frame is damaged (`{}`, byte ", log.display());
    assert!(damaged.stdout.contains(&place), "{damaged:?}");
    let report = callgate(folder.path(), ["audit", "verify", "--json", "--state", &state]);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["ok"], &report["logs"][0]["damage"][0]["index"]), (&json!(false), &json!(3)));
    // What is before the damage can still be looked at, and none of it passes for all there is.
    for command in [&["tail", "--json"][..], &["search", "--json"], &["export", "--format", "jsonl"]] {
        let shown = callgate(folder.path(), ["audit"].iter().chain(command).chain(&["--state", &state]));
        let lines: Vec<Value> =
            shown.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!((shown.code, lines.len()), (1, 3), "{command:?}: {shown:?}");
        assert!(shown.stderr.contains("is damaged at record 3, byte "), "{command:?}: {shown:?}");
    }
    let file = folder.path().join("part.csv");
    let part = ["audit", "export", "--format", "csv", "-o", file.to_str().unwrap(), "--state", &state];
    assert!(callgate(folder.path(), part).refusal().contains("is not whole"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_gone_is_missed() {
    let recorded = Recorded::new().await;
    let (one, other) = (Process::start(recorded.path()), Process::start(recorded.path()));
    other.call("bob", "notes.get", "1").await;
    other.call("bob", "notes.get", "1").await;
    let heads = |log: &str| {
        let lines = recorded.audit(&["search", "--json", "--log", log]).json_lines();
        lines.iter().any(|line| line["record"]["record"] == "heads")
    };
    let begun = Instant::now();
    while !(heads("serve-0") && heads("serve-1")) {
        assert!(begun.elapsed() < Duration::from_secs(40), "no heads are on record");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // While both serve, all can be read, verified and proved.
    assert!(recorded.audit(&["verify"]).good().ends_with("ok: 2 logs\n"));
    recorded.audit(&["prove", "serve-1/1"]).good();
    assert!(one.stop().success() && other.stop().success());
    assert!(recorded.audit(&["verify"]).good().ends_with("ok: 2 logs\n"));
    let (folder, state) = recorded.copy();
    fs::remove_dir_all(Path::new(&state).join("audit/serve-1")).unwrap();
    let damaged = callgate(folder.path(), ["audit", "verify", "--state", &state]);
    assert_eq!(damaged.code, 1, "{damaged:?}");
    assert!(damaged.stdout.contains("serve-1") && damaged.stdout.contains("missing"), "{damaged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_checked_elsewhere_with_the_key_alone() {
    let recorded = Recorded::new().await;
    let elsewhere = TempDir::new().unwrap();
    let (proof, key) = (elsewhere.path().join("proof.txt"), elsewhere.path().join("keys.pub"));
    recorded.audit(&["prove", &recorded.kept, "-o", proof.to_str().unwrap()]).good();
    fs::write(&key, recorded.audit(&["key"]).good()).unwrap();
    let check =
        |proof: &str, key: &str| callgate(elsewhere.path(), ["audit", "check-proof", proof, "--key", key]);

    let checked = check("proof.txt", "keys.pub").good();
    assert!(checked.contains(&recorded.kept) && checked.contains("\"outcome\": \"allowed\""), "{checked}");
    assert!(checked.contains("\nok: this is record 2 of `callgate.local/"), "{checked}");
    let text = fs::read_to_string(&key).unwrap();
    assert!(check("proof.txt", text.trim()).code == 0, "the key itself will do");

    let whole = fs::read_to_string(&proof).unwrap();
    let edit = |at: usize| {
        let mut edited = whole.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        fs::write(elsewhere.path().join("edited.txt"), edited).unwrap();
        let refused = check("edited.txt", "keys.pub");
        assert!(!refused.stdout.contains("ok:"), "{refused:?}");
        refused.refusal()
    };
    let record = whole.find("extra ").unwrap() + 10;
    let signature = whole.rfind('\u{2014}').unwrap() + 60;
    let refused = edit(record);
    assert!(refused.contains("error: the record is not the one at index 2 of `callgate.local/"), "{refused}");
    let refused = edit(signature);
    assert_eq!(refused, "error: the checkpoint cannot be trusted: the signature is not of this text\n");
    // Another gate's key, of whatever name.
    let other = Recorded::new().await;
    fs::write(elsewhere.path().join("other.pub"), other.audit(&["key"]).good()).unwrap();
    let refused = check("proof.txt", "other.pub").refusal();
    // Both keys are named, under the log's name.
    let named = |file: &str| {
        let key = fs::read_to_string(elsewhere.path().join(file)).unwrap();
        format!("`{}/serve-0+", key.split_once('+').unwrap().0)
    };
    let names = |said: &str| {
        said.contains(&format!("it is signed by the key {}", named("keys.pub")))
            && said.contains(&format!(", and the key given is {}", named("other.pub")))
    };
    assert!(refused.starts_with("error: the checkpoint cannot be trusted: it is signed"), "{refused}");
    assert!(names(&refused), "{refused}");
    let wrong = recorded.audit(&["verify", "--key", elsewhere.path().join("other.pub").to_str().unwrap()]);
    assert_eq!((wrong.code, wrong.stderr.as_str()), (1, ""), "{wrong:?}");
    assert_eq!(wrong.stdout.matches("signed").count(), 2, "said once: {wrong:?}");
    assert!(wrong.stdout.contains("damaged") && names(&wrong.stdout), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_grew_is_consistent_with_its_older_checkpoint() {
    let recorded = Recorded::new().await;
    let now = recorded.state().join("audit/serve-0/checkpoint");
    fs::copy(&now, recorded.path().join("then.txt")).unwrap();
    let gate = Process::start(recorded.path());
    gate.call("bob", "notes.get", "1").await;
    assert!(gate.stop().success());
    let now = now.to_str().unwrap();
    let said = recorded.audit(&["consistency", "then.txt", now]).good();
    assert_eq!(said, "ok: `serve-0` with 7 records begins with the 5 records of the older checkpoint\n");
    let said = recorded.audit(&["consistency", now, "then.txt"]).refusal();
    assert_eq!(said, "error: the older checkpoint has 7 records, the newer one 5\n");
    let said = recorded.audit(&["consistency", "callgate.yaml", now]).refusal();
    assert_eq!(said, "error: `callgate.yaml` is neither a checkpoint file nor a number of records\n");
    // The checkpoint of another gate's log is not of this one.
    let other = Recorded::new().await;
    let foreign = other.state().join("audit/serve-0/checkpoint");
    let refused = recorded.audit(&["consistency", foreign.to_str().unwrap(), now]);
    assert_eq!(refused.code, 1, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_holds_every_record() {
    let recorded = Recorded::new().await;
    let lines = recorded.audit(&["export", "--format", "jsonl"]).json_lines();
    assert_eq!(places(&lines), ["serve-0/0", "serve-0/1", "serve-0/2", "serve-0/3", "serve-0/4"]);
    assert_eq!(lines[4]["record"]["code"], "not_listed");
    let file = recorded.path().join("calls.csv");
    let said = recorded.audit(&["export", "--format", "csv", "-o", "calls.csv", "--outcome", "denied"]);
    assert_eq!(said.stderr, "1 record in `calls.csv`\n");
    let table = fs::read_to_string(file).unwrap();
    let rows: Vec<&str> = table.split("\r\n").collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[1].starts_with("serve-0,4,") && rows[1].contains(&recorded.denied), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_gone_and_every_proof_still_holds() {
    let recorded = Recorded::new().await;
    recorded.audit(&["prove", &recorded.kept, "-o", "proof.txt"]).good();
    fs::write(recorded.path().join("keys.pub"), recorded.audit(&["key"]).good()).unwrap();
    let store = recorded.state().join("audit/serve-0/side").join(format!("{:020}.side", 0));
    let before = fs::read(&store).unwrap();
    let asked = recorded.audit(&["erase", &recorded.kept]).refusal();
    assert!(asked.contains("say `--yes`"), "{asked}");
    assert_eq!(fs::read(&store).unwrap(), before, "nobody agreed");

    assert_eq!(recorded.audit(&["erase", &recorded.kept, "--yes"]).good(), "erased: 3 entries\n");
    let after = fs::read(&store).unwrap();
    assert_eq!(after.len(), before.len());
    let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert!(changed.len() > 2 * BODY.len(), "{} bytes", changed.len());
    let sealed = &before[changed[0]..=changed[0] + BODY.len()];
    assert!(!after.windows(sealed.len()).any(|window| window == sealed));

    let shown = recorded.audit(&["show", &recorded.kept, "--bodies"]).good();
    let kept = shown.split_once("arguments  erased 2").unwrap().1;
    assert!(kept.contains("decision   erased 2") && kept.contains("result     erased 2"), "{shown}");
    assert!(!kept.contains(BODY) && !kept.contains("facts"), "{shown}");
    recorded.audit(&["verify", "--key", "keys.pub"]).good();
    recorded.audit(&["check-proof", "proof.txt", "--key", "keys.pub"]).good();
    let again = recorded.audit(&["erase", &recorded.kept, "--yes", "--salt"]).good();
    assert_eq!(again, "erased: 1 entry; 3 entries before\n", "the salt had stayed");
    assert_eq!(
        recorded.audit(&["erase", &recorded.denied, "--yes"]).good(),
        format!("nothing to erase is kept of call {}\n", recorded.denied)
    );
    assert_eq!(recorded.audit(&["show", &recorded.read]).code, 0, "other calls are as they were");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_bodies_is_the_one_that_the_project_names() {
    let key = TempDir::new().unwrap();
    let path = key.path().join("bodies.key");
    fs::write(&path, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    print(Command::new("chmod").arg("600").arg(&path)).good();
    let recorded = Recorded::with(json!({ "bodies": { "key": format!("file:{}", path.display()) } })).await;
    assert!(!recorded.state().join("audit/side.key").exists());
    let shown = recorded.audit(&["show", &recorded.kept, "--bodies"]).good();
    assert!(shown.contains("arguments  digest holds\n{\n"), "{shown}");
    // With `--state` the project is not looked at: there is no key, and none is made.
    let state = recorded.state();
    let refused = recorded.audit(&["erase", &recorded.kept, "--yes", "--state", state.to_str().unwrap()]);
    assert!(refused.refusal().contains("there is no `"));
    assert!(!recorded.state().join("audit/side.key").exists());
    // Another key opens nothing, and says so.
    fs::write(&path, "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n").unwrap();
    let refused = recorded.audit(&["show", &recorded.kept, "--bodies"]).refusal();
    assert!(refused.contains("it is under another key"), "{refused}");
    fs::write(&path, "CAgI\n").unwrap();
    let refused = recorded.audit(&["show", &recorded.kept]).refusal();
    assert_eq!(refused, "error: the key that `record.bodies.key` names is not 32 bytes in base64\n");
    assert_eq!(recorded.audit(&["erase", &recorded.kept, "--yes"]).refusal(), refused);
    assert_eq!(recorded.backend.hits(), 2, "two of the calls were allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_small_verifier_says_what_verify_says() {
    let recorded = Recorded::new().await;
    let key = recorded.state().join("audit/keys.pub");
    let verifier = small_verifier();
    let small = |state: &Path| print(Command::new(&verifier).arg(state).arg("--key").arg(&key));
    let said = small(&recorded.state());
    assert_eq!((said.code, said.stdout.lines().last()), (0, Some("clean")), "{said:?}");
    let (_folder, state) = recorded.copy();
    flip(&segment(Path::new(&state), "serve-0"), &recorded.read);
    let said = small(Path::new(&state));
    let damaged = recorded.audit(&["verify", "--state", &state]);
    assert_eq!((said.code, damaged.code), (1, 1));
    let damage = said.stdout.lines().find_map(|line| line.strip_prefix("DAMAGE ")).unwrap();
    assert!(damaged.stdout.contains(damage), "{damage}: {damaged:?}");
}

/// The example, built as the program was: `cargo test --test it` alone builds none.
fn small_verifier() -> PathBuf {
    let folder = Path::new(PROGRAM).parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--example", "verify_log", "--target-dir"]);
    build.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    print(&mut build).good();
    folder.join("examples/verify_log")
}

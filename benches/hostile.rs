//! What one client's costly calls do to another client's ordinary ones: over HTTP, with the program itself as
//! its own process, and a backend on loopback. Rounds of each kind alternate, in an order that rotates, so
//! that what else the machine does falls on all of them. The first kind is the floor, and the second is the
//! first once more: how far it is from the floor is how far a figure can be trusted.
//!
//! Run: `cargo bench --bench hostile`, on a machine that has little else to do; it takes five minutes. More
//! repetitions than ten: `cargo bench --bench hostile -- 30`. What is due to the disk, where the record is
//! written: the same with `TMPDIR=/dev/shm`, which is memory.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on shall say where, and prints what it found"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The time between two calls of the ordinary client, which has one connection.
const PACE: Duration = Duration::from_millis(4);
/// The connections of the other client, and the time from an answer to the next call on its connection.
const HOSTILE_CONNECTIONS: usize = 8;
const HOSTILE_PACE: Duration = Duration::from_millis(20);
/// How long the other client is at work before the ordinary one begins.
const HEAD_START: Duration = Duration::from_millis(150);
/// A text that the pattern `HARD` takes tens of milliseconds for.
const LONG_BYTES: usize = 20_000;
/// A text that costs just less than what would go to the thread for costly validations.
const SHORT_BYTES: usize = 68;
/// A pattern that takes about 1 µs for each byte.
const HARD: &str = "^(a|b|ab|ba)*a(a|b){30}$";
/// A pattern that takes so many steps for each byte that a long text is above the hard bound.
const HARDER: &str = "[ab]{0,200}a[ab]{200}c";

/// The secret in the keys of both clients.
const SECRET: &str = "the-secret";

/// How much is measured.
struct Effort {
    repetitions: usize,
    round: Duration,
    long_bytes: usize,
}

/// What the other client does in a round, and what was measured in all of its rounds.
struct Kind {
    name: &'static str,
    /// The call that it makes again and again.
    call: Vec<u8>,
    /// The ordinary client's latencies in µs, of each round.
    rounds: Vec<Vec<f64>>,
    /// How the other client's calls ended.
    endings: BTreeMap<String, usize>,
}

fn main() {
    let effort = effort();
    let gate = Gate::start(backend());
    let mut kinds = kinds(effort.long_bytes);
    gate.round(&kinds[0].call, effort.round); // the first calls of all connect to the backend
    let mut order: Vec<_> = (0..kinds.len()).collect();
    for _ in 0..effort.repetitions {
        for &at in &order {
            let kind = &mut kinds[at];
            let (latencies, endings) = gate.round(&kind.call, effort.round);
            kind.rounds.push(latencies);
            for ending in endings {
                *kind.endings.entry(ending).or_default() += 1;
            }
        }
        order.rotate_left(1);
    }
    report(&kinds);
}

/// `cargo test` runs benchmarks too, to see that they run; only `cargo bench` says `--bench`.
fn effort() -> Effort {
    if !std::env::args().any(|argument| argument == "--bench") {
        return Effort { repetitions: 1, round: Duration::from_millis(100), long_bytes: 1_000 };
    }
    let repetitions = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10);
    Effort { repetitions, round: Duration::from_secs(4), long_bytes: LONG_BYTES }
}

fn kinds(long_bytes: usize) -> Vec<Kind> {
    let kind = |name, tool, length| {
        let call = call("mallory", tool, &text(length));
        Kind { name, call, rounds: Vec::new(), endings: BTreeMap::new() }
    };
    vec![
        kind("ordinary", "ordinary", 40),
        kind("ordinary again", "ordinary", 40),
        kind("large, not costly", "large", long_bytes),
        kind("in place", "hard", SHORT_BYTES),
        kind("lane", "hard", long_bytes),
        kind("too costly", "harder", LONG_BYTES),
    ]
}

/// Medians over the rounds, and the 99th percentile of all latencies of a kind, which shows a stall that
/// only few rounds have.
fn report(kinds: &[Kind]) {
    let figures = |kind: &Kind| {
        let middle =
            |part| percentile(kind.rounds.iter().map(|round| percentile(round.clone(), part)).collect(), 50);
        [middle(50), middle(99), percentile(kind.rounds.concat(), 99)]
    };
    let floor = figures(&kinds[0]);
    println!("the other client             p50 µs              p99 µs       pooled p99 µs   its calls");
    for kind in kinds {
        let figures = figures(kind).into_iter().zip(floor).map(|(figure, floor)| {
            let more = (figure / floor - 1.0) * 100.0;
            format!("{figure:8.0} ({more:+6.1} %)")
        });
        let figures: Vec<_> = figures.collect();
        let endings: Vec<_> = kind.endings.iter().map(|(code, count)| format!("{code} {count}")).collect();
        println!("{:17} {}   {}", kind.name, figures.join(" "), endings.join(", "));
    }
}

fn percentile(mut values: Vec<f64>, part: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * part / 100]
}

/// The program, serving a project until it is dropped.
struct Gate {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Gate {
    fn start(backend: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        write_project(folder.path(), backend);
        let mut child = Command::new(env!("CARGO_BIN_EXE_callgate"))
            .args(["serve", "--config"])
            .arg(folder.path().join("callgate.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.find_map(|line| {
            said.push(line);
            said.last()?.split_once("http://")?.1.split('/').next()?.parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("it does not serve: {said:#?}"));
        thread::spawn(move || lines.for_each(drop)); // a full pipe would stop the gate
        Self { child, address, _folder: folder }
    }

    /// One round: the ordinary client's latencies in µs, and how the other client's calls ended.
    fn round(&self, hostile: &[u8], length: Duration) -> (Vec<f64>, Vec<String>) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let connections: Vec<_> =
                (0..HOSTILE_CONNECTIONS).map(|_| scope.spawn(|| self.flood(hostile, &stop))).collect();
            thread::sleep(HEAD_START);
            let ordinary = scope.spawn(|| self.ordinary(length)).join();
            stop.store(true, Ordering::Relaxed);
            let endings = connections.into_iter().flat_map(|connection| connection.join().unwrap()).collect();
            (ordinary.unwrap(), endings)
        })
    }

    fn ordinary(&self, length: Duration) -> Vec<f64> {
        let call = call("victim", "ordinary", "abc");
        let mut connection = connect(self.address);
        let mut latencies = Vec::new();
        let mut next = Instant::now();
        let end = next + length;
        while next < end {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += PACE;
            let sent = Instant::now();
            let answer = answer(&mut connection, &call);
            latencies.push(sent.elapsed().as_secs_f64() * 1e6);
            assert_eq!(ending(&answer), "allowed");
        }
        latencies
    }

    fn flood(&self, call: &[u8], stop: &AtomicBool) -> Vec<String> {
        let mut connection = connect(self.address);
        let mut endings = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            endings.push(ending(&answer(&mut connection, call)));
            thread::sleep(HOSTILE_PACE);
        }
        endings
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that makes one call after the other.
type Connection = BufReader<TcpStream>;

fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

fn answer(connection: &mut Connection, request: &[u8]) -> Vec<u8> {
    connection.get_mut().write_all(request).unwrap();
    read_message(connection).unwrap()
}

/// Reads the head of a message, and hands back its body; none where the connection has ended.
fn read_message(stream: &mut Connection) -> Option<Vec<u8>> {
    let (mut body, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            stream.read_exact(&mut body).ok()?;
            return Some(body);
        }
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body.resize(length.trim().parse().ok()?, 0);
        }
    }
}

/// The code of a refusal, or that there was none.
fn ending(answer: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let result = &answer["result"];
    match result["_meta"]["callgate/code"].as_str() {
        Some(code) => code.to_owned(),
        None if result["structuredContent"].is_object() => "allowed".to_owned(),
        None => panic!("neither an answer nor a refusal: {answer}"),
    }
}

fn call(client: &str, tool: &str, text: &str) -> Vec<u8> {
    let params = json!({ "name": tool, "arguments": { "text": text } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer cg_{client}_{SECRET}\r\n\
         Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A text that fits the hard pattern and brings most of its places to life, of which no two stretches are
/// alike. A call that is allowed makes the gate more work than one that is refused.
fn text(length: usize) -> String {
    let mut random = 12_345_u64;
    let mut letters = |count: usize| {
        let letter = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if random >> 62 > 0 { 'a' } else { 'b' }
        };
        (0..count).map(letter).collect::<String>()
    };
    format!("{}a{}", letters(length - 31), letters(30))
}

/// A backend that gives the same answer to every request.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_nodelay(true).unwrap();
            let mut stream = BufReader::new(stream);
            thread::spawn(move || {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n";
                let answer = format!("{head}{{\"id\":\"1\"}}");
                while read_message(&mut stream).is_some() {
                    stream.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

/// Writes a project, whose files are YAML, of which JSON is a part.
fn write_project(folder: &Path, backend: SocketAddr) {
    let tool = |name: &str, text: Value| {
        let input = json!({
            "type": "object", "additionalProperties": false, "required": ["text"], "properties": { "text": text }
        });
        let id = json!({ "type": "string", "maxLength": 10 });
        json!({
            "tool": name, "description": "A tool to measure with.",
            "effects": "read", "reach": "none", "yields": "trusted", "deliberately": ["reads-by-other-methods"],
            "input": input, "output": { "type": "object", "properties": { "id": id } },
            "backend": { "http": { "service": "api", "method": "POST", "path": "/", "body": ["text"] } }
        })
    };
    let client = |name: &str| {
        let sha256 = hex::encode(Sha256::digest(SECRET));
        json!({
            "owner": "benchmarks", "tools": ["*"], "limits": { "rate": "100000/s" },
            "keys": [{ "id": name, "sha256": sha256, "expires": "2099-01-01" }]
        })
    };
    let clients = json!({ "victim": client("victim"), "mallory": client("mallory") });
    let api = json!({ "url": format!("http://{backend}/"), "egress": { "loopback": true } });
    let server = json!({ "listen": { "http": { "address": "127.0.0.1:0" } }, "services": { "api": api } });
    let matching = |pattern: &str| json!({ "type": "string", "maxLength": 50_000, "pattern": pattern });
    fs::create_dir_all(folder.join("tools")).unwrap();
    fs::create_dir_all(folder.join("policies")).unwrap();
    for (file, content) in [
        ("callgate.yaml", server),
        ("tools/ordinary.yaml", tool("ordinary", json!({ "type": "string", "maxLength": 40 }))),
        ("tools/large.yaml", tool("large", json!({ "type": "string", "maxLength": 50_000 }))),
        ("tools/hard.yaml", tool("hard", matching(HARD))),
        ("tools/harder.yaml", tool("harder", matching(HARDER))),
        ("policies/clients.yaml", json!({ "clients": clients })),
        ("policies/tools.yaml", json!({ "unlisted": "trust-claims" })),
    ] {
        fs::write(folder.join(file), content.to_string()).unwrap();
    }
    fs::write(folder.join("policies/all.cedar"), "permit (principal, action, resource);\n").unwrap();
}

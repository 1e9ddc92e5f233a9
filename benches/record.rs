//! What the record costs beside what the disk costs. Turns of the log and of the floor alternate, so that what
//! else the machine does falls on both; the ratios are medians over pairs of turns. The floor appends the same
//! bytes in the same batches to a plain file and syncs it. Run: `cargo bench --bench record`, and with `TMPDIR`
//! on the disk in question.
//! `-- process` skips all but one turn of what waits for a sync.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on shall say where, and prints what it found"
)]

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use callgate::{
    audit::{Audit, Ending, Keys, reader::logs},
    call::{
        AnswerFacts, Arguments, Call, CallKind, CallerFacts, DecisionFacts, DecisionVerdict, Origin, Outcome,
        PolicyFact, Proof, Stage, StageNote, ToolFacts, Trail, Transport,
    },
    manifest::RecordSpec,
    store::StateFolder,
};
use serde_json::Map;
use tokio_util::sync::CancellationToken;

/// Callers who wait at a time.
const CALLERS: usize = 256;

struct Turns {
    count: usize,
    length: Duration,
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they run; only `cargo bench` says `--bench`.
    let turns = if std::env::args().any(|argument| argument == "--bench") {
        Turns { count: 8, length: Duration::from_secs(1) }
    } else {
        Turns { count: 1, length: Duration::from_millis(50) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::prepare(&folder.path().join("state")).unwrap();
    let spec = RecordSpec::default();
    let audit = Arc::new(Audit::open(&state, "serve", "sha256:0", &spec, &Keys::default()).unwrap());
    let frame = frame_bytes(&runtime, &audit, state.path());
    println!("a record and its frame: {frame} bytes");

    let (mut many, mut rates, mut lone) = (Vec::new(), Vec::new(), Vec::new());
    let only_process = std::env::args().any(|argument| argument == "process");
    for _ in 0..if only_process { 1 } else { turns.count } {
        let log = runtime.block_on(together(&audit, turns.length));
        let floor = batches(folder.path(), frame * CALLERS, turns.length) * CALLERS as f64;
        rates.push(log);
        many.push(log / floor);
        let log = runtime.block_on(alone(&audit, "write", turns.length));
        let floor = singles(folder.path(), frame, turns.length);
        lone.push((log.as_micros() as f64, floor.as_micros() as f64));
    }
    let (log, floor): (Vec<_>, Vec<_>) = lone.iter().copied().unzip();
    let beyond = lone.iter().map(|(log, floor)| log - floor).collect();
    println!("{CALLERS} callers: {:.0} records/s, {:.0} % of the floor", median(rates), 100.0 * median(many));
    println!(
        "one caller: {:.0} µs, the floor {:.0} µs, {:+.0} µs",
        median(log),
        median(floor),
        median(beyond)
    );

    for callers in [1, 16, CALLERS] {
        let before = Cpu::now();
        let calls = runtime.block_on(flood(&audit, "read", callers, turns.length * 4)) as f64;
        let [all, writer, publisher] = Cpu::now().since(&before).map(|cpu| cpu.as_secs_f64() * 1e6 / calls);
        let before = Cpu::now();
        let writes = appends(folder.path(), frame, turns.length) as f64;
        let [floor, _, _] = Cpu::now().since(&before).map(|cpu| cpu.as_secs_f64() * 1e6 / writes);
        println!(
            "`process` durability, {callers} callers: {all:.1} µs of CPU a call, of it {writer:.1} in the writer's \
             thread and {publisher:.1} in the publisher's; {calls:.0} calls; a plain write {floor:.1} µs"
        );
    }
    audit.close();
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A call as it is after its last guard.
fn trail(effects: &'static str) -> Trail {
    let kind = CallKind::Tool { name: "refunds.create".into(), arguments: Arguments::from(Map::new()) };
    let origin = Origin { transport: Transport::Http, source: Some([127, 0, 0, 1].into()) };
    let call = Call::now(kind, Proof::default(), origin, CancellationToken::new());
    let digest = || Some(format!("hmac-sha256:{}", "0".repeat(64)));
    let mut trail =
        Trail::begin(&call, "sha256:5d3a0b7f2c9e4a618f7d3b2c1a0e9f8d7c6b5a493827160f1e2d3c4b5a697887");
    let stages = [
        "identity", "catalog", "limits", "schema", "policy", "plan", "approval", "audit", "backend", "output",
    ];
    trail.stages = stages.map(|_| StageNote { micros: 12, stage: Stage::Schema, verdict: "passed" }).into();
    let facts = &mut trail.facts;
    facts.caller = Some(CallerFacts {
        authentication: "api_key",
        client: "support-bot".into(),
        key: Some("demo-support".into()),
        run: "0198f3a7c1de4b5f8a90b1c2d3e4f506".into(),
        run_ended: None,
        token: None,
        user: None,
    });
    facts.tool = Some(ToolFacts { digest: format!("sha256:{}", "1".repeat(64)), effects });
    facts.arguments_digest = digest();
    facts.result_digest = digest();
    let policies = vec![PolicyFact { id: "support-may-refund".into(), reason: None }];
    facts.decision = Some(DecisionFacts { approvals: Vec::new(), policies, verdict: DecisionVerdict::Allow });
    facts.credential = Some("orders-refunds".into());
    let peer = Some("127.0.0.1:9000".into());
    facts.answer = Some(AnswerFacts { bytes: Some(180), peer, service: "orders".into(), status: Some(200) });
    trail
}

const ENDING: Ending = Ending { outcome: Outcome::Allowed, stage: None, code: None, detail: None };

fn frame_bytes(runtime: &tokio::runtime::Runtime, audit: &Audit, state: &Path) -> usize {
    const FRAME_EXTRA_BYTES: usize = 25;
    let receipt = runtime.block_on(audit.seal(&trail("write"), &ENDING)).unwrap();
    let found = logs(state).unwrap()[0].get(receipt.index()).unwrap().unwrap();
    found.bytes.len() + FRAME_EXTRA_BYTES
}

/// Records of one caller after the other.
async fn count(audit: &Audit, effects: &'static str, length: Duration) -> u64 {
    let (trail, until, mut count) = (trail(effects), Instant::now() + length, 0);
    while Instant::now() < until {
        audit.seal(&trail, &ENDING).await.unwrap();
        // A caller does other things between its calls.
        tokio::task::yield_now().await;
        count += 1;
    }
    count
}

async fn flood(audit: &Arc<Audit>, effects: &'static str, callers: usize, length: Duration) -> u64 {
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let audit = Arc::clone(audit);
            tokio::spawn(async move { count(&audit, effects, length).await })
        })
        .collect();
    let mut all = 0;
    for caller in callers {
        all += caller.await.unwrap();
    }
    all
}

/// Records a second, with all callers waiting at once.
async fn together(audit: &Arc<Audit>, length: Duration) -> f64 {
    let began = Instant::now();
    flood(audit, "write", CALLERS, length).await as f64 / began.elapsed().as_secs_f64()
}

/// The median time of a record with nobody else about.
async fn alone(audit: &Audit, effects: &'static str, length: Duration) -> Duration {
    let (trail, until, mut times) = (trail(effects), Instant::now() + length, Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        audit.seal(&trail, &ENDING).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// Batches a second that a plain file takes.
fn batches(folder: &Path, bytes: usize, length: Duration) -> f64 {
    let (began, mut count) = (Instant::now(), 0);
    floor(folder, bytes, length, |_| count += 1);
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// The median time that a plain file takes for one record.
fn singles(folder: &Path, bytes: usize, length: Duration) -> Duration {
    let mut times = Vec::new();
    floor(folder, bytes, length, |took| times.push(took));
    times.sort();
    times[times.len() / 2]
}

fn floor(folder: &Path, bytes: usize, length: Duration, mut done: impl FnMut(Duration)) {
    let (path, batch) = (folder.join("floor"), vec![b'x'; bytes]);
    let mut file = File::options().create(true).append(true).open(&path).unwrap();
    let until = Instant::now() + length;
    while Instant::now() < until {
        let began = Instant::now();
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
        done(began.elapsed());
    }
    fs::remove_file(path).unwrap();
}

/// Writes that a plain file takes, of one record each and without a sync.
fn appends(folder: &Path, bytes: usize, length: Duration) -> u64 {
    let (path, record) = (folder.join("floor"), vec![b'x'; bytes]);
    let mut file = File::options().create(true).append(true).open(&path).unwrap();
    let (until, mut count) = (Instant::now() + length, 0);
    while Instant::now() < until {
        file.write_all(&record).unwrap();
        count += 1;
    }
    fs::remove_file(path).unwrap();
    count
}

/// How long the threads of this process have run so far: all, the writer's, the publisher's.
struct Cpu([Duration; 3]);

impl Cpu {
    fn now() -> Self {
        let mut times = [Duration::ZERO; 3];
        for task in fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap().path();
            let name = fs::read_to_string(task.join("comm")).unwrap();
            let times_run = fs::read_to_string(task.join("schedstat")).unwrap();
            let time = Duration::from_nanos(times_run.split_whitespace().next().unwrap().parse().unwrap());
            times[0] += time;
            match name.trim_end() {
                "audit" => times[1] += time,
                "audit publisher" => times[2] += time,
                _ => {}
            }
        }
        Self(times)
    }

    fn since(&self, before: &Self) -> [Duration; 3] {
        std::array::from_fn(|at| self.0[at] - before.0[at])
    }
}

//! What one client's costly validations do to the validations of all others. Rounds with and without the
//! hostile client alternate, so that what else the machine does falls on both; the figures are medians
//! over the rounds. Run: `cargo bench --bench schema`, on a machine that has little else to do.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on shall say where, and prints what it found"
)]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callgate::schema::{CompiledSchema, Lane, Unchecked, compile};
use serde_json::{Value, json};

/// Rounds of each kind.
const ROUNDS: usize = 40;
/// The costliest flood that `cargo test` tries, in a debug build.
const IN_TEST_STEPS_MAX: u64 = 25_000;
/// Ordinary validations in a round, and the time from one to the next.
const CALLS: usize = 200;
const PACE: Duration = Duration::from_millis(1);
/// The calls that the hostile client has open at once, and the time from one answer to its next call: as
/// fast as a client on the same machine gets its answers over HTTP.
const HOSTILE_CALLS: usize = 16;
const HOSTILE_PACE: Duration = Duration::from_millis(1);

/// A hostile client's schema and value.
#[derive(Clone)]
struct Flood {
    schema: Arc<CompiledSchema>,
    /// Shared, so that no time goes into copies.
    value: Arc<Value>,
    /// Whether it runs where it is, whatever it costs.
    here: bool,
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they run; only `cargo bench` says `--bench`.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let lane = Arc::new(Lane::start());
    let schema = compiled(&json!({ "properties": { "text": { "pattern": "^(a|b|ab|ba)*a(a|b){30}$" } } }));
    let flood = |steps: u64, here: bool| {
        let a_byte = (schema.estimate(&text(2_000)).verdict - schema.estimate(&text(1_000)).verdict) / 1_000;
        let length = usize::try_from((steps - schema.estimate(&text(0)).verdict) / a_byte).unwrap();
        Flood { schema: Arc::clone(&schema), value: Arc::new(text(length)), here }
    };
    println!(
        "flood                        steps  alone µs  denied   p50 µs quiet/flood     p99 µs quiet/flood"
    );
    for (name, steps, here) in [
        ("ordinary calls", 0, false),
        ("on the lane", 20_000_000, false),
        ("on the lane", 2_000_000, false),
        ("on the lane", 25_000, false),
        ("in place", 20_000, false),
        ("in place, were it let", 100_000, true),
    ] {
        if rounds == 1 && steps > IN_TEST_STEPS_MAX {
            continue;
        }
        let flood = if steps == 0 { ordinary_flood() } else { flood(steps, here) };
        let started = Instant::now();
        black_box(flood.schema.first_mismatch(&flood.value));
        let alone = started.elapsed().as_micros();
        let denied = Arc::new(AtomicUsize::new(0));
        let (mut quiet, mut loaded) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            quiet.push(runtime.block_on(round(&lane, None, &denied)));
            loaded.push(runtime.block_on(round(&lane, Some(&flood), &denied)));
        }
        let pair = |at: usize| {
            let median = |rounds: &[[f64; 2]]| middle(rounds.iter().map(|round| round[at]).collect());
            let (quiet, loaded) = (median(&quiet), median(&loaded));
            format!("{quiet:6.1} {loaded:6.1} ({:+5.1} %)", (loaded / quiet - 1.0) * 100.0)
        };
        let (steps, denied) = (flood.schema.estimate(&flood.value).verdict, denied.load(Ordering::Relaxed));
        println!("{name:24} {steps:9} {alone:10} {denied:7}   {}   {}", pair(0), pair(1));
    }
}

/// As many calls, none of them costly: what any busy client does to the others.
fn ordinary_flood() -> Flood {
    Flood { schema: compiled(&ordinary_schema()), value: Arc::new(ordinary()), here: false }
}

/// One round: the median and the 99th percentile of the ordinary validations, in µs.
async fn round(lane: &Arc<Lane>, flood: Option<&Flood>, denied: &Arc<AtomicUsize>) -> [f64; 2] {
    let stop = Arc::new(AtomicBool::new(false));
    let hostile: Vec<_> = (0..HOSTILE_CALLS)
        .filter_map(|_| flood.cloned())
        .map(|flood| tokio::spawn(hostile(Arc::clone(lane), flood, Arc::clone(&stop), Arc::clone(denied))))
        .collect();
    let schema = compiled(&ordinary_schema());
    let mut clock = tokio::time::interval(PACE);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut calls = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        clock.tick().await;
        let (lane, schema, started) = (Arc::clone(lane), Arc::clone(&schema), Instant::now());
        calls.push(tokio::spawn(async move {
            assert_eq!(lane.check(&schema, ordinary(), |it| it).await.unwrap().1, None);
            started.elapsed().as_secs_f64() * 1e6
        }));
    }
    let mut times = Vec::with_capacity(CALLS);
    for call in calls {
        times.push(call.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    for task in hostile {
        task.await.unwrap();
    }
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

async fn hostile(lane: Arc<Lane>, flood: Flood, stop: Arc<AtomicBool>, denied: Arc<AtomicUsize>) {
    let Flood { schema, value, here } = flood;
    while !stop.load(Ordering::Relaxed) {
        if here {
            black_box(schema.first_mismatch(&value));
        } else if matches!(lane.check(&schema, Arc::clone(&value), |it| it).await, Err(Unchecked::Busy)) {
            denied.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(HOSTILE_PACE).await;
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compiled(schema: &Value) -> Arc<CompiledSchema> {
    Arc::new(compile(schema.as_object().unwrap()).unwrap())
}

/// A text that brings most places of the hostile pattern to life, of which no two stretches are alike.
fn text(length: usize) -> Value {
    let mut random = 12_345_u64;
    let mut letter = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if random >> 62 > 0 { 'a' } else { 'b' }
    };
    json!({ "text": (0..length).map(|_| letter()).collect::<String>() })
}

fn ordinary_schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["order_id", "amount"],
        "properties": {
            "order_id": { "type": "string", "pattern": "^ord_[a-z0-9]{8}$" },
            "amount": { "type": "integer", "minimum": 1 },
            "customer": { "type": "string", "pattern": "^[\\p{L} .'-]{1,50}$" },
            "email": { "type": "string", "format": "email", "maxLength": 80 },
            "note": { "type": "string", "maxLength": 500 },
            "lines": { "type": "array", "maxItems": 20, "items": {
                "type": "object", "required": ["sku"], "additionalProperties": false,
                "properties": { "sku": { "type": "string", "maxLength": 20 }, "count": { "type": "integer" } }
            } }
        }
    })
}

fn ordinary() -> Value {
    let lines: Vec<_> = (0..10).map(|at| json!({ "sku": format!("sku-{at}"), "count": at })).collect();
    json!({
        "order_id": "ord_7f3k2m9q", "amount": 12, "customer": "Zoë Šimek", "email": "zoe@example.com",
        "note": "Please leave it with the neighbours, they know.".repeat(4), "lines": lines
    })
}

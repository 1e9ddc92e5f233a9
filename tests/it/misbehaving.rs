//! Backends that misbehave: a typed outcome by the deadline, in bounded memory.

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    project::{Project, tool},
    raw,
    served::Served,
};

/// The limits of the service and its tools.
const TOTAL_MS: u64 = 1_000;
const HEAD_MS: u64 = 700;
const IDLE_MS: u64 = 1_200;

/// How late an outcome may be.
const SLACK_MS: u64 = 100;

/// One of these tests loads both processors, and the other keeps time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

struct Case {
    behaviour: &'static str,
    code: &'static str,
    deadline_ms: u64,
}

const fn case(behaviour: &'static str, code: &'static str) -> Case {
    Case { behaviour, code, deadline_ms: TOTAL_MS }
}

const CASES: [Case; 27] = [
    case("bomb", "backend_too_large"),
    case("trickle", "backend_timed_out"),
    Case { behaviour: "stall", code: "backend_idle_timed_out", deadline_ms: IDLE_MS },
    Case { behaviour: "silent", code: "backend_head_timed_out", deadline_ms: HEAD_MS },
    Case { behaviour: "slow-head", code: "backend_head_timed_out", deadline_ms: HEAD_MS },
    case("chunks", "backend_too_large"),
    case("extensions", "backend_malformed"),
    case("trailers", "backend_malformed"),
    case("headers", "backend_head_too_large"),
    case("one-header", "backend_head_too_large"),
    case("events", "backend_not_json"),
    case("truncated-gzip", "backend_interrupted"),
    case("garbage-after-gzip", "backend_undecodable"),
    case("nested-gzip", "backend_encoded"),
    case("upgrade", "backend_status"),
    case("conflicting", "backend_malformed"),
    case("two-lengths", "backend_malformed"),
    case("broken-chunks", "backend_malformed"),
    case("duplicate-key", "backend_not_strict"),
    case("bom", "backend_not_strict"),
    case("surrogate", "backend_not_strict"),
    case("deep", "backend_not_strict"),
    case("many", "backend_not_strict"),
    Case { behaviour: "continue", code: "backend_head_timed_out", deadline_ms: HEAD_MS },
    Case { behaviour: "hints", code: "backend_head_timed_out", deadline_ms: HEAD_MS },
    case("two-answers", "allowed"),
    case("ok", "allowed"),
];

async fn serve() -> Served {
    let mut project = Project::new()
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);");
    for Case { behaviour, .. } in CASES {
        let mut tool = tool(behaviour, "read", behaviour);
        if behaviour != "stall" {
            tool["limits"] = json!({ "timeout": format!("{TOTAL_MS}ms") });
        }
        project = project.tool(tool);
    }
    let settings = json!({
        "timeout": "5s", "head-timeout": format!("{HEAD_MS}ms"), "idle-timeout": format!("{IDLE_MS}ms")
    });
    Served::start(&project, raw::start().await, settings)
}

/// How a call ended, in a word.
fn ending(result: &Value) -> &str {
    match (&result["_meta"]["callgate/code"], &result["structuredContent"]["id"]) {
        (Value::String(code), _) => code,
        (_, Value::String(id)) if id == "1" => "allowed",
        _ => "something else",
    }
}

/// How long the gate says that the backend took.
fn backend_micros(outcome: &Value) -> u64 {
    let stages = outcome["call"]["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["stage"] == "backend").unwrap()["micros"].as_u64().unwrap()
}

#[tokio::test]
async fn a_misbehaving_backend_has_a_typed_outcome_by_its_deadline() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let gate = serve().await;
    let mut worst = (i64::MIN, "");
    for Case { behaviour, code, deadline_ms } in CASES {
        let result = gate.call("bot", behaviour).await;
        assert_eq!(ending(&result), code, "{behaviour}: {result}");
        let outcomes = gate.outcomes();
        let outcome = outcomes.last().unwrap();
        if code != "allowed" {
            assert_eq!((&outcome["outcome"], &outcome["code"]), (&json!("failed"), &json!(code)));
        }
        let micros = backend_micros(outcome);
        let late = i64::try_from(micros).unwrap() - i64::try_from(deadline_ms).unwrap() * 1_000;
        eprintln!("{behaviour:>20} {code:<24} {:>8.1} ms", micros as f64 / 1e3);
        assert!(
            micros <= (deadline_ms + SLACK_MS) * 1_000,
            "{behaviour} ended after {micros} µs, {late} µs after its deadline"
        );
        worst = worst.max((late, behaviour));
    }
    eprintln!("latest after its deadline: {} µs, `{}`", worst.0, worst.1);
}

/// How many calls of one kind are made at once.
#[cfg(target_os = "linux")]
const AT_ONCE: usize = 4;

/// How often that is done with calls that are answered, before the measurement begins.
#[cfg(target_os = "linux")]
const ROUNDS: usize = 100;

/// How much the gate may grow.
#[cfg(target_os = "linux")]
const GROWTH_KIB_MAX: i64 = 16 * 1024;

/// As many calls of one kind as are made at once.
#[cfg(target_os = "linux")]
async fn call_at_once(gate: &Served, behaviour: &str) -> Vec<Value> {
    futures::future::join_all((0..AT_ONCE).map(|_| gate.call("bot", behaviour))).await
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaving_backends_take_bounded_memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let gate = serve().await;
    // What a gate needs that works at all is not counted: threads, roots of trust, what is read once.
    for _ in 0..ROUNDS {
        for result in call_at_once(&gate, "ok").await {
            assert_eq!(ending(&result), "allowed", "{result}");
        }
    }
    let before = gate.memory_kib("VmRSS");
    eprintln!("{:>20} resident {before:>6} KiB", "warm");
    for Case { behaviour, code, .. } in CASES.iter().chain(&CASES) {
        gate.forget_memory_peak();
        for result in call_at_once(&gate, behaviour).await {
            // Beside four of a kind on two processors, some run into a deadline first.
            let ending = ending(&result);
            assert!(ending == *code || ending.ends_with("timed_out"), "{behaviour}: {result}");
        }
        let (now, most) = (gate.memory_kib("VmRSS"), gate.memory_kib("VmHWM"));
        eprintln!("{behaviour:>20} resident {:>6} KiB more, at most {:>6}", now - before, most - before);
        assert!(most - before < GROWTH_KIB_MAX, "grew by {} KiB at `{behaviour}`", most - before);
    }
}

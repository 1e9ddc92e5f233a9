//! Backends that give no usable answer.

use serde_json::{Value, json};

use crate::{
    backend::MARK,
    gate::{ERAS, Gate},
    project::{Project, tool},
};

struct Failure {
    behaviour: &'static str,
    code: &'static str,
    message: &'static str,
    /// Whether a write may have happened all the same.
    effect_possible: bool,
}

const FAILURES: [Failure; 5] = [
    Failure {
        behaviour: "closed",
        code: "backend_unreachable",
        message: "backend failed",
        effect_possible: false,
    },
    Failure {
        behaviour: "slow",
        code: "backend_timed_out",
        message: "timed out after 300ms",
        effect_possible: true,
    },
    Failure {
        behaviour: "large",
        code: "backend_too_large",
        message: "backend failed: its answer is larger than 1024 bytes",
        effect_possible: true,
    },
    Failure { behaviour: "text", code: "backend_not_json", message: "backend failed", effect_possible: true },
    Failure {
        behaviour: "failing",
        code: "backend_status",
        message: "backend answered 500",
        effect_possible: true,
    },
];

fn project() -> Project {
    let mut project = Project::new()
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);");
    for Failure { behaviour, .. } in FAILURES {
        for effects in ["read", "write", "destructive"] {
            let mut tool = tool(&format!("{behaviour}.{effects}"), effects, behaviour);
            tool["limits"] = json!({ "response": "1KiB" });
            if behaviour == "slow" {
                tool["limits"] = json!({ "timeout": "300ms" });
            }
            if behaviour == "closed" {
                tool["backend"]["http"]["service"] = json!("closed");
            }
            project = project.tool(tool);
        }
    }
    project
}

/// The records that a call left.
async fn records_of_call(gate: &Gate, call: impl Future<Output = ()>) -> Vec<Value> {
    let before = gate.records().len();
    call.await;
    gate.records().split_off(before)
}

#[tokio::test]
async fn a_failing_backend_has_a_typed_outcome_and_its_words_stay_inside() {
    let gate = Gate::serve(project()).await;
    for (era, failure) in ERAS.iter().flat_map(|era| FAILURES.iter().map(move |failure| (*era, failure))) {
        for effects in ["read", "write", "destructive"] {
            let name = format!("{}.{effects}", failure.behaviour);
            let hits = gate.backend.hits();
            let records = records_of_call(&gate, async {
                let answer = gate.call(era, "bot", &name, json!({ "id": "1" })).await;
                assert!(answer.is_error() && !answer.text().contains(MARK), "{name}: {}", answer.text());
                assert_eq!(answer.message(), failure.message, "{name}");
                assert_eq!(answer.json()["result"]["_meta"]["callgate/code"], failure.code, "{name}");
            })
            .await;
            assert_eq!(gate.backend.hits() - hits, usize::from(failure.behaviour != "closed"), "{name}");
            let expected = if effects != "read" && failure.effect_possible { "unknown" } else { "failed" };
            let outcome = records.last().unwrap();
            assert_eq!(
                (&outcome["record"], &outcome["outcome"], &outcome["stage"], &outcome["code"]),
                (&json!("outcome"), &json!(expected), &json!("backend"), &json!(failure.code)),
                "{name}: {outcome}"
            );
            assert!(!json!(records).to_string().contains(MARK), "{name}: {records:#?}");
            // A write was on record before it left; a read needs no intent.
            let kinds: Vec<&Value> = records.iter().map(|record| &record["record"]).collect();
            if effects == "read" {
                assert_eq!(kinds, ["outcome"], "{name}");
            } else {
                assert_eq!(kinds, ["intent", "outcome"], "{name}");
                assert_eq!(records[0]["call"]["id"], outcome["call"]["id"], "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_write_has_exactly_one_intent_before_its_outcome() {
    let gate = Gate::serve(
        Project::new()
            .tool(tool("put", "write", "ok"))
            .client("bot", json!({ "tools": ["put"] }))
            .policy("permit (principal, action, resource);"),
    )
    .await;
    for era in ERAS {
        let records = records_of_call(&gate, async {
            assert!(!gate.call(era, "bot", "put", json!({ "id": "1" })).await.is_error());
        })
        .await;
        let [intent, outcome] = records.as_slice() else { panic!("{records:#?}") };
        assert_eq!((&intent["record"], &outcome["record"]), (&json!("intent"), &json!("outcome")));
        assert_eq!(outcome["outcome"], "allowed");
        assert_eq!(intent["call"]["id"], outcome["call"]["id"]);
    }
}

//! Denials after identity.

use serde_json::{Value, json};

use crate::{
    gate::{Answer, ERAS, Era, Gate},
    project::{Project, paying_tool, tool},
};

fn project() -> Project {
    let mut scoped = tool("scoped", "read", "ok");
    scoped["scopes"] = json!(["orders:read", "orders:audit"]);
    let mut rationed = tool("rationed", "read", "ok");
    rationed["limits"] = json!({ "rate": "1/h" });
    Project::new()
        .tool(tool("get", "read", "ok"))
        .tool(tool("hidden", "read", "ok"))
        .tool(tool("wipe", "destructive", "ok"))
        .tool(scoped)
        .tool(rationed)
        .tool(paying_tool("pay"))
        .tool(paying_tool("sum"))
        .client(
            "bot",
            json!({ "scopes": ["orders:read"], "tools": ["get", "scoped", "rationed", "pay", "sum", "wipe"] }),
        )
        .client("hasty", json!({ "tools": ["get"], "limits": { "rate": "1/h" } }))
        .policy(
            r#"
            @id("reads") permit (principal, action in Action::"effect:read", resource);
            @id("payments") permit (principal, action in [Action::"pay", Action::"sum"], resource);
            @id("cap") @reason("over the cap")
            forbid (principal, action == Action::"pay", resource) when { context.args.amount > 100 };
            @id("finance") @reason("finance decides") @unless_approved("finance")
            forbid (principal, action == Action::"pay", resource) when { context.args.amount > 50 };
            @id("sums")
            forbid (principal, action == Action::"sum", resource) when { context.args.amount + 1 > 1000 };
            "#,
        )
}

struct Denial {
    client: &'static str,
    tool: &'static str,
    arguments: Value,
    stage: &'static str,
    code: &'static str,
    outcome: &'static str,
}

fn denial(tool: &'static str, arguments: Value, stage: &'static str, code: &'static str) -> Denial {
    Denial { client: "bot", tool, arguments, stage, code, outcome: "denied" }
}

fn denials() -> Vec<Denial> {
    let id = || json!({ "id": "1" });
    let pay = |amount: i64| json!({ "id": "1", "amount": amount });
    vec![
        denial("no-such-tool", id(), "catalog", "unknown_tool"),
        denial("hidden", id(), "catalog", "not_listed"),
        denial("scoped", id(), "catalog", "missing_scope"),
        Denial { client: "hasty", ..denial("get", id(), "limits", "client_rate") },
        denial("rationed", id(), "limits", "tool_rate"),
        denial("get", json!({}), "schema", "arguments"),
        denial("get", json!({ "id": 7 }), "schema", "arguments"),
        denial("get", json!({ "id": "1", "more": true }), "schema", "arguments"),
        denial("pay", pay(101), "policy", "not_permitted"),
        denial("wipe", id(), "policy", "not_permitted"),
        denial("sum", pay(i64::MAX), "policy", "policy_undecided"),
        Denial { outcome: "pending", ..denial("pay", pay(51), "approval", "approval_required") },
        denial("get", json!({ "id": ".." }), "plan", "argument_unsendable"),
        denial("get", json!({ "id": "a/b" }), "plan", "argument_unsendable"),
        denial("pay", json!({ "id": "..", "amount": 1 }), "plan", "argument_unsendable"),
    ]
}

/// Calls, and proves that the backend saw nothing and that one outcome is on record.
async fn denied(gate: &Gate, era: Era, denial: &Denial) -> Answer {
    let Denial { client, tool, arguments, stage, code, outcome } = denial;
    let (hits, before) = (gate.backend.hits(), gate.records_of("outcome").len());
    let answer = gate.call(era, client, tool, arguments.clone()).await;
    let case = format!("{era:?} {client} {tool} {arguments}: {} {}", answer.status, answer.text());
    assert_eq!(gate.backend.hits(), hits, "{case}");
    let outcomes = gate.records_of("outcome").split_off(before);
    let [record] = outcomes.as_slice() else { panic!("{case}: {outcomes:#?}") };
    assert_eq!(
        (&record["stage"], &record["code"], &record["outcome"], &record["call"]["target"]),
        (&json!(stage), &json!(code), &json!(outcome), &json!(tool)),
        "{case}: {record}"
    );
    if answer.is_error() {
        let meta = &answer.json()["result"]["_meta"];
        assert_eq!((&meta["callgate/record"], &meta["callgate/code"]), (&record["call"]["id"], &json!(code)));
    } else {
        assert!(answer.json()["error"].is_object() && *stage == "catalog", "{case}");
    }
    answer
}

#[tokio::test]
async fn each_denial_leaves_the_backend_untouched_and_exactly_one_outcome_record() {
    for era in ERAS {
        let gate = Gate::serve(project()).await;
        for (client, tool) in [("hasty", "get"), ("bot", "rationed")] {
            let answer = gate.call(era, client, tool, json!({ "id": "1" })).await; // spends the budget
            assert!(!answer.is_error(), "{}", answer.text());
        }
        assert_eq!(gate.backend.hits(), 2);
        for denial in denials() {
            denied(&gate, era, &denial).await;
        }
        assert_eq!(gate.records_of("intent").len(), 0, "nothing was about to change");
    }
}

#[tokio::test]
async fn a_missing_scope_is_a_403_that_names_all_scopes_of_the_tool() {
    for era in ERAS {
        let gate = Gate::serve(project()).await;
        let denial = denial("scoped", json!({ "id": "1" }), "catalog", "missing_scope");
        let answer = denied(&gate, era, &denial).await;
        assert_eq!(answer.status, 403);
        assert_eq!(
            answer.headers["www-authenticate"],
            "Bearer realm=\"callgate\", error=\"insufficient_scope\", scope=\"orders:read orders:audit\""
        );
    }
}

#[tokio::test]
async fn a_refusal_tells_the_policys_reason_and_a_pending_call_whom_it_waits_for() {
    let gate = Gate::serve(project()).await;
    let call = async |amount: i64| {
        gate.call(Era::Legacy, "bot", "pay", json!({ "id": "1", "amount": amount })).await.message()
    };
    assert_eq!(call(101).await, "not permitted: over the cap");
    let pending = call(51).await;
    assert!(pending.contains("finance"), "{pending}");
    assert_eq!(gate.records_of("intent").len(), 0, "nothing was about to leave");
}

#[tokio::test]
async fn a_name_that_a_caller_made_up_is_told_to_it_and_not_put_on_record() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        for arguments in [
            json!({ "id": "1", "alice@example.com": 1 }),
            json!({ "id": "1", "alice@example.com": "a\u{202e}b" }),
        ] {
            let answer = gate.call(era, "bot", "get", arguments).await;
            assert!(answer.message().contains("/alice@example.com"), "{}", answer.text());
        }
    }
    let outcomes = gate.records_of("outcome");
    assert_eq!(outcomes.len(), 4);
    for outcome in outcomes {
        let detail = outcome["detail"].as_str().unwrap();
        assert!(detail.contains("`/*`") && !outcome.to_string().contains("alice"), "{outcome}");
    }
}

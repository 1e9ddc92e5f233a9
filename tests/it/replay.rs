//! A decision is made again from what was kept of it: the record, the side store, and the release.

use std::{fs, net::SocketAddr, path::Path};

use callgate::{
    audit::side::{Digested, Found, Kind, Salt, SideKey, SideReader},
    policy::{Decision, DecisionInput, PolicyError},
    release::Project as Release,
    rules::{Rules, Secrets},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{
    backend::Backend,
    process::{Process, callgate},
    project::{Project, tool},
};

/// Tools that are kept whole, and policies that read what a replay has to know.
async fn recorded(folder: &Path) -> Backend {
    let backend = Backend::start().await;
    let kept = |name: &str, effects: &str, behaviour: &str| {
        let mut tool = tool(name, effects, behaviour);
        tool["record"] = json!("full");
        tool
    };
    let mut personal = kept("people.get", "read", "personal");
    personal["output"]["properties"]["card"] = json!({ "type": "string", "maxLength": 50, "x-label": "pii" });
    Project::new()
        .tool(personal)
        .tool(kept("notes.add", "write", "ok"))
        .tool(kept("notes.send", "write", "ok"))
        .tool(tool("plain.add", "write", "ok"))
        .client("alice", json!({ "tools": ["*"] }))
        .policy(
            r#"
            @id("reads") permit (principal, action in Action::"effect:read", resource);
            @id("answers") permit (principal, action == Action::"gate:release", resource);
            @id("before") permit (principal, action, resource)
            when { !context.run.labels.contains("pii") };
            @id("after") permit (principal == Client::"alice", action == Action::"notes.add", resource)
            when {
                context.run.labels.contains("pii") && context.run.calls > 1
                && context.request has source && context.request.source.isLoopback()
                && context.request.transport == "http" && context.request.authentication == "api-key"
            };
            @id("no-words") @reason("not these words")
            forbid (principal, action == Action::"notes.add", resource) when { context.args.id == "secret" };
            @id("ask") @unless_approved("finance")
            forbid (principal, action == Action::"notes.add", resource) when { context.args.id == "large" };
            @id("fails")
            forbid (principal, action == Action::"notes.add", resource)
            when { context.args.id == "fail" && context.run.calls + 9223372036854775807 > 0 };
            "#,
        )
        .write(folder, backend.address, SocketAddr::from(([127, 0, 0, 1], 1)));
    backend
}

/// What was kept of a call.
fn kept(state: &Path, record: &Value) -> Found {
    let key = SideKey::open(&state.join("audit/side.key")).unwrap();
    let checkpoint = fs::read_to_string(state.join("audit/serve-0/checkpoint")).unwrap();
    let origin = checkpoint.lines().next().unwrap();
    let call = u128::from_str_radix(record["call"]["id"].as_str().unwrap(), 16).unwrap();
    SideReader::new(&state.join("audit/serve-0/side"), origin, key).get(call).unwrap()
}

/// The body of a kind, whose digest on record has to hold.
fn body(found: &Found, kind: Kind, of: Digested, digest: &Value) -> Vec<u8> {
    let bodies: Vec<_> = found.bodies.iter().filter(|body| body.kind == kind).collect();
    let [body] = bodies[..] else { panic!("{kind:?}: {bodies:?}") };
    let value: Value = serde_json::from_slice(&body.bytes).unwrap();
    let canonical = serde_json_canonicalizer::to_vec(&value).unwrap();
    let fits = |salt: &Salt| salt.check(of, &canonical, digest.as_str().unwrap());
    assert!(found.salts.len() == 1 && found.salts.iter().all(fits), "{kind:?}");
    body.bytes.clone()
}

fn replay(rules: &Rules, state: &Path, record: &Value) -> Result<Decision, PolicyError> {
    let found = kept(state, record);
    let arguments = body(&found, Kind::Arguments, Digested::Arguments, &record["arguments_digest"]);
    let arguments: Map<String, Value> = serde_json::from_slice(&arguments).unwrap();
    let input = body(&found, Kind::DecisionInput, Digested::DecisionInput, &record["decision_input_digest"]);
    let input = DecisionInput::parse(&input).unwrap();
    assert_eq!(input.run(), record["caller"]["run"]);
    assert_eq!(input.tool().as_str(), record["call"]["target"]);
    rules.policies.replay(&input, &arguments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_decision_is_made_again_from_what_was_kept() {
    let folder = TempDir::new().unwrap();
    let _backend = recorded(folder.path()).await;
    let gate = Process::start(folder.path());
    for (tool, id) in [
        ("notes.send", "1"),
        ("people.get", "1"), // from here on the run has seen `pii`
        ("notes.add", "1"),
        ("notes.send", "1"),
        ("notes.add", "secret"),
        ("notes.add", "large"),
        ("notes.add", "fail"),
        ("notes.add", ".."),
        ("plain.add", "1"),
    ] {
        gate.call("alice", tool, id).await;
    }
    assert!(gate.stop().success());

    let lines = callgate(folder.path(), ["audit", "tail", "-n", "99", "--json"]).json_lines();
    let records = lines.iter().map(|line| &line["record"]).filter(|record| record["record"] == "outcome");
    let (rules, problems) = Release::read(&folder.path().join("callgate.yaml")).build(Secrets::Unread);
    let rules = rules.unwrap_or_else(|| panic!("{problems:?}"));
    let state = folder.path().join("state");
    let mut seen = Vec::new();
    for record in records {
        assert_eq!(record["call"]["release"], rules.digest);
        let said = format!(
            "{}: {}",
            record["call"]["target"].as_str().unwrap(),
            record["outcome"].as_str().unwrap()
        );
        if record["call"]["target"] == "plain.add" {
            assert!(kept(&state, record).bodies.is_empty() && record["decision_input_digest"].is_null());
            continue;
        }
        match replay(&rules, &state, record) {
            Ok(decision) => {
                let facts = serde_json::to_value(decision.facts()).unwrap();
                assert_eq!(facts, record["decision"], "{said}");
                let ids: Vec<&str> = decision.policies.iter().map(|policy| &*policy.id).collect();
                seen.push(format!("{said}, {} by {}", facts["verdict"].as_str().unwrap(), ids.join(" ")));
            }
            Err(error) => {
                assert_eq!(record["code"], "policy_undecided", "{said}");
                assert_eq!(record["detail"], format!("not permitted: {error}"));
                seen.push(format!("{said}, undecided"));
            }
        }
    }
    assert_eq!(
        seen,
        [
            "notes.send: allowed, allow by before",
            "people.get: allowed, allow by reads before",
            "notes.add: allowed, allow by after",
            "notes.send: denied, deny by ",
            "notes.add: denied, deny by no-words",
            "notes.add: pending, pending by ask",
            "notes.add: denied, undecided",
            "notes.add: denied, allow by after",
        ]
    );
    // A refused call is shown, and erased, like any other.
    let denied = lines.iter().find(|line| line["record"]["outcome"] == "denied").unwrap();
    let id = denied["record"]["call"]["id"].as_str().unwrap();
    let shown = callgate(folder.path(), ["audit", "show", id]).good();
    assert!(shown.ends_with("arguments  digest holds\ndecision   digest holds\n"), "{shown}");
    let erased = callgate(folder.path(), ["audit", "erase", id, "--yes"]).good();
    assert_eq!(erased, "erased: 2 entries\n");
    assert!(kept(&state, &denied["record"]).bodies.is_empty());
}

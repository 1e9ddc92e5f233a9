//! Schemas and arguments that would cost too much: refused at load, denied before they run, or judged
//! apart from everybody else's.

use std::net::SocketAddr;

use callgate::{
    manifest::{Place, Severity},
    release,
    rules::Secrets,
};
use futures::future::join_all;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{
    gate::{ERAS, Era, Gate},
    project::{Project, tool},
};

/// A pattern that most places of a text bring to life, so that each byte costs about 1,600 steps.
const HARD: &str = "[ab]{0,200}a[ab]{200}c";

fn project() -> Project {
    let mut hard = tool("hard", "write", "ok");
    hard["input"]["properties"]["text"] = json!({ "type": "string", "maxLength": 50_000, "pattern": HARD });
    hard["backend"]["http"]["body"] = json!(["text"]);
    Project::new()
        .tool(hard)
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .client("mule", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
}

/// How costly calls are denied that come too many at once: the queue is full, or the client owes too much.
const BUSY: [&str; 2] = ["schema_busy", "schema_share"];

/// Arguments of `hard` with a text of this length, which fits at its very end and not before.
fn arguments(length: usize) -> Value {
    let letters =
        |count: usize| (0..count).map(|at| if at * at % 7 < 3 { 'a' } else { 'b' }).collect::<String>();
    json!({ "id": "1", "text": format!("{}a{}c", letters(length - 202), letters(200)) })
}

#[tokio::test]
async fn arguments_above_the_hard_bound_are_denied_before_they_are_judged() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        let before = gate.records().len();
        let answer = gate.call(era, "mule", "hard", arguments(20_000)).await;
        assert_eq!(answer.message(), "the arguments are too large or too deep to check");
        assert_eq!(gate.backend.hits(), 0);
        let records = gate.records().split_off(before);
        let [record] = records.as_slice() else { panic!("{records:#?}") };
        assert_eq!(
            (&record["record"], &record["outcome"], &record["stage"], &record["code"]),
            (&json!("outcome"), &json!("denied"), &json!("schema"), &json!("schema_too_costly")),
            "{record}"
        );
    }
}

#[tokio::test]
async fn a_full_queue_denies_costly_calls_and_ordinary_ones_are_answered() {
    let gate = Gate::serve(project()).await;
    let costly = join_all((0..24).map(|_| gate.call(Era::Modern, "mule", "hard", arguments(600))));
    let ordinary = async {
        for _ in 0..10 {
            let answer = gate.call(Era::Modern, "bot", "get", json!({ "id": "1" })).await;
            assert!(!answer.is_error(), "{}", answer.text());
        }
    };
    let (answers, ()) = tokio::join!(costly, ordinary);
    let (denied, allowed): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.is_error());
    for answer in &denied {
        let code = &answer.json()["result"]["_meta"]["callgate/code"];
        assert!(BUSY.iter().any(|busy| code == busy), "{}", answer.text());
    }
    assert!(!denied.is_empty() && !allowed.is_empty(), "{} denied, {} allowed", denied.len(), allowed.len());
    assert_eq!(gate.backend.hits(), allowed.len() + 10);
    let busy = gate
        .records_of("outcome")
        .into_iter()
        .filter(|record| BUSY.iter().any(|busy| record["code"] == *busy));
    assert_eq!(busy.count(), denied.len());
}

#[tokio::test]
async fn a_client_above_its_share_is_told_when_to_come_back_and_another_is_served() {
    let project = project().client("ox", json!({ "tools": ["*"] }));
    let gate = Gate::serve(project).await;
    let mut answers = Vec::new();
    // Each is priced at tens of milliseconds, and 100 may be owed.
    for _ in 0..40 {
        answers.push(gate.call(Era::Modern, "mule", "hard", arguments(600)).await);
    }
    let first = answers.iter().position(|answer| answer.is_error()).unwrap();
    assert!(first > 0, "{}", answers[0].text());
    let refused = &answers[first];
    assert_eq!(refused.json()["result"]["_meta"]["callgate/code"], "schema_share");
    let message = refused.message();
    assert!(
        message.starts_with("rate limited: these arguments are costly to check; come back in "),
        "{message}"
    );
    let hits = gate.backend.hits();
    assert_eq!(hits, answers.iter().filter(|answer| !answer.is_error()).count());
    assert!(!gate.call(Era::Modern, "ox", "hard", arguments(600)).await.is_error());
    assert!(!gate.call(Era::Modern, "mule", "get", json!({ "id": "1" })).await.is_error());
}

/// `levels` definitions, each of which leads twice to the next.
fn doubling(keyword: &str, levels: usize) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({ "$ref": format!("#/$defs/n{}", level + 1) });
        definitions.insert(format!("n{level}"), json!({ keyword: [next, next] }));
    }
    definitions.insert(format!("n{levels}"), json!({ "type": "string", "maxLength": 1 }));
    Value::Object(definitions)
}

/// A tool's input that is fine, but for what stands at `id`, and these definitions.
fn input(id: Value, definitions: Value) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["id"],
        "properties": { "id": id }, "$defs": definitions
    })
}

/// Schemas that do not load: what they are, the schema, the rule, and where.
fn refused() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let id = "/input/properties/id";
    let string = || json!({ "type": "string", "maxLength": 5 });
    let first = || json!({ "$ref": "#/$defs/n0" });
    let deep = (0..33).fold(string(), |schema, _| json!({ "items": schema, "maxItems": 1 }));
    let many: Map<_, _> = (0..2_000).map(|at| (format!("n{at}"), string())).collect();
    let circle = json!({ "a": { "$ref": "#/$defs/b" }, "b": { "allOf": [{ "$ref": "#/$defs/a" }] } });
    vec![
        ("only itself", json!({ "$ref": "#" }), "cycle", "/input/$ref"),
        ("a circle", input(json!({ "$ref": "#/$defs/a" }), circle), "cycle", "/input/$defs/"),
        ("a URL", input(json!({ "$ref": "http://127.0.0.1:1/a" }), json!({})), "$ref", id),
        ("28 × anyOf", input(first(), doubling("anyOf", 28)), "fan-out", "/input/$defs/n"),
        ("28 × allOf", input(first(), doubling("allOf", 28)), "fan-out", "/input/$defs/n"),
        ("backtracking", input(json!({ "type": "string", "pattern": "(a)\\1" }), json!({})), "pattern", id),
        ("33 levels", input(string(), json!({ "a": deep })), "depth", "/input/$defs/a/items/items"),
        ("2,001 subschemas", input(string(), Value::Object(many)), "subschemas", "/input/$defs/n"),
    ]
}

fn problems(tool: Value) -> (bool, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let project = Project::new().tool(tool).client("bot", json!({ "tools": ["*"] }));
    project.write(folder.path(), nowhere, nowhere);
    let read = release::Project::read(&folder.path().join("callgate.yaml"));
    let (rules, problems) = read.build(Secrets::Unread);
    let errors = problems.into_iter().filter(|problem| problem.severity == Severity::Error);
    let lines = errors.map(|problem| match &problem.place {
        Place::Pointer(at) => format!("{at}: {}", problem.message),
        other => format!("{other:?}: {}", problem.message),
    });
    (rules.is_some(), lines.collect())
}

#[test]
fn a_schema_whose_cost_has_no_bound_does_not_load_and_its_place_and_rule_are_named() {
    let fine = input(json!({ "type": "string", "maxLength": 5 }), json!({}));
    let with = |input: Value| {
        let mut tool = tool("get", "read", "ok");
        tool["input"] = input;
        tool
    };
    assert_eq!(problems(with(fine)), (true, vec![]));
    for (what, schema, rule, at) in refused() {
        let (loads, problems) = problems(with(schema));
        assert!(!loads, "{what}");
        let named = |line: &&String| line.starts_with(at) && line.ends_with(&format!("(rule `{rule}`)"));
        assert!(problems.iter().any(|line| named(&line)), "{what}: {problems:#?}");
    }
}

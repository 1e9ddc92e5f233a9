//! Tasks whose upstream asks their caller something: answered in parts, in rounds, and never with a state to bring back.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract, routing::post};
use callgate::upstream::definition_digest;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    gate::Gate,
    project::Project,
    tasks::{Client, EXTENSION, until, until_async},
};

/// A server of 2026-07-28. `ask` asks twice; the others answer with tasks of its own, `late` after it has asked.
struct Upstream {
    url: String,
    state: State,
}

const TOOLS: [&str; 5] = ["ask", "eager", "fails", "late", "slow"];

/// What it was asked, and whether it says that it knows tasks.
#[derive(Clone, Default)]
struct State {
    knows_tasks: bool,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl State {
    /// The parameters of all requests with a method.
    fn of(&self, method: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(name, _)| name == method).map(|(_, params)| params.clone()).collect()
    }
}

impl Upstream {
    async fn start(knows_tasks: bool) -> Self {
        let state = State { knows_tasks, ..State::default() };
        let router = Router::new().route("/mcp", post(answer)).with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    fn project(&self) -> Project {
        let tool = |name: &str| {
            let definition = definition_digest(offered(name).as_object().unwrap());
            let backend =
                json!({ "upstream": "up", "tool": name, "definition": definition, "asks": ["elicitation"] });
            json!({
                "tool": format!("up.{name}"), "description": "A tool for tests.", "effects": "write",
                "reach": "external", "yields": "trusted", "task": "offered",
                "input": {
                    "type": "object", "additionalProperties": false,
                    "properties": { "id": { "type": "string", "maxLength": 20 } }
                },
                "deliberately": ["unchecked-output"], "backend": { "mcp": backend }
            })
        };
        let http = json!({ "url": self.url, "egress": { "loopback": true } });
        let project = Project::new()
            .server("upstreams", json!({ "up": { "http": http, "recheck": "1h", "timeout": "30s" } }))
            .client("bot", json!({ "tools": ["*"], "limits": { "rate": "100000/s" } }))
            .policy("permit (principal, action, resource);");
        TOOLS.into_iter().fold(project, |project, name| project.tool(tool(name)))
    }
}

fn offered(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object" } })
}

fn question(message: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": message, "requestedSchema": schema } })
}

async fn answer(extract::State(state): extract::State<State>, Json(request): Json<Value>) -> Json<Value> {
    let (method, params) = (request["method"].as_str().unwrap(), &request["params"]);
    state.asked.lock().unwrap().push((method.to_owned(), params.clone()));
    let extensions = if state.knows_tasks { json!({ EXTENSION: {} }) } else { json!({}) };
    let result = match method {
        "server/discover" => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private",
            "capabilities": { "tools": {}, "extensions": extensions },
            "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "up", "version": "1" } }
        }),
        "tools/list" => json!({
            "resultType": "complete", "tools": TOOLS.map(offered), "ttlMs": 0, "cacheScope": "private"
        }),
        "tools/call" => called(params),
        "tasks/get" => task(&state, params["taskId"].as_str().unwrap()),
        "tasks/update" | "tasks/cancel" => json!({ "resultType": "complete" }),
        _ => {
            let error = json!({ "code": -32601, "message": "unknown method" });
            return Json(json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }));
        }
    };
    Json(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
}

fn called(params: &Value) -> Value {
    let name = params["name"].as_str().unwrap();
    match (name, params["requestState"].as_str()) {
        ("ask" | "late", None) => json!({
            "resultType": "input_required", "requestState": "first",
            "inputRequests": { "a": question("A?"), "b": question("B?") }
        }),
        ("ask", Some("first")) => json!({
            "resultType": "input_required", "requestState": "second", "inputRequests": { "a": question("And?") }
        }),
        ("ask", Some(_)) => complete(&params["inputResponses"].to_string()),
        _ => {
            let mut task = begun(&format!("theirs-{name}"), "working");
            task["resultType"] = json!("task");
            task
        }
    }
}

fn complete(text: &str) -> Value {
    json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] })
}

fn begun(id: &str, status: &str) -> Value {
    json!({
        "resultType": "complete", "taskId": id, "status": status, "ttlMs": null, "pollIntervalMs": 100,
        "createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:00Z"
    })
}

fn task(state: &State, id: &str) -> Value {
    let looks = state.of("tasks/get").len();
    let mut task = begun(id, "working");
    match id {
        "theirs-fails" => {
            task["status"] = json!("failed");
            task["error"] = json!({ "code": -7, "message": "words of the upstream" });
        }
        "theirs-late" => {
            task["status"] = json!("completed");
            task["result"] = complete("late");
        }
        // It asks from the second look on, and has seen the answer some looks after it came.
        "theirs-eager" if looks < 2 => {}
        "theirs-eager" if state.of("tasks/update").is_empty() || looks < 6 => {
            task["status"] = json!("input_required");
            task["inputRequests"] = json!({ "a": question("A?") });
        }
        "theirs-eager" => {
            task["status"] = json!("completed");
            task["result"] = complete("eager");
        }
        _ => {}
    }
    task
}

impl Client<'_> {
    /// What a task asks for, once it does: the keys.
    async fn asked(&self, id: &str) -> Vec<String> {
        until_async(async || self.get(id).await["result"]["status"] == "input_required").await;
        let task = self.get(id).await;
        assert!(!task.to_string().contains("requestState"), "{task}");
        assert!(task["result"].get("result").is_none(), "{task}");
        task["result"]["inputRequests"].as_object().unwrap().keys().cloned().collect()
    }

    async fn tell(&self, id: &str, responses: Value) {
        let body = json!({ "taskId": id, "inputResponses": responses });
        let answer = self.send_as(id, "tasks/update", body).await.json();
        assert_eq!(answer["result"], json!({ "resultType": "complete" }), "{answer}");
    }
}

fn said(text: &str) -> Value {
    json!({ "action": "accept", "content": { "a": text } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_asks_and_goes_on_with_the_answers_in_rounds() {
    let up = Upstream::start(false).await;
    let gate = Gate::serve(up.project()).await;
    let bot = Client::of(&gate, "bot");
    let id = bot.begin("up.ask").await;
    assert_eq!(bot.asked(&id).await, ["a", "b"]);
    bot.tell(&id, json!({ "nobody-asked": said("x"), "a": said("1") })).await;
    assert_eq!(bot.asked(&id).await, ["b"]);
    bot.tell(&id, json!({ "a": said("too late") })).await;
    assert_eq!(bot.asked(&id).await, ["b"]);
    assert_eq!(up.state.of("tools/call").len(), 1, "nothing goes on before all of it is there");
    bot.tell(&id, json!({ "b": said("2") })).await;
    // The upstream asks under a key that was used, and its asker sees another.
    assert_eq!(bot.asked(&id).await, ["a#2"]);
    bot.tell(&id, json!({ "a": said("of the first round"), "a#2": said("3") })).await;
    let ended = bot.until_ended(&id).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let text = ended["result"]["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "a": said("3") }));
    bot.tell(&id, json!({ "a#2": said("again") })).await;

    let calls = up.state.of("tools/call");
    let [_, second, third] = &calls[..] else { panic!("{calls:#?}") };
    assert_eq!(second["inputResponses"], json!({ "a": said("1"), "b": said("2") }));
    assert_eq!((&second["requestState"], &third["requestState"]), (&json!("first"), &json!("second")));
    for call in &calls {
        let told = &call["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(told, &json!({ "elicitation": {}, "extensions": { EXTENSION: {} } }));
    }
    let outcomes: Vec<Value> =
        gate.records_of("outcome").iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["pending", "pending", "allowed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_for_answers_can_be_cancelled_and_takes_none_then() {
    let up = Upstream::start(false).await;
    let gate = Gate::serve(up.project()).await;
    let bot = Client::of(&gate, "bot");
    let id = bot.begin("up.ask").await;
    bot.asked(&id).await;
    assert_eq!(bot.ask("tasks/cancel", &id).await.json()["result"], json!({ "resultType": "complete" }));
    bot.tell(&id, json!({ "a": said("1"), "b": said("2") })).await;
    assert_eq!(bot.get(&id).await["result"]["status"], "cancelled");
    assert_eq!(up.state.of("tools/call").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_told_of_tasks_for_who_knows_them_and_its_task_is_no_result_to_others() {
    let up = Upstream::start(true).await;
    let gate = Gate::serve(up.project()).await;
    let mut bot = Client::of(&gate, "bot");
    bot.capabilities = json!({ "elicitation": {} });
    let answer = bot.send_as("up.eager", "tools/call", json!({ "name": "up.eager" })).await.json();
    assert_eq!(answer["result"]["_meta"]["callgate/code"], "upstream_no_result", "{answer}");
    let told = &up.state.of("tools/call")[0]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(told, &json!({ "elicitation": {} }));
    let [outcome] = <[_; 1]>::try_from(gate.records_of("outcome")).unwrap();
    assert_eq!(outcome["outcome"], "unknown", "a write that an upstream may have begun: {outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_an_upstream_is_followed_and_asks_through_the_gates_own() {
    let up = Upstream::start(true).await;
    let gate = Gate::serve(up.project()).await;
    let bot = Client::of(&gate, "bot");
    let id = bot.begin("up.eager").await;
    assert_eq!(bot.asked(&id).await, ["a"]);
    bot.tell(&id, json!({ "a": said("1") })).await;
    let ended = bot.until_ended(&id).await;
    assert_eq!(ended["result"]["content"][0]["text"], "eager", "{ended}");
    assert!(!ended.to_string().contains("theirs"), "{ended}");
    let [update] = <[_; 1]>::try_from(up.state.of("tasks/update")).unwrap();
    assert_eq!(
        (&update["taskId"], &update["inputResponses"]),
        (&json!("theirs-eager"), &json!({ "a": said("1") }))
    );
    assert_eq!(up.state.of("tools/call").len(), 1, "it is the same call there");

    let ended = bot.until_ended(&bot.begin("up.fails").await).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!(-32603)), "{ended}");
    assert!(!ended.to_string().contains("words of the upstream"), "{ended}");
    let outcomes: Vec<Value> =
        gate.records_of("outcome").iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["pending", "allowed", "unknown"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_an_upstream_is_cancelled_with_the_gates_own() {
    let up = Upstream::start(true).await;
    let gate = Gate::serve(up.project()).await;
    let bot = Client::of(&gate, "bot");
    let id = bot.begin("up.slow").await;
    until(|| up.state.of("tasks/get").len() > 1).await;
    assert_eq!(bot.ask("tasks/cancel", &id).await.status, 200);
    assert_eq!(bot.until_ended(&id).await["status"], "cancelled");
    let [cancel] = <[_; 1]>::try_from(up.state.of("tasks/cancel")).unwrap();
    assert_eq!(cancel["taskId"], "theirs-slow");
    let [outcome] = <[_; 1]>::try_from(gate.records_of("outcome")).unwrap();
    assert_eq!(
        (&outcome["outcome"], &outcome["code"]),
        (&json!("unknown"), &json!("cancelled")),
        "{outcome}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_with_tasks_asks_before_it_makes_one_is_asked_before() {
    let up = Upstream::start(true).await;
    let gate = Gate::serve(up.project()).await;
    let bot = Client::of(&gate, "bot");
    let call = |more: Value| {
        let mut body = json!({ "name": "up.late", "arguments": {} });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        bot.send_as("up.late", "tools/call", body)
    };
    let asked = call(json!({})).await.json()["result"].take();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert!(asked.get("taskId").is_none(), "{asked}");
    let responses = json!({ "a": said("1"), "b": said("2") });
    let begun = call(json!({ "inputResponses": responses, "requestState": asked["requestState"] })).await;
    let begun = begun.json()["result"].take();
    assert_eq!(begun["resultType"], "task", "{begun}");
    assert!(begun.get("requestState").is_none() && begun.get("inputRequests").is_none(), "{begun}");
    let ended = bot.until_ended(begun["taskId"].as_str().unwrap()).await;
    assert_eq!(ended["result"]["content"][0]["text"], "late", "{ended}");
    assert_eq!(up.state.of("tools/call")[1]["inputResponses"], responses);
}

//! Calls that are answered with a task, over both transports that have them, in front of a backend that takes its time.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::Uri};
use callgate::{
    manifest::ClientName,
    runs::{Principal, Revocation},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    gate::{Answer, Gate},
    process::PROGRAM,
    project::{Project, key, tool},
    wire::{Provider, RESOURCE, Wire, answer, new_key, sign},
};

pub(crate) const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// A backend whose jobs end when the test lets them.
struct Jobs {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    begun: AtomicUsize,
    abandoned: AtomicUsize,
    may_end: Semaphore,
}

/// A job that nobody waits for any more counts as abandoned.
struct Job(Arc<Shared>, bool);

impl Drop for Job {
    fn drop(&mut self) {
        if !self.1 {
            self.0.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Jobs {
    async fn start() -> Self {
        let shared =
            Shared { begun: AtomicUsize::new(0), abandoned: AtomicUsize::new(0), may_end: Semaphore::new(0) };
        let shared = Arc::new(shared);
        let router = Router::new().fallback(work).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    fn let_one_end(&self) {
        self.shared.may_end.add_permits(1);
    }

    async fn until_begun(&self, count: usize) {
        until(|| self.shared.begun.load(Ordering::SeqCst) == count).await;
    }

    async fn until_abandoned(&self, count: usize) {
        until(|| self.shared.abandoned.load(Ordering::SeqCst) == count).await;
    }

    fn project(&self) -> Project {
        let of = |name: &str, effects: &str, task: &str| {
            let mut tool = tool(name, effects, "work");
            tool["backend"]["http"]["service"] = json!("jobs");
            tool["task"] = json!(task);
            tool
        };
        let service = json!({
            "url": format!("http://{}/", self.address), "egress": { "loopback": true }, "timeout": "60s"
        });
        let mut quick = tool("quick", "read", "ok");
        quick["task"] = json!("offered");
        Project::new()
            .service("jobs", service)
            .tool(of("job", "write", "offered"))
            .tool(of("must", "read", "required"))
            .tool(quick)
            .tool(tool("never", "read", "ok"))
            .client("bot", json!({ "tools": ["*"], "limits": { "rate": "100000/s" } }))
            .client("thief", json!({ "tools": ["*"], "limits": { "rate": "100000/s" } }))
            .client("slow", json!({ "tools": ["*"], "limits": { "rate": "3/h" } }))
            .policy("permit (principal, action, resource);")
            .policy(r#"@reason("not that one") forbid (principal, action == Action::"job", resource) when { context.args.id == "forbidden" };"#)
    }
}

async fn work(State(shared): State<Arc<Shared>>, uri: Uri) -> Json<Value> {
    shared.begun.fetch_add(1, Ordering::SeqCst);
    let mut job = Job(Arc::clone(&shared), false);
    shared.may_end.acquire().await.unwrap().forget();
    job.1 = true;
    Json(json!({ "id": uri.path().rsplit('/').next() }))
}

pub(crate) async fn until(is_so: impl Fn() -> bool) {
    timeout(Duration::from_secs(20), async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it did not come to that");
}

/// A request of 2026-07-28, with these capabilities, and the header that names what it is about.
fn params(mut params: Value, capabilities: &Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "it", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": capabilities
    });
    params
}

fn knowing() -> Value {
    json!({ "elicitation": {}, "extensions": { EXTENSION: {} } })
}

/// A client that knows tasks, on a connection of its own each time.
pub(crate) struct Client<'a> {
    gate: &'a Gate,
    name: &'static str,
    pub(crate) capabilities: Value,
}

/// One request, on a connection of its own.
async fn send(url: &str, bearer: &str, header: &str, method: &str, params: Value) -> Answer {
    let request = reqwest::Client::new()
        .post(url)
        .bearer_auth(bearer)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", method)
        .header("Mcp-Name", header);
    answer(request.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))).await
}

impl<'a> Client<'a> {
    pub(crate) fn of(gate: &'a Gate, name: &'static str) -> Self {
        Self { gate, name, capabilities: knowing() }
    }

    pub(crate) async fn send_as(&self, header: &str, method: &str, body: Value) -> Answer {
        let url = format!("http://{}/mcp", self.gate.address);
        send(&url, &key(self.name), header, method, params(body, &self.capabilities)).await
    }

    async fn call(&self, tool: &str, id: &str) -> Answer {
        self.send_as(tool, "tools/call", json!({ "name": tool, "arguments": { "id": id } })).await
    }

    /// Calls a tool, and gives the id of the task that is the answer.
    pub(crate) async fn begin(&self, tool: &str) -> String {
        let answer = self.call(tool, "1").await.json();
        assert_eq!(answer["result"]["resultType"], "task", "{answer}");
        answer["result"]["taskId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ask(&self, method: &str, id: &str) -> Answer {
        let mut body = json!({ "taskId": id });
        if method == "tasks/update" {
            body["inputResponses"] = json!({});
        }
        self.send_as(id, method, body).await
    }

    pub(crate) async fn get(&self, id: &str) -> Value {
        self.ask("tasks/get", id).await.json()
    }

    pub(crate) async fn until_ended(&self, id: &str) -> Value {
        for _ in 0..1_000 {
            let task = self.get(id).await["result"].take();
            if !matches!(task["status"].as_str(), Some("working" | "input_required")) {
                return task;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the task does not end");
    }
}

async fn gate(jobs: &Jobs) -> Gate {
    Gate::serve(jobs.project()).await
}

#[tokio::test]
async fn a_call_goes_on_without_its_request_and_its_result_is_fetched_on_another_connection() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let bot = Client::of(&gate, "bot");
    let begun = bot.call("job", "7").await.json()["result"].take();
    let mut keys: Vec<&str> = begun.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["createdAt", "lastUpdatedAt", "pollIntervalMs", "resultType", "status", "taskId", "ttlMs"],
        "{begun}"
    );
    assert_eq!((&begun["resultType"], &begun["status"]), (&json!("task"), &json!("working")));
    assert!((600_000..660_000).contains(&begun["ttlMs"].as_u64().unwrap()), "{begun}");
    let id = begun["taskId"].as_str().unwrap();
    assert_eq!(id.len(), 32, "{id}");
    jobs.until_begun(1).await;
    let working = bot.get(id).await["result"].take();
    assert_eq!(
        (&working["resultType"], &working["status"]),
        (&json!("complete"), &json!("working")),
        "{working}"
    );
    assert!(working.get("result").is_none() && working.get("requestState").is_none(), "{working}");
    jobs.let_one_end();
    let done = bot.until_ended(id).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["result"]["structuredContent"]["id"], "7", "{done}");
    assert_eq!(bot.get(id).await["result"]["result"], done["result"], "a second time");
    // One call, one record, and the result names it.
    let [outcome] = <[_; 1]>::try_from(gate.records_of("outcome")).unwrap();
    assert_eq!(outcome["outcome"], "allowed", "{outcome}");
    assert_eq!(done["result"]["_meta"]["callgate/record"], outcome["call"]["id"], "{outcome}");
    assert!(done["createdAt"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_task_that_is_cancelled_stops_its_backend_and_what_may_have_happened_is_on_record() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let bot = Client::of(&gate, "bot");
    let id = bot.begin("job").await;
    jobs.until_begun(1).await;
    for _ in 0..2 {
        let answer = bot.ask("tasks/cancel", &id).await.json();
        assert_eq!(answer["result"], json!({ "resultType": "complete" }), "{answer}");
    }
    jobs.until_abandoned(1).await;
    let ended = bot.until_ended(&id).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert!(ended.get("result").is_none() && ended.get("error").is_none(), "{ended}");
    assert_eq!(bot.ask("tasks/cancel", &id).await.json()["result"], json!({ "resultType": "complete" }));
    let [outcome] = <[_; 1]>::try_from(gate.records_of("outcome")).unwrap();
    assert_eq!(
        (&outcome["outcome"], &outcome["code"]),
        (&json!("unknown"), &json!("cancelled")),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_task_of_somebody_else_is_one_that_never_was_and_each_try_is_on_record() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let (bot, thief) = (Client::of(&gate, "bot"), Client::of(&gate, "thief"));
    let id = bot.begin("job").await;
    jobs.until_begun(1).await;
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let never = thief.ask(method, "00000000000000000000000000000000").await;
        assert_eq!(never.json()["error"]["code"], -32602, "{}", never.text());
        for unknown in [id.as_str(), "x", "", &id.to_uppercase()] {
            let answer = thief.ask(method, unknown).await;
            assert_eq!((answer.status, answer.text()), (never.status, never.text()), "{method} {unknown}");
        }
    }
    assert_eq!(bot.get(&id).await["result"]["status"], "working");
    let refused: Vec<Value> = gate.records_of("outcome");
    assert_eq!(refused.len(), 15);
    for record in refused {
        assert_eq!(
            (&record["stage"], &record["code"], &record["caller"]["client"], &record["call"]["kind"]),
            (&json!("edge"), &json!("unknown_task"), &json!("thief"), &json!("message")),
            "{record}"
        );
    }
}

#[tokio::test]
async fn what_the_guards_refuse_is_refused_at_once_and_leaves_no_task() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let bot = Client::of(&gate, "bot");
    let forbidden = bot.call("job", "forbidden").await.json();
    assert_eq!(forbidden["result"]["resultType"], "complete", "{forbidden}");
    assert!(
        forbidden["result"]["content"][0]["text"].as_str().unwrap().contains("not that one"),
        "{forbidden}"
    );
    let misfit = bot.call("job", "much too long an identifier").await.json();
    assert_eq!(misfit["result"]["_meta"]["callgate/code"], "arguments", "{misfit}");
    assert_eq!(bot.call("nothing", "1").await.json()["error"]["code"], -32602);
    assert_eq!(jobs.shared.begun.load(Ordering::SeqCst), 0);
    assert!(format!("{:?}", gate.app.gateway.tasks()).contains("tasks: {}"), "no task is left");
}

#[tokio::test]
async fn who_knows_no_tasks_waits_where_they_are_offered_and_is_refused_where_they_are_required() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let bot = Client { capabilities: json!({}), ..Client::of(&gate, "bot") };
    jobs.let_one_end();
    assert_eq!(bot.call("job", "1").await.json()["result"]["structuredContent"]["id"], "1");
    let refused = bot.call("must", "1").await;
    let error = refused.json()["error"].take();
    assert_eq!((refused.status, &error["code"]), (400, &json!(-32021)), "{error}");
    assert_eq!(error["data"]["requiredCapabilities"]["extensions"][EXTENSION], json!({}), "{error}");
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let refused = bot.ask(method, "x").await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!(-32021)), "{method}");
    }
    for method in ["tasks/list", "tasks/result"] {
        let refused = Client::of(&gate, "bot").ask(method, "x").await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!(-32601)), "{method}");
    }
    let refused: Vec<Value> = gate.records_of("outcome").split_off(1);
    let codes: Vec<&str> = refused.iter().map(|record| record["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["task_required", "protocol", "protocol", "protocol"]);
    assert_eq!(refused[0]["call"]["target"], "must");
    let found = bot.send_as("", "server/discover", json!({})).await.json()["result"].take();
    assert_eq!(found["capabilities"]["extensions"][EXTENSION], json!({}), "{found}");
    assert!(found["capabilities"].get("tasks").is_none(), "{found}");
    // A header that names another task.
    let knows = Client::of(&gate, "bot");
    let refused = knows.send_as("y", "tasks/get", json!({ "taskId": "x" })).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (400, &json!(-32020)),
        "{}",
        refused.text()
    );
    let refused = knows.send_as("x", "tasks/get", json!({ "taskId": 7 })).await;
    assert_eq!(refused.json()["error"]["code"], -32602, "{}", refused.text());
    // A parameter of the older extension asks for nothing.
    let waits = json!({ "name": "never", "arguments": { "id": "1" }, "task": { "ttl": 1 } });
    assert_eq!(knows.send_as("never", "tools/call", waits).await.json()["result"]["resultType"], "complete");
}

#[tokio::test]
async fn older_revisions_do_not_see_tasks() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let send =
        |method: &'static str, params: Value| gate.send(crate::gate::Era::Legacy, Some(KEY), method, params);
    const KEY: &str = "cg_bot_the-secret-of-bot";
    let info = json!({ "name": "it", "version": "1" });
    let begun = json!({ "protocolVersion": "2025-11-25", "capabilities": knowing(), "clientInfo": info });
    let begun = send("initialize", begun).await.json();
    assert!(begun["result"]["capabilities"]["tools"].is_object(), "{begun}");
    assert!(begun["result"]["capabilities"].get("extensions").is_none(), "{begun}");
    for method in ["tasks/get", "tasks/cancel", "tasks/list"] {
        let answer = send(method, json!({ "taskId": "x" })).await.json();
        assert_eq!(answer["error"]["code"], -32601, "{method} {answer}");
    }
    jobs.let_one_end();
    let answer = send("tools/call", json!({ "name": "job", "arguments": { "id": "1" } })).await.json();
    assert_eq!(answer["result"]["structuredContent"]["id"], "1", "{answer}");
    let answer = send("tools/call", json!({ "name": "must", "arguments": { "id": "1" } })).await.json();
    assert_eq!(answer["error"]["code"], -32021, "{answer}");
}

#[tokio::test]
async fn where_no_tool_has_tasks_they_are_not_spoken_of() {
    let project = Project::new().tool(tool("never", "read", "ok")).client("bot", json!({ "tools": ["*"] }));
    let gate = Gate::serve(project.policy("permit (principal, action, resource);")).await;
    let bot = Client::of(&gate, "bot");
    assert_eq!(bot.call("never", "1").await.json()["result"]["resultType"], "complete");
    assert_eq!(bot.ask("tasks/get", "x").await.json()["error"]["code"], -32601);
    let found = bot.send_as("", "server/discover", json!({})).await.json();
    assert!(found["result"]["capabilities"].get("extensions").is_none(), "{found}");
}

#[tokio::test]
async fn a_result_is_kept_for_its_time_and_no_longer() {
    let jobs = Jobs::start().await;
    let gate = Gate::serve(jobs.project().server("tasks", json!({ "ttl": "400ms" }))).await;
    let bot = Client::of(&gate, "bot");
    let id = bot.begin("job").await;
    sleep(Duration::from_millis(600)).await;
    assert_eq!(bot.get(&id).await["result"]["status"], "working", "its call has limits of its own");
    jobs.let_one_end();
    let ended = bot.until_ended(&id).await;
    assert_eq!(ended["status"], "completed");
    assert!(ended["ttlMs"].as_u64().unwrap() >= 1_000, "{ended}");
    let never = bot.ask("tasks/get", "00000000000000000000000000000000").await;
    until_async(async || bot.ask("tasks/get", &id).await.text() == never.text()).await;
    until(|| format!("{:?}", gate.app.gateway.tasks()).contains("tasks: {}")).await;
}

pub(crate) async fn until_async(is_so: impl AsyncFn() -> bool) {
    timeout(Duration::from_secs(20), async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it did not come to that");
}

#[tokio::test]
async fn there_are_so_many_tasks_and_then_who_can_waits_and_who_must_not_is_refused() {
    let jobs = Jobs::start().await;
    let gate = Gate::serve(jobs.project().server("tasks", json!({ "held": 2 }))).await;
    let (bot, thief) = (Client::of(&gate, "bot"), Client::of(&gate, "thief"));
    let (first, _second) = (bot.begin("must").await, bot.begin("must").await);
    let refused = bot.call("must", "1").await.json();
    assert_eq!(refused["error"]["code"], -32000, "{refused}");
    assert_eq!(gate.records_of("outcome").last().unwrap()["code"], "tasks_full");
    let waited = bot.call("quick", "1").await.json();
    assert_eq!(waited["result"]["resultType"], "complete", "{waited}");
    let quick = thief.begin("quick").await;
    assert_eq!(thief.until_ended(&quick).await["status"], "completed");
    jobs.let_one_end();
    bot.until_ended(&first).await;
    bot.begin("must").await;
    assert_eq!(bot.get(&first).await["error"]["code"], -32602, "it was fetched, and made way");
}

#[tokio::test]
async fn a_task_holds_the_place_of_its_request_until_its_call_has_ended() {
    let jobs = Jobs::start().await;
    // Of which one client may hold half.
    let gate = Gate::serve(jobs.project().listener(json!({ "in-flight": 4 }))).await;
    let bot = Client::of(&gate, "bot");
    let first = bot.begin("must").await;
    let second = bot.begin("must").await;
    let refused = bot.ask("tasks/get", &first).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    jobs.let_one_end();
    until_async(async || bot.ask("tasks/get", &first).await.status == 200).await;
    jobs.let_one_end();
    bot.until_ended(&first).await;
    bot.until_ended(&second).await;
    let both = tokio::join!(bot.call("never", "1"), bot.call("never", "2"));
    assert_eq!((both.0.status, both.1.status), (200, 200), "both places are free");
}

#[tokio::test]
async fn polling_spends_the_clients_budget() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let slow = Client::of(&gate, "slow");
    let id = slow.begin("job").await;
    for _ in 0..2 {
        assert_eq!(slow.get(&id).await["result"]["status"], "working");
    }
    let refused = slow.get(&id).await;
    assert_eq!(refused["error"]["code"], -32000, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("rate limited"), "{refused}");
    assert_eq!(gate.records_of("outcome").last().unwrap()["code"], "client_rate");
}

#[tokio::test]
async fn a_task_ends_with_the_right_that_began_it_and_with_its_run() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let (bot, thief) = (Client::of(&gate, "bot"), Client::of(&gate, "thief"));
    let principal = |name: &str| Principal::client(ClientName::parse(name).unwrap());
    // The run.
    let (working, ended) = (bot.begin("job").await, bot.begin("must").await);
    jobs.until_begun(2).await;
    let run = gate.app.runs.default_run(&principal("bot"), Timestamp::now()).await.unwrap().id();
    gate.app.gateway.end_run(&run).await;
    jobs.until_abandoned(2).await;
    for id in [&working, &ended] {
        assert_eq!(bot.get(id).await["error"]["code"], -32602);
    }
    // A right.
    let id = thief.begin("job").await;
    jobs.until_begun(3).await;
    assert_eq!(thief.get(&id).await["result"]["status"], "working");
    let what = Revocation::Client(ClientName::parse("thief").unwrap());
    gate.app.runs.revoke(&what, "dana", "it", None, Timestamp::now()).await.unwrap();
    jobs.until_abandoned(3).await;
    assert_eq!(thief.ask("tasks/get", &id).await.status, 401);
    until(|| format!("{:?}", gate.app.gateway.tasks()).contains("tasks: {}")).await;
    // What a call may have done is on record, whatever became of its task.
    until(|| {
        let outcomes = gate.records_of("outcome");
        outcomes.iter().filter(|record| record["call"]["target"] == "job").count() == 2
    })
    .await;
    let outcomes = gate.records_of("outcome");
    for record in outcomes.iter().filter(|record| record["call"]["target"] == "job") {
        assert_eq!(record["outcome"], "unknown", "{record}");
    }
}

#[tokio::test]
async fn a_task_is_found_with_any_proof_of_its_user_that_may_call_its_tool() {
    let provider = Provider::start().await;
    let signing = new_key();
    provider.publish(&[&signing]);
    let mut get = tool("get", "read", "ok");
    (get["scopes"], get["task"]) = (json!(["things:read"]), json!("offered"));
    let tokens = json!([{ "issuer": "idp", "client": "bot-at-provider" }]);
    let bot = json!({ "tools": ["get"], "scopes": ["things:read"], "tokens": tokens });
    let project = Project::new().tool(get).client("bot", bot);
    let project = project.policy("permit (principal, action, resource);");
    let identity = json!({ "resource": RESOURCE, "issuers": { "idp": provider.entry() } });
    let gate = Wire::serve(project, identity).await;
    let token = |id: &str, user: &str, scope: &str| {
        let mut claims = provider.claims();
        (claims["jti"], claims["sub"], claims["scope"]) = (json!(id), json!(user), json!(scope));
        sign(&signing, &claims)
    };
    let (url, call) = (gate.url("/mcp"), json!({ "name": "get", "arguments": { "id": "1" } }));
    let call = params(call, &knowing());
    let begun = send(&url, &token("1", "dana", "things:read"), "get", "tools/call", call).await.json();
    let id = begun["result"]["taskId"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
    let get = async |token: String| {
        let body = params(json!({ "taskId": id }), &knowing());
        send(&url, &token, &id, "tasks/get", body).await.json()
    };
    assert_eq!(get(token("2", "dana", "things:read")).await["result"]["taskId"], id.as_str());
    for stranger in [token("3", "eve", "things:read"), token("4", "dana", "things:write"), key("bot")] {
        let answer = get(stranger).await;
        assert_eq!(answer["error"], json!({ "code": -32602, "message": "unknown task" }), "{answer}");
    }
}

#[tokio::test]
async fn a_gate_that_stops_cancels_its_tasks_and_puts_their_ends_on_record() {
    let jobs = Jobs::start().await;
    let gate = gate(&jobs).await;
    let bot = Client::of(&gate, "bot");
    bot.begin("job").await;
    jobs.until_begun(1).await;
    gate.stop.cancel();
    until(|| gate.serving.is_finished()).await;
    let [outcome] = <[_; 1]>::try_from(gate.records_of("outcome")).unwrap();
    assert_eq!(outcome["outcome"], "unknown", "{outcome}");
    jobs.until_abandoned(1).await;
}

/// A gate on standard input and output.
struct Pipe {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Pipe {
    fn start(folder: &TempDir) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["stdio", "--client", "bot", "--config"])
            .arg(folder.path().join("callgate.yaml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { _child: child, input, output }
    }

    async fn ask(&mut self, method: &str, body: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params(body, &knowing()) });
        self.input.write_all(format!("{body}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        timeout(Duration::from_secs(20), self.output.read_line(&mut line)).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
    }

    async fn until(&mut self, id: &str, status: &str) -> Value {
        for _ in 0..1_000 {
            let task = self.ask("tasks/get", json!({ "taskId": id })).await["result"].take();
            if task["status"] == status {
                return task;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the task does not become `{status}`");
    }
}

#[tokio::test]
async fn tasks_are_spoken_over_standard_input_and_output_too() {
    let jobs = Jobs::start().await;
    let folder = TempDir::new().unwrap();
    let project = jobs.project().client("bot", json!({ "tools": ["*"], "stdio": true }));
    project.write(folder.path(), jobs.address, jobs.address);
    let mut pipe = Pipe::start(&folder);
    let found = pipe.ask("server/discover", json!({})).await;
    assert_eq!(found["result"]["capabilities"]["extensions"][EXTENSION], json!({}), "{found}");
    let begun = pipe.ask("tools/call", json!({ "name": "must", "arguments": { "id": "7" } })).await;
    let id = begun["result"]["taskId"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
    jobs.until_begun(1).await;
    pipe.until(&id, "working").await;
    jobs.let_one_end();
    let done = pipe.until(&id, "completed").await;
    assert_eq!(done["result"]["structuredContent"]["id"], "7", "{done}");
    let begun = pipe.ask("tools/call", json!({ "name": "job", "arguments": { "id": "7" } })).await;
    let id = begun["result"]["taskId"].as_str().unwrap().to_owned();
    jobs.until_begun(2).await;
    pipe.ask("tasks/cancel", json!({ "taskId": id })).await;
    pipe.until(&id, "cancelled").await;
    jobs.until_abandoned(1).await;
}

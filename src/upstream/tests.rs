//! Upstreams that others wrote, and programs that do not end by themselves.

use std::{process::Stdio, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time,
};
use url::Url;

use super::{
    fixture::{ask, hello, object, program, reference, soon, way},
    *,
};
use crate::call::Passing;

async fn open(endpoint: &Endpoint, era: Era, abilities: Value) -> Connection {
    let (events, _) = mpsc::channel(64);
    Connection::open(endpoint, hello(era, abilities), Bounds::default(), None, events).await.unwrap()
}

fn names(tools: &[Map<String, Value>]) -> Vec<&str> {
    tools.iter().filter_map(|tool| tool.get("name")?.as_str()).collect()
}

/// The reference server on a port that is free.
async fn everything_by_http() -> (Child, Endpoint) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = reference("server-everything", &["streamableHttp"]);
    let mut command = Command::new(&program.command);
    command.args(&program.args).env("PORT", port.to_string()).kill_on_drop(true);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = log.next_line().await.unwrap() {
        if line.contains("listening") {
            break;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    let url: Url = format!("http://127.0.0.1:{port}/mcp").parse().unwrap();
    (child, Endpoint::Http(HttpEndpoint { url, way: way(true) }))
}

/// All that a gate needs of an upstream, whatever leads there.
async fn exercise(endpoint: &Endpoint) {
    let connection = open(endpoint, Era::Stateless, json!({ "sampling": {} })).await;
    assert_eq!(connection.server().era, Era::Session);
    assert_eq!(connection.server().version, "2025-11-25");
    assert!(connection.server().instructions.is_some());
    let tools = connection.list("tools/list", "tools").await.unwrap();
    assert!(names(&tools).contains(&"echo"), "{:?}", names(&tools));
    assert!(tools.iter().all(|tool| tool.contains_key("execution")), "a member was dropped");
    assert!(!connection.list("resources/list", "resources").await.unwrap().is_empty());
    assert!(!connection.list("prompts/list", "prompts").await.unwrap().is_empty());

    let echo = ask(&connection, "tools/call", json!({ "name": "echo", "arguments": { "message": "hi" } }));
    assert_eq!(echo.await.unwrap().unwrap().result["content"][0]["text"], "Echo: hi");

    let refused = ask(&connection, "no/such", json!({})).await.unwrap().unwrap_err();
    assert!(matches!(refused, UpstreamError::Refused { code: -32601, .. }), "{refused}");

    let cancel = CancellationToken::new();
    let (relay, mut passing) = Relay::new(Era::Session, object(json!({ "sampling": {} })), true);
    let asks = Asks { sampling: true, ..Asks::default() };
    let exchange = Exchange { relay: Some(&relay), asks, ..Exchange::new(soon(), &cancel) };
    let long =
        json!({ "name": "trigger-long-running-operation", "arguments": { "duration": 0.4, "steps": 2 } });
    connection.request("tools/call", object(long), exchange.clone()).await.unwrap();
    let progress = passing.try_recv().unwrap();
    assert!(matches!(progress, Passing::Progress(progress) if progress["progress"] == 1));
    while passing.try_recv().is_ok() {}

    let sampling = json!({ "name": "trigger-sampling-request", "arguments": { "prompt": "p" } });
    let sampled =
        json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "I think" } });
    let person = async {
        while let Some(passed) = passing.recv().await {
            if let Passing::Question { method, answer, .. } = passed {
                assert_eq!(method, "sampling/createMessage");
                answer.send(Ok(sampled.clone())).unwrap();
                return;
            }
        }
    };
    let (answer, ()) = tokio::join!(connection.request("tools/call", object(sampling), exchange), person);
    assert!(Value::from(answer.unwrap().result).to_string().contains("I think"));
    connection.close().await;
}

#[tokio::test]
async fn the_reference_server_is_used_by_stdio() {
    exercise(&Endpoint::Stdio(reference("server-everything", &["stdio"]))).await;
}

#[tokio::test]
async fn the_reference_server_is_used_by_streamable_http() {
    let (_child, endpoint) = everything_by_http().await;
    exercise(&endpoint).await;
}

#[tokio::test]
async fn a_long_request_to_the_reference_server_is_cancelled() {
    let connection =
        open(&Endpoint::Stdio(reference("server-everything", &["stdio"])), Era::Session, json!({})).await;
    let cancel = CancellationToken::new();
    let long =
        json!({ "name": "trigger-long-running-operation", "arguments": { "duration": 60, "steps": 60 } });
    let asked = connection.request("tools/call", object(long), Exchange::new(soon(), &cancel));
    let cancelling = async {
        time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    };
    let (answer, ()) = tokio::join!(asked, cancelling);
    assert_eq!(answer, Err(UpstreamError::Cancelled { sent: true }));
    let echo = ask(&connection, "tools/call", json!({ "name": "echo", "arguments": { "message": "on" } }));
    assert_eq!(echo.await.unwrap().unwrap().result["content"][0]["text"], "Echo: on");
}

#[tokio::test]
async fn the_other_reference_servers_list_their_tools() {
    let folder = std::env::temp_dir();
    for (package, args, tool) in [
        ("server-filesystem", vec![folder.to_str().unwrap()], "read_text_file"),
        ("server-memory", vec![], "create_entities"),
    ] {
        let connection = open(&Endpoint::Stdio(reference(package, &args)), Era::Session, json!({})).await;
        let tools = connection.list("tools/list", "tools").await.unwrap();
        assert!(names(&tools).contains(&tool), "{package}: {:?}", names(&tools));
        connection.close().await;
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_said_to_be_so() {
    let endpoint = Endpoint::Stdio(program("/no/such/program", []));
    let (events, _) = mpsc::channel(1);
    let opened = Connection::open(&endpoint, hello(Era::Session, json!({})), Bounds::default(), None, events);
    let error = opened.await.unwrap_err();
    assert_eq!(error, UpstreamError::Start { kind: std::io::ErrorKind::NotFound });
}

/// A server that answers each request with its environment, starts a child, and heeds no signal but the last.
const STUBBORN: &str = r#"
trap '' TERM
/bin/sleep 600 & child=$!
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}; id=${id%%\}*}
  case "$line" in
    *initialize\"*) echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"serverInfo\":{}}}" ;;
    *\"id\"*) echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"own\":$$,\"child\":$child,\"env\":\"$(/usr/bin/env | /usr/bin/cut -d= -f1 | /usr/bin/sort | /usr/bin/tr '\n' ' ')\"}}" ;;
  esac
done
while :; do /bin/sleep 1; done
"#;

fn is_running(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

#[tokio::test]
async fn a_program_is_ended_with_all_that_it_started_and_sees_no_environment_of_ours() {
    let mut program = program("/bin/sh", ["-c", STUBBORN]);
    program.env.insert("GIVEN".into(), "a secret".into());
    let bounds = Bounds { exit_timeout: Duration::from_millis(200), ..Bounds::default() };
    let (events, mut heard) = mpsc::channel(8);
    let hello = hello(Era::Session, json!({}));
    let endpoint = Endpoint::Stdio(program);
    let connection = Connection::open(&endpoint, hello, bounds, None, events).await.unwrap();
    let answer = ask(&connection, "tools/list", json!({})).await.unwrap().unwrap().result;
    let env: Vec<_> = answer["env"].as_str().unwrap().split_whitespace().collect();
    // The shell itself sets some.
    assert!(env.contains(&"GIVEN"), "{env:?}");
    assert!(env.iter().all(|name| ["GIVEN", "OLDPWD", "PWD", "SHLVL", "_"].contains(name)), "{env:?}");
    assert!(is_running(&answer["own"]) && is_running(&answer["child"]));
    connection.close().await;
    for _ in 0..100 {
        if !is_running(&answer["own"]) && !is_running(&answer["child"]) {
            break;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!is_running(&answer["own"]), "the program runs on");
    assert!(!is_running(&answer["child"]), "what the program started runs on");
    assert_eq!(heard.recv().await, Some(Event::Closed));
}

/// How fast one shared line is. `cargo test --release --lib upstream::tests::measure -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "a measurement")]
async fn measure_requests_over_one_line() {
    const TRIVIAL: &str = "import sys,json\nfor l in sys.stdin.buffer:\n m=json.loads(l)\n if 'id' not in m: continue\n r={'protocolVersion':'2025-06-18','capabilities':{},'serverInfo':{}} if m['method']=='initialize' else {'content':[]}\n sys.stdout.write(json.dumps({'jsonrpc':'2.0','id':m['id'],'result':r})+'\\n')\n sys.stdout.flush()\n";
    let connection =
        open(&Endpoint::Stdio(program("/usr/bin/python3", ["-c", TRIVIAL])), Era::Session, json!({})).await;
    for at_once in [1, 16, 64] {
        let (begun, each) = (std::time::Instant::now(), 10_000 / at_once);
        let asking = (0..at_once).map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let cancel = CancellationToken::new();
                for _ in 0..each {
                    let params = object(json!({ "name": "t", "arguments": { "a": 1 } }));
                    connection.request("tools/call", params, Exchange::new(soon(), &cancel)).await.unwrap();
                }
            })
        });
        futures::future::join_all(asking).await;
        let per_s = f64::from(each * at_once) / begun.elapsed().as_secs_f64();
        println!("{at_once} at once: {per_s:.0} requests/s");
    }
}

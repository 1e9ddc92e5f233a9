//! `callgate stdio --connect`: a client over standard input and output, a server that runs elsewhere, and the
//! bridge between them, each a process of its own; and servers that say what no gate does.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::{
    backend::{Backend, Closed},
    bare::project,
    certificates::Authority,
    process::{PROGRAM, callgate},
    project::key,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A bridge, as a client starts it.
struct Bridge {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
    /// All that it has said on standard output.
    said: String,
}

impl Bridge {
    fn to(url: &str, key: &str) -> Self {
        Self::with(url, key, &[])
    }

    fn with(url: &str, key: &str, more: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["stdio", "--connect", url]).args(more).env("CALLGATE_KEY", key);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (input, errors) = (child.stdin.take(), child.stderr.take().unwrap());
        Self { child, input, output, errors, said: String::new() }
    }

    async fn send(&mut self, line: impl ToString) {
        let line = line.to_string() + "\n";
        self.input.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let mut line = String::new();
        timeout(PATIENCE, self.output.read_line(&mut line)).await.expect("no answer").unwrap();
        self.said.push_str(&line);
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
    }

    async fn ask(&mut self, line: impl ToString) -> Value {
        self.send(line).await;
        self.receive().await
    }

    async fn begin(&mut self) -> Value {
        let begun = self.ask(INITIALIZE).await;
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        begun
    }

    async fn signal(&self, signal: &str) {
        let kill = format!("kill {signal} {}", self.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    /// Waits until it has ended well: all it said, on both.
    async fn ended(mut self) -> (String, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap();
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).await.unwrap();
        self.output.read_to_string(&mut self.said).await.unwrap();
        assert!(status.success(), "{status} {errors}");
        (self.said, errors)
    }

    async fn close(mut self) -> (String, String) {
        drop(self.input.take());
        self.ended().await
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"it","version":"1"}}}"#;

fn legacy(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "it", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {}
    });
    legacy(id, method, params)
}

fn call(tool: &str, id: &str) -> Value {
    json!({ "name": tool, "arguments": { "id": id } })
}

/// A real gate on the project of a folder, at a port that it keeps.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start(folder: &Path, address: Option<SocketAddr>) -> Self {
        let address = match address {
            Some(address) => address,
            None => TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap(),
        };
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--listen", &address.to_string(), "--config"])
            .arg(folder.join("callgate.yaml"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("the gate does not start");
        Self { child, address }
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    async fn kill(mut self) -> SocketAddr {
        self.child.kill().await.unwrap();
        self.address
    }
}

struct Gate {
    server: Server,
    folder: TempDir,
    _backend: Backend,
    _closed: Closed,
}

async fn gate() -> Gate {
    let (backend, closed, folder) = (Backend::start().await, Closed::bind(), TempDir::new().unwrap());
    project().write(folder.path(), backend.address, closed.address);
    let server = Server::start(folder.path(), None).await;
    Gate { server, folder, _backend: backend, _closed: closed }
}

#[tokio::test]
async fn both_eras_list_and_call_through_it_and_are_refused() {
    let gate = gate().await;
    let mut bridge = Bridge::to(&gate.server.url(), &key("bot"));
    // A call whose tool wants a header that only its list tells, which this client has kept from before.
    let answer = bridge.ask(modern(1, "tools/call", call("mirrored", "8"))).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let list = bridge.ask(modern(2, "tools/list", json!({}))).await;
    assert_eq!(list["result"]["tools"].as_array().unwrap().len(), 3, "{list}");
    let answer = bridge.ask(modern(3, "tools/call", call("mirrored", "7"))).await;
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(3), &json!(false)), "{answer}");
    let answer = bridge.ask(modern(4, "tools/call", call("hidden", "7"))).await;
    assert_eq!(answer["error"]["message"], "unknown tool `hidden`", "{answer}");
    let begun = bridge.begin().await;
    assert_eq!(begun["result"]["serverInfo"]["name"], "gate-under-test", "{begun}");
    let list = bridge.ask(legacy(5, "tools/list", json!({}))).await;
    assert_eq!((&list["id"], list["result"]["tools"].as_array().unwrap().len()), (&json!(5), 3), "{list}");
    let answer = bridge.ask(legacy(6, "tools/call", call("get", "6"))).await;
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(6), &json!(false)), "{answer}");
    let answer = bridge.ask(legacy(7, "tools/call", json!({ "name": "get", "arguments": {} }))).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let (said, errors) = bridge.close().await;
    assert!(!said.contains(&key("bot")) && errors.is_empty(), "{errors}");
}

#[tokio::test]
async fn many_requests_at_once_get_an_answer_each() {
    let gate = gate().await;
    let mut bridge = Bridge::to(&gate.server.url(), &key("bot"));
    bridge.begin().await;
    for id in 0..100 {
        bridge.send(legacy(id, "tools/call", call("get", &id.to_string()))).await;
        bridge.send("nonsense").await;
    }
    let (mut answered, mut errors) = (Vec::new(), 0);
    for _ in 0..200 {
        let answer = bridge.receive().await;
        match answer["id"].as_u64() {
            Some(id) => {
                assert_eq!(answer["result"]["isError"], false, "{answer}");
                answered.push(id);
            }
            None => errors += usize::from(answer["error"]["code"] == -32700),
        }
    }
    answered.sort_unstable();
    assert_eq!((answered, errors), ((0..100).collect(), 100));
    bridge.close().await;
}

#[tokio::test]
async fn a_line_that_is_no_message_is_answered_and_the_bridge_lives_on() {
    let gate = gate().await;
    let mut bridge = Bridge::to(&gate.server.url(), &key("bot"));
    bridge.begin().await;
    for (line, code) in [
        ("hello".to_owned(), -32700),
        ("[]".to_owned(), -32600),
        (r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}"#.to_owned(), -32700),
        ("x".repeat(17 << 20), -32600),
    ] {
        let error = bridge.ask(line).await;
        assert_eq!((&error["error"]["code"], &error["id"]), (&json!(code), &Value::Null), "{error}");
        let answer = bridge.ask(legacy(1, "tools/call", call("get", "1"))).await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }
    bridge.close().await;
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_used_again() {
    let gate = gate().await;
    let url = gate.server.url();
    let mut bridge = Bridge::to(&url, &key("bot"));
    bridge.begin().await;
    let before = bridge.ask(legacy(1, "tools/call", call("get", "1"))).await;
    assert_eq!(before["result"]["isError"], false, "{before}");
    let address = gate.server.kill().await;
    let error = bridge.ask(legacy(2, "tools/call", call("get", "2"))).await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(2), &json!(-32000)), "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(&url), "{message}");
    let error = bridge.ask(legacy(3, "tools/list", json!({}))).await;
    let message = error["error"]["message"].as_str().unwrap();
    assert_eq!(message, format!("no server answers at {url}: does `callgate serve` run there?"));
    // Without what it knew of sessions.
    let _ = fs::remove_dir_all(gate.folder.path().join("state"));
    let server = Server::start(gate.folder.path(), Some(address)).await;
    let after = bridge.ask(legacy(4, "tools/call", call("get", "4"))).await;
    assert_eq!((&after["id"], &after["result"]["isError"]), (&json!(4), &json!(false)), "{after}");
    let (_, errors) = bridge.close().await;
    assert!(errors.contains(&url), "{errors}");
    server.kill().await;
}

#[tokio::test]
async fn a_wrong_key_is_said_and_never_shown() {
    let gate = gate().await;
    let wrong = format!("{}-but-wrong", key("bot"));
    let mut bridge = Bridge::to(&gate.server.url(), &wrong);
    let error = bridge.begin().await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(0), &json!(-32001)), "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("does not take the key of `CALLGATE_KEY`"), "{message}");
    let (said, errors) = bridge.close().await;
    assert!(errors.contains("does not take the key"), "{errors}");
    assert!(!said.contains(&wrong) && !errors.contains(&wrong));
}

#[tokio::test]
async fn the_end_of_input_and_ctrl_c_end_it_well_and_its_session() {
    for by_signal in [false, true] {
        let stub = Stub::start(|_| None).await;
        let mut bridge = Bridge::to(&stub.url, "cg_a-key-of-a-test");
        bridge.begin().await;
        bridge.ask(legacy(1, "ping", json!({}))).await;
        if by_signal {
            bridge.signal("-INT").await;
            bridge.ended().await;
        } else {
            bridge.close().await;
        }
        let last = stub.seen().pop().unwrap();
        assert_eq!((last.method.as_str(), last.session.as_deref()), ("DELETE", Some("s1")), "{last:?}");
        assert_eq!(last.version.as_deref(), Some("2025-11-25"));
    }
}

#[tokio::test]
async fn the_end_of_input_is_heard_while_a_session_is_being_begun() {
    for stuck in ["initialize", "notifications/initialized"] {
        let stub = Stub::start_slow(move |seen| seen.said == stuck).await;
        let mut bridge = Bridge::to(&stub.url, "cg_a-key-of-a-test");
        if stuck == "initialize" {
            bridge.send(INITIALIZE).await;
        } else {
            bridge.begin().await;
        }
        bridge.send(legacy(1, "tools/list", json!({}))).await;
        stub.until(|seen| seen.said == stuck).await;
        let before = Instant::now();
        let (said, _) = bridge.close().await;
        assert!(!said.contains("\"id\":1"), "{said}");
        // What stands behind a step is not sent before it is done.
        assert!(stub.seen().iter().all(|seen| seen.said != "tools/list"));
        assert!((5..9).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn a_session_is_asked_as_much_at_once_as_one_takes_and_the_rest_waits() {
    for (era, at_once) in [(legacy as fn(u64, &str, Value) -> Value, 64), (modern, 128)] {
        let stub = Stub::start_slow(|seen| seen.said == "tools/call").await;
        let mut bridge = Bridge::to(&stub.url, "cg_a-key-of-a-test");
        bridge.begin().await;
        for id in 1..=129 {
            bridge.send(era(id, "tools/call", call("x", "1"))).await;
        }
        let refused = bridge.receive().await;
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(129), &json!(-32000)), "{refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert_eq!(message, "too many requests wait for their answers: try again");
        let asked = || {
            let calls = stub.seen().into_iter().filter(|seen| seen.said == "tools/call");
            calls.map(|seen| seen.body["id"].as_u64().unwrap()).collect::<BTreeSet<_>>()
        };
        until(|| asked().len() == at_once).await;
        let waiting = (1..129).find(|id| !asked().contains(id));
        assert_eq!(waiting.is_some(), at_once == 64);
        // One that waits can be taken back, and one that is taken back makes room for another that waits.
        for id in waiting.into_iter().chain(asked().first().copied()) {
            let params = json!({ "requestId": id });
            bridge
                .send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }))
                .await;
        }
        let in_all = at_once + usize::from(waiting.is_some());
        until(|| asked().len() == in_all).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!((asked().len(), waiting.is_some_and(|id| asked().contains(&id))), (in_all, false));
        bridge.signal("-TERM").await;
        bridge.ended().await;
    }
}

#[tokio::test]
async fn whoever_does_not_speak_the_urls_scheme_or_is_not_trusted_is_told_apart() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = TempDir::new().unwrap();
    let authority = Authority::new("own");
    authority.server().write(folder.path(), "gate");
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    fs::write(folder.path().join("other.pem"), &Authority::new("other").pem).unwrap();
    let behind_tls = secure_echo(folder.path()).await;
    let plain = Stub::start(|_| None).await;
    let said = async |url: String, ca: Option<&str>| {
        let ca = ca.map(|ca| folder.path().join(ca).to_str().unwrap().to_owned());
        let more: Vec<&str> = ca.iter().flat_map(|ca| ["--ca", ca.as_str()]).collect();
        let mut bridge = Bridge::with(&url, "cg_a-key-of-a-test", &more);
        let answer = bridge.ask(INITIALIZE).await;
        bridge.close().await;
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        message.strip_prefix(&url).unwrap_or(&message).to_owned()
    };
    let untrusted = " does not prove who it is: the authority of its certificate is not trusted here; pass \
                     `--ca` if its authority is your own";
    let https = format!("https://127.0.0.1:{}/mcp", behind_tls.port());
    assert_eq!(said(https.clone(), None).await, untrusted);
    assert_eq!(said(https.clone(), Some("other.pem")).await, untrusted);
    let trusted = said(https, Some("ca.pem")).await;
    assert!(!trusted.contains("prove") && !trusted.contains("TLS"), "{trusted}");
    assert_eq!(
        said(plain.url.replace("http:", "https:"), None).await,
        " does not speak TLS: is its scheme `http`, or its port another one?"
    );
    assert_eq!(
        said(format!("http://127.0.0.1:{}/mcp", behind_tls.port()), None).await,
        " does not answer in HTTP: is its scheme `https`, or its port another one?"
    );
}

/// A server that takes connections over TLS, and says nothing that is HTTP.
async fn secure_echo(folder: &Path) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(folder.join("gate.pem")).unwrap().map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_file(folder.join("gate.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain.collect(), key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 9_000]).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    address
}

#[test]
fn it_connects_only_where_the_key_is_safe_and_with_a_key() {
    let folder = TempDir::new().unwrap();
    let refused =
        |arguments: &[&str]| callgate(folder.path(), [&["stdio", "--connect"], arguments].concat()).refusal();
    let said = refused(&["http://gate.example.com/mcp", "--key-env", "PATH"]);
    assert!(said.contains("unencrypted"), "{said}");
    assert!(refused(&["http://u:p@127.0.0.1/mcp", "--key-env", "PATH"]).contains("no user"));
    assert!(refused(&["http://127.0.0.1/mcp", "--key-env", "NOT_SET"]).contains("set `NOT_SET`"));
    fs::write(folder.path().join("key"), "cg_a-key-of-a-test").unwrap();
    let said = refused(&["http://127.0.0.1/mcp", "--key-file", "key"]);
    assert!(said.contains("is open to other users"), "{said}");
    let said = refused(&["https://127.0.0.1/mcp", "--key-env", "PATH", "--ca", "key"]);
    assert!(said.contains("`key` holds no certificate in PEM"), "{said}");
}

#[tokio::test]
async fn what_a_server_says_besides_answers_is_passed_on_and_answered() {
    let stub = Stub::start(|seen| match seen.said.as_str() {
        "GET" => Some(events(&[r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#])),
        "tools/call" => Some(events(&[
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#,
            "{\"jsonrpc\":\"2.0\",\ndata: \"id\":\"s\",\"method\":\"elicitation/create\",\"params\":{}}",
            &answer_to(seen, json!({ "content": [] })),
        ])),
        _ => None,
    })
    .await;
    let mut bridge = Bridge::to(&stub.url, "cg_a-key-of-a-test");
    bridge.begin().await;
    assert_eq!(bridge.receive().await["method"], "notifications/tools/list_changed");
    bridge.send(legacy(1, "tools/call", call("x", "1"))).await;
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let message = bridge.receive().await;
        if message["method"] != "notifications/tools/list_changed" {
            heard.push(message);
        }
    }
    let [progress, asked, answer] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!(progress["method"], "notifications/progress");
    assert_eq!((&asked["id"], &asked["method"]), (&json!("s"), &json!("elicitation/create")));
    assert_eq!(answer["id"], 1);
    bridge.send(json!({ "jsonrpc": "2.0", "id": "s", "result": { "action": "accept" } })).await;
    stub.until(|seen| seen.body["id"] == "s" && seen.session.as_deref() == Some("s1")).await;
    bridge.close().await;
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_anew_without_a_word() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let stub = Stub::start(move |seen| match (seen.said.as_str(), seen.session.as_deref()) {
        ("initialize", _) => {
            let count = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let mut answer = json_answer(&answer_to(seen, json!({ "protocolVersion": "2025-06-18" })));
            answer.headers_mut().insert("mcp-session-id", format!("s{count}").parse().unwrap());
            Some(answer)
        }
        ("ping", Some("s1")) => Some(StatusCode::NOT_FOUND.into_response()),
        ("tools/list", _) => Some(StatusCode::NOT_FOUND.into_response()),
        _ => None,
    })
    .await;
    let mut bridge = Bridge::to(&stub.url, "cg_a-key-of-a-test");
    bridge.begin().await;
    let answer = bridge.ask(legacy(1, "ping", json!({}))).await;
    assert_eq!((&answer["id"], answer["result"].is_object()), (&json!(1), true), "{answer}");
    let said: Vec<_> = stub.seen().into_iter().filter(|seen| seen.method == "POST").collect();
    let said: Vec<_> = said.iter().map(|seen| (seen.said.as_str(), seen.session.as_deref())).collect();
    assert_eq!(
        said,
        [
            ("initialize", None),
            ("notifications/initialized", Some("s1")),
            ("ping", Some("s1")),
            ("initialize", None),
            ("notifications/initialized", Some("s2")),
            ("ping", Some("s2")),
        ]
    );
    // Where that does not help either, the client is told.
    let answer = bridge.ask(legacy(2, "tools/list", json!({}))).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("there is nothing at"), "{answer}");
    assert_eq!(begun.load(Ordering::SeqCst), 3);
    bridge.close().await;
}

#[tokio::test]
async fn refusals_are_put_into_words_and_a_server_that_repeats_the_key_does_not_show_it() {
    let stub = Stub::start(|seen| {
        let name = seen.body["params"]["name"].as_str()?;
        let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32002, "message": "why" } });
        let mut answer = match name {
            "echo" => return Some(json_answer(&answer_to(seen, json!({ "echo": seen.authorization })))),
            "html" => return Some(([(header::CONTENT_TYPE, "text/html")], "<p>").into_response()),
            "odd" => return Some(json_answer("{}")),
            "cut" => return Some(events(&[])),
            _ => json_answer(&error.to_string()),
        };
        *answer.status_mut() = name.parse().unwrap();
        answer.headers_mut().insert("retry-after", "7".parse().unwrap());
        Some(answer)
    })
    .await;
    let secret = "cg_a-key-of-a-test";
    let mut bridge = Bridge::to(&stub.url, secret);
    let url = stub.url.clone();
    for (name, code, message) in [
        ("403", -32002, "not permitted: why".to_owned()),
        ("429", -32002, "too many requests: why; try again in 7 seconds".to_owned()),
        ("503", -32002, format!("{url} cannot answer now: why; try again in 7 seconds")),
        ("400", -32002, "why".to_owned()),
        (
            "html",
            -32603,
            format!("{url} answers with neither JSON nor events: is it the URL of an MCP endpoint?"),
        ),
        (
            "odd",
            -32603,
            format!("{url} answers with something that is no message: is it the URL of an MCP endpoint?"),
        ),
        (
            "cut",
            -32000,
            format!("{url} broke off before it answered: whether the request took effect is not known"),
        ),
    ] {
        let answer = bridge.ask(legacy(1, "tools/call", json!({ "name": name }))).await;
        let error = (&answer["id"], &answer["error"]["code"], &answer["error"]["message"]);
        assert_eq!(error, (&json!(1), &json!(code), &json!(message)), "{name}");
    }
    let answer = bridge.ask(legacy(1, "tools/call", json!({ "name": "echo" }))).await;
    assert_eq!(answer["result"]["echo"], "Bearer [secret of the API key]");
    let shown = stub.seen().pop().unwrap().authorization.unwrap();
    assert_eq!(shown, format!("Bearer {secret}"), "the server does see it");
    let (said, errors) = bridge.close().await;
    assert!(!said.contains(secret) && !errors.contains(secret), "{errors}");
}

#[tokio::test]
async fn a_request_that_is_taken_back_is_not_waited_for() {
    for era in [legacy, modern] {
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        let stub = Stub::start(move |seen| {
            (seen.said == "tools/call").then(|| {
                counted.fetch_add(1, Ordering::SeqCst);
                let guard = Guard(Arc::clone(&counted));
                let forever = futures::stream::unfold(guard, |guard| async move {
                    std::future::pending::<()>().await;
                    Some((Ok::<_, std::io::Error>(Bytes::new()), guard))
                });
                ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(forever)).into_response()
            })
        })
        .await;
        let mut bridge = Bridge::to(&stub.url, "cg_a-key-of-a-test");
        let is_modern = era(1, "x", json!({}))["params"]["_meta"].is_object();
        if !is_modern {
            bridge.begin().await;
        }
        bridge.send(era(1, "tools/call", call("x", "1"))).await;
        until(|| waiting.load(Ordering::SeqCst) == 1).await;
        let params = json!({ "requestId": 1 });
        bridge.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })).await;
        until(|| waiting.load(Ordering::SeqCst) == 0).await;
        let told = stub.seen().iter().any(|seen| seen.said == "notifications/cancelled");
        assert_eq!(told, !is_modern);
        // No answer came to it: the next one is to what is asked next.
        assert_eq!(bridge.ask(era(2, "ping", json!({}))).await["id"], 2);
        bridge.close().await;
    }
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it did not come to that");
}

/// A request that a stub has seen.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    /// The method of the message, or of the request where there is none.
    said: String,
    body: Value,
    session: Option<String>,
    version: Option<String>,
    authorization: Option<String>,
}

type Behaviour = Arc<dyn Fn(&Seen) -> Option<Response> + Send + Sync>;

/// A server that answers as a test says, or else as plainly as it can, in a session `s1`.
struct Stub {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Stub {
    async fn start(behave: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) -> Self {
        let (behave, seen): (Behaviour, _) = (Arc::new(behave), Arc::<Mutex<Vec<Seen>>>::default());
        let router = Router::new().fallback(stub_answer).with_state((behave, Arc::clone(&seen)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, seen }
    }

    /// One that never answers some requests.
    async fn start_slow(is_slow: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        let never = |seen: &Seen| {
            let bytes = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            let kind = if seen.said == "tools/call" { "text/event-stream" } else { "application/json" };
            ([(header::CONTENT_TYPE, kind)], Body::from_stream(bytes)).into_response()
        };
        Self::start(move |seen| is_slow(seen).then(|| never(seen))).await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn until(&self, holds: impl Fn(&Seen) -> bool) {
        until(|| self.seen().iter().any(&holds)).await;
    }
}

async fn stub_answer(
    State((behave, all)): State<(Behaviour, Arc<Mutex<Vec<Seen>>>)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let seen = Seen {
        method: method.to_string(),
        said: body["method"].as_str().unwrap_or(method.as_str()).to_owned(),
        body,
        session: header("mcp-session-id"),
        version: header("mcp-protocol-version"),
        authorization: header("authorization"),
    };
    all.lock().unwrap().push(seen.clone());
    if let Some(answer) = behave(&seen) {
        return answer;
    }
    match (method.as_str(), seen.said.as_str()) {
        ("GET", _) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
        (_, "initialize") => {
            let result = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
            let mut answer = json_answer(&answer_to(&seen, result));
            answer.headers_mut().insert("mcp-session-id", "s1".parse().unwrap());
            answer
        }
        _ if seen.body["id"].is_null() || seen.body["method"].is_null() => {
            StatusCode::ACCEPTED.into_response()
        }
        _ => json_answer(&answer_to(&seen, json!({}))),
    }
}

fn answer_to(seen: &Seen, result: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": result }).to_string()
}

fn json_answer(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_owned()).into_response()
}

fn events(messages: &[&str]) -> Response {
    let text: String = messages.iter().map(|message| format!("data: {message}\n\n")).collect();
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

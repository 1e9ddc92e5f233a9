//! The edge over standard input and output: what is refused, and how the connection lives on.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{
    backend::{Backend, Closed},
    bare::{CALL, project},
    gate::records,
    process::PROGRAM,
};

/// A gate on standard input and output, as a client starts it.
struct Pipe {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    backend: Backend,
    _closed: Closed,
}

impl Pipe {
    async fn start() -> Self {
        let (backend, closed, folder) = (Backend::start().await, Closed::bind(), TempDir::new().unwrap());
        project().write(folder.path(), backend.address, closed.address);
        let mut child = Command::new(PROGRAM)
            .args(["stdio", "--client", "bot", "--config"])
            .arg(folder.path().join("callgate.yaml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, folder, backend, _closed: closed }
    }

    async fn send(&mut self, line: &[u8]) {
        self.input.write_all(line).await.unwrap();
        self.input.write_all(b"\n").await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        let mut line = String::new();
        timeout(Duration::from_secs(10), self.output.read_line(&mut line)).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
    }

    async fn ask(&mut self, line: &str) -> Value {
        self.send(line.as_bytes()).await;
        self.receive().await
    }

    fn outcomes(&self) -> Vec<Value> {
        records(self.folder.path(), "stdio-0", 0)
            .into_iter()
            .filter(|record| record["record"] == "outcome")
            .collect()
    }
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"it","version":"1"}}}"#;

#[tokio::test]
async fn a_line_that_is_no_message_is_answered_and_the_connection_lives_on() {
    let mut pipe = Pipe::start().await;
    // Also before the client has begun.
    let error = pipe.ask("hello").await;
    assert_eq!((&error["error"]["code"], &error["id"]), (&json!(-32700), &Value::Null), "{error}");
    pipe.send(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    pipe.send(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!(pipe.ask(INITIALIZE).await["result"]["serverInfo"]["name"], "gate-under-test");
    pipe.send(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let twice = CALL.replace(r#""id":"1""#, r#""id":"1","id":"2""#);
    let cases: [(&[u8], i32, Value, &str, &str); 8] = [
        (b"{\"jsonrpc\":", -32700, Value::Null, "syntax", ""),
        (b"[]", -32600, Value::Null, "batch", ""),
        (b"\xff", -32700, Value::Null, "utf8", ""),
        (b"\xef\xbb\xbf{}", -32700, Value::Null, "bom", ""),
        (twice.as_bytes(), -32700, Value::Null, "duplicate_key", ""),
        (&vec![b'x'; 3 << 20], -32600, Value::Null, "too_large", ""),
        (
            br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get","arguments":[]}}"#,
            -32602,
            json!(7),
            "params",
            "get",
        ),
        (
            br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":{}}}"#,
            -32602,
            json!(7),
            "params",
            "",
        ),
    ];
    let mut known = pipe.outcomes().len();
    assert_eq!(known, 1, "the line before the beginning");
    for (line, code, id, word, target) in cases {
        pipe.send(line).await;
        let error = pipe.receive().await;
        let shown = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
        assert_eq!((&error["error"]["code"], &error["id"]), (&json!(code), &id), "{shown} {error}");
        let outcomes = pipe.outcomes().split_off(known);
        let [record] = outcomes.as_slice() else { panic!("{shown} {outcomes:#?}") };
        assert_eq!(
            (&record["stage"], &record["code"], &record["call"]["target"], &record["caller"]["client"]),
            (&json!("edge"), &json!(word), &json!(target), &json!("bot")),
            "{shown} {record}"
        );
        known += 1;
        let answer = pipe.ask(CALL).await;
        assert_eq!(
            (&answer["id"], &answer["result"]["isError"]),
            (&json!(7), &json!(false)),
            "{shown} {answer}"
        );
        known += 1;
    }
    assert_eq!(pipe.backend.hits(), 8);
    // The end of input ends it.
    let Pipe { mut child, input, .. } = pipe;
    drop(input);
    assert!(timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn replies_and_errors_never_cut_into_each_other() {
    let mut pipe = Pipe::start().await;
    pipe.ask(INITIALIZE).await;
    pipe.send(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    for at in 0..100 {
        pipe.send(CALL.replace("\"id\":7", &format!("\"id\":{at}")).as_bytes()).await;
        pipe.send(b"nonsense").await;
    }
    let (mut answers, mut errors) = (0, 0);
    for _ in 0..200 {
        let line = pipe.receive().await;
        if line["result"].is_object() {
            answers += 1;
        } else {
            assert_eq!(line["error"]["code"], -32700, "{line}");
            errors += 1;
        }
    }
    assert_eq!((answers, errors), (100, 100));
}

#[tokio::test]
async fn a_method_that_is_not_spoken_here_is_said_to_be_so() {
    let mut pipe = Pipe::start().await;
    pipe.ask(INITIALIZE).await;
    for method in ["tools/sing", "completion/complete", "tasks/get", "prompts/list"] {
        let params = json!({
            "taskId": "1", "ref": { "type": "ref/prompt", "name": "p" }, "argument": { "name": "a", "value": "b" }
        });
        let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let error = json!({ "code": -32601, "message": format!("unknown method `{method}`") });
        assert_eq!(pipe.ask(&asked.to_string()).await["error"], error);
    }
}

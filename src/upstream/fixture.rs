//! Fake upstreams for tests: they say what a test has them say.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Answer, Bounds, Connection, Endpoint, Event, Exchange, Hello, HttpEndpoint, Program, UpstreamError,
};
use crate::{
    call::Era,
    egress::{Allowances, Egress},
    lines::{Line, Lines},
    manifest::EgressSpec,
};

pub(super) type Events = mpsc::Receiver<Event>;

pub(super) fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

pub(super) fn hello(era: Era, abilities: Value) -> Hello {
    Hello { era, abilities: object(abilities) }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A request that a task of its own makes.
pub(super) fn ask(
    connection: &Connection,
    method: &'static str,
    params: Value,
) -> JoinHandle<Result<Answer, UpstreamError>> {
    let connection = connection.clone();
    tokio::spawn(async move {
        let cancel = CancellationToken::new();
        connection.request(method, object(params), Exchange::new(soon(), &cancel)).await
    })
}

/// The other end of standard input and output.
pub(super) struct Fake {
    read: Lines<ReadHalf<DuplexStream>>,
    write: WriteHalf<DuplexStream>,
}

impl Fake {
    fn pair() -> (Self, ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) {
        let (gate, fake) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(gate);
        let (fake_read, fake_write) = tokio::io::split(fake);
        (Self { read: Lines::new(fake_read, 1 << 20), write: fake_write }, read, write)
    }

    /// A connection whose first words are still to be answered.
    pub(super) fn begin(
        hello: Hello,
        bounds: Bounds,
    ) -> (Self, JoinHandle<Result<Connection, UpstreamError>>, Events) {
        let (fake, read, write) = Self::pair();
        let (events, heard) = mpsc::channel(1);
        let opening = tokio::spawn(async move { Connection::over(read, write, hello, bounds, events).await });
        (fake, opening, heard)
    }

    /// A connection with a session.
    pub(super) async fn connected(bounds: Bounds) -> (Self, Connection, Events) {
        let (mut fake, opening, events) = Self::begin(hello(Era::Session, json!({})), bounds);
        fake.greet().await;
        (fake, opening.await.unwrap().unwrap(), events)
    }

    /// Begins a session.
    pub(super) async fn greet(&mut self) {
        let request = self.next().await;
        assert_eq!(request["method"], "initialize");
        self.answer(
            &request,
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "fake" } }),
        )
        .await;
        assert_eq!(self.next().await["method"], "notifications/initialized");
    }

    /// The gate's next message.
    pub(super) async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(10), self.read.next()).await.unwrap();
        let Some(Line::Whole(line)) = line.unwrap() else { panic!("no line") };
        serde_json::from_slice(&line).unwrap()
    }

    /// Whether the gate says nothing for a while.
    pub(super) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(100), self.read.next()).await.is_err()
    }

    pub(super) async fn answer(&mut self, request: &Value, result: Value) {
        self.say(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
    }

    pub(super) async fn refuse(&mut self, request: &Value, error: Value) {
        self.say(json!({ "jsonrpc": "2.0", "id": request["id"], "error": error })).await;
    }

    pub(super) async fn say(&mut self, message: Value) {
        self.write_line(&message.to_string()).await;
    }

    pub(super) async fn write_line(&mut self, line: &str) {
        self.write.write_all(line.as_bytes()).await.unwrap();
        self.write.write_all(b"\n").await.unwrap();
    }
}

/// What the gate sent by HTTP.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) method: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

impl Sent {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn is(&self, method: &str) -> bool {
        self.body["method"] == method
    }
}

/// An HTTP server that says what a function says. What it was sent is kept.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: Url,
    pub(super) sent: Arc<Mutex<Vec<Sent>>>,
}

/// What is answered: bytes, and whether the connection is then left open without a word.
pub(super) enum Said {
    Bytes(String),
    Silence(String),
}

impl Server {
    pub(super) async fn answering(answer: impl Fn(&Sent) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
        let server = Self { url, sent: Arc::default() };
        let (sent, answer) = (Arc::clone(&server.sent), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&sent), Arc::clone(&answer)));
            }
        });
        server
    }

    /// A server with a session, which answers all that comes after the first words by a function.
    pub(super) async fn with_session(answer: impl Fn(&Sent) -> Said + Send + Sync + 'static) -> Self {
        Self::answering(move |sent| match () {
            () if sent.is("initialize") => Said::Bytes(initialized(sent)),
            () if sent.method == "DELETE" || sent.body.get("id").is_none() && sent.method == "POST" => {
                status("202 Accepted")
            }
            () if sent.method == "POST" && sent.body.get("method").is_none() => status("202 Accepted"),
            () => answer(sent),
        })
        .await
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::Http(HttpEndpoint { url: self.url.clone(), way: way(true) })
    }

    pub(super) async fn open(&self, era: Era) -> Result<Connection, UpstreamError> {
        self.open_with(hello(era, json!({})), Bounds::default()).await
    }

    pub(super) async fn open_with(&self, hello: Hello, bounds: Bounds) -> Result<Connection, UpstreamError> {
        let (events, _) = mpsc::channel(8);
        Connection::open(&self.endpoint(), hello, bounds, None, events).await
    }

    pub(super) fn all(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// Waits until something was sent.
    pub(super) async fn until(&self, is: impl Fn(&Sent) -> bool) -> Sent {
        for _ in 0..500 {
            if let Some(sent) = self.all().into_iter().find(&is) {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it was not sent: {:#?}", self.all());
    }
}

pub(super) fn way(loopback: bool) -> crate::egress::Way {
    let allowances = Allowances::new(&EgressSpec { loopback, ..EgressSpec::default() }).unwrap();
    Egress::new(None).unwrap().way(&allowances)
}

async fn serve(
    mut stream: TcpStream,
    kept: Arc<Mutex<Vec<Sent>>>,
    answer: Arc<impl Fn(&Sent) -> Said + Send + Sync>,
) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let method = lines.next().unwrap().split(' ').next().unwrap().to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + length {
        stream.read_buf(&mut bytes).await.unwrap();
    }
    let body = serde_json::from_slice(&bytes[head_end..]).unwrap_or_default();
    let sent = Sent { method, headers, body };
    kept.lock().unwrap().push(sent.clone());
    match answer(&sent) {
        Said::Bytes(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap_or_default(),
        Said::Silence(bytes) => {
            stream.write_all(bytes.as_bytes()).await.unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
}

pub(super) fn status(status: &str) -> Said {
    Said::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
}

/// An answer of this type.
pub(super) fn typed(status: &str, content_type: &str, body: &str) -> Said {
    let length = body.len();
    Said::Bytes(format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// A stream of events, which ends.
pub(super) fn events(body: &str) -> Said {
    typed("200 OK", "text/event-stream", body)
}

pub(super) fn result(sent: &Sent, result: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": sent.body["id"], "result": result }).to_string()
}

pub(super) fn json_result(sent: &Sent, value: Value) -> Said {
    typed("200 OK", "application/json; charset=utf-8", &result(sent, value))
}

fn initialized(sent: &Sent) -> String {
    let facts = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
    let body = result(sent, facts);
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: s-1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What the tests' installer has put where.
fn installed() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/suites/upstreams")
}

/// A reference server as a child process.
pub(super) fn reference(package: &str, args: &[&str]) -> Program {
    let folder = installed();
    let script = folder.join(format!("node_modules/@modelcontextprotocol/{package}/dist/index.js"));
    assert!(script.exists(), "run tests/suites/install.sh target/suites: {} is missing", script.display());
    let args = std::iter::once(script.to_str().unwrap()).chain(args.iter().copied());
    program(folder.join("node").to_str().unwrap(), args)
}

pub(super) fn program<'a>(command: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    Program {
        name: "reference".into(),
        command: command.into(),
        args: args.into_iter().map(str::to_owned).collect(),
        env: BTreeMap::new(),
        dir: std::env::temp_dir(),
        pinned: Vec::new(),
    }
}

//! TLS: `callgate serve` as its own process, and clients of other makes.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use reqwest::{Certificate, Identity};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    backend::Backend,
    certificates::{Authority, Issued, replace},
    gate::records,
    process::{PROGRAM, callgate},
    project::{Project, key, tool},
};

/// A gate that serves over TLS, with the authority of its own certificate and that of its clients.
struct Served {
    child: Child,
    port: u16,
    said: Arc<Mutex<Vec<String>>>,
    own: Authority,
    clients: Authority,
    folder: TempDir,
    _backend: Backend,
}

/// A project in which `bot` is known by `certificates`, and `other` by its key.
fn project(certificates: Value) -> Project {
    let spec = |certificates| json!({ "tools": ["orders.get"], "certificates": certificates });
    Project::new()
        .tool(tool("orders.get", "read", "ok"))
        .client("bot", spec(certificates))
        .client("other", spec(json!([{ "name": "dns:other.example" }])))
        .policy("permit (principal, action, resource);")
}

impl Served {
    /// Serves a project whose listener has more settings; those of `tls` are added to the usual ones.
    async fn start(project: Project, tls: Value, mut listener: Value) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (own, clients) = (Authority::new("own"), Authority::new("clients"));
        let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
        own.server().write(folder.path(), "gate");
        replace(&folder.path().join("clients-ca.pem"), &clients.pem, 0o644);
        listener["tls"] =
            json!({ "certificate": "gate.pem", "key": "gate.key", "client-ca": "clients-ca.pem" });
        listener["tls"].as_object_mut().unwrap().extend(tls.as_object().unwrap().clone());
        project.listener(listener).write(folder.path(), backend.address, ([127, 0, 0, 1], 1).into());
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(folder.path().join("callgate.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| line.split_once("https://127.0.0.1:")?.1.split_once("/mcp;")?.0.parse().ok())
            .expect("the gate says where it serves");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || lines.for_each(|line| heard.lock().unwrap().push(line)));
        Self { child, port, said, own, clients, folder, _backend: backend }
    }

    /// A client that shows a certificate, or none.
    fn client(&self, shown: Option<&Issued>) -> reqwest::Client {
        let root = Certificate::from_pem(self.own.pem.as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder().tls_certs_only([root]).timeout(Duration::from_secs(20));
        if let Some(shown) = shown {
            let both = format!("{}{}", shown.pem, shown.key);
            builder = builder.identity(Identity::from_pem(both.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    /// Calls the tool; what comes back is the status, or why there is none.
    async fn call(&self, shown: Option<&Issued>, key: Option<&str>) -> Result<u16, reqwest::Error> {
        let mut request = self
            .client(shown)
            .post(format!("https://127.0.0.1:{}/mcp", self.port))
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2025-11-25")
            .json(&body());
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        request.send().await.map(|answer| answer.status().as_u16())
    }

    /// A connection of our own.
    async fn connect(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
    }

    /// Who called so far: the client of each outcome, and how it proved that.
    fn callers(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        records(self.folder.path(), "serve-0", 0)
            .iter()
            .filter(|record| record["record"] == "outcome")
            .map(|record| (text(&record["caller"]["client"]), text(&record["caller"]["authentication"])))
            .collect()
    }

    /// Ends it, and says what it counted.
    fn counted(mut self) -> Vec<String> {
        let id = self.child.id();
        assert!(Command::new("sh").arg("-c").arg(format!("kill {id}")).status().unwrap().success());
        self.child.wait().unwrap();
        records(self.folder.path(), "serve-0", 0)
            .iter()
            .filter(|record| record["record"] == "summary")
            .map(|record| record["code"].as_str().unwrap().to_owned())
            .collect()
    }

    fn complaints(&self) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains("cannot be used")).count()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn body() -> Value {
    let params = json!({ "name": "orders.get", "arguments": { "id": "1" } });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A client that trusts an authority, and shows a certificate.
fn config(
    authority: &Authority,
    shown: &Issued,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let chain = vec![CertificateDer::from(shown.der.clone())];
    let builder = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
    builder.with_client_auth_cert(chain, key).unwrap()
}

/// Sends a call on a connection, and reads the status of its answer.
async fn call_on<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) -> u16 {
    let body = body().to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, \
         text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer)
        .split_once("\r\n\r\n")
        .is_some_and(|(_, body)| body.ends_with('}'))
    {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the connection was closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_certificate_is_required_only_a_good_one_makes_a_connection() {
    let served = Served::start(
        project(json!([{ "name": "dns:bot.example" }])),
        json!({ "client-certificates": "require" }),
        json!({}),
    )
    .await;
    let names = || vec![dns("bot.example")];
    assert!(served.call(None, Some(&key("bot"))).await.is_err(), "no certificate");
    let foreign = Authority::new("clients").client("bot", names());
    assert!(served.call(Some(&foreign), None).await.is_err(), "an authority of the same name");
    let past = rcgen::date_time_ymd(2020, 1, 1);
    let expired = served.clients.issue("bot", |params| {
        params.subject_alt_names = names();
        params.not_after = past;
    });
    assert!(served.call(Some(&expired), None).await.is_err(), "expired");
    let future = served.clients.issue("bot", |params| params.not_before = rcgen::date_time_ymd(2100, 1, 1));
    assert!(served.call(Some(&future), None).await.is_err(), "not yet valid");
    let of_server = served.clients.issue("bot", |params| {
        params.subject_alt_names = names();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(served.call(Some(&of_server), None).await.is_err(), "not for clients");
    assert_eq!(served.callers(), [], "none of them was heard");

    let good = served.clients.client("bot", names());
    assert_eq!(served.call(Some(&good), None).await.unwrap(), 200);
    assert_eq!(served.callers(), [("bot".to_owned(), "certificate".to_owned())]);
    let counted = served.counted();
    assert!(counted.iter().any(|code| code == "no_certificate"), "{counted:?}");
    assert!(counted.iter().any(|code| code == "certificate_refused"), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_known_by_name_subject_or_digest_of_its_certificate() {
    let certificates = json!([{ "name": "uri:spiffe://example/bot" }, { "subject": "CN=a\\, bot,O=Test" }]);
    let served = Served::start(project(certificates), json!({}), json!({})).await;
    let uri = SanType::URI("spiffe://example/bot".try_into().unwrap());
    let by_name = served.clients.client("any", vec![uri.clone()]);
    let by_subject = served.clients.client("a, bot", vec![]);
    let of_both = served.clients.client("any", vec![uri, dns("other.example")]);
    let of_nobody = served.clients.client("any", vec![dns("bot.example")]);
    assert_eq!(served.call(Some(&by_name), None).await.unwrap(), 200);
    assert_eq!(served.call(Some(&by_subject), None).await.unwrap(), 200);
    for refused in [&of_both, &of_nobody] {
        assert_eq!(served.call(Some(refused), None).await.unwrap(), 401);
    }
    assert_eq!(served.call(None, None).await.unwrap(), 401);
    // A token that is shown decides, also a wrong one.
    assert_eq!(served.call(Some(&by_name), Some(&key("other"))).await.unwrap(), 200);
    assert_eq!(served.call(Some(&by_name), Some("cg_other_wrong")).await.unwrap(), 401);
    assert_eq!(served.call(None, Some(&key("other"))).await.unwrap(), 200);
    let callers = served.callers();
    let callers: Vec<_> = callers.iter().map(|(client, by)| (client.as_str(), by.as_str())).collect();
    assert_eq!(
        callers,
        [("bot", "certificate"), ("bot", "certificate"), ("other", "api-key"), ("other", "api-key")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_known_by_its_digest() {
    let elsewhere = Authority::new("clients");
    let shown = elsewhere.client("digest", vec![]);
    let served = Served::start(project(json!([{ "sha256": shown.sha256() }])), json!({}), json!({})).await;
    assert!(served.call(Some(&shown), None).await.is_err(), "the digest is not enough");
    replace(&served.folder.path().join("clients-ca.pem"), &elsewhere.pem, 0o644);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(served.call(Some(&shown), None).await.unwrap(), 200);
    let same_name = elsewhere.client("digest", vec![]);
    assert_eq!(served.call(Some(&same_name), None).await.unwrap(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_for_new_connections_and_bad_ones_for_nobody() {
    let served = Served::start(project(json!([{ "name": "dns:bot.example" }])), json!({}), json!({})).await;
    let (folder, bot) = (served.folder.path(), served.clients.client("bot", vec![dns("bot.example")]));
    let mut kept = served.connect(config(&served.own, &bot, &TLS13)).await.unwrap();
    assert_eq!(call_on(&mut kept).await, 200);

    let own = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let before = own(&kept);
    let next = served.own.server();
    next.write(folder, "gate");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut fresh = served.connect(config(&served.own, &bot, &TLS12)).await.unwrap();
    assert_eq!(own(&fresh), next.der);
    assert_ne!(own(&fresh), before);
    assert_eq!((call_on(&mut fresh).await, call_on(&mut kept).await), (200, 200));

    replace(&folder.join("gate.pem"), "nothing of use\n", 0o644);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(own(&served.connect(config(&served.own, &bot, &TLS13)).await.unwrap()), next.der);
    assert_eq!(served.complaints(), 1, "{:?}", served.said);
    replace(&folder.join("gate.pem"), &next.pem, 0o644);

    let others = Authority::new("others");
    replace(&folder.join("clients-ca.pem"), &others.pem, 0o644);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(served.call(Some(&bot), None).await.is_err(), "its authority is not one any more");
    let moved = others.client("bot", vec![dns("bot.example")]);
    assert_eq!(served.call(Some(&moved), None).await.unwrap(), 200);
    assert_eq!(call_on(&mut kept).await, 200, "the connection is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proves_nothing_once_it_has_expired_on_an_open_connection_too() {
    let served = Served::start(project(json!([{ "name": "dns:bot.example" }])), json!({}), json!({})).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let brief = served.clients.issue("bot", |params| {
        params.subject_alt_names = vec![dns("bot.example")];
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(4);
    });
    let mut kept = served.connect(config(&served.own, &brief, &TLS13)).await.unwrap();
    assert_eq!(call_on(&mut kept).await, 200);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(call_on(&mut kept).await, 401);
    assert_eq!(kept.read(&mut [0]).await.unwrap_or_default(), 0, "the connection is closed");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_nothing() {
    let served = Served::start(project(json!([])), json!({}), json!({})).await;
    let id = served.child.id();
    assert!(Command::new("sh").arg("-c").arg(format!("kill -HUP {id}")).status().unwrap().success());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(served.call(None, Some(&key("bot"))).await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed() {
    let served = Served::start(project(json!([{ "name": "dns:bot.example" }])), json!({}), json!({})).await;
    let bot = served.clients.client("bot", vec![dns("bot.example")]);
    for version in [&TLS12, &TLS13] {
        let shared = config(&served.own, &bot, version);
        for _ in 0..3 {
            let mut stream = served.connect(shared.clone()).await.unwrap();
            assert_eq!(call_on(&mut stream).await, 200); // a ticket would have come by now
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_the_time_of_a_head_and_no_more() {
    let listener = json!({ "header-timeout": "700ms" });
    let served = Served::start(project(json!([])), json!({}), listener).await;
    for drip in [None, Some(Duration::from_millis(100))] {
        let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
        let began = Instant::now();
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        let (mut reads, mut writes) = stream.split();
        let dripping = async {
            loop {
                tokio::time::sleep(drip.unwrap_or(Duration::from_secs(60))).await;
                let _ = writes.write_all(&[1]).await;
            }
        };
        let mut rest = Vec::new();
        tokio::select! {
            () = dripping => unreachable!(),
            _ = reads.read_to_end(&mut rest) => {}
        }
        let lasted = began.elapsed().as_millis();
        assert!((600..1500).contains(&lasted), "{lasted} ms");
    }
    // A finished handshake does not begin the time anew.
    let bot = served.clients.client("bot", vec![]);
    let stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let connector = TlsConnector::from(Arc::new(config(&served.own, &bot, &TLS13)));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let _ = stream.read(&mut [0]).await;
    let lasted = began.elapsed().as_millis();
    assert!((600..1100).contains(&lasted), "{lasted} ms");
    assert!(served.counted().iter().any(|code| code == "handshake_timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_never_speak_stop_nobody() {
    let served = Served::start(project(json!([])), json!({}), json!({ "header-timeout": "20s" })).await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(("127.0.0.1", served.port)).await.unwrap());
    }
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(served.call(None, Some(&key("bot"))).await.unwrap(), 200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_what_this_port_speaks() {
    let served = Served::start(project(json!([])), json!({}), json!({})).await;
    let answer = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{}/mcp", served.port))
        .bearer_auth(key("bot"))
        .json(&body())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["error"]["message"], "this port speaks HTTPS, and the request came in plain HTTP");
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    stream.write_all(b"\x00\x01garbage").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    assert_eq!(served.callers(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_answered_alike_once_the_budget_is_spent_and_certificates_are_no_guesses() {
    let listener = json!({ "failures": "3/min" });
    let served = Served::start(project(json!([{ "name": "dns:bot.example" }])), json!({}), listener).await;
    for _ in 0..3 {
        assert_eq!(served.call(None, Some("cg_bot_wrong")).await.unwrap(), 401);
    }
    assert_eq!(served.call(None, Some("cg_bot_wrong")).await.unwrap(), 429);
    assert_eq!(served.call(None, Some(&key("bot"))).await.unwrap(), 429, "no oracle");
    let bot = served.clients.client("bot", vec![dns("bot.example")]);
    assert_eq!(served.call(Some(&bot), Some(&key("bot"))).await.unwrap(), 429);
    assert_eq!(served.call(Some(&bot), None).await.unwrap(), 200);
}

/// Runs a program that may not be on the machine.
fn run(program: &str, script: &str, folder: &Path) -> Option<String> {
    Command::new(program)
        .arg("--version")
        .output()
        .or_else(|_| Command::new(program).arg("version").output())
        .ok()?;
    let output = Command::new("sh").arg("-c").arg(script).current_dir(folder).output().unwrap();
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_other_makes_connect() {
    let served = Served::start(
        project(json!([{ "name": "dns:bot.example" }])),
        json!({ "client-certificates": "require" }),
        json!({}),
    )
    .await;
    let (folder, port) = (served.folder.path(), served.port);
    served.clients.client("bot", vec![dns("bot.example")]).write(folder, "bot");
    replace(&folder.join("own.pem"), &served.own.pem, 0o644);
    let curl = |more: &str| {
        let script = format!(
            "curl -sS --cacert own.pem {more} -H 'Content-Type: application/json' -H 'MCP-Protocol-Version: 2025-11-25' \
             -H 'Accept: application/json, text/event-stream' -d '{}' https://localhost:{port}/mcp",
            body()
        );
        run("curl", &script, folder)
    };
    if let Some(said) = curl("--cert bot.pem --key bot.key") {
        assert!(said.contains("\"result\""), "{said}");
    }
    if let Some(said) = curl("--tls-max 1.2 --cert bot.pem --key bot.key") {
        assert!(said.contains("\"result\""), "{said}");
    }
    if let Some(said) = curl("") {
        assert!(said.starts_with("curl: ("), "{said}");
    }
    let s_client = |more: &str| {
        let script = format!(
            "echo | openssl s_client -connect localhost:{port} -CAfile own.pem -cert bot.pem -key bot.key {more}"
        );
        run("openssl", &script, folder)
    };
    if let Some(said) = s_client("-alpn h2,http/1.1") {
        assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    if let Some(said) = s_client("-tls1_1 -cipher ALL:@SECLEVEL=0") {
        assert!(said.contains("Cipher is (NONE)") && said.contains("alert"), "{said}");
    }
}

#[test]
fn files_that_cannot_be_used_are_said_with_what_was_expected() {
    let (own, folder) = (Authority::new("own"), TempDir::new().unwrap());
    let path = folder.path();
    own.server().write(path, "gate");
    own.server().write(path, "other");
    let old = own.issue("old", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    old.write(path, "old");
    replace(&path.join("open.key"), &own.server().key, 0o644);
    let check = |tls: Value| {
        let address = ([127, 0, 0, 1], 1).into();
        project(json!([])).listener(json!({ "tls": tls })).write(path, address, address);
        callgate(path, ["check", "--secrets"])
    };
    let good = check(json!({ "certificate": "gate.pem", "key": "gate.key", "client-ca": "gate.pem" }));
    assert_eq!((good.code, good.stdout.contains("0 warnings")), (0, true), "{good:#?}");
    for (tls, expected) in [
        (json!({ "certificate": "gate.key", "key": "gate.key" }), "`gate.key` holds no certificate in PEM"),
        (json!({ "certificate": "none.pem", "key": "gate.key" }), "cannot read `none.pem`"),
        (json!({ "certificate": "gate.pem", "key": "file:gate.pem" }), "is open to other users"),
        (json!({ "certificate": "gate.pem", "key": "open.key" }), "`open.key` is open to other users"),
        (
            json!({ "certificate": "gate.pem", "key": "other.key" }),
            "the key `file:other.key` does not fit the certificate `gate.pem`",
        ),
        (
            json!({ "certificate": "gate.pem", "key": "gate.key", "client-ca": "gate.key" }),
            "`gate.key` holds no certificate in PEM",
        ),
        (
            json!({ "certificate": "gate.pem", "key": "gate.key", "client-certificates": "require" }),
            "`client-certificates` needs `client-ca`",
        ),
    ] {
        let checked = check(tls);
        let refusal = checked.stdout.clone();
        assert_eq!(checked.code, 1, "{checked:#?}");
        // The rendering breaks long lines.
        let flat = refusal.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(flat.contains(expected), "{expected}: {refusal}");
    }
    let stale = check(json!({ "certificate": "old.pem", "key": "old.key" }));
    assert_eq!(stale.code, 0);
    assert!(stale.stdout.contains("expired at 2020-01-01"), "{stale:#?}");
}

#[test]
fn plain_http_for_other_machines_is_pointed_out() {
    let folder = TempDir::new().unwrap();
    let address = ([127, 0, 0, 1], 1).into();
    project(json!([])).write(folder.path(), address, address);
    let warned = |address: &str| {
        crate::process::configure(folder.path(), "listen", json!({ "http": { "address": address } }));
        callgate(folder.path(), ["check"]).stdout.contains("in plain HTTP")
    };
    assert!(warned("0.0.0.0:8787"));
    assert!(warned("[::]:8787"));
    assert!(!warned("127.0.0.1:8787"));
    assert!(!warned("[::1]:8787"));
}

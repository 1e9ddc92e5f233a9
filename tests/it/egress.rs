//! Where calls may go: what the gate refuses, at load and at run time, and that no proxy is used.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{
    backend::{Backend, Closed},
    gate::{ERAS, Gate},
    project::{Project, tool},
};

fn project() -> Project {
    Project::new()
        .tool(tool("t.read", "read", "ok"))
        .tool(tool("t.write", "write", "ok"))
        .client("bot", json!({ "tools": ["*"], "stdio": true }))
        .policy("permit (principal, action, resource);")
}

fn callgate(folder: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    command.arg("--config").arg(folder.join("callgate.yaml")).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap()
}

#[tokio::test]
async fn a_call_to_the_gates_own_listener_is_denied_on_record_and_nothing_is_sent() {
    let gate = Gate::serve(project()).await;
    let _own = gate.app.gateway.listens_on(gate.backend.address);
    for era in ERAS {
        for tool in ["t.read", "t.write"] {
            let before = gate.records_of("outcome").len();
            let answer = gate.call(era, "bot", tool, json!({ "id": "1" })).await;
            assert!(answer.is_error());
            assert_eq!(answer.message(), "backend failed");
            let records = gate.records_of("outcome");
            assert_eq!(records.len(), before + 1);
            let record = records.last().unwrap();
            assert_eq!(record["outcome"], "denied");
            assert_eq!(record["code"], "egress_refused");
            assert_eq!(
                record["detail"],
                "`api`: the address is the gate's own listener, which is never called"
            );
        }
    }
    assert_eq!(gate.backend.hits(), 0);
}

#[test]
fn a_service_that_its_egress_does_not_allow_does_not_load() {
    let (folder, nowhere) = (TempDir::new().unwrap(), Closed::bind().address);
    for (url, egress, message, help) in [
        ("http://127.1:9/", json!({}), "loopback (127.0.0.0/8, RFC 1122)", "egress: { loopback: true }"),
        ("http://localhost:9/", json!({}), "loopback (::1/128, RFC 4291)", "egress: { loopback: true }"),
        ("http://10.1.2.3/", json!({}), "private (10.0.0.0/8, RFC 1918)", r#"private: ["10.1.2.3/32"]"#),
        (
            "http://169.254.169.254/",
            json!({ "private": ["169.254.0.0/16"] }),
            "cloud metadata",
            r#"metadata: ["169.254.169.254"]"#,
        ),
        ("http://10.1.2.3/", json!({ "private": ["127.0.0.0/8"] }), "is loopback", "loopback: true"),
        ("http://10.1.2.3/", json!({ "private": ["10.1.2.3/8"] }), "beyond its prefix", "10.0.0.0/8"),
    ] {
        project().write(folder.path(), nowhere, nowhere);
        let server = json!({ "services": { "api": { "url": url, "egress": egress } } });
        fs::write(folder.path().join("callgate.yaml"), server.to_string()).unwrap();
        let checked = callgate(folder.path(), &["--json", "check"], &[]);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        )
        .replace("\\\"", "\"");
        assert!(!checked.status.success(), "{url} {egress}: {said}");
        assert!(said.contains(message) && said.contains(help), "{url} {egress}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_of_the_environment_is_used() {
    let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
    project().write(folder.path(), backend.address, Closed::bind().address);
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", proxy.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        while proxy.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"];
    let environment = names.map(|name| (name, address.clone()));
    // The canary does count: a client that heeds the environment goes there.
    let heeding = reqwest::Client::builder().proxy(reqwest::Proxy::all(&address).unwrap()).build().unwrap();
    let _ = heeding
        .get(format!("http://{}/ok/1", backend.address))
        .timeout(std::time::Duration::from_millis(200))
        .send()
        .await;
    assert_eq!((connections.swap(0, Ordering::SeqCst), backend.hits()), (1, 0));

    let called = tokio::task::spawn_blocking(move || {
        let arguments = ["call", "t.read", "--client", "bot", "--args", r#"{"id":"1"}"#];
        callgate(folder.path(), &arguments, &environment)
    });
    let called = called.await.unwrap();
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    assert_eq!((connections.load(Ordering::SeqCst), backend.hits()), (0, 1));
}

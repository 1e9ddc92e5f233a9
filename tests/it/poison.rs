//! A gate whose log cannot be written any more, as its clients see it: the kernel refuses the write.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    backend::Backend,
    process::{Process, callgate, configure},
    project::{Project, tool},
};

/// So many calls first that the log is the largest file of the gate, and the one that meets the limit.
const CALLS_BEFORE: usize = 150;
/// How much further the log can grow, in blocks of 512 bytes.
const BLOCKS_LEFT: u64 = 24;

fn project(folder: &Path, api: SocketAddr) {
    Project::new()
        .tool(tool("get", "read", "ok"))
        .tool(tool("set", "write", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
        .write(folder, api, SocketAddr::from(([127, 0, 0, 1], 1)));
}

/// The id of the record of a call that was answered, or what its refusal says.
fn answered(result: &Value) -> Result<String, String> {
    if result["isError"] == true {
        return Err(result["content"][0]["text"].as_str().unwrap().to_owned());
    }
    assert_eq!(result["structuredContent"]["id"], "1", "{result}");
    Ok(result["_meta"]["callgate/record"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_cannot_write_its_log_refuses_every_call_until_it_is_started_again() {
    let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
    project(folder.path(), backend.address);
    let mut acknowledged = Vec::new();
    let gate = Process::start(folder.path());
    for _ in 0..CALLS_BEFORE {
        acknowledged.push(answered(&gate.call("bot", "get", "1").await).unwrap());
    }
    assert!(gate.stop().success());

    let segments = folder.path().join("state/audit/serve-0/segments");
    let log = fs::read_dir(&segments).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).max();
    let gate = Process::start_with_small_files(folder.path(), log.unwrap() / 512 + BLOCKS_LEFT);
    assert_eq!((gate.get("/readyz").await.0, gate.get("/livez").await.0), (200, 200));
    let before = acknowledged.len();
    let refusal = loop {
        let tool = if acknowledged.len().is_multiple_of(2) { "get" } else { "set" };
        match answered(&gate.call("bot", tool, "1").await) {
            Ok(record) => acknowledged.push(record),
            Err(refusal) => break refusal,
        }
        assert!(acknowledged.len() < before + 100, "the limit was never met");
    };
    assert_eq!(refusal, "temporarily unavailable");
    assert!(acknowledged.len() > before, "some calls were answered before");

    // From then on no call leaves, though the log could take shorter records.
    let hits = backend.hits();
    for _ in 0..5 {
        for tool in ["get", "set", "nosuch"] {
            let refused = answered(&gate.call("bot", tool, "1").await);
            assert_eq!(refused, Err("temporarily unavailable".to_owned()), "{tool}");
        }
    }
    assert_eq!(backend.hits(), hits, "a call left without a record");
    assert_eq!(gate.get("/readyz").await, (503, "the record cannot be written\n".to_owned()));
    assert_eq!(gate.get("/livez").await.0, 200);
    gate.stop();

    let gate = Process::start(folder.path());
    assert_eq!(gate.get("/readyz").await.0, 200);
    acknowledged.push(answered(&gate.call("bot", "set", "1").await).unwrap());
    let verified = callgate(folder.path(), ["audit", "verify", "--json"]).json();
    assert_eq!(verified["ok"], true, "{verified}");
    assert!(gate.stop().success());
    let records = callgate(folder.path(), ["audit", "export", "--format", "jsonl"]).json_lines();
    for id in &acknowledged {
        let outcomes = records.iter().filter(|line| {
            line["record"]["record"] == "outcome"
                && line["record"]["outcome"] == "allowed"
                && line["record"]["call"]["id"] == **id
        });
        assert_eq!(outcomes.count(), 1, "{id}");
    }
}

#[tokio::test]
async fn a_gate_whose_disk_has_less_free_than_its_reserve_does_not_start_and_says_so() {
    let (backend, folder) = (Backend::start().await, TempDir::new().unwrap());
    project(folder.path(), backend.address);
    configure(folder.path(), "record", json!({ "reserve": "1000000GiB" }));
    let said = callgate(folder.path(), ["serve"]).refusal();
    let said = said.lines().last().unwrap(); // the lines before it are the program's own log
    insta::assert_snapshot!(said, @"error: the disk of the record has less free than the 1073741824000000 bytes that `record: reserve` keeps back");
}

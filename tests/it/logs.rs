//! Processes that share a state folder.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    backend::Closed,
    gate::open,
    project::{Project, tool},
};

#[tokio::test]
async fn two_processes_on_one_state_folder_write_different_logs() {
    let (folder, nowhere) = (TempDir::new().unwrap(), Closed::bind().address);
    let project = Project::new()
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["get"], "stdio": true }));
    project.write(folder.path(), nowhere, nowhere);
    let (one, other) = (open(folder.path(), "stdio").await, open(folder.path(), "stdio").await);
    let names = [&one, &other].map(|app| app.gateway.audit().log().to_string());
    assert_eq!(names, ["stdio-0", "stdio-1"]);
    for name in names {
        let log =
            fs::read_to_string(folder.path().join("state/audit").join(&name).join("log.jsonl")).unwrap();
        let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [start] = records.as_slice() else { panic!("{records:#?}") };
        assert_eq!(
            (&start["record"], &start["log"], &start["seq"]),
            (&json!("start"), &json!(name), &json!(0))
        );
    }
}

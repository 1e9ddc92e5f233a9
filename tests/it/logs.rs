//! Processes that share a state folder.

use serde_json::json;
use tempfile::TempDir;

use crate::{
    backend::Closed,
    gate::{open, records},
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
        let records = records(folder.path(), &name, 0);
        let [start] = records.as_slice() else { panic!("{records:#?}") };
        assert_eq!((&start["record"], &start["cut"]), (&json!("start"), &json!(0)));
    }
}

//! A gate as its own process, `callgate serve`, so that its memory can be measured.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    gate::records,
    project::{Project, key},
};

/// A gate that serves, until it is dropped.
pub(crate) struct Served {
    child: Child,
    url: String,
    http: reqwest::Client,
    folder: TempDir,
}

impl Served {
    /// Serves a project whose service `api` has these settings besides its address.
    pub(crate) fn start(project: &Project, api: SocketAddr, settings: Value) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        project.write(folder.path(), api, SocketAddr::from(([127, 0, 0, 1], 1)));
        let config = folder.path().join("callgate.yaml");
        let mut server: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        for (setting, value) in settings.as_object().unwrap() {
            server["services"]["api"][setting] = value.clone();
        }
        fs::write(&config, server.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_callgate"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = lines
            .find_map(|line| Some(line.split_once("http://")?.1.split_once(';')?.0.to_owned()))
            .expect("the gate says where it serves");
        std::thread::spawn(move || lines.for_each(drop)); // a full pipe would stop the gate
        Self { child, url: format!("http://{url}"), http: reqwest::Client::new(), folder }
    }

    /// Calls a tool as a client; what comes back is the result.
    pub(crate) async fn call(&self, client: &str, tool: &str) -> Value {
        let params = json!({ "name": tool, "arguments": { "id": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = self
            .http
            .post(&self.url)
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2025-11-25")
            .bearer_auth(key(client))
            .json(&body);
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["result"].take()
    }

    /// The outcomes on record so far.
    pub(crate) fn outcomes(&self) -> Vec<Value> {
        records(self.folder.path(), "serve-0", 0)
            .into_iter()
            .filter(|record| record["record"] == "outcome")
            .collect()
    }

    /// A line of `/proc/PID/status` in KiB, such as `VmRSS`.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory_kib(&self, line: &str) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        found.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Makes `VmHWM`, the most memory that was ever resident, begin anew (proc_pid_clear_refs(5)).
    #[cfg(target_os = "linux")]
    pub(crate) fn forget_memory_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

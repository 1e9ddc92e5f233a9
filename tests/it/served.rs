//! A gate as its own process, `callgate serve`, so that its memory can be measured.

use std::{fs, net::SocketAddr};

use serde_json::Value;
use tempfile::TempDir;

use crate::{gate::records, process::Process, project::Project};

/// A gate that serves, until it is dropped.
pub(crate) struct Served {
    process: Process,
    folder: TempDir,
}

impl Served {
    /// Serves a project whose service `api` has these settings besides its address.
    pub(crate) fn start(project: &Project, api: SocketAddr, settings: Value) -> Self {
        let folder = TempDir::new().unwrap();
        project.write(folder.path(), api, SocketAddr::from(([127, 0, 0, 1], 1)));
        let config = folder.path().join("callgate.yaml");
        let mut server: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        for (setting, value) in settings.as_object().unwrap() {
            server["services"]["api"][setting] = value.clone();
        }
        fs::write(&config, server.to_string()).unwrap();
        Self { process: Process::start(folder.path()), folder }
    }

    /// Calls a tool as a client; what comes back is the result.
    pub(crate) async fn call(&self, client: &str, tool: &str) -> Value {
        self.process.call(client, tool, "1").await
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
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        found.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Makes `VmHWM`, the most memory that was ever resident, begin anew (proc_pid_clear_refs(5)).
    #[cfg(target_os = "linux")]
    pub(crate) fn forget_memory_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").unwrap();
    }
}

//! The program as its users run it: `callgate serve` on a folder that stays, and what a command prints.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use serde_json::{Value, json};

use crate::project::key;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_callgate");

/// A gate that serves the project of a folder, until it is stopped or dropped.
pub(crate) struct Process {
    child: Child,
    address: String,
    http: reqwest::Client,
}

impl Process {
    /// Serves the project of a folder.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::spawn(Command::new(PROGRAM).args(["serve", "--config"]).arg(folder.join("callgate.yaml")))
    }

    /// The same, where no file can grow beyond so many blocks of 512 bytes: a write there fails with EFBIG.
    pub(crate) fn start_with_small_files(folder: &Path, blocks: u64) -> Self {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" serve --config \"$1\"");
        let mut command = Command::new("sh");
        Self::spawn(command.arg("-c").arg(script).arg(PROGRAM).arg(folder.join("callgate.yaml")))
    }

    fn spawn(command: &mut Command) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            let address =
                line.split_once("http://").and_then(|(_, rest)| Some(rest.split_once("/mcp;")?.0.to_owned()));
            said.push(line);
            address
        });
        let address = address.unwrap_or_else(|| panic!("the gate did not start: {said:#?}"));
        std::thread::spawn(move || lines.for_each(drop)); // a full pipe would stop the gate
        Self { child, address, http: reqwest::Client::new() }
    }

    /// Calls a tool as a client; what comes back is the result.
    pub(crate) async fn call(&self, client: &str, tool: &str, id: &str) -> Value {
        let params = json!({ "name": tool, "arguments": { "id": id } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = self
            .http
            .post(format!("http://{}/mcp", self.address))
            .header("Accept", "application/json, text/event-stream")
            .header("MCP-Protocol-Version", "2025-11-25")
            .bearer_auth(key(client))
            .json(&body);
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["result"].take()
    }

    /// The status of a GET, and its text.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("http://{}{path}", self.address)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Asks the gate to stop (SIGTERM), and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let asked = Command::new("sh").arg("-c").arg(format!("kill {}", self.child.id())).status().unwrap();
        assert!(asked.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sets a part of `callgate.yaml`.
pub(crate) fn configure(folder: &Path, part: &str, value: Value) {
    let path = folder.join("callgate.yaml");
    let mut server: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    server[part] = value;
    fs::write(&path, server.to_string()).unwrap();
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program in a folder.
pub(crate) fn callgate<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> Printed {
    print(Command::new(PROGRAM).args(arguments).current_dir(folder))
}

/// Runs a command.
pub(crate) fn print(command: &mut Command) -> Printed {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    Printed {
        code: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

impl Printed {
    /// What was printed by a command that had to succeed.
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// The same, as one value of JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.good()).unwrap()
    }

    /// The same, with a value of JSON on each line.
    pub(crate) fn json_lines(self) -> Vec<Value> {
        self.good().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What was said by a command that had to fail.
    pub(crate) fn refusal(self) -> String {
        assert_eq!(self.code, 1, "{self:#?}");
        self.stderr
    }
}

//! The program as its users run it: `callgate serve` on a folder that stays, and what a command prints.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::project::key;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_callgate");

/// A process that serves, without a client of its own.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    /// Where it serves, `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// What it said on standard error, when it has ended. Nobody has to wait for it.
    pub(crate) said: JoinHandle<String>,
}

/// `callgate serve` on the project of a folder.
pub(crate) fn serve(folder: &Path) -> Spawned {
    spawn(Command::new(PROGRAM).args(["serve", "--config"]).arg(folder.join("callgate.yaml")))
}

/// Runs a command that serves, and waits until it says where.
fn spawn(command: &mut Command) -> Spawned {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let address = loop {
        let before = said.len();
        assert!(stderr.read_line(&mut said).unwrap() > 0, "the gate did not start: {said}");
        if let Some((_, rest)) = said[before..].split_once("http://") {
            break rest.split_once("/mcp;").unwrap().0.to_owned();
        }
    };
    // A full pipe would stop the gate.
    let said = std::thread::spawn(move || {
        stderr.read_to_string(&mut said).unwrap();
        said
    });
    Spawned { child, address, said }
}

/// A gate that serves the project of a folder, until it is stopped or dropped.
pub(crate) struct Process {
    child: Child,
    address: String,
    /// Taken when it is stopped.
    said: Option<JoinHandle<String>>,
    http: reqwest::Client,
}

impl Process {
    /// Serves the project of a folder.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::of(serve(folder))
    }

    /// The same, where no file can grow beyond so many blocks of 512 bytes: a write there fails with EFBIG.
    pub(crate) fn start_with_small_files(folder: &Path, blocks: u64) -> Self {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" serve --config \"$1\"");
        let mut command = Command::new("sh");
        Self::of(spawn(command.arg("-c").arg(script).arg(PROGRAM).arg(folder.join("callgate.yaml"))))
    }

    fn of(Spawned { child, address, said }: Spawned) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self { child, address, said: Some(said), http: reqwest::Client::new() }
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

    /// The id of the process.
    #[cfg(target_os = "linux")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the gate to stop (SIGTERM), and waits until it has.
    pub(crate) fn stop(self) -> ExitStatus {
        self.stop_and_listen().0
    }

    /// The same, and what it said on standard error from its start on.
    pub(crate) fn stop_and_listen(mut self) -> (ExitStatus, String) {
        let asked = Command::new("sh").arg("-c").arg(format!("kill {}", self.child.id())).status().unwrap();
        assert!(asked.success());
        (self.child.wait().unwrap(), self.said.take().unwrap().join().unwrap())
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

//! `callgate serve` with an admin listener, as a process of its own, and everything that it says.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use callgate::admin::NewAdminKey;
use serde_json::json;

use crate::process::{PROGRAM, Printed, configure, print};

/// A server with an admin listener, until it is stopped or dropped.
pub(crate) struct Listening {
    child: Child,
    /// `http://HOST:PORT/mcp`.
    pub(crate) mcp: String,
    /// `http://HOST:PORT/`.
    pub(crate) admin: String,
    said: Said,
}

/// Lets the project of a folder be administered, and gives the key for that.
pub(crate) fn administered(folder: &Path, listener: serde_json::Value) -> String {
    let made = NewAdminKey::random().unwrap();
    let key = json!({ "id": made.id, "name": "dana", "sha256": made.sha256, "expires": "2100-01-01" });
    let mut listener = listener;
    listener["address"] = json!("127.0.0.1:0");
    let admin = json!({ "address": "127.0.0.1:0", "keys": [key] });
    configure(folder, "listen", json!({ "http": listener, "admin": admin }));
    made.key
}

impl Listening {
    /// Serves the project of a folder, with these environment variables besides.
    pub(crate) fn start(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(folder.join("callgate.yaml"));
        command.envs(environment.iter().copied());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut first = Vec::new();
        let mut url = |mark: &str| {
            loop {
                let before = first.len();
                let read = stderr.read_until(b'\n', &mut first).unwrap();
                assert!(read > 0, "the gate did not start: {}", String::from_utf8_lossy(&first));
                let line = String::from_utf8_lossy(&first[before..]).into_owned();
                if let Some((_, rest)) = line.split_once("http://")
                    && line.contains(mark)
                {
                    let end = rest.find([';', '\n']).unwrap();
                    return format!("http://{}", &rest[..end]);
                }
            }
        };
        let (mcp, admin) = (url("/mcp;"), url("admin"));
        Self { child, mcp, admin, said: Said::hear(first, stderr) }
    }

    /// `http://HOST:PORT` without a path.
    pub(crate) fn origin(&self) -> &str {
        self.mcp.strip_suffix("/mcp").unwrap()
    }

    /// A command that speaks with its admin listener.
    pub(crate) fn command(&self, folder: &Path, admin_key: &str, arguments: &[&str]) -> Printed {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(folder).env("CALLGATE_ADMIN_URL", &self.admin);
        print(command.env("CALLGATE_ADMIN_KEY", admin_key))
    }

    /// Asks it to stop, waits until it has, and gives all that it said on standard error.
    pub(crate) fn stop(mut self) -> Vec<u8> {
        let asked = Command::new("sh").arg("-c").arg(format!("kill {}", self.child.id())).status().unwrap();
        assert!(asked.success());
        assert!(self.child.wait().unwrap().success());
        self.said.whole()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process says on a pipe. Somebody has to listen: a full pipe would stop it.
pub(crate) struct Said {
    bytes: Arc<Mutex<Vec<u8>>>,
    listening: Option<JoinHandle<()>>,
}

impl Said {
    pub(crate) fn hear(first: Vec<u8>, mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(first));
        let kept = Arc::clone(&bytes);
        let listening = std::thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, listening: Some(listening) }
    }

    /// All of it, once the pipe is closed.
    pub(crate) fn whole(&mut self) -> Vec<u8> {
        self.listening.take().unwrap().join().unwrap();
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

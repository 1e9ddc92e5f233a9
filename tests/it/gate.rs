//! A gate that serves a project over HTTP, and what its clients and its log see.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use callgate::{
    app::App,
    audit::reader::{LogFolder, logs},
    transport::HttpServer,
};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Backend, Closed},
    project::{Project, key},
};

/// Which protocol a client speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Era {
    /// 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
}

pub(crate) const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

impl Era {
    /// A request of the protocol, with the headers and the `_meta` that clients of this era send.
    pub(crate) fn request(
        self,
        mut request: RequestBuilder,
        method: &str,
        mut params: Value,
    ) -> RequestBuilder {
        request = request.header("Accept", "application/json, text/event-stream");
        request = match self {
            Self::Legacy => request.header("MCP-Protocol-Version", "2025-11-25"),
            Self::Modern => {
                params["_meta"] = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": { "name": "it", "version": "1" },
                    "io.modelcontextprotocol/clientCapabilities": {}
                });
                if let Some(name) = params["name"].as_str() {
                    request = request.header("Mcp-Name", name);
                }
                request.header("MCP-Protocol-Version", "2026-07-28").header("Mcp-Method", method)
            }
        };
        request.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
    }
}

/// A gate that serves.
pub(crate) struct Gate {
    pub(crate) app: App,
    pub(crate) backend: Backend,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    folder: TempDir,
    _closed: Closed,
}

/// What came back, as it was on the wire.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Opens an app of the project in a folder.
pub(crate) async fn open(folder: &Path, kind: &'static str) -> App {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    App::open(&folder.join("callgate.yaml"), kind).await.unwrap_or_else(|error| panic!("{error:#?}"))
}

impl Gate {
    pub(crate) async fn serve(project: Project) -> Self {
        let (backend, closed, folder) = (Backend::start().await, Closed::bind(), TempDir::new().unwrap());
        project.write(folder.path(), backend.address, closed.address);
        let app = open(folder.path(), "serve").await;
        let settings = app.project.files.as_ref().unwrap().server.1.listen.http.clone();
        let server = HttpServer::bind(settings, folder.path()).await.unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        let url = format!("http://{address}/mcp");
        let serving = tokio::spawn(server.serve(app.gateway.clone(), stop.clone()));
        let http = reqwest::Client::new();
        Self { app, backend, address, stop, serving, url, http, folder, _closed: closed }
    }

    /// Sends a request with the given key, or none.
    pub(crate) async fn send(&self, era: Era, key: Option<&str>, method: &str, params: Value) -> Answer {
        let mut request = self.http.post(&self.url);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = era.request(request, method, params).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    /// Calls a tool as a client.
    pub(crate) async fn call(&self, era: Era, client: &str, tool: &str, arguments: Value) -> Answer {
        let params = json!({ "name": tool, "arguments": arguments });
        self.send(era, Some(&key(client)), "tools/call", params).await
    }

    /// The names of the tools that a client is shown.
    pub(crate) async fn list(&self, era: Era, client: &str) -> Vec<String> {
        let answer = self.send(era, Some(&key(client)), "tools/list", json!({})).await.json();
        let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools in {answer}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Every record so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.records_from(0)
    }

    /// The folder of its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// How many records the log holds now, for [`Gate::records_from`].
    pub(crate) fn log_size(&self) -> u64 {
        log(self.folder.path(), "serve-0").size().unwrap()
    }

    /// The records from an index on.
    pub(crate) fn records_from(&self, index: u64) -> Vec<Value> {
        records(self.folder.path(), "serve-0", index)
    }

    /// The records of one kind so far.
    pub(crate) fn records_of(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["record"] == kind).collect()
    }
}

/// A log of the project in a folder.
fn log(project: &Path, name: &str) -> LogFolder {
    let logs = logs(&project.join("state")).unwrap();
    logs.into_iter().find(|log| log.name() == name).unwrap()
}

/// The records of a log of the project in a folder, from an index on.
pub(crate) fn records(project: &Path, name: &str, index: u64) -> Vec<Value> {
    let records = log(project, name).records(index).unwrap();
    records.map(|found| serde_json::from_slice(&found.unwrap().bytes).unwrap()).collect()
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {:?}", self.status, self.text()))
    }

    /// The first text block of a result.
    pub(crate) fn message(&self) -> String {
        let json = self.json();
        json["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("no text in {json}"))
            .to_owned()
    }

    pub(crate) fn is_error(&self) -> bool {
        self.json()["result"]["isError"] == true
    }
}

//! Requests as bytes over a bare connection, and the project that they are made to.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::project::{Project, key, tool};

pub(crate) fn project() -> Project {
    let mut mirrored = tool("mirrored", "read", "ok");
    mirrored["input"]["properties"]["id"]["x-mcp-header"] = json!("Id");
    let mut hidden = mirrored.clone();
    hidden["tool"] = json!("hidden");
    Project::new()
        .tool(tool("get", "read", "ok"))
        .tool(tool("later", "read", "later"))
        .tool(mirrored)
        .tool(hidden)
        .client("bot", json!({ "tools": ["get", "mirrored", "later"], "stdio": true }))
        .policy("permit (principal, action, resource);")
}

/// What came back over a bare connection.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON in {self:?}"))
    }
}

pub(crate) async fn talk(address: SocketAddr, bytes: &[u8]) -> Raw {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(stream).await
}

pub(crate) async fn read(mut stream: TcpStream) -> Raw {
    let mut text = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.unwrap().unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Raw { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A request, as its lines. Headers that are given replace the usual ones of the same name.
pub(crate) fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let authorization = format!("Authorization: Bearer {}", key("bot"));
    let usual = [
        "Host: localhost",
        &authorization,
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        "Connection: close",
    ];
    let name = |header: &str| header.split(':').next().unwrap().to_ascii_lowercase();
    let mut all = vec![line.to_owned()];
    let replaced = |one: &&&str| headers.iter().all(|header| name(header) != name(one));
    all.extend(usual.iter().filter(replaced).map(|one| (*one).to_owned()));
    all.extend(headers.iter().filter(|header| !header.ends_with(": -")).map(|one| (*one).to_owned()));
    all.push(format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut bytes = all.join("\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) const POST: &str = "POST /mcp HTTP/1.1";
pub(crate) const CALL: &str =
    r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get","arguments":{"id":"1"}}}"#;

/// The same message in the later era: with `_meta`, and the headers that repeat it, except the name.
pub(crate) fn modern(body: &str) -> (Vec<&'static str>, String) {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "it", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {}
    });
    let mut headers = vec!["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call"];
    match body["params"]["name"].as_str() {
        Some("get") => headers.push("Mcp-Name: get"),
        Some("mirrored") => headers.push("Mcp-Name: mirrored"),
        Some("hidden") => headers.push("Mcp-Name: hidden"),
        Some("absent") => headers.push("Mcp-Name: absent"),
        _ => {}
    }
    (headers, body.to_string())
}

pub(crate) fn call(tool: &str) -> String {
    CALL.replace("\"get\"", &format!("\"{tool}\""))
}

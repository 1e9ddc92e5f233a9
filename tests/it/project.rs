//! A project as its people write it. Every file is YAML, of which JSON is a part.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// A project, not on disk yet.
pub(crate) struct Project {
    tools: Vec<Value>,
    clients: Map<String, Value>,
    services: Map<String, Value>,
    floors: Value,
    cedar: String,
    listener: Value,
    server: Map<String, Value>,
}

/// The key of a client of `Project::client`.
pub(crate) fn key(client: &str) -> String {
    format!("cg_{client}_the-secret-of-{client}")
}

/// The entry of that key in `clients.yaml`.
pub(crate) fn key_entry(client: &str, expires: &str) -> Value {
    let secret = format!("the-secret-of-{client}");
    json!({ "id": client, "sha256": hex::encode(Sha256::digest(secret)), "expires": expires })
}

/// A tool whose backend behaves as the `behaviour` says.
pub(crate) fn tool(name: &str, effects: &str, behaviour: &str) -> Value {
    let method = if effects == "read" { "GET" } else { "POST" };
    json!({
        "tool": name,
        "description": "A tool for tests.",
        "effects": effects,
        "reach": "none",
        "yields": "trusted",
        "input": {
            "type": "object",
            "additionalProperties": false,
            "required": ["id"],
            "properties": { "id": { "type": "string", "maxLength": 20 } }
        },
        "output": {
            "type": "object",
            "required": ["id"],
            "properties": { "id": { "type": "string", "maxLength": 1_000_000 } }
        },
        "backend": { "http": { "service": "api", "method": method, "path": format!("/{behaviour}/{{id}}") } }
    })
}

/// A tool that also takes an `amount`.
pub(crate) fn paying_tool(name: &str) -> Value {
    let mut tool = tool(name, "write", "ok");
    tool["input"]["required"] = json!(["id", "amount"]);
    tool["input"]["properties"]["amount"] = json!({ "type": "integer", "minimum": 1 });
    tool["backend"]["http"]["body"] = json!(["amount"]);
    tool
}

impl Project {
    /// A project in which every tool is what its developer claims.
    pub(crate) fn new() -> Self {
        let floors = json!({ "unlisted": "trust-claims" });
        Self {
            tools: Vec::new(),
            clients: Map::new(),
            services: Map::new(),
            floors,
            cedar: String::new(),
            listener: json!({}),
            server: Map::new(),
        }
    }

    pub(crate) fn tool(mut self, tool: Value) -> Self {
        self.tools.push(tool);
        self
    }

    /// Adds a client, with a key unless the spec has some.
    pub(crate) fn client(mut self, name: &str, mut spec: Value) -> Self {
        spec["owner"] = json!("dana@example.com");
        if spec["keys"].is_null() {
            spec["keys"] = json!([key_entry(name, "2100-01-01")]);
        }
        self.clients.insert(name.to_owned(), spec);
        self
    }

    pub(crate) fn floors(mut self, floors: Value) -> Self {
        self.floors = floors;
        self
    }

    pub(crate) fn policy(mut self, cedar: &str) -> Self {
        self.cedar.push_str(cedar);
        self.cedar.push('\n');
        self
    }

    /// Adds a service.
    pub(crate) fn service(mut self, name: &str, spec: Value) -> Self {
        self.services.insert(name.to_owned(), spec);
        self
    }

    /// Sets what the listener says besides its address.
    pub(crate) fn listener(mut self, settings: Value) -> Self {
        self.listener = settings;
        self
    }

    /// Sets another key of `callgate.yaml`.
    pub(crate) fn server(mut self, key: &str, value: Value) -> Self {
        self.server.insert(key.to_owned(), value);
        self
    }

    /// Writes the files. The service `api` is at one address, `closed` at the other.
    pub(crate) fn write(&self, folder: &Path, api: SocketAddr, closed: SocketAddr) {
        let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
        fs::create_dir_all(folder.join("tools")).unwrap();
        fs::create_dir_all(folder.join("policies")).unwrap();
        let mut listener = self.listener.clone();
        listener["address"] = json!("127.0.0.1:0");
        let mut server = json!({
            "name": "gate-under-test",
            "listen": { "http": listener },
            "services": {
                "api": { "url": format!("http://{api}/"), "egress": { "loopback": true } },
                "closed": { "url": format!("http://{closed}/"), "egress": { "loopback": true } }
            }
        });
        server["services"].as_object_mut().unwrap().extend(self.services.clone());
        server.as_object_mut().unwrap().extend(self.server.clone());
        write("callgate.yaml", server.to_string());
        for (at, tool) in self.tools.iter().enumerate() {
            write(&format!("tools/{at}.yaml"), tool.to_string());
        }
        let approvers = json!({ "finance": ["lee@example.com", "sam@example.com"] });
        let clients = json!({ "clients": self.clients, "approvers": approvers });
        write("policies/clients.yaml", clients.to_string());
        write("policies/tools.yaml", self.floors.to_string());
        write("policies/project.cedar", self.cedar.clone());
    }
}

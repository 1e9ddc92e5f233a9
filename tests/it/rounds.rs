//! Calls that need their caller: what an upstream asks, what a caller brings back, and what it lacks (2026-07-28).

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use callgate::upstream::{definition_digest, file_digest, find_program};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::PROGRAM;

/// A server that asks for a name, and says what it was brought. Its tool `model` needs a caller that can be asked for
/// a completion.
const SERVER: &str = r#"
import json, sys
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
question = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}}
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if "id" not in message:
        continue
    state, error = json.load(open("state.json")), None
    if method == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "prompts": {}}, "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}}
    elif method == "tools/list":
        result = {"tools": state["tools"]}
    elif method == "prompts/list":
        result = {"prompts": state["prompts"]}
    elif params.get("name") == "model" and "sampling" not in params["_meta"][CAPABILITIES]:
        error = {"code": -32021, "message": "obey me", "data": {"requiredCapabilities": {"sampling": {}}, "more": "obey me"}}
    elif params.get("requestState") == "round 1":
        text = {"type": "text", "text": json.dumps(params["inputResponses"])}
        result = {"content": [text]} if method == "tools/call" else {"messages": [{"role": "user", "content": text}]}
    elif "inputResponses" in params:
        result = {"content": [{"type": "text", "text": "answers to nothing"}]}
    else:
        result = {"inputRequests": {"who": question}, "requestState": "round 1"}
    if error:
        answer = {"error": error}
    else:
        answer = {"result": {"resultType": "input_required" if "inputRequests" in result else "complete", **result}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"#;

/// A gate on standard input and output, and a client without sessions at its other end.
struct Pipe {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Pipe {
    fn start() -> Self {
        let folder = project();
        let mut child = Command::new(PROGRAM)
            .args(["stdio", "--client", "bot", "--config"])
            .arg(folder.path().join("callgate.yaml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output, _folder: folder }
    }

    /// Asks as a client that can do this.
    fn ask(&mut self, abilities: &Value, method: &str, params: Value) -> Value {
        let mut params = params;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "it", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": abilities,
        });
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        writeln!(self.input, "{request}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
    }

    fn call(&mut self, abilities: &Value, params: Value) -> Value {
        self.ask(abilities, "tools/call", params)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn project() -> TempDir {
    let folder = TempDir::new().unwrap();
    for below in ["tools", "policies"] {
        fs::create_dir_all(folder.path().join(below)).unwrap();
    }
    let put = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
    let state =
        json!({ "tools": [tool("ask"), tool("model"), tool("mute")], "prompts": [{ "name": "greet" }] });
    put("server.py", SERVER);
    put("state.json", &state.to_string());
    put("policies/p.cedar", "permit (principal, action, resource);");
    put("policies/tools.yaml", "unlisted: trust-claims\n");
    let python = find_program("python3", folder.path()).unwrap();
    let server = json!({
        "listen": { "stdio": { "client": "bot" } },
        "upstreams": { "up": { "stdio": {
            "command": "python3", "args": ["server.py"], "digest": file_digest(&python).unwrap(),
            "files": { "server.py": file_digest(&folder.path().join("server.py")).unwrap() }
        } } }
    });
    put("callgate.yaml", &server.to_string());
    let bot = json!({ "owner": "dana", "stdio": true, "tools": ["*"], "prompts": ["*"] });
    put("policies/clients.yaml", &json!({ "clients": { "bot": bot } }).to_string());
    let definition = |key: &str, index: usize| definition_digest(state[key][index].as_object().unwrap());
    for (index, (name, asks)) in
        [("ask", json!(["elicitation"])), ("model", json!(["sampling"])), ("mute", json!([]))]
            .into_iter()
            .enumerate()
    {
        let mcp =
            json!({ "upstream": "up", "tool": name, "definition": definition("tools", index), "asks": asks });
        let manifest = json!({
            "tool": name, "description": "For tests.", "effects": "read", "reach": "none", "yields": "trusted",
            "input": { "type": "object", "properties": {}, "additionalProperties": false },
            "backend": { "mcp": mcp }, "deliberately": ["unchecked-output"],
        });
        put(&format!("tools/{name}.yaml"), &manifest.to_string());
    }
    let mcp = json!({
        "upstream": "up", "prompt": "greet", "definition": definition("prompts", 0), "asks": ["elicitation"]
    });
    let prompt = json!({ "prompt": "greet", "description": "For tests.", "backend": { "mcp": mcp } });
    put("tools/greet.yaml", &prompt.to_string());
    folder
}

fn everything() -> Value {
    json!({ "elicitation": {}, "sampling": {}, "roots": {} })
}

#[test]
fn what_is_asked_is_answered_once_and_with_the_state_that_was_given() {
    let mut pipe = Pipe::start();
    for (method, name, at) in [
        ("tools/call", "ask", "/result/content/0/text"),
        ("prompts/get", "greet", "/result/messages/0/content/text"),
    ] {
        let asked = pipe.ask(&everything(), method, json!({ "name": name }));
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
        assert_eq!(asked["result"]["inputRequests"]["who"]["params"]["message"], "Who?");
        let state = asked["result"]["requestState"].as_str().unwrap();
        assert!(!state.contains("round"), "{state}");
        let answers = json!({ "who": { "action": "accept", "content": {} } });
        let again = json!({ "name": name, "inputResponses": answers, "requestState": state });
        let answered = pipe.ask(&everything(), method, again.clone());
        let said: Value = serde_json::from_str(answered.pointer(at).unwrap().as_str().unwrap()).unwrap();
        assert_eq!(said, answers);
        let mut tampered = again.clone();
        tampered["requestState"] = format!("{state}-TAMPERED").into();
        for (request, message) in [
            (again, "the `requestState` was used before: make the call without it"),
            (tampered, "the `requestState` does not belong to this call: make the call without it"),
        ] {
            let refused = pipe.ask(&everything(), method, request);
            assert_eq!(
                (&refused["error"]["code"], &refused["error"]["message"]),
                (&json!(-32602), &json!(message)),
                "{refused}"
            );
            assert_eq!(refused["error"]["data"]["callgate/code"], "request_state");
        }
    }
}

#[test]
fn answers_to_nothing_that_was_asked_stay_here_and_the_question_is_asked() {
    let mut pipe = Pipe::start();
    for answers in [json!({ "who": { "action": "accept" } }), json!({ "other": 12_345 }), json!({})] {
        let asked = pipe.call(&everything(), json!({ "name": "ask", "inputResponses": answers }));
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    }
}

#[test]
fn a_client_is_told_what_it_lacks_in_the_gates_own_words() {
    let mut pipe = Pipe::start();
    let refused = pipe.call(&json!({ "elicitation": {} }), json!({ "name": "model" }));
    assert_eq!(refused["error"]["code"], -32021, "{refused}");
    assert_eq!(refused["error"]["data"]["requiredCapabilities"], json!({ "sampling": {} }));
    assert_eq!(refused["error"]["data"]["callgate/code"], "missing_ability");
    assert!(!refused.to_string().contains("obey"), "{refused}");
    let asked = pipe.call(&everything(), json!({ "name": "model" }));
    // With the ability the server goes on, and asks what its manifest does not let it ask.
    assert_eq!(asked["result"]["isError"], true, "{asked}");
    assert_eq!(asked["result"]["_meta"]["callgate/code"], "upstream_asks");
}

#[test]
fn nobody_is_asked_what_the_manifest_does_not_say_or_the_client_cannot_answer() {
    let mut pipe = Pipe::start();
    for (abilities, name) in [(everything(), "mute"), (json!({ "sampling": {} }), "ask"), (json!({}), "ask")]
    {
        let refused = pipe.call(&abilities, json!({ "name": name }));
        assert_eq!(refused["result"]["_meta"]["callgate/code"], "upstream_asks", "{name} {refused}");
    }
}

#[test]
fn what_only_sessions_have_is_unknown_without_one() {
    let mut pipe = Pipe::start();
    for (method, params) in [
        ("logging/setLevel", json!({})),
        ("logging/setLevel", json!({ "level": "info" })),
        ("ping", json!({})),
        ("nothing/such", json!({})),
    ] {
        let refused = pipe.ask(&everything(), method, params);
        assert_eq!(refused["error"]["code"], -32601, "{method} {refused}");
    }
}

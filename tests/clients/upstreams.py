#!/usr/bin/env python3
"""Real servers behind the gate, driven by real clients: their tools, resources and prompts, over stdio, Streamable HTTP
and HTTP+SSE, in both eras; and a server that turns into another one between a list and a call.

Usage: upstreams.py TARGET_DIR   (the folder with the built `callgate`)
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import harness
from harness import ROOT, Servers, check, check_that

KEY = "cg_demo-support_lRbzW67s8NHV9BC3vLAVSnQVT6q1aR843IxRSvElXNR"
KEY_DIGEST = "850a4156941fb3d3be4dcea5ddec76cfa5de7cb33e19deb0dead3f652e689db3"
INSTALLED = ROOT / "target/suites/upstreams"
NODE = (INSTALLED / "node").resolve()
PACKAGES = INSTALLED / "node_modules/@modelcontextprotocol"
FICKLE = ROOT / "tests/upstreams/server.py"
SDKS, ERAS = ["python", "typescript"], ["modern", "legacy"]

DOCUMENTS = "demo://resource/static/document/"
ALLOWED = {
    "tools": ["files.*", "memory.*", "everything.echo", "everything.trigger-long-running-operation", "quiet.*", "loud.*"],
    "resources": [DOCUMENTS + "*", "demo://resource/dynamic/text/*", "memory://*"],
    "prompts": ["everything.args-prompt", "everything.simple-prompt"],
}
POLICY = """\
@id("may-all") permit (principal, action, resource);
@id("no-moves") @reason("files stay where they are")
forbid (principal, action == Action::"files.move_file", resource);
"""


def digest(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class Gate:
    """A project in front of the servers, as a person would make it: imported, reviewed, accepted."""

    def __init__(self, callgate, folder):
        self.callgate, self.folder = callgate, folder
        self.data, self.graph = folder / "data", folder / "graph.jsonl"
        for below in ("tools", "policies", "data"):
            (folder / below).mkdir(parents=True)
        self.fickle = {name: Fickle(folder / name, announce) for name, announce in (("quiet", False), ("loud", True))}
        made = self.run("keys", "new", "--admin", "kim", "--json")
        self.admin = json.loads(made)
        self.server = {
            "name": "upstreams",
            "listen": {
                "http": {"address": "127.0.0.1:0"},
                "stdio": {"client": "bot"},
                "admin": {"address": "127.0.0.1:0", "keys": self.admin["listen"]["admin"]["keys"]},
            },
            "upstreams": {
                "everything": self.npm("everything"),
                "files": self.npm("filesystem", str(self.data)),
                "memory": self.npm("memory", env={"MEMORY_FILE_PATH": str(self.graph)}),
                # One is looked at again before each call, the other when it says that its list is another.
                "quiet": {**self.fickle["quiet"].spec(), "recheck": "100ms"},
                "loud": {**self.fickle["loud"].spec(), "recheck": "1h"},
            },
        }
        key = {"id": "demo-support", "sha256": KEY_DIGEST, "expires": "2035-01-01"}
        bot = {"owner": "tests", "stdio": True, "limits": {"rate": "6000/min"}, "keys": [key], **ALLOWED}
        (folder / "policies/clients.yaml").write_text(json.dumps({"clients": {"bot": bot}}))
        (folder / "policies/all.cedar").write_text(POLICY)
        (folder / "policies/tools.yaml").write_text("unlisted: hide\n")
        self.names = self.review()

    @property
    def config(self):
        return self.folder / "callgate.yaml"

    def npm(self, name, *arguments, env=None):
        """A program that is pinned, with the script that is its code."""
        script = PACKAGES / f"server-{name}/dist/index.js"
        program = {
            "command": str(NODE), "args": [str(script), *arguments], "env": env or {},
            "digest": digest(NODE), "files": {str(script): digest(script)},
        }
        return {"stdio": program}

    def run(self, *arguments):
        command = [self.callgate, *arguments]
        if arguments[0] != "keys":
            command += ["--config", self.config]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            sys.exit(f"`callgate {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def review(self):
        """Imports each server, and accepts all that it offers: the names, by kind."""
        names = {"tool": [], "resource": [], "prompt": []}
        for upstream, spec in self.server["upstreams"].items():
            self.write()
            said = json.loads(self.run("import", "mcp", upstream, "--json"))
            if said["instructions"]:
                spec["instructions"] = said["instructions"]
            for kind, found in names.items():
                offered = said[kind + "s"]
                check(f"{upstream}: every {kind} has a manifest", all(it["result"] == "written" for it in offered), offered)
                found += [it[kind] for it in offered]
        self.write()
        for kind, found in names.items():
            for name in found:
                self.run("accept", "--yes", name if kind == "tool" else f"{kind}:{name}")
        self.run("check")
        return names

    def write(self):
        self.config.write_text(json.dumps(self.server))

    def stdio(self):
        return [str(self.callgate), "stdio", "--config", str(self.config)]


class Fickle:
    """A server of three tools that says what is in a file."""

    def __init__(self, folder, announce):
        folder.mkdir()
        self.folder, self.script, self.file = folder, folder / "server.py", folder / "state.json"
        shutil.copy(FICKLE, self.script)
        def tools(note):
            texts = {"note": note, "other": "It does something else.", "flip": "It turns.", "slow": "It takes its time."}
            return [{"name": name, "description": text, "inputSchema": {"type": "object"}} for name, text in texts.items()]
        # One byte of what a model reads is another, as soon as `flip` is called.
        then = {"flip": {"tools": tools("It takes a note!")}}
        self.state = {"tools": tools("It takes a note."), "slow": ["slow"], "then": then, "pause": 0.3, "announce": announce}
        self.file.write_text(json.dumps(self.state))

    def spec(self):
        python = pathlib.Path(shutil.which("python3")).resolve()
        script = {"command": str(python), "digest": digest(python), "dir": str(self.folder),
                  "args": ["server.py", "state.json"], "files": {"server.py": digest(self.script)}}
        return {"stdio": script}

    def cancelled(self):
        said = self.file.with_name("state.json.cancelled")
        return len(said.read_text().splitlines()) if said.exists() else 0


def step(name, text, holds):
    return name, text, holds


def call(tool, **arguments):
    return f"call:{tool}:{json.dumps(arguments)}"


def refused(answer, words):
    return words in (answer["error"]["message"] if "error" in answer else answer["isError"] is True and answer["text"])


def listing(gate):
    """What each client sees: what its allowlists name of what was imported."""
    def matches(name, patterns):
        return any(name == pattern or pattern.endswith("*") and name.startswith(pattern[:-1]) for pattern in patterns)
    tools = sorted(name for name in gate.names["tool"] if matches(name, ALLOWED["tools"]))
    documents = [DOCUMENTS + path.name for path in (PACKAGES / "server-everything/dist/docs").iterdir()]
    uris = sorted([*documents, "memory://knowledge-graph"])
    return [
        step("lists tools", "list", lambda answer: answer["tools"] == tools and len(tools) == 33),
        step("lists resources", "resources", lambda answer: sorted(answer["uris"]) == uris
             and answer["templates"] == ["demo://resource/dynamic/text/{resourceId}"]),
        step("lists prompts", "prompts", lambda answer: answer["prompts"] == sorted(ALLOWED["prompts"])),
    ]


def effects(gate, tag):
    """Calls that change something, and calls that must not."""
    path, outside = gate.data / f"{tag}.txt", gate.folder / f"{tag}.txt"
    text = f"written by {tag}\n"
    entity = {"name": tag, "entityType": "client", "observations": [f"made by {tag}"]}
    return [
        step("writes a file", call("files.write_file", path=str(path), content=text),
             lambda answer: answer["isError"] is False and str(path) in answer["text"]),
        step("reads it", call("files.read_text_file", path=str(path)),
             lambda answer: answer["structured"] == {"content": text}),
        step("the server's own refusal comes through", call("files.write_file", path=str(outside), content=text),
             lambda answer: refused(answer, "outside allowed directories")),
        step("policy refuses", call("files.move_file", source=str(path), destination=str(gate.data / "moved")),
             lambda answer: refused(answer, "not permitted: files stay where they are")),
        step("makes an entity", call("memory.create_entities", entities=[entity]),
             lambda answer: answer["structured"]["entities"] == [entity]),
        step("finds it", call("memory.open_nodes", names=[tag]),
             lambda answer: answer["structured"]["entities"] == [entity]),
    ]


def readings(tag):
    """Resources and prompts."""
    document = (PACKAGES / "server-everything/dist/docs/features.md").read_text()
    def only(answer):
        [content] = answer["contents"]
        return content
    return [
        step("reads a document", f"read:{DOCUMENTS}features.md", lambda answer: only(answer)["text"] == document
             and only(answer)["uri"] == DOCUMENTS + "features.md"),
        step("reads by a template", "read:demo://resource/dynamic/text/7",
             lambda answer: only(answer)["text"].startswith("Resource 7: ")),
        step("reads the graph", "read:memory://knowledge-graph",
             lambda answer: tag in [entity["name"] for entity in json.loads(only(answer)["text"])["entities"]]),
        step("what it may not read is unknown", "read:demo://resource/dynamic/blob/7",
             lambda answer: refused(answer, "unknown resource `demo://resource/dynamic/blob/7`")),
        step("gets a prompt", 'get:everything.args-prompt:{"city":"Oslo","state":"Norway"}',
             lambda answer: answer["messages"] == [{"role": "user", "content": {
                 "type": "text", "text": "What's weather in Oslo, Norway?"}}]),
        step("what it may not get is unknown", "get:everything.resource-prompt:{}",
             lambda answer: refused(answer, "unknown prompt `everything.resource-prompt`")),
    ]


def long_calls(tag):
    """Progress, cancellation, and that the connection is whole afterwards."""
    done = "Long running operation completed. Duration: 0.4 seconds, Steps: 4."
    return [
        step("hears of progress", 'progress:everything.trigger-long-running-operation:{"duration":0.4,"steps":4}',
             lambda answer: answer["progress"] == [[1, 4], [2, 4], [3, 4], [4, 4]] and answer["text"] == done),
        step("gives up a call", 'cancel:everything.trigger-long-running-operation:{"duration":20,"steps":2}',
             lambda answer: answer["cancelled"] is True),
        step("gives up another", "cancel:loud.slow:{}", lambda answer: answer["cancelled"] is True),
        step("goes on", call("everything.echo", message=tag), lambda answer: answer["text"] == f"Echo: {tag}"),
    ]


def drive(name, client, options, command, steps):
    """Takes the steps, and checks each answer."""
    arguments = [*options, *[text for _, text, _ in steps]]
    if command:
        arguments += ["--", *command]
    lines, said = harness.drive(client, arguments)
    check(f"{name} answers every step", len(lines) == len(steps) + 1, said)
    for (what, _, holds), answer in zip(steps, lines[1:]):
        check_that(f"{name}: {what}", holds, answer)
    return lines


def drive_all(gate, client, era, transport, options, command):
    name = tag = f"{client}-{era}-{transport}"
    steps = listing(gate) + effects(gate, tag) + readings(tag)
    if client in SDKS:
        steps += long_calls(tag)
    else:  # the Inspector itself refuses what was not listed, and asks for no progress
        steps = [it for it in steps if not it[0].startswith("what it may not")]
    before = gate.fickle["loud"].cancelled()
    lines = drive(name, client, ["--transport", transport, "--era", era, *options], command, steps)
    wants_modern = bool(lines) and lines[0].get("protocol") == "2026-07-28"
    check(f"{name} speaks its era", wants_modern == (era == "modern"), lines[:1])
    file = gate.data / f"{tag}.txt"
    check(f"{name}: the file is there", file.is_file() and file.read_text() == f"written by {tag}\n", file)
    check(f"{name}: no other is", not (gate.folder / f"{tag}.txt").exists() and not (gate.data / "moved").exists(), tag)
    graph = [json.loads(line)["name"] for line in gate.graph.read_text().splitlines()]
    check(f"{name}: the entity is in the graph, once", graph.count(tag) == 1, graph)
    if client in SDKS:
        heard = gate.fickle["loud"].cancelled() - before
        check(f"{name}: the server heard that a call is given up", heard == 1, heard)


def turned(gate, url, admin_url):
    """A server that shows one thing to who reviews and another to who calls."""
    options = ["--transport", "http", "--url", url, "--token", KEY]
    drivers = [("quiet", "python", "modern"), ("loud", "typescript", "legacy")]
    for upstream, client, era in drivers:
        def others(answer, upstream=upstream):
            return all(f"{upstream}.{name}" in answer["tools"] for name in ("other", "flip"))
        noted = f"{upstream}.note"
        steps = [
            step("lists the tool", "list", lambda answer: noted in answer["tools"] and others(answer)),
            step("calls it", call(noted), lambda answer: answer["text"] == "done"),
            step("its server turns", call(f"{upstream}.flip"), lambda answer: answer["text"] == "done"),
            step("is refused", call(noted), lambda answer: refused(answer, "the tool is in quarantine")),
            step("does not list it", "list", lambda answer: noted not in answer["tools"] and others(answer)),
            step("calls the others", call(f"{upstream}.other"), lambda answer: answer["text"] == "done"),
            step("and other servers", call("everything.echo", message="on"), lambda answer: answer["text"] == "Echo: on"),
        ]
        drive(f"{client} {era}, {upstream} turns", client, ["--era", era, *options], None, steps)
    environment = {**os.environ, "CALLGATE_ADMIN_URL": admin_url, "CALLGATE_ADMIN_KEY": gate.admin["key"]}
    command = [gate.callgate, "upstreams", "--json", "--config", gate.config]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    found = {}
    for upstream in json.loads(shown.stdout or "{}").get("upstreams", []):
        for tool in upstream["tools"]:
            if tool.get("quarantine"):
                found[tool["name"]] = (tool["quarantine"]["why"], tool["quarantine"]["difference"]["places"])
    place = {"at": "/description", "was": '"It takes a note."', "now": '"It takes a note!"'}
    expected = {name: ("changed", [place]) for name in ("quiet.note", "loud.note")}
    check("`callgate upstreams` names what turned, and nothing else", found == expected, (found, shown.stderr))


def check_records(gate):
    """What turned is on record, before anybody was refused for it; each call has one outcome."""
    records = harness.records(gate.callgate, gate.folder / "state")
    quarantines = [record for record in records if record.get("change", {}).get("act") == "quarantine"]
    named = sorted((record["change"]["actor"], record["change"]["what"]) for record in quarantines)
    check("what turned is on record", named == [("upstream:loud", "tool loud.note"), ("upstream:quiet", "tool quiet.note")], named)
    check("with what differs", all("It takes a note!" in json.dumps(record) for record in quarantines), quarantines)
    outcomes = [record for record in records if record["record"] == "outcome"]
    ended = {}
    for outcome in outcomes:
        ended.setdefault(outcome["call"]["id"], []).append(outcome)
    check("calls are on record", len(ended) > 200, len(ended))
    check("each call has one outcome", all(len(ends) == 1 for ends in ended.values()), len(outcomes))
    given_up = [outcome for outcome in outcomes if outcome.get("code") == "cancelled"]
    check("calls that were given up are on record as such", len(given_up) == 2 * 12, [it.get("code") for it in outcomes])


def main():
    callgate = pathlib.Path(sys.argv[1]).resolve() / "callgate"
    with tempfile.TemporaryDirectory() as folder, Servers() as servers:
        gate = Gate(callgate, pathlib.Path(folder).resolve() / "gate")
        serve = [callgate, "serve", "--config", gate.config]
        process, *found = servers.start(serve, r"serving (\S+/mcp)", r"admin\D+(http://[^\s;]+)")
        url, admin_url = [match.group(1) for match in found]
        token = ["--token", KEY]
        for client in SDKS:
            for era in ERAS:
                drive_all(gate, client, era, "http", ["--url", url, *token], None)
                drive_all(gate, client, era, "sse", ["--url", url.removesuffix("/mcp") + "/sse", *token], None)
                drive_all(gate, client, era, "stdio", [], gate.stdio())
        for era in ERAS:
            drive_all(gate, "inspector", era, "http", ["--url", url, *token], None)
        turned(gate, url, admin_url)
        process.terminate()
        check("the gate ends on SIGTERM with 0", process.wait(timeout=20) == 0, process.returncode)
        check_records(gate)
    harness.finish()


main()

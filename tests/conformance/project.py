"""A gate's project in front of one upstream, made by `callgate import mcp`."""

import json
import pathlib
import re
import subprocess
import sys

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "examples/conformance_upstream/fixtures.json"
# Which tools of the fixtures are answered with tasks, as their descriptions say.
TASKS = {"slow_compute": "offered", "failing_job": "required", "protocol_error_job": "required",
         "confirm_delete": "offered", "multi_input": "offered", "test_tool_with_task": "offered"}
ASKS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}

# The key of the shipped demo, and the digest of its secret.
KEY = "cg_demo-support_lRbzW67s8NHV9BC3vLAVSnQVT6q1aR843IxRSvElXNR"
DIGEST = "850a4156941fb3d3be4dcea5ddec76cfa5de7cb33e19deb0dead3f652e689db3"

CONFIG = """\
name: conformance-gate
tools: tools
policies: policies
state: state
listen:
  http:
    address: 127.0.0.1:0
    origins: ["{origin}"]
upstreams:
  upstream:
    http: {{ url: "{url}", egress: {{ loopback: true }} }}
    recheck: 1s
{instructions}"""
CLIENTS = f"""\
clients:
  conformance:
    owner: tests@example.com
    tools: ["*"]
    resources: ["*"]
    prompts: ["*"]
    limits: {{ rate: 6000/min }}
    keys: [{{ id: demo-support, sha256: "{DIGEST}", expires: "2035-01-01" }}]
"""
POLICY = """\
// The suite's client may do everything: what is tested is the protocol.
@id("conformance-may-all")
permit (principal, action, resource);
"""
TOOLS = "unlisted: trust-claims\n"


def make(callgate, folder, url, origin):
    """Makes the project, and imports the upstream: its `callgate.yaml`."""
    folder.mkdir(parents=True)
    (folder / "tools").mkdir()
    (folder / "policies").mkdir()
    for name, text in (("clients.yaml", CLIENTS), ("conformance.cedar", POLICY), ("tools.yaml", TOOLS)):
        (folder / "policies" / name).write_text(text)
    config = folder / "callgate.yaml"
    config.write_text(CONFIG.format(origin=origin, url=url, instructions=""))
    said = imported(callgate, config)
    digest = re.search(r"instructions: *(sha256:[0-9a-f]{64})", said)
    if digest:
        line = f"    instructions: {digest.group(1)}\n"
        config.write_text(CONFIG.format(origin=origin, url=url, instructions=line))
    asks = questions()
    for manifest in sorted((folder / "tools").rglob("*.yaml")):
        manifest.write_text(as_reviewed(manifest.read_text(), asks))
    return config


def imported(callgate, config):
    command = [callgate, "--config", config, "import", "mcp", "upstream"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        sys.exit(f"`callgate import mcp` failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def questions():
    """What each tool of the fixtures asks its caller for."""
    interviews = json.loads(FIXTURES.read_text())["interviews"]
    return {tool: sorted({ASKS[question["method"]] for asked in interview["rounds"] for question in asked.values()})
            for tool, interview in interviews.items()}


def as_reviewed(manifest, asks):
    """What a reviewer would write: the upstream's own names, by which the suite calls, what may be asked, and what
    may take long."""
    manifest = re.sub(r"(?m)^(tool|resource|prompt): upstream\.", r"\1: ", manifest)
    # No schema that is enforced has one: a reference is a place.
    manifest = re.sub(r'(?m)^ *"\$anchor": .*\n', "", manifest)
    named = re.search(r"(?m)^(?:tool|prompt): *(\S+)", manifest)
    if named and named.group(1) in TASKS:
        manifest = manifest.replace(named.group(0), f"{named.group(0)}\ntask: {TASKS[named.group(1)]}", 1)
    if not named or not asks.get(named.group(1)):
        return manifest
    line = f"asks: [{', '.join(asks[named.group(1)])}]"
    return re.sub(r"(?m)^( +)upstream: .*$", rf"\g<0>\n\1{line}", manifest, count=1)

#!/usr/bin/env python3
"""Drives the gate by real MCP clients: each lists and calls tools, over stdio and over HTTP.

Usage: gate.py TARGET_DIR   (the folder with the built `callgate` and `examples/orders_api`)
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = ROOT / "tests/clients/run.sh"
KEY = "cg_demo-support_lRbzW67s8NHV9BC3vLAVSnQVT6q1aR843IxRSvElXNR"
TOOLS = ["orders.get", "orders.list", "refunds.create"]
ORDER = "ord_7f3k2m9q"
ERAS = {"python": ["modern", "legacy"], "typescript": ["modern", "legacy"], "inspector": ["modern", "legacy"]}
passed = failed = 0


def check(name, holds, shown):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {name}: {shown}")


def steps_for(client):
    """What is asked of the gate, and what has to come back."""
    def allowed(answer):
        return answer.get("isError") is False and answer["structured"]["id"] == ORDER and answer["structured"]["customer"] == {}

    steps = [
        ("lists its own tools only", "list", lambda answer: answer.get("tools") == TOOLS),
        ("a call is allowed, without what is labelled", f'call:orders.get:{{"order_id":"{ORDER}"}}', allowed),
        ("policy refuses", f'call:refunds.create:{{"order_id":"{ORDER}","amount":15000}}',
         lambda answer: answer.get("isError") is True and answer["text"].startswith("not permitted")),
        ("arguments are checked", 'call:orders.get:{"order_id":"../../admin"}',
         lambda answer: answer.get("isError") is True and "/order_id" in answer["text"]),
        ("an answer is withheld", 'call:orders.get:{"order_id":"ord_brokenxx"}',
         lambda answer: answer.get("isError") is True and answer["text"].startswith("answer withheld")),
    ]
    if client != "inspector":  # the Inspector itself refuses to call what was not listed
        steps.append(("a hidden tool is unknown", f'call:orders.cancel:{{"order_id":"{ORDER}"}}',
                      lambda answer: "unknown tool `orders.cancel`" in answer.get("error", {}).get("message", "")))
    return steps


def drive(client, era, transport, options, command):
    steps = steps_for(client)
    arguments = [str(RUN), client, "--transport", transport, "--era", era, *options, *[step for _, step, _ in steps]]
    if command:
        arguments += ["--", *command]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=180)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    name = f"{client} {era} {transport}"
    if not lines or "protocol" not in lines[0]:
        check(f"{name} connects", False, (done.stdout + done.stderr)[-2000:])
        return
    wants_modern = lines[0]["protocol"] == "2026-07-28"
    check(f"{name} speaks its era", wants_modern == (era == "modern"), lines[0])
    check(f"{name} answers every step", len(lines) == len(steps) + 1, (done.stdout + done.stderr)[-2000:])
    for (what, _, holds), answer in zip(steps, lines[1:]):
        try:
            check(f"{name}: {what}", holds(answer), answer)
        except (KeyError, TypeError) as error:
            check(f"{name}: {what}", False, (answer, error))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(process, pattern):
    """Reads standard error until a line matches."""
    for line in process.stderr:
        found = re.search(pattern, line)
        if found:
            return found
    sys.exit(f"a server ended early with {process.wait()}")


def main():
    target = pathlib.Path(sys.argv[1]).resolve()
    callgate = target / "callgate"
    os.environ["ORDERS_TOKEN"] = "a-token-of-this-test"
    servers = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        try:
            orders = f"127.0.0.1:{free_port()}"
            api = subprocess.Popen([target / "examples/orders_api", "--listen", orders], stderr=subprocess.PIPE, text=True)
            servers.append(api)
            wait_for(api, "orders API on")
            for name in ("tools", "policies"):
                shutil.copytree(ROOT / name, folder / name)
            config = folder / "callgate.yaml"
            config.write_text((ROOT / "callgate.yaml").read_text().replace("127.0.0.1:9000", orders))
            gate = subprocess.Popen([callgate, "serve", "--config", config, "--listen", "127.0.0.1:0"],
                                    stderr=subprocess.PIPE, text=True)
            servers.append(gate)
            url = wait_for(gate, r"serving (\S+/mcp)").group(1)
            stdio = ["env", "ORDERS_TOKEN=a-token-of-this-test", str(callgate), "stdio", "--config", str(config)]
            for client, eras in ERAS.items():
                for era in eras:
                    drive(client, era, "http", ["--url", url, "--token", KEY], None)
                    drive(client, era, "stdio", [], stdio)
                wrong = subprocess.run([str(RUN), client, "--transport", "http", "--url", url, "--token", KEY + "x", "list"],
                                       capture_output=True, text=True, timeout=60)
                check(f"{client}: a wrong key does not connect", wrong.returncode == 3 and "401" in wrong.stdout, wrong.stdout)
            gate.terminate()
            check("the gate ends on SIGTERM with 0", gate.wait(timeout=20) == 0, gate.returncode)
            check_records(callgate, folder / "state")
        finally:
            for server in servers:
                if server.poll() is None:
                    server.kill()
                server.wait()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def check_records(callgate, state):
    """Every call of every client, over every process, has exactly one outcome on record, and nothing was changed."""
    export = [callgate, "audit", "export", "--format", "jsonl", "--state", state]
    exported = subprocess.run(export, capture_output=True, text=True)
    check("the record is exported", exported.returncode == 0, exported.stderr)
    outcomes = {}
    for record in map(json.loads, exported.stdout.splitlines()):
        if record["record"]["record"] == "outcome":
            outcomes.setdefault(record["record"]["call"]["id"], []).append(record["record"]["outcome"])
    check("calls are on record", len(outcomes) > 50, len(outcomes))
    check("each call has one outcome", all(len(ends) == 1 for ends in outcomes.values()), outcomes)
    verified = subprocess.run([callgate, "audit", "verify", "--state", state], capture_output=True, text=True)
    check("the record verifies", verified.returncode == 0, verified.stdout + verified.stderr)


main()

#!/usr/bin/env python3
"""Drives the gate by real MCP clients: each lists and calls tools, over stdio, Streamable HTTP and HTTP+SSE.

Usage: gate.py TARGET_DIR   (the folder with the built `callgate` and `examples/orders_api`)
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import harness
from harness import RUN, Servers, check, check_that, free_port, outcomes, project

KEY = "cg_demo-support_lRbzW67s8NHV9BC3vLAVSnQVT6q1aR843IxRSvElXNR"
TOOLS = ["orders.get", "orders.list", "refunds.create"]
ORDER = "ord_7f3k2m9q"
ERAS = {"python": ["modern", "legacy"], "typescript": ["modern", "legacy"], "inspector": ["modern", "legacy"]}

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


def drive(client, era, transport, options, command, way=None):
    steps = steps_for(client)
    arguments = ["--transport", transport, "--era", era, *options, *[step for _, step, _ in steps]]
    if command:
        arguments += ["--", *command]
    lines, said = harness.drive(client, arguments)
    name = f"{client} {era} {way or transport}"
    if not lines or "protocol" not in lines[0]:
        check(f"{name} connects", False, said)
        return
    wants_modern = lines[0]["protocol"] == "2026-07-28"
    check(f"{name} speaks its era", wants_modern == (era == "modern"), lines[0])
    check(f"{name} answers every step", len(lines) == len(steps) + 1, said)
    for (what, _, holds), answer in zip(steps, lines[1:]):
        check_that(f"{name}: {what}", holds, answer)


def bridge(callgate, key, url):
    """What a client starts that speaks over standard input and output alone."""
    return ["env", f"CALLGATE_KEY={key}", str(callgate), "stdio", "--connect", url]


def main():
    target = pathlib.Path(sys.argv[1]).resolve()
    callgate = target / "callgate"
    os.environ["ORDERS_TOKEN"] = "a-token-of-this-test"
    with tempfile.TemporaryDirectory() as folder, Servers() as servers:
        orders = f"127.0.0.1:{free_port()}"
        servers.start([target / "examples/orders_api", "--listen", orders], "orders API on")
        config = project(pathlib.Path(folder) / "gate", orders)
        serve = [callgate, "serve", "--config", config, "--listen", "127.0.0.1:0"]
        gate, found = servers.start(serve, r"serving (\S+/mcp)")
        url = found.group(1)
        sse = url.removesuffix("/mcp") + "/sse"
        stdio = ["env", "ORDERS_TOKEN=a-token-of-this-test", str(callgate), "stdio", "--config", str(config)]
        for client, eras in ERAS.items():
            for era in eras:
                drive(client, era, "http", ["--url", url, "--token", KEY], None)
                drive(client, era, "sse", ["--url", sse, "--token", KEY], None)
                drive(client, era, "stdio", [], stdio)
                drive(client, era, "stdio", [], bridge(callgate, KEY, url), "bridge")
            wrong = subprocess.run([str(RUN), client, "--transport", "http", "--url", url, "--token", KEY + "x", "list"],
                                   capture_output=True, text=True, timeout=60)
            check(f"{client}: a wrong key does not connect", wrong.returncode == 3 and "401" in wrong.stdout, wrong.stdout)
        gate.terminate()
        check("the gate ends on SIGTERM with 0", gate.wait(timeout=20) == 0, gate.returncode)
        check_records(outcomes(callgate, config.parent / "state"))
    harness.finish()


def check_records(outcomes):
    """Every call of every client, over every process, has exactly one outcome on record."""
    calls = {}
    for outcome in outcomes:
        calls.setdefault(outcome["call"]["id"], []).append(outcome["outcome"])
    check("calls are on record", len(calls) > 50, len(calls))
    check("each call has one outcome", all(len(ends) == 1 for ends in calls.values()), calls)


main()

"""An MCP server over standard input and output that says what a file says, at each request anew.

Usage: server.py STATE.json, with `tools`, and if wanted `instructions`, `mode` (`hang` or `die` at a list) and
`announce` (whether it says after a call that its list is another).
"""

import json
import sys
import time


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    with open(sys.argv[1], encoding="utf-8") as file:
        state = json.load(file)
    if request["method"] == "initialize":
        result = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "fickle", "version": "1"},
        }
        if "instructions" in state:
            result["instructions"] = state["instructions"]
    elif request["method"] == "tools/list":
        if state.get("mode") == "hang":
            time.sleep(600)
        if state.get("mode") == "die":
            sys.exit(1)
        result = {"tools": state["tools"]}
    elif request["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": "done"}]}
    else:
        send({"id": request["id"], "error": {"code": -32601, "message": "unknown method"}})
        continue
    send({"id": request["id"], "result": result})
    if request["method"] == "tools/call" and state.get("announce"):
        send({"method": "notifications/tools/list_changed"})

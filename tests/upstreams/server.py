"""An MCP server over standard input and output that says what a file says, at each request anew.

Usage: server.py STATE.json, with `tools`, and if wanted

    instructions   how it is to be used
    mode           `hang` or `die` at a list
    announce       whether it says after a call that its list is another
    slow           tools that are answered after 20 seconds, unless that is cancelled: a line in STATE.json.cancelled
    then           by a tool's name: what else the file says once that is called
    pause          how many seconds it takes before it answers such a call
"""

import json
import os
import sys
import threading
import time

waiting = {}
sending = threading.Lock()


def send(message):
    with sending:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def answer(request):
    send({"id": request["id"], "result": {"content": [{"type": "text", "text": "done"}]}})


def call(request, state):
    name = request["params"]["name"]
    if name in state.get("slow", []):
        waiting[request["id"]] = timer = threading.Timer(20, answer, [request])
        timer.daemon = True
        timer.start()
        return
    if name in state.get("then", {}):
        with open(sys.argv[1] + ".new", "w", encoding="utf-8") as file:
            json.dump({**state, **state["then"][name]}, file)
        os.replace(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(state.get("pause", 0))
    answer(request)
    if state.get("announce"):
        send({"method": "notifications/tools/list_changed"})


def cancelled(notification):
    timer = waiting.pop(notification["params"]["requestId"], None)
    if timer:
        timer.cancel()
        with open(sys.argv[1] + ".cancelled", "a", encoding="utf-8") as file:
            file.write("one\n")


for line in sys.stdin:
    request = json.loads(line)
    if request.get("method") == "notifications/cancelled":
        cancelled(request)
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
        call(request, state)
        continue
    else:
        send({"id": request["id"], "error": {"code": -32601, "message": "unknown method"}})
        continue
    send({"id": request["id"], "result": result})

"""What the tests with real clients share: servers that they start, drivers that they run, and what held."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = ROOT / "tests/clients/run.sh"
passed = failed = 0


def check(name, holds, shown):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {name}: {shown}")


def check_that(name, holds, answer):
    """Checks an answer, which may lack what is looked at."""
    try:
        check(name, holds(answer), answer)
    except (KeyError, TypeError) as error:
        check(name, False, (answer, error))


def finish():
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def drive(client, arguments):
    """Runs a driver: its lines, and everything it said."""
    done = subprocess.run([str(RUN), client, *arguments], capture_output=True, text=True, timeout=180)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines, (done.stdout + done.stderr)[-2000:]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Servers:
    """Processes that serve, until the test ends."""

    def __init__(self):
        self.processes = []

    def start(self, command, *patterns):
        """Starts one, and waits for lines on standard error that match, one after the other."""
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        found = []
        for line in process.stderr:
            match = re.search(patterns[len(found)], line)
            if match:
                found.append(match)
            if len(found) == len(patterns):
                # Nobody reads on: a pipe that is full would stop the server.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return process, *found
        sys.exit(f"a server ended early with {process.wait()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def project(folder, orders):
    """The shipped project, with the orders API at an address: its `callgate.yaml`."""
    folder.mkdir()
    for name in ("tools", "policies"):
        shutil.copytree(ROOT / name, folder / name)
    config = folder / "callgate.yaml"
    config.write_text((ROOT / "callgate.yaml").read_text().replace("127.0.0.1:9000", orders))
    return config


def outcomes(callgate, state):
    """The outcomes on record, in order."""
    return [record for record in records(callgate, state) if record["record"] == "outcome"]


def records(callgate, state):
    """What is on record, in order."""
    export = [callgate, "audit", "export", "--format", "jsonl", "--state", state]
    exported = subprocess.run(export, capture_output=True, text=True)
    check("the record is exported", exported.returncode == 0, exported.stderr)
    found = [json.loads(line)["record"] for line in exported.stdout.splitlines()]
    verified = subprocess.run([callgate, "audit", "verify", "--state", state], capture_output=True, text=True)
    check("the record verifies", verified.returncode == 0, verified.stdout + verified.stderr)
    return found

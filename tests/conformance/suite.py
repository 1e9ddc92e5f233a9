"""Runs of the suite, and what they found."""

import collections
import json
import pathlib
import re
import shutil
import subprocess

RUN_WITHIN_S = 300
# What a check can say. What only informs is the suite's business.
PASSED, FAILED = {"SUCCESS"}, {"FAILURE", "WARNING"}

Run = collections.namedtuple("Run", "name version arguments")
RUNS = [
    Run("0.1.16", "0.1.16", ["--suite", "all"]),
    Run("2025-11-25", "0.2.0-alpha.12", ["--suite", "all", "--spec-version", "2025-11-25"]),
    Run("2026-07-28", "0.2.0-alpha.12", ["--suite", "all", "--spec-version", "2026-07-28"]),
    Run("required-2025-11-25", "0.2.0-alpha.12", ["--requirements", "2025-11-25"]),
    Run("required-2026-07-28", "0.2.0-alpha.12", ["--requirements", "2026-07-28"]),
]

Check = collections.namedtuple("Check", "scenario id name number")


def run(node, suites, run, url, folder):
    """Runs the suite: what each check says, and why."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    script = suites / run.version / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    command = [node, script, "server", "--url", url, *run.arguments, "--output-dir", folder]
    with (folder / "output.txt").open("wb") as output:
        subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=RUN_WITHIN_S)
    return read(folder)


def read(folder):
    """Each check's status and message. Checks of the same name are told apart by their order."""
    checks, seen = {}, collections.Counter()
    for file in sorted(pathlib.Path(folder).glob("*/checks.json")):
        scenario = re.fullmatch(r"server-(.+?)-\d{4}-\d\d-\d\dT[\d-]+Z", file.parent.name).group(1)
        for check in json.loads(file.read_text()):
            if check["status"] not in PASSED | FAILED | {"SKIPPED"}:
                continue
            key = (scenario, check["id"], check["name"])
            checks[Check(*key, seen[key])] = (check["status"], check.get("errorMessage") or "")
            seen[key] += 1
    return checks


def scored(checks):
    """Without those of the tasks extension, which the suite itself runs and does not score."""
    return {check: said for check, said in checks.items() if not check.scenario.startswith("tasks-")}


def passed(checks):
    return sum(status in PASSED for status, _ in checks.values())


def failures(checks):
    return {check: said for check, said in checks.items() if said[0] in FAILED}


def differences(direct, gate):
    """What passes directly and not behind the gate, or fails only there: what the gate's check says."""
    different = {}
    for check, (status, _) in direct.items():
        if status in PASSED and gate.get(check, ("MISSING",))[0] not in PASSED:
            different[check] = gate.get(check, ("MISSING", ""))
    for check, said in failures(gate).items():
        if direct.get(check, ("MISSING",))[0] not in FAILED:
            different[check] = said
    return different

#!/usr/bin/env python3
"""Runs the official conformance suite against upstreams, and through the gate in front of them.

Usage: run.py BINDIR [--through-gate] [--only RUN]

BINDIR holds the built `callgate` and `examples/conformance_upstream`. See README.md.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tomllib

import project
import suite
from servers import KeyProxy, Servers, free_port

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "target"
SUITES = TARGET / "conformance"
RESULTS = SUITES / "results"
NODE = TARGET / "clients/npm/node"
EVERYTHING = TARGET / "suites/upstreams/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
GATE_DIFFERENCES_MAX = 5

# What the reference server answers on purpose. It has other tools, prompts and resources than the suite asks for, and
# says so in ways that some scenarios take for a pass.
EVERYTHING_SCENARIOS = {
    "server-initialize", "logging-set-level", "ping", "tools-list", "resources-list", "prompts-list",
    "resources-subscribe", "resources-unsubscribe", "server-sse-multiple-streams",
}
# It listens on all addresses; a test listens on loopback only.
LOOPBACK = """data:text/javascript,import net from "node:net"; const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, { port: Number(port), host: "127.0.0.1" }, ...rest);
};"""


def fixtures(servers, bindir):
    command = [bindir / "examples/conformance_upstream", "--listen", "127.0.0.1:0"]
    return servers.start("fixtures", command, r"listening on (\S+/mcp)")[1].group(1)


def everything(servers, _):
    port = free_port()
    command = [NODE, "--import", LOOPBACK.replace("\n", " "), EVERYTHING, "streamableHttp"]
    servers.start("everything", command, r"listening on port", env={**os.environ, "PORT": str(port)})
    return f"http://127.0.0.1:{port}/mcp"


UPSTREAMS = {
    "fixtures": (fixtures, [run.name for run in suite.RUNS], None),
    "everything": (everything, ["0.1.16", "2025-11-25"], EVERYTHING_SCENARIOS),
}


class Report:
    """What is printed, written and, in the end, wrong."""

    def __init__(self, expected):
        self.expected, self.problems, self.summary = expected, [], []

    def add(self, upstream, run, way, checks):
        scored = suite.scored(checks)
        passed, failed = suite.passed(scored), suite.failures(checks)
        total = passed + len(suite.failures(scored))
        unscored = {check: said for check, said in checks.items() if check not in scored}
        beside = [suite.passed(unscored), suite.passed(unscored) + len(suite.failures(unscored))]
        self.summary.append({
            "upstream": upstream, "run": run.name, "suite": run.version, "way": way,
            "passed": passed, "total": total, "not_scored": beside,
            "failures": [{**check._asdict(), "status": status, "message": message}
                         for check, (status, message) in failed.items()],
        })
        note = f"   not scored: {beside[0]}/{beside[1]}" if unscored else ""
        print(f"{upstream:<11} {run.name:<20} {run.version:<15} {way:<7} {passed:>4}/{total}{note}", flush=True)

    def direct(self, upstream, run, checks):
        self.add(upstream, run, "direct", checks)
        for check, (status, message) in suite.failures(checks).items():
            self.problems.append(f"{upstream} {run.name} directly: {shown(check)}: {status}: {message}")
        wanted, passed = self.expected["direct"][upstream][run.name], suite.passed(checks)
        if passed != wanted:
            self.problems.append(f"{upstream} {run.name} directly: {passed} checks passed, {wanted} are expected")

    def gate(self, upstream, run, direct, checks):
        self.add(upstream, run, "gate", checks)
        different = suite.differences(direct, checks)
        excused = {(entry["scenario"], entry["check"]) for entry in self.excuses(upstream, run)}
        for check, (status, message) in different.items():
            if (check.scenario, check.id) not in excused:
                self.problems.append(f"{upstream} {run.name} through the gate: {shown(check)}: {status}: {message}")
        for scenario, check in excused - {(check.scenario, check.id) for check in different}:
            self.problems.append(f"{upstream} {run.name}: {scenario} {check} is expected to differ, and does not")

    def excuses(self, upstream, run):
        return [entry for entry in self.expected.get("gate", [])
                if entry["upstream"] == upstream and run.name in entry["runs"]]

    def finish(self):
        if len(self.expected.get("gate", [])) > GATE_DIFFERENCES_MAX:
            self.problems.append(f"expected.toml: more than {GATE_DIFFERENCES_MAX} differences")
        (RESULTS / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n")
        for problem in self.problems:
            print(f"FAILED {problem}")
        print(f"{len(self.summary)} runs, {len(self.problems)} problems; {RESULTS / 'summary.json'}")
        return 1 if self.problems else 0


def shown(check):
    return f"{check.scenario} {check.id} ({check.name})"


def measure(run, url, upstream, way, scenarios):
    checks = suite.run(NODE, SUITES, run, url, RESULTS / upstream / run.name / way)
    return {check: said for check, said in checks.items() if scenarios is None or check.scenario in scenarios}


def imported(bindir, upstream, url):
    """Imports an upstream, as it is before anybody called it: the project, and the port of the proxy before its gate."""
    port = free_port()
    folder = RESULTS / upstream / "project"
    return project.make(bindir / "callgate", folder, url, f"http://127.0.0.1:{port}"), port


def gate(servers, bindir, upstream, config, port):
    """Starts a gate: the URL of the proxy before it, and the proxy."""
    command = [bindir / "callgate", "serve", "--config", config]
    found = servers.start(f"{upstream}-gate", command, r"serving http://127\.0\.0\.1:(\d+)/mcp")[1]
    return f"http://127.0.0.1:{port}/mcp", KeyProxy(port, int(found.group(1)), project.KEY)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("bindir", type=pathlib.Path)
    parser.add_argument("--through-gate", action="store_true")
    parser.add_argument("--only", choices=[run.name for run in suite.RUNS])
    return parser.parse_args()


def main():
    given = arguments()
    for needed in (NODE, EVERYTHING, *(SUITES / run.version for run in suite.RUNS)):
        if not needed.exists():
            sys.exit(f"{needed} is missing: run the install.sh of tests/clients, tests/suites and tests/conformance")
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    report = Report(tomllib.loads((HERE / "expected.toml").read_text()))
    bindir = given.bindir.resolve()
    for upstream, (start, names, scenarios) in UPSTREAMS.items():
        runs = [run for run in suite.RUNS if run.name in names and given.only in (None, run.name)]
        with Servers(RESULTS / "logs") as servers:
            url = start(servers, bindir)
            reviewed = imported(bindir, upstream, url) if given.through_gate else None
            direct = {run.name: measure(run, url, upstream, "direct", scenarios) for run in runs}
            for run in runs:
                report.direct(upstream, run, direct[run.name])
            if reviewed:
                behind, proxy = gate(servers, bindir, upstream, *reviewed)
                with proxy:
                    for run in runs:
                        report.gate(upstream, run, direct[run.name], measure(run, behind, upstream, "gate", scenarios))
    sys.exit(report.finish())


main()

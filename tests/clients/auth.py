#!/usr/bin/env python3
"""The authorization flow of MCP by real clients: at an identity provider, and at the gate's own token endpoint.

Usage: auth.py TARGET_DIR   (the folder with `callgate`, `examples/orders_api` and `examples/identity_provider`)

At the identity provider a client finds the way by itself, from the 401 on; asks for a token; calls; is refused
what its token does not cover, with a challenge that names the scopes; asks its user again, and calls.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import harness
from harness import ROOT, Servers, check, check_that, free_port, outcomes, project

KEY = "cg_demo-support_lRbzW67s8NHV9BC3vLAVSnQVT6q1aR843IxRSvElXNR"
TOOLS = ["orders.get", "orders.list", "refunds.create"]
ORDER = "ord_7f3k2m9q"
READ, BOTH = "orders:read", "orders:read refunds:write"
CLIENT = """
  NAME:
    owner: dana@example.com
    roles: [support]
    scopes: [orders:read, refunds:write]
    tools: [orders.list, orders.get, refunds.*]
    attributes: { refund_ceiling: 20000 }
    PROOF
"""
GET = f'call:orders.get:{{"order_id":"{ORDER}"}}'
REFUND = f'call:refunds.create:{{"order_id":"{ORDER}","amount":1}}'
# Makes a key pair with what the Python client has installed.
MAKE_KEY = """
import base64, json
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
public = key.public_key().public_numbers()
number = lambda value: base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1", "x": number(public.x), "y": number(public.y)}
print(json.dumps({"pem": pem, "jwk": jwk}))
"""


def is_list(answer):
    return answer["step"] == "list" and answer["tools"] == TOOLS


def is_order(answer):
    return answer["tool"] == "orders.get" and answer["isError"] is False and answer["structured"]["id"] == ORDER


def is_refund(answer):
    return answer["tool"] == "refunds.create" and answer["isError"] is False


def is_forbidden(answer):
    return answer["tool"] == "refunds.create" and answer["error"]["code"] == 403


def asks_for(scope, url):
    return lambda answer: answer == {"step": "authorize", "scope": scope, "resource": url}


def connects(era):
    return lambda answer: (answer["protocol"] == "2026-07-28") == (era == "modern")


def run(name, client, era, url, oauth, steps, expected):
    """Runs a driver, and compares line by line."""
    arguments = ["--transport", "http", "--era", era, "--url", url, "--oauth", json.dumps(oauth), *steps]
    lines, said = harness.drive(client, arguments)
    check(f"{name}: {len(expected)} lines", len(lines) == len(expected), said)
    for at, (holds, line) in enumerate(zip(expected, lines)):
        check_that(f"{name}: line {at + 1}", holds, line)


def add_client(config, name, proof):
    clients = config.parent / "policies/clients.yaml"
    block = CLIENT.replace("NAME", name).replace("PROOF", proof)
    clients.write_text(clients.read_text().replace("\nclients:\n", "\nclients:" + block, 1))


def identify(config, identity):
    config.write_text(config.read_text() + f"\nidentity: {json.dumps(identity)}\n")


def serve(servers, callgate, config, port):
    command = [callgate, "serve", "--config", config, "--listen", f"127.0.0.1:{port}"]
    return servers.start(command, r"serving (\S+/mcp)")[0]


def stop(gate):
    gate.terminate()
    check("the gate ends on SIGTERM with 0", gate.wait(timeout=20) == 0, gate.returncode)


def at_the_identity_provider(servers, target, folder, orders):
    """Metadata discovery, 401, token, call, 403 with a challenge, step-up, call."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    redirects = ["http://127.0.0.1/callback"]
    known = {
        "resources": [url],
        "clients": {
            "desk": {"redirects": redirects, "scopes": BOTH.split()},
            "reader": {"redirects": redirects, "scopes": [READ]},
        },
        "registered": {"scopes": BOTH.split()},
    }
    (folder / "provider.json").write_text(json.dumps(known))
    command = [target / "examples/identity_provider", "--config", folder / "provider.json", "--user", "dana"]
    issuer = servers.start(command, r"identity provider on (\S+)")[1].group(1)
    config = project(folder / "with-provider", orders)
    for name in ("desk", "reader", "registered"):
        add_client(config, name, f"tokens: [{{ issuer: idp, client: {name} }}]")
    idp = {"issuer": issuer, "jwks": f"{issuer}/jwks", "algorithms": ["ES256"], "claims": {"client": "app"},
           "egress": {"loopback": True}}
    identify(config, {"resource": url, "scopes": [READ], "issuers": {"idp": idp}})
    gate = serve(servers, target / "callgate", config, port)
    for client in ("python", "typescript"):
        for era in ("modern", "legacy"):
            steps = ["list", GET, REFUND, GET]
            flow = [asks_for(READ, url), connects(era), is_list, is_order, asks_for(BOTH, url), is_refund, is_order]
            run(f"{client} {era}, a known client", client, era, url, {"client_id": "desk"}, steps, flow)
            run(f"{client} {era}, one that registers itself", client, era, url, {"client_name": "new"}, steps, flow)
            urllib.request.urlopen(urllib.request.Request(f"{issuer}/rotate", method="POST")).close()
            # The provider gives this client no more, so that asking again does not help.
            lines = harness.drive(client, ["--transport", "http", "--era", era, "--url", url, "--oauth",
                                           json.dumps({"client_id": "reader"}), GET, REFUND, GET])
            check_narrow(f"{client} {era}, one that gets no more", era, url, *lines)
    stop(gate)
    check_provider_records(outcomes(target / "callgate", config.parent / "state"), issuer)


def check_narrow(name, era, url, lines, said):
    """How often a client asks its user in vain is its own affair; what it is told is not."""
    asked = [line for line in lines if line["step"] == "authorize"]
    rest = [line for line in lines if line["step"] != "authorize"]
    check(f"{name}: 4 lines", len(rest) == 4, said)
    check(f"{name}: asks again", asked[:2] == [{"step": "authorize", "scope": scope, "resource": url} for scope in (READ, BOTH)], asked)
    for at, (holds, line) in enumerate(zip([connects(era), is_order, is_forbidden, is_order], rest)):
        check_that(f"{name}: line {at + 1}", holds, line)


def check_provider_records(outcomes, issuer):
    for outcome in outcomes:
        caller = outcome["caller"]
        whole = (caller["authentication"] == "token" and caller["user"] == {"issuer": issuer, "subject": "dana"}
                 and caller["token"]["issuer"] == issuer and len(caller["token"]["id"]) == 32)
        check("a record says whose token it was", whole, outcome)
    def count(client, tool, code):
        return sum(outcome["caller"]["client"] == client and outcome["call"]["target"] == tool
                   and outcome.get("code") == code for outcome in outcomes)
    for client in ("desk", "registered"):
        check(f"{client}: a denial for each step-up", count(client, "refunds.create", "missing_scope") == 4, len(outcomes))
        check(f"{client}: then the calls", count(client, "refunds.create", None) == 4, len(outcomes))
        check(f"{client}: and the others", count(client, "orders.get", None) == 8, len(outcomes))
    check("reader: is refused", count("reader", "refunds.create", "missing_scope") >= 4, len(outcomes))
    check("reader: never refunds", count("reader", "refunds.create", None) == 0, len(outcomes))


def at_the_gate(servers, target, folder, orders):
    """Client credentials at the gate's own token endpoint: by a key, and by an assertion."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    url = f"{issuer}/mcp"
    venv = pathlib.Path(os.environ.get("CALLGATE_CLIENTS_DIR", ROOT / "target/clients"))
    made = subprocess.run([venv / "python/bin/python", "-c", MAKE_KEY], capture_output=True, text=True, check=True)
    pair = json.loads(made.stdout)
    config = project(folder / "own-tokens", orders)
    add_client(config, "signer", f"assertion-keys: [{json.dumps(pair['jwk'])}]")
    identify(config, {"resource": url, "scopes": [READ], "tokens": {}})
    gate = serve(servers, target / "callgate", config, port)
    key = {"client_id": "support-bot", "client_secret": KEY, "issuer": issuer}
    signed = {"client_id": "signer", "private_key": pair["pem"], "algorithm": "ES256", "issuer": issuer}
    for client in ("python", "typescript"):
        for era in ("modern", "legacy"):
            ways = {"a key": key, "an assertion": signed}
            if client == "python":  # the other one knows the header only
                ways["a key in the form"] = {**key, "method": "client_secret_post"}
            for way, oauth in ways.items():
                # The challenge says which scopes to ask for first, and the client steps up by itself.
                flow = [connects(era), is_list, is_order, is_refund, is_order]
                run(f"{client} {era}, {way}", client, era, url, oauth, ["list", GET, REFUND, GET], flow)
    stop(gate)
    check_own_records(outcomes(target / "callgate", config.parent / "state"), issuer)


def check_own_records(outcomes, issuer):
    for outcome in outcomes:
        caller = outcome["caller"]
        whole = (caller["authentication"] == "token" and "user" not in caller
                 and caller["token"]["issuer"] == issuer and len(caller["token"]["id"]) == 32)
        check("a record says which token it was", whole, outcome)
    for client, flows in (("support-bot", 6), ("signer", 4)):
        codes = [outcome.get("code") for outcome in outcomes if outcome["caller"]["client"] == client]
        check(f"{client}: a denial for each step-up", codes.count("missing_scope") == flows, codes)
        check(f"{client}: then the calls", codes.count(None) == 3 * flows, codes)


def main():
    target = pathlib.Path(sys.argv[1]).resolve()
    os.environ["ORDERS_TOKEN"] = "a-token-of-this-test"
    with tempfile.TemporaryDirectory() as folder, Servers() as servers:
        folder = pathlib.Path(folder)
        orders = f"127.0.0.1:{free_port()}"
        servers.start([target / "examples/orders_api", "--listen", orders], "orders API on")
        at_the_identity_provider(servers, target, folder, orders)
        at_the_gate(servers, target, folder, orders)
    harness.finish()


main()

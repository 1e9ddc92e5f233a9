"""Drives an MCP server with the official Python SDK; see ../README.md for the command line and output."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

import oauth

TIMEOUT_SECONDS = 30.0
MODERN = "2026-07-28"
# How long a call is waited for that is given up.
GIVEN_UP_SECONDS = 0.5

# What the SDK says itself when an HTTP error answer has no JSON-RPC error in its body. It then makes up a JSON-RPC
# code, which must not be taken for one the server sent.
MADE_UP_FOR_HTTP = {"Server returned an error response", "Not Found", "Session terminated"}
# The SDK reports these two with a JSON-RPC code as well, though no answer came at all.
NO_ANSWER = {CONNECTION_CLOSED: "Connection closed", REQUEST_TIMEOUT: "timed out"}


def parse_command_line(argv: list[str]) -> argparse.Namespace:
    own, command = argv, []
    if "--" in argv:
        own, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="drive", description=__doc__)
    parser.add_argument("--transport", choices=["http", "sse", "stdio"], required=True)
    parser.add_argument("--url")
    parser.add_argument("--token")
    parser.add_argument("--oauth", type=json.loads)
    parser.add_argument("--era", choices=["modern", "legacy"])
    parser.add_argument("steps", metavar="STEP", nargs="+", help="see ../README.md")
    options = parser.parse_args(own)
    options.command = command
    if options.transport != "stdio" and (not options.url or command):
        parser.error(f"--transport {options.transport} needs --url, and no COMMAND")
    if options.transport == "sse" and options.oauth:
        parser.error("--transport sse takes a --token, and no --oauth")
    if options.transport == "stdio" and (not command or options.url or options.token or options.oauth):
        parser.error("--transport stdio needs -- COMMAND, and none of --url, --token and --oauth")
    try:
        options.steps = [parse_step(step) for step in options.steps]
    except ValueError as error:
        parser.error(str(error))
    return options


def parse_step(text: str) -> dict[str, Any]:
    """The step as the beginning of its output line, with the call's arguments apart."""
    if text in ("list", "resources", "prompts"):
        return {"line": {"step": text}}
    kind, _, rest = text.partition(":")
    if kind == "read":
        return {"line": {"step": "read", "uri": rest}}
    name, _, arguments = rest.partition(":")
    if kind not in ("call", "progress", "cancel", "get") or not name:
        raise ValueError(f"not a step: {text}")
    try:
        parsed = json.loads(arguments)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON in {text}: {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"the arguments are not a JSON object in {text}")
    return {"line": {"step": kind, "prompt" if kind == "get" else "tool": name}, "arguments": parsed}


class Refusals:
    """Remembers the status of a refused POST, which the SDK keeps to itself."""

    status: int | None = None

    async def watch(self, response: httpx2.Response) -> None:
        # A refused GET or DELETE is no answer to a step: a server may do without them.
        # One that was refused for want of a token may be asked again with one.
        if response.request.method == "POST":
            self.status = response.status_code if response.status_code >= 400 else None

    def code_of(self, error: BaseException) -> int | None:
        """The HTTP status (positive) or the server's JSON-RPC code (negative); None if there was neither."""
        if self.status in (401, 403) or not isinstance(error, MCPError):
            return self.status
        if self.status is not None and error.message in MADE_UP_FOR_HTTP:
            return self.status
        if NO_ANSWER.get(error.code, "\0") in error.message:
            return None
        return error.code


@contextlib.asynccontextmanager
async def connect(options: argparse.Namespace, refusals: Refusals) -> AsyncIterator[Client]:
    async with contextlib.AsyncExitStack() as stack:
        server: Any
        if options.transport == "http":
            http = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {options.token}"} if options.token else {},
                auth=oauth.provider(options.url, options.oauth, emit) if options.oauth else None,
                timeout=TIMEOUT_SECONDS,
                event_hooks={"response": [refusals.watch]},
                trust_env=False,  # no proxy between the test and its server
            )
            await stack.enter_async_context(http)
            server = streamable_http_client(options.url, http_client=http)
        elif options.transport == "sse":

            def http_client(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
                hooks = {"response": [refusals.watch]}
                return httpx2.AsyncClient(
                    headers=headers, timeout=timeout, auth=auth, event_hooks=hooks, trust_env=False
                )

            headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
            server = sse_client(options.url, headers=headers, httpx_client_factory=http_client)
        else:
            server = StdioServerParameters(command=options.command[0], args=options.command[1:])
        # The SDK's pinned mode sends nothing on connecting. "auto" asks server/discover, as real clients do, and falls
        # back to initialize; with --era modern the fallback counts as a failure.
        mode = "legacy" if options.era == "legacy" else "auto"
        client = await stack.enter_async_context(Client(server, mode=mode, read_timeout_seconds=TIMEOUT_SECONDS))
        if options.era == "modern" and client.protocol_version != MODERN:
            raise RuntimeError(f"the server offered {client.protocol_version} instead of {MODERN}")
        yield client


async def run_step(client: Client, step: dict[str, Any]) -> dict[str, Any]:
    line, arguments = step["line"], step.get("arguments")
    match line["step"]:
        case "list":
            return {"tools": [tool.name for tool in await listed(client.list_tools, "tools")]}
        case "resources":
            templates = await listed(client.list_resource_templates, "resource_templates")
            return {
                "uris": [str(resource.uri) for resource in await listed(client.list_resources, "resources")],
                "templates": [template.uri_template for template in templates],
            }
        case "prompts":
            return {"prompts": [prompt.name for prompt in await listed(client.list_prompts, "prompts")]}
        case "read":
            read = await client.read_resource(line["uri"])
            return {"contents": [dumped(content) for content in read.contents]}
        case "get":
            prompt = await client.get_prompt(line["prompt"], arguments)
            return {"messages": [dumped(message) for message in prompt.messages]}
        case "cancel":
            with anyio.move_on_after(GIVEN_UP_SECONDS) as scope:
                await client.call_tool(line["tool"], arguments)
            return {"cancelled": scope.cancelled_caught}
    heard: list[list[float | None]] = []

    async def hear(progress: float, total: float | None, _message: str | None) -> None:
        heard.append([progress, total])

    wants = line["step"] == "progress"
    result = await client.call_tool(line["tool"], arguments, progress_callback=hear if wants else None)
    return {
        "isError": bool(result.is_error),
        "text": "\n".join(block.text for block in result.content if block.type == "text"),
        "structured": result.structured_content,
        **({"progress": heard} if wants else {}),
    }


async def listed(ask: Any, member: str) -> list[Any]:
    """All pages of a list."""
    items: list[Any] = []
    cursor = None
    while True:
        # "refresh": each list step shall reach the server, not the SDK's cache.
        page = await ask(cursor=cursor, cache_mode="refresh")
        items += getattr(page, member)
        cursor = page.next_cursor
        if cursor is None:
            return items


def dumped(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def emit(line: dict[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=False, separators=(",", ":")), flush=True)


def first_cause(error: BaseException) -> BaseException:
    """A failing transport ends the SDK's task group, which wraps the cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def drive(options: argparse.Namespace) -> int:
    refusals = Refusals()
    exit_code = 0

    def emit_error(line: dict[str, Any], error: BaseException) -> bool:
        """Whether the error was an answer."""
        cause = first_cause(error)
        code = refusals.code_of(cause)
        emit({**line, "error": {"code": code, "message": str(cause) or repr(cause)}})
        return code is not None

    # The line that is still owed should the connection itself break down.
    owed: dict[str, Any] | None = {"step": "connect"}
    try:
        async with connect(options, refusals) as client:
            info = client.server_info
            emit({**owed, "protocol": client.protocol_version, "server": info.name if info else None})
            for step in options.steps:
                owed, refusals.status = step["line"], None
                try:
                    emit({**owed, **await run_step(client, step)})
                except Exception as error:
                    if not emit_error(owed, error):
                        exit_code = 1
            owed = None
    except Exception as error:
        if owed is None:
            print(f"closing failed: {first_cause(error)!r}", file=sys.stderr)
        else:
            emit_error(owed, error)
            exit_code = 3 if owed["step"] == "connect" else 1
    return exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(drive(parse_command_line(sys.argv[1:]))))

"""Processes that serve until the test ends, and a proxy that puts a credential on every request."""

import asyncio
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

READY_WITHIN_S = 30
HEAD_MAX = 64 * 1024


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Servers:
    """Processes, each with a file that it logs to."""

    def __init__(self, logs):
        self.logs = pathlib.Path(logs)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.processes = []

    def start(self, name, command, pattern, **options):
        """Starts one, and waits for a line on standard error that matches."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as to:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=to, **options)
        self.processes.append(process)
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and process.poll() is None:
            found = re.search(pattern, log.read_text(errors="replace"))
            if found:
                return process, found
            time.sleep(0.05)
        sys.exit(f"{name} did not start: see {log}\n{log.read_text(errors='replace')[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class KeyProxy:
    """Puts `Authorization` on each request: the suite has no key. All else passes unchanged, streams too.

    One request per connection, and both sides are told so: nothing but heads has to be understood.
    """

    def __init__(self, port, upstream_port, key):
        self.port, self.upstream_port = port, upstream_port
        self.line = f"Authorization: Bearer {key}\r\n".encode()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        serve = asyncio.start_server(self.pass_on, "127.0.0.1", self.port, limit=HEAD_MAX)
        asyncio.run_coroutine_threadsafe(serve, self.loop).result()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def end(self):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def pass_on(self, client, to_client):
        to_gate = None
        try:
            head = await client.readuntil(b"\r\n\r\n")
            gate, to_gate = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            to_gate.write(with_lines(head, self.line))
            # Whoever ends first ends the other: a client that hangs up is seen to hang up.
            ways = [asyncio.create_task(pump(client, to_gate)), asyncio.create_task(answer(gate, to_client))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # whoever cancels this only waits for its end
        finally:
            for writer in (to_client, to_gate):
                if writer:
                    writer.close()


def with_lines(head, lines):
    """A head with more lines, after whose message the connection ends."""
    first, _, rest = head.partition(b"\r\n")
    kept = [line for line in rest.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
    return b"\r\n".join([first, *kept, b"Connection: close\r\n"]) + lines + b"\r\n"


async def answer(gate, to_client):
    try:
        to_client.write(with_lines(await gate.readuntil(b"\r\n\r\n"), b""))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return
    await pump(gate, to_client)


async def pump(reader, writer):
    while data := await reader.read(HEAD_MAX):
        writer.write(data)
        await writer.drain()

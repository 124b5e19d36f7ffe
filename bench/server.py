"""Which ASGI server carries the hot path? Ours against uvicorn and Granian, one run, one core each side.

    python bench/server.py [--python PATH] [--rounds 5] [--seconds 4] [--connections 32]

Every server runs the same bare application in turn, pinned to core 0; wrk runs on core 1 and posts a 460-byte JSON body
that comes back. Rounds alternate between the servers, so a change of the machine's load hits all of them; medians and
the ratio to uvicorn are printed, and the server's own processor time per request, which other work on the machine
disturbs far less. Then a client leaves silent requests, and the time until the application learns it (by
`http.disconnect` or by cancellation) is taken; both processes read the same monotonic clock. Candidates that are not
installed are named as skipped: `--python` names an interpreter that has them. Not here: defences
(tests/process/test_http_server.py proves ours).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping

    Message = MutableMapping[str, Any]

HERE = Path(__file__).resolve().parent
BODY = json.dumps({"messages": [{"role": "user", "content": "x" * 413}]}).encode()
SERVER_CORE, CLIENT_CORE = "0", "1"
LEAVERS = 200
READY_S = 15.0

OURS = "import sys; sys.path[:0] = {path!r}; import server; server.serve_ours({port})"
COMMANDS = {
    "convene": ["-c", OURS],
    "uvicorn": ["-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log"],
    "granian": ["-m", "granian", "--interface", "asgi", "--workers", "1", "--loop", "uvloop", "--no-ws"],
}
QUIET = {"uvicorn": ["--log-level", "warning"], "granian": ["--log-level", "warning"]}


class Round(NamedTuple):
    """One load of one server."""

    rate: float
    p99_ms: float
    cost_us: float


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Give the body back; `/hang` waits until the client is gone and prints when."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
        return
    if scope["path"] == "/hang":
        await hang(receive)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hang(receive: Callable[[], Awaitable[Message]]) -> None:
    """Stand for an upstream that says nothing."""
    print("started", flush=True)
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        print(time.monotonic(), flush=True)


def serve_ours(port: int) -> None:
    """Run our server; called in the child."""
    from convene.http.server import run  # noqa: PLC0415 - the parent's interpreter may not have it

    sys.exit(run(app, host="127.0.0.1", port=port, new_id=lambda: "req_bench", wall_now=time.time))


def command(name: str, python: str, port: int) -> list[str]:
    """Return the command line of a candidate."""
    pinned = ["taskset", "-c", SERVER_CORE, python, *COMMANDS[name]]
    if name == "convene":
        pinned[-1] = OURS.format(path=[str(HERE), str(HERE.parent / "src")], port=port)
        return pinned
    return [*pinned, *QUIET[name], "--host", "127.0.0.1", "--port", str(port), "server:app"]


def is_installed(name: str, python: str) -> bool:
    """Tell whether the interpreter has the candidate."""
    needed = "uvloop, httptools, msgspec" if name == "convene" else f"uvloop, {name}"
    return subprocess.run([python, "-c", f"import {needed}"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def running(name: str, python: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Start a candidate, wait until it accepts, stop it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(command(name, python, port), cwd=HERE, stdout=subprocess.PIPE, text=True)
    try:
        give_up = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < give_up, f"{name} does not start"
            assert process.poll() is None, f"{name} ended"
            time.sleep(0.05)
        yield port, process
    finally:
        process.terminate()
        process.wait(READY_S)
        if process.stdout is not None:
            process.stdout.close()


def load(port: int, seconds: int, connections: int, script: str) -> tuple[float, float, int]:
    """Run wrk once; return requests per second, p99 in milliseconds, and the number of requests."""
    line = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script]
    done = subprocess.run([*line, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["errors"], done.stdout
    return found["rate"], found["p99_ms"], found["requests"]


def processor_s(pid: int) -> float:
    """Return the processor time of a process and its children so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(processor_s(int(child)) for child in children)


def write_script(folder: str) -> str:
    """Write wrk's script: the body to post, and a last line of JSON to read."""
    path = Path(folder) / "post.lua"
    path.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\nwrk.headers['content-type'] = 'application/json'\n"
        "done = function(summary, latency)\n  local e = summary.errors\n"
        '  print(string.format(\'{"rate": %f, "p99_ms": %f, "requests": %d, "errors": %d}\',\n'
        "    summary.requests / summary.duration * 1e6, latency:percentile(99) / 1e3, summary.requests,\n"
        "    e.connect + e.read + e.write + e.status + e.timeout))\nend\n"
    )
    return str(path)


def leave(port: int, process: subprocess.Popen[str]) -> list[float]:
    """Leave silent requests one by one; return the milliseconds until the application knew, sorted."""
    assert process.stdout is not None
    taken = []
    for _ in range(LEAVERS):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
            while "started" not in process.stdout.readline():
                pass
            left = time.monotonic()
        taken.append((float(process.stdout.readline()) - left) * 1e3)
    return sorted(taken)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--python", default=sys.executable)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=32)
    chosen = options.parse_args()
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None or (os.cpu_count() or 1) < 2:
            sys.exit(f"needs {tool} and two cores")
    names = [name for name in COMMANDS if is_installed(name, chosen.python)]
    for name in COMMANDS.keys() - set(names):
        print(f"{name}: skipped, not installed for {Path(chosen.python).name}")
    results: dict[str, list[Round]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        script = write_script(folder)
        for _ in range(chosen.rounds):
            for name in names:
                with running(name, chosen.python) as (port, process):
                    load(port, 1, chosen.connections, script)
                    before = processor_s(process.pid)
                    rate, p99_ms, requests = load(port, chosen.seconds, chosen.connections, script)
                    cost_us = (processor_s(process.pid) - before) / requests * 1e6
                    results[name].append(Round(rate, p99_ms, cost_us))
    report(names, results, chosen.python)


def report(names: list[str], results: dict[str, list[Round]], python: str) -> None:
    """Print medians, ratios and the times until a gone client is known."""
    print(f"load average {os.getloadavg()[0]:.1f}; {len(BODY)}-byte body; median of {len(results[names[0]])} rounds")
    uvicorn = results.get("uvicorn", [])
    for name in names:
        rounds = results[name]
        rate, p99_ms, cost_us = (statistics.median(column) for column in zip(*rounds, strict=True))
        line = f"{name:8} {rate:9,.0f} req/s  p99 {p99_ms:6.2f} ms  {cost_us:5.1f} us of processor per request"
        if uvicorn:
            faster = statistics.median(a.rate / b.rate for a, b in zip(rounds, uvicorn, strict=True))
            cheaper = statistics.median(b.cost_us / a.cost_us for a, b in zip(rounds, uvicorn, strict=True))
            line += f"  = uvicorn x {faster:.2f} by rate, x {cheaper:.2f} by processor time"
        print(line)
    for name in names:
        with running(name, python) as (port, process):
            taken = leave(port, process)
        print(f"{name:8} client gone -> known: p50 {taken[len(taken) // 2]:.2f} ms  worst {taken[-1]:.2f} ms")


if __name__ == "__main__":
    main()

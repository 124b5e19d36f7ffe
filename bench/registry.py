"""Registrations and resolves by HTTP against a real server of one process, with signatures checked.

    .venv/bin/python bench/registry.py [--agents 2000] [--resolves 8000]

The server is a process of its own over SQLite; the load is another. Beside requests a second on the clock, the
processor time that the server's process has used for one is printed, which says more on a machine that others use too:
its inverse is what one core can do. Signing is done before the clock starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from convene.agent_identity import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS: Final = 32
PORT: Final = 18_471
CONFIG: Final = "port = {port}\naccess_log = false\n[engine]\nenabled = false\n[scripted]\nenabled = true\n"
CHAT: Final = "proto:30a801ed3a83f9a0ff0a9f1e6fe958cb91da1fc2218b153df7b6cbf87bd33d62"


def registration(number: int, now: int) -> tuple[str, bytes]:
    """Return an agent's address and what it posts."""
    me = Identity.from_seed(f"bench {number}")
    body = {
        "agent_identifier": f"agent://{me.address}",
        "timestamp": now,
        "protocols": [CHAT],
        "endpoints": [{"url": f"http://127.0.0.1:{10_000 + number % 50_000}/submit", "weight": 1}],
        "metadata": None,
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return me.address, json.dumps(body | {"signature": me.sign(text.encode())}).encode()


def post(body: bytes) -> bytes:
    """Return a request that registers."""
    head = f"POST /v1/almanac/agents HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def get(address: str) -> bytes:
    """Return a request that resolves."""
    return f"GET /v1/almanac/agents/{address} HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\n\r\n".encode()


async def load(requests: Sequence[bytes]) -> float:
    """Send all of them over some connections and return the seconds; each must be answered 200."""
    left = iter(requests)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        for request in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head[:20]:
                raise RuntimeError(head.decode())
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return time.perf_counter() - began


def used_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(pid: int, name: str, requests: Sequence[bytes]) -> None:
    """Print how fast these are answered."""
    before = used_s(pid)
    seconds = await load(requests)
    cpu = used_s(pid) - before
    each_us = cpu / len(requests) * 1e6
    sys.stdout.write(
        f"{name}: {len(requests) / seconds:.0f}/s on the clock; {each_us:.0f} us of processor time each, "
        f"{1e6 / each_us:.0f}/s of one core\n"
    )


async def run(pid: int, agents: int, resolves: int) -> None:
    """Wait for the server and measure."""
    made = [registration(number, int(time.time())) for number in range(agents)]
    while True:
        try:
            await load([f"GET /livez HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\n\r\n".encode()])
            break
        except OSError:
            await asyncio.sleep(0.1)
    await measure(pid, "registrations", [post(body) for _, body in made])
    addresses = [made[number % len(made)][0] for number in range(resolves)]
    await measure(pid, "resolves", [get(address) for address in addresses])


def main() -> None:
    """Start a server and load it."""
    options = argparse.ArgumentParser(description="registrations and resolves a second")
    options.add_argument("--agents", type=int, default=2_000)
    options.add_argument("--resolves", type=int, default=8_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "convene.toml")
        config.write_text(CONFIG.format(port=PORT))
        known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
        environ = known | {"CONVENE_CONFIG": str(config), "CONVENE_DATA_DIR": f"{folder}/data"}
        with Path(folder, "log").open("wb") as log:
            command = [sys.executable, "-m", "convene", "serve"]
            server = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        try:
            asyncio.run(run(server.pid, given.agents, given.resolves))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()

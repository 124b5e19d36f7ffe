"""Instructions a plain request takes, by valgrind: the figure that a busy machine does not change.

    python bench/instructions.py [bare] [whole] [--requests 2000] [--clients 32] [--keep FOLDER]

The real program runs under callgrind, some sixty times slower than by itself, with sockets, disk and threads as they
are; the load and the canned upstream run beside it. Instructions of the kernel are not in the figure. What the program
does by the clock (commits, moves, ticks) is slowed down as it is itself (`slowed.py`): as often per request as at
`PACE` requests a second. `--keep` leaves callgrind's file behind, for `callgrind_annotate` or kcachegrind.

`bare` is the gateway without limits and ledger, `whole` the program as it is. Two runs of one program differ by less
than one in a hundred.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from parts import ANSWER, BODY, HERE, free_port, missing, say, upstream_config, wait_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACE = 6000.0
"""Requests a second that the clock of the program is slowed down to."""
WARM = 400
READY_S = 300.0


class _Upstream(asyncio.Protocol):
    """Answers every request with the same bytes as soon as its body is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"content-length: (\d+)", self._seen[:end].lower())
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._seen) < whole:
                return
            self._seen = self._seen[whole:]
            self._transport.write(_ANSWER)  # type: ignore[attr-defined]


_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Thu, 26 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
) % (len(ANSWER), ANSWER.encode())


async def _client(port: int, key: str, left: list[int]) -> None:
    """Ask like wrk: one connection, one request after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = BODY.encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    ) % (port, key.encode(), len(body), body)
    while left[0] > 0:
        left[0] -= 1
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert head.startswith(b"HTTP/1.1 200"), head
        assert length is not None
        await reader.readexactly(int(length[1]))
    writer.close()


async def _load(port: int, key: str, requests: int, clients: int) -> float:
    """Return the requests a second."""
    left, began = [requests], time.perf_counter()
    await asyncio.gather(*(_client(port, key, left) for _ in range(clients)))
    return requests / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _upstream(port: int) -> AsyncIterator[None]:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


def _control(pid: int, *arguments: str) -> None:
    subprocess.run(["callgrind_control", *arguments, str(pid)], capture_output=True, check=True)


async def count(mode: str, requests: int, clients: int, keep: str | None) -> float:
    """Return the instructions of one request."""
    upstream, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "convene.toml").write_text(upstream_config(upstream))
        env = dict(os.environ) | {
            "CONVENE_CONFIG": str(folder / "convene.toml"),
            "CONVENE_DATA_DIR": name,
            "PORT": str(port),
        }
        out = folder / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        command += [sys.executable, str(HERE / "slowed.py"), mode]
        log = (folder / "log").open("wb")
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)  # noqa: ASYNC220
        try:
            async with _upstream(upstream):
                try:
                    await asyncio.to_thread(wait_http, f"http://127.0.0.1:{port}/readyz", process, READY_S)
                except RuntimeError:
                    say((folder / "log").read_text()[-3000:])
                    raise
                found = re.search(r"Bearer ([A-Za-z0-9_.-]{16,})", (folder / "log").read_text())
                key = found[1] if found else ""
                _control(process.pid, "-i", "on")
                pace = await _load(port, key, WARM, clients)
                for turn in range(2):  # the first: a pace that follows the clock's own slowing
                    (folder / "slowed").write_text(f"{PACE / pace}")
                    process.send_signal(signal.SIGUSR1)
                    if turn == 0:
                        pace = await _load(port, key, WARM, clients)
                _control(process.pid, "-z")
                pace = await _load(port, key, requests, clients)
                _control(process.pid, "-d")
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 120)
        total = _total(folder, Path(keep) / f"callgrind.{mode}" if keep else None)
        say(f"     {mode}: {total / requests:,.0f} instructions a request ({pace:.0f} requests/s under valgrind)")
        return total / requests


def _total(folder: Path, keep: Path | None) -> int:
    """Return what the first dump adds up to; callgrind writes another at the end."""
    dump = min(folder.glob("callgrind.out.*"), key=lambda path: int(path.suffix[1:]))
    if keep is not None:
        shutil.copy(dump, keep)
    return int(re.findall(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)[-1])


def main() -> int:
    """Count what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modes", nargs="*", default=[])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--keep")
    given = parser.parse_args()
    if missing(["valgrind", "callgrind_control"]):
        say("not installed: valgrind. On Debian or Ubuntu: apt-get install valgrind")
        return 2
    for mode in given.modes or ["bare", "whole"]:
        asyncio.run(count(mode, given.requests, given.clients, given.keep))
    return 0


if __name__ == "__main__":
    sys.exit(main())

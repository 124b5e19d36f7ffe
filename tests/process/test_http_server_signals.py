"""`run` as a process: signals, the exit code, and that running streams end whole."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 60.0

# The stream ends when its standard input does; the port is the first line it prints.
PROGRAM = """
import asyncio, sys, time
from convene.http.server import run

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
        print("shut down", flush=True)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if scope["path"] == "/stuck":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.get_running_loop().create_future()
    await send({"type": "http.response.body", "body": b"last"})

sys.exit(run(app, host="127.0.0.1", port=0, new_id=lambda: "req_1", wall_now=time.time,
    on_drain=lambda: print("draining", flush=True), on_ready=lambda server: print(server.port, flush=True)))
"""


class Program:
    """The running program and the ways to reach it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    @contextlib.contextmanager
    def ask(self, path: str) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
            yield client


@pytest.fixture
def program() -> Iterator[Program]:
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def hear(client: socket.socket, end: bytes) -> bytes:
    """Read until `end` has come, or the server closes."""
    heard = b""
    while not heard.endswith(end):
        data = client.recv(65_536)
        if not data:
            break
        heard += data
    return heard


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_mid_stream_lets_it_end_refuses_new_requests_and_exits_0(program: Program, number: int) -> None:
    with program.ask("/stream") as stream:
        hear(stream, b"first\r\n")
        program.process.send_signal(number)
        assert program.line() == "draining"
        with program.ask("/") as late:
            assert hear(late, b"never").startswith(b"HTTP/1.1 503 ")
        assert program.process.poll() is None
        program.release()
        assert hear(stream, b"never").endswith(b"4\r\nlast\r\n0\r\n\r\n")
    assert program.line() == "shut down"
    assert program.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_the_grace(program: Program) -> None:
    with program.ask("/stuck") as stream:
        hear(stream, b"first\r\n")
        program.process.send_signal(signal.SIGTERM)
        assert program.line() == "draining"
        program.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            assert not hear(stream, b"never").endswith(b"0\r\n\r\n")
    assert program.process.wait(PATIENCE_S) == 0


def test_an_idle_server_exits_0_at_once(program: Program) -> None:
    with program.ask("/") as client:
        hear(client, b"last")
        program.process.send_signal(signal.SIGTERM)
        assert hear(client, b"never") == b""
    assert program.process.wait(PATIENCE_S) == 0

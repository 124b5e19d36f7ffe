"""Peers on loopback sockets for the client's tests: scripted servers, a certificate authority, both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

    Script = Callable[["Peer"], Awaitable[None]]
    Runner = Callable[[Coroutine[object, object, None]], None]

BOUND_S = 60.0
"""How long any wait of these tests may take before it counts as a hang."""


class Peer:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.number = 0
        """How many connections the server had accepted before."""

    async def request(self) -> bytes:
        """Return the next request, head and body. Raises `IncompleteReadError` when the client has closed."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + (await self.reader.readexactly(length) if length else b"")

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Return when the client has closed its end."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class Upstream:
    """A server that runs a script for each connection. `open` are the connections that the client has not closed."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.accepted = 0
        self.open: set[Peer] = set()
        self.failures: list[BaseException] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script for one connection."""
        peer = Peer(reader, writer)
        peer.number = self.accepted
        self.accepted += 1
        self.open.add(peer)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        except RuntimeError:
            # What uvloop raises for a write to a transport that has been aborted.
            if not writer.transport.is_closing():
                raise
        except Exception as error:  # noqa: BLE001 - kept, and raised when the server ends
            self.failures.append(error)
        finally:
            self.open.discard(peer)
            writer.transport.abort()

    async def stop(self) -> None:
        """End what still runs by closing its connection; raise what went wrong in a script."""
        for peer in list(self.open):
            peer.writer.transport.abort()
        await reached(lambda: not self.open)
        if self.failures:
            raise self.failures[0]


@asynccontextmanager
async def upstream(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Run a server on a free loopback port for the length of the block."""
    server_side = Upstream(script)
    server = await asyncio.start_server(server_side.serve, "127.0.0.1", 0, ssl=tls, limit=1 << 22)
    server_side.port = server.sockets[0].getsockname()[1]
    try:
        yield server_side
    finally:
        server.close()
        await server_side.stop()
        await server.wait_closed()
        # Transports finish closing on the loop's next turns.
        for _ in range(5):
            await asyncio.sleep(0)


def answer(body: bytes = b"ok", *fields: str) -> bytes:
    """Return a response with a Content-Length."""
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 200 OK\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


def always(data: bytes) -> Script:
    """Return a script that answers every request with `data`."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.say(data)

    return script


async def reached(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds. Raises `TimeoutError` after `BOUND_S`."""
    async with asyncio.timeout(BOUND_S):
        # A condition of the peer's side, which has no event to wait for.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def on_asyncio(main: Coroutine[object, object, None]) -> None:
    """Run on the standard loop."""
    asyncio.run(_bounded(main))


def on_uvloop(main: Coroutine[object, object, None]) -> None:
    """Run on uvloop, as the server does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_bounded(main))


LOOPS: Final = (pytest.param(on_asyncio, id="asyncio"), pytest.param(on_uvloop, id="uvloop"))


async def _bounded(main: Coroutine[object, object, None]) -> None:
    """Await `main`; fail if it hangs, leaves a task, or lets an exception reach the loop."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
    async with asyncio.timeout(4 * BOUND_S):
        await main
    await reached(lambda: len(asyncio.all_tasks()) == 1)
    assert not complaints, complaints


class Authority:
    """A certificate authority and the certificates it signs, made with the openssl program in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = str(folder / "ca.pem")
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        )

    def context(self, name: str) -> ssl.SSLContext:
        """Return a server's context with a certificate for `name`, such as `DNS:localhost`."""
        stem = name.replace(":", "-")
        (self.folder / f"{stem}.ext").write_text(f"subjectAltName={name}\n")
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"),
            *("-keyout", f"{stem}.key", "-out", f"{stem}.csr"),
        )
        self._openssl(
            *("x509", "-req", "-days", "2", "-in", f"{stem}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", f"{stem}.ext", "-out", f"{stem}.pem"),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)  # noqa: S603, S607 - own arguments, found on PATH

"""A gate between a store and its Postgres: bytes pass, or replies are swallowed, or nobody gets in."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE_S = 60.0
State = Literal["open", "mute", "shut"]


class Gate:
    """Listens on a port of its own; `url` leads through it."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.url = ""
        self.state: State = "open"
        """`mute`: what the server answers is swallowed, so that nobody here knows what became of a commit."""
        self._inside: set[asyncio.StreamWriter] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Put a gate before the Postgres of a URL."""
        gate = cls(url)
        server = await asyncio.start_server(gate._pass, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user = gate._parts.netloc.rpartition("@")[0]
        where = f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"
        query = "&".join(one for one in gate._parts.query.split("&") if not one.startswith("host="))
        gate.url = urlunsplit(gate._parts._replace(netloc=where, query=query))
        try:
            yield gate
        finally:
            server.close()
            gate.set("shut")
            await server.wait_closed()
            await gate._empty.wait()

    def set(self, state: State) -> None:
        """Let the gate be so from now on; those inside are cut off if it opens or shuts."""
        self.state = state
        if state != "mute":
            for writer in self._inside:
                writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._inside.add(writer)
        self._empty.clear()
        try:
            if self.state == "open":
                there, back = await self._connect()
                self._inside.add(back)
                try:
                    await asyncio.gather(self._pump(reader, back), self._pump(there, writer, answers=True))
                finally:
                    self._inside.discard(back)
                    back.close()
            elif self.state == "mute":
                await reader.read()
        finally:
            writer.close()
            self._inside.discard(writer)
            if not self._inside:
                self._empty.set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        folder = parse_qs(self._parts.query).get("host", [""])[0]
        if folder:
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        return await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if not (answers and self.state == "mute"):
                    target.write(data)
                    await target.drain()
        target.close()


async def until(look: Callable[[], Awaitable[object]]) -> None:
    """Ask the database again and again until it says so."""
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(1_000_000):
            if await look():
                return
            await asyncio.sleep(0)

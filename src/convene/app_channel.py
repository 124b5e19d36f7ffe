"""What a supervisor and its workers say to each other, and the pipe they say it over.

    supervisor ──► worker    Order (first), Go, Seen (how an engine stands), Restarted, Stop, Close
    worker ──► supervisor    Up (started, connections wait), Listening, RestartEngine, Quiet

The pipe is a pair of unconnected-to-anything sockets: it has no name, so nobody else can open it, and what is secret
(settings, the engine's key) is on no command line and in no environment. Its end is how each notices that the other is
gone, however it went. Lines of JSON, as both sides are the same program.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from convene.engine.base import EngineView, Mode

if TYPE_CHECKING:
    import socket

LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""The order holds all settings, and nothing says how many models somebody may list."""


class Order(msgspec.Struct, frozen=True, tag=True):
    """What a worker is to be.

    Attributes:
        index: which worker, from 0.
        count: how many there are.
        settings: as `config_handover.seal` writes them.
        listeners: file descriptors of its bound sockets.
        lock: file descriptor of the lock that orders the lines of all workers on standard error.
        views: how the engines stand, by mode.
    """

    index: int
    count: int
    settings: msgspec.Raw
    listeners: tuple[int, ...]
    lock: int
    views: dict[Mode, EngineView]


class Go(msgspec.Struct, frozen=True, tag=True):
    """Take connections: whoever waits for the server has been told where it is."""


class Seen(msgspec.Struct, frozen=True, tag=True):
    """How an engine stands now."""

    mode: Mode
    view: EngineView


class Restarted(msgspec.Struct, frozen=True, tag=True):
    """The child that was there when the restart was asked for is gone."""

    mode: Mode


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Drain and end; `hurry`: end the grace of running answers, too."""

    hurry: bool = False


class Close(msgspec.Struct, frozen=True, tag=True):
    """Close the sockets and end: no worker has anything to finish."""


class Up(msgspec.Struct, frozen=True, tag=True):
    """Started; waits for `Go`."""


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Takes connections."""


class RestartEngine(msgspec.Struct, frozen=True, tag=True):
    """Restart an engine's child, for this reason."""

    mode: Mode
    reason: str


class Quiet(msgspec.Struct, frozen=True, tag=True):
    """Drains and has nothing to finish; refuses requests until `Close`."""


ToWorker = Order | Go | Seen | Restarted | Stop | Close
ToSupervisor = Up | Listening | RestartEngine | Quiet


class Channel:
    """One end of the pipe."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Take over one of a pair of connected sockets."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LINE_BYTES_MAX))

    def send(self, message: ToWorker | ToSupervisor) -> None:
        """Send soon; to a peer that is gone, nothing."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def drain(self) -> None:
        """Wait until the peer has read most of what was sent. Raises `OSError` when it is gone."""
        await self._writer.drain()

    async def hear_supervisor(self) -> ToWorker | None:
        """Return what the supervisor says next, None once it is gone."""
        line = await self._line()
        heard: ToWorker | None = msgspec.json.decode(line, type=ToWorker) if line else None
        return heard

    async def hear_worker(self) -> ToSupervisor | None:
        """Return what the worker says next, None once it is gone."""
        line = await self._line()
        heard: ToSupervisor | None = msgspec.json.decode(line, type=ToSupervisor) if line else None
        return heard

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except OSError:
            return b""
        # A line without its end was cut off by the peer's death.
        return line if line.endswith(b"\n") else b""

    def close(self) -> None:
        """Let go of the pipe."""
        self._writer.close()

"""Streams on the wire: headers held until the first frame, and keep-alive comments while nothing happens.

No header leaves before the first frame or `first_event_s` (invariant 4, decisions 5), so a refusal has its real
status; after `ping_s` of silence an SSE comment goes out (SSE-17). One coarse ticker serves all streams and sleeps
when there are none, so a stream costs no timer of its own. `chat.py` opens streams.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from convene.api.call import ClientLeftError
from convene.api.sse import PING

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.api.problems import Header

HEAD: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
"""SSE-01: no cache, no proxy buffering, no compression."""
TICK_S_MIN = 0.02
"""However small the configured waits: a ticker without a pause would take the whole processor."""


class Stream:
    """One open stream. `write` and `finish` are called by one task; the ticker only writes comments between them."""

    __slots__ = ("_call", "_finished", "_streams", "_writing", "last_at", "started")

    def __init__(self, streams: Streams, call: Call, now: float) -> None:
        self._streams = streams
        self._call = call
        self._writing = False
        self._finished = False
        self.started = False
        self.last_at = now

    async def write(self, frames: list[bytes]) -> None:
        """Send frames in one write, the head first if it has not left (SSE-02)."""
        await self._send(b"".join(frames), more=True)

    async def finish(self, frames: list[bytes]) -> None:
        """Send the last frames and end the body."""
        self._finished = True
        await self._send(b"".join(frames), more=False)

    async def fail(self, frames: list[bytes]) -> None:
        """Send the frames of a fault and end the body."""
        self._call.broke_off = True
        await self.finish(frames)

    def leave(self) -> None:
        """Forget the stream; every opened stream is left exactly once."""
        self._streams.live.discard(self)

    async def tick(self, now: float) -> None:
        """Send a comment if the stream has been silent for too long."""
        wait_s = self._streams.ping_s if self.started else self._streams.first_event_s
        if not self._writing and not self._finished and now - self.last_at >= wait_s:
            with contextlib.suppress(ClientLeftError):  # the stream's own task learns of it, too
                await self._send(PING, more=True)

    async def _send(self, body: bytes, *, more: bool) -> None:
        self._writing = True
        try:
            if not self.started:
                self.started = True
                call = self._call
                call.status, call.streamed = 200, True
                head = [*HEAD, *call.common, *call.limit_head()]
                await call.emit({"type": "http.response.start", "status": 200, "headers": head})
            await self._call.emit({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            self._writing = False
            self.last_at = self._streams.now()


class Streams:
    """All open streams of one server and the ticker that keeps them alive. Times in seconds of the event loop."""

    def __init__(self, ping_s: float, first_event_s: float) -> None:
        self.ping_s = ping_s
        self.first_event_s = first_event_s
        self.live: set[Stream] = set()
        self._tick_s = max(TICK_S_MIN, min(ping_s, first_event_s, 4.0) / 4)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def now() -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def open(self, call: Call) -> Stream:
        """Open a stream for this call; nothing is sent yet."""
        stream = Stream(self, call, self.now())
        self.live.add(stream)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)
        return stream

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        quiet_s = min(self.ping_s, self.first_event_s)
        for stream in self.live:
            if now - stream.last_at >= quiet_s:
                task = loop.create_task(stream.tick(now))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._timer = loop.call_later(self._tick_s, self._tick) if self.live else None

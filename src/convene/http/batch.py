"""Writes of one turn of the event loop, sent together at the start of the next.

A write to a socket wakes whoever reads it. When every handler writes as it goes, the peer is woken, finds one message,
sleeps again, and is woken for the next one; on a virtual machine each wake-up of an idle core is an exit to the
hypervisor. Measured on two virtual cores with 32 requests in flight: the two writes of a proxied request took 32 of its
90 us of processor time; gathered, a gateway answered 13,100 to 14,000 requests/s in place of 9,300 to 9,600. At low
load a turn holds one write, and the price is one empty poll.

Used by both sides of this room. Not here: buffering beyond a turn, back-pressure (the transport's).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio


HELD_BYTES_MAX: Final = 64 * 1024
"""Above it all that waits leaves at once: a writer that never lets the loop turn must still meet back-pressure."""


class WriteBatch:
    """What is to be written, in order, on one loop."""

    __slots__ = ("_bytes", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []
        self._bytes = 0

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` to `transport` soon."""
        if not self._waiting:
            self._loop.call_soon(self.send)
        self._waiting.append((transport, data))
        self._bytes += len(data)
        if self._bytes > HELD_BYTES_MAX:
            self.send()

    def send(self) -> None:
        """Write now what waits: before a transport is closed, or at the end of a turn."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._bytes = 0
            for transport, data in waiting:
                if not transport.is_closing():
                    transport.write(data)

"""From a task that works to a generator that is read: events in order, in one loop, without a lock.

`emit` never waits, so that it can be called from anywhere; who makes many events waits with `room` when the reader is
slow. Used by `agent.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from convene.events import Event

AHEAD_MAX: Final = 256
"""Events ahead of a slow reader."""


class Channel:
    """One writer's task, one reader."""

    __slots__ = ("_abandoned", "_closed", "_news", "_read", "events")

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self._abandoned = False
        self._closed = False
        self._news: asyncio.Future[None] | None = None
        self._read: asyncio.Future[None] | None = None

    def emit(self, event: Event) -> None:
        """Hand an event on."""
        if not self._abandoned:
            self.events.append(event)
            self._wake()

    def close(self) -> None:
        """Say that nothing more comes."""
        self._closed = True
        self._wake()

    def abandon(self) -> None:
        """Say that nobody reads any more: events are dropped, and nobody waits for room."""
        self._abandoned = True
        self.events.clear()
        self._free()

    @property
    def full(self) -> bool:
        """Whether the reader is far behind."""
        return len(self.events) >= AHEAD_MAX

    async def room(self) -> None:
        """Wait until the reader has caught up."""
        while self.full:
            if self._read is None or self._read.done():
                self._read = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._read)  # shared: one that is cancelled must not take it from the others

    async def news(self) -> bool:
        """Wait until there are events to take from `events`; False: there will be none any more."""
        self._free()
        while not self.events:
            if self._closed:
                return False
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        return True

    def _free(self) -> None:
        if self._read is not None and not self._read.done():
            self._read.set_result(None)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

"""What is left to do for the books when nobody waits any more: answers read to their end, tokens counted.

    model ──► Pump (a task) ──► queue ──► the caller's turn
                └── after the client has left: ──► notes only, until the end, a fault, or the model's `drain_s`

For upstreams that bill a whole answer whether it is read or not (reliability 2.1, rule 4). `turn.py` uses it where the
model's terms say `drain`; elsewhere a client that leaves cancels the model's work at once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.errors import ConveneError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from convene.events import Event

log = logging.getLogger("convene.drain")

AHEAD_MAX: Final = 256
"""Events read ahead of a slow client; then the model waits for it, as it would without a pump."""

PATIENCE_S: Final = 3.0
"""How long a server that shuts down waits for its drains, after the answers that somebody waits for."""


class Pump:
    """Reads a model's events in a task of its own, so that cancelling the caller does not cancel the reading."""

    def __init__(self, source: AsyncGenerator[Event]) -> None:
        self._source = source
        self._queue: asyncio.Queue[Event | Callable[[], bool] | None] = asyncio.Queue(AHEAD_MAX)
        self._task: asyncio.Task[None] | None = None
        self._note: Callable[[Event], None] | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the events; raises what the model raises. Closing it leaves the reading alone (see `finish`)."""
        self._task = asyncio.get_running_loop().create_task(self._read(), name="pump")
        while (event := await self._queue.get()) is not None:
            if not callable(event):
                yield event
            elif event():
                return
        await self._task

    def leave(self, may_leave: Callable[[], bool]) -> bool:
        """Let `events` end behind what has been read by now, if it may then; the reading goes on (see `finish`).

        False: there is so much to read that it must be asked again.
        """
        if self._queue.full():
            return False
        self._queue.put_nowait(may_leave)
        return True

    async def finish(self, note: Callable[[Event], None]) -> None:
        """Read the rest for `note` alone. Raises what the model raises; cancelled, it ends the model's work."""
        self._note = note
        if self._task is None:  # the caller left before the first event was asked for
            await self._source.aclose()
            return
        self._empty(note)  # which also lets go of a reader that waited for room
        try:
            await self._task
        finally:
            self._empty(note)

    def cancel(self) -> None:
        """End the reading and the model's work, for a turn that failed by a fault of its own."""
        if self._task is not None:
            self._task.cancel()

    def _empty(self, note: Callable[[Event], None]) -> None:
        while not self._queue.empty():
            event = self._queue.get_nowait()
            if event is not None and not callable(event):
                note(event)

    async def _read(self) -> None:
        try:
            async with aclosing(self._source) as events:
                async for event in events:
                    if self._note is not None:
                        self._note(event)
                    else:
                        await self._queue.put(event)
        finally:
            if self._note is None:
                await self._queue.put(None)


class Drains:
    """The drains of one server. Each settles its lease exactly once, whatever ends it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, work: Coroutine[object, object, None], settle: Callable[[], None], limit_s: float) -> None:
        """Do the work that is left for the books, at most `limit_s` seconds, then settle, whatever came of it."""

        async def drain() -> None:
            try:
                async with asyncio.timeout(limit_s):
                    await work
            except TimeoutError:
                log.warning("an answer without a client was cut off after %s s", limit_s)
            except ConveneError as fault:
                log.info("an answer without a client ended in a fault: %s", fault.code)
            finally:
                settle()

        task = asyncio.get_running_loop().create_task(drain(), name="drain")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Wait until nothing is left to do."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self, patience_s: float = PATIENCE_S) -> None:
        """Give what still runs a moment, then cut it off; it is settled by what is known."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

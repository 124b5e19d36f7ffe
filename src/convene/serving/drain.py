"""What is left to do for the books when nobody waits any more: answers read to their end, tokens counted.

    model ──► Pump (a task) ──► queue ──► the caller's turn
                └── after the client has left: ──► notes only, until the end, a fault, or the model's `drain_s`

    round of an agentic turn (a task) ──► the run, for the reader
                └── after the client has left: ──► `UnreadRounds` ──► notes only, as above

For upstreams that bill a whole answer whether it is read or not (reliability 2.1, rule 4). `turn.py` and
`agentic_turn.py` use it where the model's terms say `drain`; elsewhere a client that leaves cancels the model's work at
once.
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

    async def stop(self) -> None:
        """End the reading and the model's work, and wait until both have; for a turn that nobody reads any more."""
        if self._task is None:
            await self._source.aclose()
            return
        self._note = _forget
        self._empty(_forget)
        self._task.cancel()
        await asyncio.wait([self._task])

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


def _forget(event: Event) -> None:
    """Take an event that nobody wants."""
    del event


class UnreadRounds:
    """The rounds of one agentic turn that are read to their end although its client has left.

    Whoever reads the run says that the client has left; a round that is cancelled after that hands its reading over
    instead of ending it, and the turn has what is there `finish`ed and then entered.
    """

    def __init__(self) -> None:
        self._left = False
        self._closed = False
        self._rounds: list[tuple[asyncio.Task[None], Callable[[], None]]] = []

    def __bool__(self) -> bool:
        """Whether anything was handed over."""
        return bool(self._rounds)

    @property
    def taking(self) -> bool:
        """Whether a round that is cancelled now is to be read to its end."""
        return self._left and not self._closed

    def client_left(self) -> None:
        """From now on rounds are taken."""
        self._left = True

    def close(self) -> None:
        """Take none any more: the run goes on without its client, or its entry is made."""
        self._closed = True

    def take(self, reading: asyncio.Task[None], enter: Callable[[], None]) -> None:
        """Take over a round's reading; `enter` puts what it has used into the outcome, whether it has ended or not."""
        self._rounds.append((reading, enter))

    async def finish(self) -> None:
        """Wait until all are read. Raises what the model has raised; cancelled, it ends the model's work."""
        readings = [reading for reading, _ in self._rounds]
        try:
            await asyncio.wait(readings)
        finally:
            for reading in readings:
                reading.cancel()
            await asyncio.wait(readings)
        faults = [reading.exception() for reading in readings if not reading.cancelled()]
        for fault in filter(None, faults):
            raise fault

    def enter(self) -> None:
        """Put what the rounds have used into the outcome, once."""
        rounds, self._rounds = self._rounds, []
        for _, enter in rounds:
            enter()


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

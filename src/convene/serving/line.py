"""Waiting for a limit instead of being refused: bounded, and with a fair share for every key.

    refused ──► one queue per limit that refuses ──► when it should fit again, the next key's oldest request is tried
                   key A: a1 a2 a3                       round robin: a1 b1 c1 a2 ...
                   key B: b1

Off unless `[limits] queue_s` says how long a request may wait. Only limits that pass by themselves are waited for (a
rate, a slot), never a spent budget. Within a key requests go in the order they came; between keys in turns, so that a
key with a thousand waiting does not hold up a key with one (goal A7). `books.py` calls it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from convene.errors import ConveneError
from convene.limits.limit import Grant, Refusal
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.limits.limit import Limit


class Line:
    """All requests of one server that wait for their limits. Belongs to one event loop."""

    def __init__(self, patience_s: float, waiting_max: int) -> None:
        """Let at most `waiting_max` requests wait, each at most `patience_s` seconds."""
        self.patience_s = patience_s
        self.waiting_max = waiting_max
        self.length = 0
        self._queues: dict[str, _Queue] = {}

    def ahead(self, limits: tuple[Limit, ...]) -> Refusal | None:
        """Return what those hear who wait for one of these limits already: a newcomer stands behind them."""
        if self._queues:
            for limit in limits:
                queue = self._queues.get(limit.counter)
                if queue is not None:
                    return queue.last
        return None

    def freed(self, limits: tuple[Limit, ...]) -> None:
        """A request under these limits has ended: whoever waits for one of them is tried now."""
        if self._queues:
            for limit in limits:
                queue = self._queues.get(limit.counter)
                if queue is not None:
                    queue.wake.set()

    async def wait(
        self, key_id: str, refusal: Refusal, again: Callable[[], Awaitable[Grant | Refusal]], undo: Callable[[], object]
    ) -> Grant | Refusal:
        """Return a grant when it is this request's turn and fits, else the last refusal when patience ends.

        `again` asks the counters once more; `undo` gives back a grant that came for somebody who has left meanwhile.
        Raises what `again` raises. Returns the refusal at once if waiting is pointless or the line is full.
        """
        if not self._worth_it(refusal):
            return refusal
        counter = refusal.limit.counter
        queue = self._queues.get(counter)
        if queue is None:
            queue = self._queues[counter] = _Queue(refusal)
            queue.task = asyncio.get_running_loop().create_task(self._serve(counter, queue), name="line")
        waiter = _Waiter(refusal, again, undo)
        queue.add(key_id, waiter)
        self.length += 1
        try:
            async with asyncio.timeout(self.patience_s):
                return await waiter.answer
        except TimeoutError:
            return waiter.refusal
        finally:
            self.length -= 1
            waiter.answer.cancel()
            queue.wake.set()  # so that a queue nobody waits in any more ends now

    async def aclose(self) -> None:
        """Stop serving; whoever waits is told the last refusal by its own patience."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _worth_it(self, refusal: Refusal) -> bool:
        if refusal.reason not in {"wait", "full"} or self.length >= self.waiting_max:
            return False
        return refusal.reason == "full" or (refusal.wait_us or 0) <= self.patience_s * SECOND_US

    async def _serve(self, counter: str, queue: _Queue) -> None:
        """Try the waiting ones, each when it may fit, until nobody waits for this limit any more."""
        try:
            while True:
                await queue.pause()
                waiter = queue.head()
                while waiter is not None and await self._try(waiter, queue):
                    waiter = queue.head()
                if waiter is None:
                    return
        finally:
            if self._queues.get(counter) is queue:
                del self._queues[counter]

    async def _try(self, waiter: _Waiter, queue: _Queue) -> bool:
        """Ask the counters for one waiting request; return whether the next one may be tried at once."""
        try:
            answer = await waiter.again()
        except ConveneError as fault:
            if not waiter.answer.done():
                waiter.answer.set_exception(fault)
            queue.served()
            return True
        if isinstance(answer, Refusal):
            waiter.refusal = queue.last = answer
            return False
        if waiter.answer.done():
            waiter.undo()
        else:
            waiter.answer.set_result(answer)
        queue.served()
        return True


class _Waiter:
    """One waiting request."""

    __slots__ = ("again", "answer", "refusal", "undo")

    def __init__(
        self, refusal: Refusal, again: Callable[[], Awaitable[Grant | Refusal]], undo: Callable[[], object]
    ) -> None:
        self.refusal = refusal
        self.again = again
        self.undo = undo
        self.answer: asyncio.Future[Grant | Refusal] = asyncio.get_running_loop().create_future()


class _Queue:
    """Who waits for one limit: keys in turns, each with its requests in the order they came."""

    def __init__(self, last: Refusal) -> None:
        self.last = last
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._turns: deque[str] = deque()
        self._waiting: dict[str, deque[_Waiter]] = {}

    def add(self, key_id: str, waiter: _Waiter) -> None:
        """Put a request behind those of its key, and its key behind the others if it is new."""
        mine = self._waiting.get(key_id)
        if mine is None:
            mine = self._waiting[key_id] = deque()
            self._turns.append(key_id)
        mine.append(waiter)

    def head(self) -> _Waiter | None:
        """Return whose turn it is, passing over those who have left; None when nobody waits."""
        while self._turns:
            mine = self._waiting[self._turns[0]]
            while mine and mine[0].answer.done():
                mine.popleft()
            if mine:
                return mine[0]
            del self._waiting[self._turns.popleft()]
        return None

    def served(self) -> None:
        """The head has been answered: its key goes to the end of the line."""
        key_id = self._turns.popleft()
        mine = self._waiting[key_id]
        mine.popleft()
        if mine:
            self._turns.append(key_id)
        else:
            del self._waiting[key_id]

    async def pause(self) -> None:
        """Wait until the limit should fit again, or something was freed."""
        self.wake.clear()
        try:
            async with asyncio.timeout((self.last.wait_us or SECOND_US) / SECOND_US):
                await self.wake.wait()
        except TimeoutError:
            return

"""The waiting line before a local engine's slots: first come, first served, and bounded. No I/O.

The engine would queue without end and without order of ours; a request waits here instead, so its time-outs begin when
it is served, and a caller that gives up leaves no work behind. Called by `local`, `local_embeddings` and
`images_local`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from convene.errors import Busy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock

HELD_FIRST_S = 5.0
"""How long a place is taken to be held until one has been measured."""
HELD_WEIGHT = 0.2
"""The share of the newest stay in the running mean that `retry_after_s` is told from."""


class WaitingLine:
    """`slots` places and a queue of at most `waiting_max` before them."""

    def __init__(self, slots: int, waiting_max: int, clock: Clock) -> None:
        self._free = slots
        self._slots = slots
        self._waiting_max = waiting_max
        self._clock = clock
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._held_s = HELD_FIRST_S

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiters)

    @property
    def free(self) -> int:
        """How many places are free now."""
        return self._free

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Wait for a place and hold it. Raises `Busy` when the queue is full; a cancelled waiter leaves the queue."""
        await self._take()
        since = self._clock.monotonic()
        try:
            yield
        finally:
            self._held_s += HELD_WEIGHT * (self._clock.monotonic() - since - self._held_s)
            self._pass_on()

    async def _take(self) -> None:
        if self._free and not self._waiters:
            self._free -= 1
            return
        if len(self._waiters) >= self._waiting_max:
            raise Busy(
                f"This model is busy and {self._waiting_max} requests wait already; try again later.",
                retry_after_s=float(self._guess_wait_s()),
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # The place came in the same moment as the cancellation.
                self._pass_on()
            else:
                self._waiters.remove(waiter)
            raise

    def _pass_on(self) -> None:
        """Hand a place to the first in the line, or put it back."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _guess_wait_s(self) -> int:
        """Return the seconds until the line has moved up once for everybody in it, at least 1."""
        return max(1, math.ceil(self._held_s * (len(self._waiters) + 1) / self._slots))

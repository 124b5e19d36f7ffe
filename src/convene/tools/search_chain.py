"""Several engines as one: asked in order, each at its own pace, left alone while it fails; answers kept for a while.

    find ─► cache ─► one flight for all who ask the same ─► engine 1 ─► engine 2 ... ─► hits, or EngineFailed

Everything here is per process. Who asks is not part of the key: what a public engine answers is nobody's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from convene.tools.search_base import EngineFailed, Hit
from convene.tools.search_clean import present

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.clock import Clock
    from convene.tools.search_base import Query, SearchEngine

log = logging.getLogger("convene.search")

KEPT_MAX: Final = 256
"""Answers remembered, each of at most 20 results of 3,400 characters."""
EMPTY_S: Final = 30.0
"""An answer without results is believed for so long only."""
PAUSE_S_MAX: Final = 3600.0
"""No engine is left alone for longer, whatever it asks for."""
FAULT_PAUSE_S_MAX: Final = 60.0


class Found(msgspec.Struct, frozen=True):
    """What an engine gave, cleaned, and its name."""

    hits: tuple[Hit, ...]
    engine: str


class Paced:
    """An engine with its pace and its pauses."""

    def __init__(
        self,
        engine: SearchEngine,
        per_second: float,
        clock: Clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`sleep` waits for a turn, for tests."""
        self.name = engine.name
        self._engine, self._clock, self._sleep = engine, clock, sleep
        self._interval_s = 1.0 / per_second
        self._next_at = 0.0
        self._paused_until = 0.0
        self._failures = 0
        self._asked = 0
        self._counted = 0
        """How many had been asked when the last failure was counted: their failures are the same one."""

    async def search(self, query: Query, timeout_s: float) -> Sequence[Hit]:
        """Ask when it is its turn. Raises `EngineFailed`, at once while the engine is left alone."""
        now = self._clock.monotonic()
        if now < self._paused_until:
            raise EngineFailed(f"left alone for {self._paused_until - now:.0f} s more")
        wait_s = self._next_at - now
        if wait_s > timeout_s / 2:
            raise EngineFailed("too many wait for it")
        self._next_at = max(now, self._next_at) + self._interval_s
        self._asked += 1
        number = self._asked
        try:
            async with asyncio.timeout(timeout_s):
                if wait_s > 0:
                    await self._sleep(wait_s)
                hits = await self._engine.search(query, timeout_s)
        except TimeoutError as error:
            raise self._failed(EngineFailed(f"no answer within {timeout_s:g} s"), number) from error
        except EngineFailed as error:
            raise self._failed(error, number) from error
        self._failures = 0
        return hits

    def _failed(self, error: EngineFailed, number: int) -> EngineFailed:
        """Note a failure: what the engine asked for, else longer each time, the first one free."""
        if number > self._counted:
            self._failures += 1
            self._counted = self._asked
        pause_s = error.pause_s
        if pause_s is None:
            pause_s = min(FAULT_PAUSE_S_MAX, 2.0 ** min(self._failures - 1, 10)) if self._failures > 1 else 0.0
        until = self._clock.monotonic() + min(pause_s, PAUSE_S_MAX)
        self._paused_until = max(self._paused_until, until)
        log.warning("search engine %s: %s", self.name, error.reason)
        return EngineFailed(error.reason, pause_s=pause_s)


class _Flight:
    """One question under way, and how many wait for its answer."""

    def __init__(self, task: asyncio.Task[Found]) -> None:
        self.task = task
        self.waiting = 0


class SearchChain:
    """All engines of a server."""

    def __init__(self, engines: Sequence[Paced], clock: Clock, *, timeout_s: float, cache_s: float) -> None:
        """`engines` in the order in which they are tried, each waited for at most `timeout_s`."""
        self._engines = tuple(engines)
        self._clock = clock
        self._timeout_s, self._cache_s = timeout_s, cache_s
        self._kept: OrderedDict[Query, tuple[float, Found]] = OrderedDict()
        self._flights: dict[Query, _Flight] = {}

    @property
    def longest_s(self) -> float:
        """The longest that a search takes."""
        return self._timeout_s * len(self._engines)

    async def find(self, query: Query) -> Found:
        """Return what the first engine that has something gives. Raises `EngineFailed` when none answers."""
        kept = self._kept.get(query)
        if kept is not None:
            if self._clock.monotonic() < kept[0]:
                self._kept.move_to_end(query)
                return kept[1]
            del self._kept[query]
        flight = self._flights.get(query)
        if flight is None:
            flight = self._flights[query] = _Flight(asyncio.create_task(self._fly(query)))
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # its waiters may be gone
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and self._flights.get(query) is flight:
                del self._flights[query]
                flight.task.cancel()

    async def aclose(self) -> None:
        """End what is under way."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fly(self, query: Query) -> Found:
        found = await self._ask_all(query)
        lasts_s = self._cache_s if found.hits else min(self._cache_s, EMPTY_S)
        if lasts_s > 0:
            self._kept[query] = (self._clock.monotonic() + lasts_s, found)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return found

    async def _ask_all(self, query: Query) -> Found:
        empty: Found | None = None
        for engine in self._engines:
            try:
                hits = await engine.search(query, self._timeout_s)
            except EngineFailed:
                continue
            shown = present(hits, query)
            if shown:
                return Found(tuple(shown), engine.name)
            empty = empty or Found((), engine.name)
        if empty is None:
            raise EngineFailed("no search engine answered")
        return empty

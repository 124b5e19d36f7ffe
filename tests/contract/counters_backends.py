"""The stores of counters that `test_counters.py` runs against. A further one is an entry in `BACKENDS`.

A store whose clock the test can move is opened with an `IntegerClock`; one that asks its server for the time has none
(`Opened.clock` is None), and tests that need to move time leave it out.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from convene.clock import SystemClock
from convene.store.memory_counters import MemoryCounters
from convene.store.postgres_counters import PostgresCounters
from convene.store.redis_counters import RedisCounters
from convene.store.sqlite_counters import SqliteCounters
from fakes import FakeClock
from postgres_clock import MovedPostgresCounters, empty
from redis_clock import MovedRedisCounters
from servers import kept_schema, own_space, shared_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from convene.store.base_counters import Counters

PATIENT_S: Final = 10.0
"""A busy machine is no outage."""
NOON_US: Final = 1_800_014_400_000_000
"""2027-01-15 12:00 in UTC, microseconds since 1970."""
BOOT_ID: Final = "6a09e667-f3bc-4908-b2fb-1366ea957d3e"


class IntegerClock(FakeClock):
    """A clock moved by whole microseconds, so that a test can stand on the very edge of a wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 5_000_000_000
        self.wall_us = NOON_US

    def now(self) -> float:
        """Return Unix seconds."""
        return self.wall_us / 1e6

    def monotonic(self) -> float:
        """Return the seconds for rates."""
        return self.now_us / 1e6

    def pass_us(self, us: int) -> None:
        """Let time pass on both scales."""
        self.now_us += us
        self.wall_us += us


class Opened(NamedTuple):
    """A store under test."""

    counters: Counters
    clock: IntegerClock | None
    more: Callable[[], Awaitable[Counters]] | None = None
    """Opens the same counters as another process would; None for what one process has for itself."""


class Opener(Protocol):
    """How a store is opened, empty, and closed."""

    def __call__(self, folder: Path) -> AbstractAsyncContextManager[Opened]:
        """Open it; `folder` is empty and this store's own."""
        ...


@contextlib.asynccontextmanager
async def _memory(folder: Path) -> AsyncIterator[Opened]:
    del folder
    clock = IntegerClock()
    counters = MemoryCounters(clock)
    yield Opened(counters, clock)
    await counters.aclose()


@contextlib.asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Opened]:
    clock = IntegerClock()

    async def more() -> Counters:
        return SqliteCounters.open(folder, clock, BOOT_ID)

    counters = await more()
    yield Opened(counters, clock, more)
    await counters.aclose()


@contextlib.asynccontextmanager
async def _postgres(folder: Path) -> AsyncIterator[Opened]:
    """Its time is that of the server."""
    del folder
    url = kept_schema("counters")
    counters = await PostgresCounters.open(url)

    async def more() -> Counters:
        return await PostgresCounters.open(url)

    async with contextlib.aclosing(counters):
        await empty(counters)
        yield Opened(counters, None, more)


@contextlib.asynccontextmanager
async def _postgres_moved(folder: Path) -> AsyncIterator[Opened]:
    """The same functions with a time of ours."""
    del folder
    clock = IntegerClock()
    counters = await MovedPostgresCounters.open_at(kept_schema("moved counters"), clock)
    async with contextlib.aclosing(counters):
        await empty(counters)
        yield Opened(counters, clock)


@contextlib.asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[Opened]:
    """Its time is that of the server."""
    del folder
    with own_space(shared_redis()) as space:
        counters = RedisCounters(space.url, SystemClock(), tag=space.tag, wait_s=PATIENT_S)

        async def more() -> Counters:
            return RedisCounters(space.url, SystemClock(), tag=space.tag, wait_s=PATIENT_S)

        async with contextlib.aclosing(counters):
            yield Opened(counters, None, more)


@contextlib.asynccontextmanager
async def _redis_moved(folder: Path) -> AsyncIterator[Opened]:
    """The same scripts with a time of ours."""
    del folder
    with own_space(shared_redis()) as space:
        clock = IntegerClock()
        counters = MovedRedisCounters(space, clock, clock)
        async with contextlib.aclosing(counters):
            yield Opened(counters, clock)


BACKENDS: Final[Mapping[str, Opener]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgres": _postgres,
    "postgres-moved": _postgres_moved,
    "redis": _redis,
    "redis-moved": _redis_moved,
}
MOVABLE: Final = ("memory", "sqlite", "postgres-moved", "redis-moved")
"""Those with a clock of ours."""
SHARED: Final = ("sqlite", "postgres", "redis")
"""Those that several processes can open."""
NEAR: Final = ("memory", "sqlite")
"""Those that answer without a wait."""

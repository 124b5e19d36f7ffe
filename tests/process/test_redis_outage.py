"""A8 with a real Redis that is killed and paused under load: what three workers admit, refuse, count and find again.

Time for the workers' own decisions is moved by hand, so nothing refills and no rest is waited for; the wait for Redis
is handed in. Nothing here looks at a clock on the wall.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from typing import TYPE_CHECKING, Final

import pytest

from convene.clock import SystemClock
from convene.errors import StoreFault
from convene.limits.limit import DAY_US, Amounts, Grant, Limit, Past, Refusal, Unit
from convene.serving.fallback import REST_S, Guarded
from convene.store.memory_counters import LocalMemoryCounters
from convene.store.redis_counters import RedisCounters
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import PrivateRedis

WORKERS: Final = 3
WAIT_S: Final = 0.05
PATIENT_S: Final = 60.0
HOUR_US: Final = 3_600_000_000
ROUNDS: Final = 8

RATE: Final = Limit.rate(Unit.TOKENS, 9_000, 100 * DAY_US, scope="key", subject="k1", name="tokens per season")
SLOTS: Final = Limit.slots(600, scope="key", subject="k1")
MONEY: Final = Limit.budget(Unit.MICROS, 100_000, "total", scope="user", subject="u1", name="budget in total")
PAID_RATE: Final = Limit.rate(Unit.REQUESTS, 10**6, DAY_US, scope="user", subject="u1", name="requests per day")
PLAIN: Final = (RATE, SLOTS)
PAID: Final = (PAID_RATE, MONEY)


class Books:
    """What really happened: the ledger of this test."""

    def __init__(self) -> None:
        self.past: list[Past] = []
        self.tokens = 0
        self.micros = 0
        self.admitted = 0
        self.refused = 0
        self.closed = 0
        self.faults: list[BaseException] = []

    def enter(self, limits: tuple[Limit, ...], actual: Amounts) -> None:
        self.past.append(Past(limits, actual, 0))
        self.tokens += actual.tokens if RATE in limits else 0
        self.micros += actual.micros if MONEY in limits else 0


class Fleet:
    """Workers that share a Redis, each with its own connection and its own fallback."""

    def __init__(self, server: PrivateRedis) -> None:
        self.server = server
        self.clock = FakeClock()
        self.books = Books()
        self.chance = random.Random(8)  # noqa: S311 - it must be foreseeable
        self.remote = [RedisCounters(server.url, SystemClock(), wait_s=WAIT_S) for _ in range(WORKERS)]
        self.workers = [
            Guarded(
                remote,
                lambda: LocalMemoryCounters(self.clock),
                self.clock,
                workers=WORKERS,
                rebuild=functools.partial(self.rebuild, remote),
            )
            for remote in self.remote
        ]
        self.number = 0

    async def rebuild(self, remote: RedisCounters) -> bool:
        if not await remote.fresh():
            return False
        await remote.replay(self.books.past)
        return True

    async def one(self, worker: Guarded) -> None:
        """Make one request, free or paid, and settle it with what it used, which may be more than was reserved."""
        self.number += 1
        lease = f"l{self.number}"
        paid = self.chance.random() < 0.3
        limits = PAID if paid else PLAIN
        tokens = self.chance.randrange(1, 60)
        estimate = Amounts(requests=1, tokens=tokens, micros=tokens * 3, slots=1)
        actual = estimate._replace(tokens=tokens // 2, micros=tokens)
        try:
            answer = await worker.reserve(lease, limits, estimate, HOUR_US)
        except StoreFault as fault:
            self.books.closed += 1
            if not paid:
                self.books.faults.append(fault)
            return
        if isinstance(answer, Refusal):
            self.books.refused += 1
            assert answer.limit in limits
            return
        self.books.admitted += 1
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        self.books.enter(limits, actual)
        await worker.settle(lease, actual)

    async def load(self, requests: int, *, at_once: int = 8) -> None:
        """Make requests at every worker, some at the same time."""
        for _ in range(requests // at_once):
            await asyncio.gather(*(self.one(worker) for worker in self.workers for _ in range(at_once)))

    async def recover(self) -> None:
        """Wait until every worker uses Redis again."""
        async with asyncio.timeout(PATIENT_S):
            for worker in self.workers:
                while worker.down or worker._backlog:
                    if worker._telling is None:
                        self.clock.move(REST_S)
                        await worker.levels(PLAIN)
                    await asyncio.sleep(0)

    async def used(self, limit: Limit) -> int:
        """Return how much of a limit Redis counts as used."""
        async with asyncio.timeout(PATIENT_S):
            while True:
                with contextlib.suppress(StoreFault):
                    levels = await self.remote[0].levels((limit,))
                    ahead_us = levels.states[0] - levels.now_us
                    return round(ahead_us * limit.amount / limit.window_us) if limit.window_us else levels.states[0]


@pytest.fixture
async def fleet(private_redis: PrivateRedis) -> AsyncIterator[Fleet]:
    made = Fleet(private_redis)
    for remote in made.remote:  # connected, and the scripts known
        async with asyncio.timeout(PATIENT_S):
            while True:
                with contextlib.suppress(StoreFault):
                    await remote.levels(PLAIN)
                    await remote.fresh()
                    break
    yield made
    for worker in made.workers:
        await worker.aclose()


async def test_pauses_under_load_refuse_only_money_and_lose_no_count(fleet: Fleet) -> None:
    for _ in range(ROUNDS):
        await fleet.load(24)
        under_way = asyncio.create_task(fleet.load(48))
        for _ in range(fleet.chance.randrange(30)):
            await asyncio.sleep(0)
        fleet.server.pause()
        try:
            async with asyncio.timeout(PATIENT_S):
                await under_way
        finally:
            fleet.server.resume()
        await fleet.recover()
        assert await fleet.used(MONEY) == fleet.books.micros, "to the last unit"
        assert await fleet.used(SLOTS) == 0
        assert abs(await fleet.used(RATE) - fleet.books.tokens) <= 1, "a little has refilled"
    books = fleet.books
    assert books.faults == [], "no rate-only request failed"
    assert books.admitted > 100
    assert books.closed > 50
    assert books.micros <= MONEY.amount
    assert books.tokens <= 2 * RATE.amount


async def test_kills_under_load_admit_at_most_one_burst_more(fleet: Fleet) -> None:
    small = RATE.amount // 60
    for _ in range(ROUNDS):
        await fleet.load(24)
        under_way = asyncio.create_task(fleet.load(small))
        for _ in range(fleet.chance.randrange(30)):
            await asyncio.sleep(0)
        fleet.server.kill()
        async with asyncio.timeout(PATIENT_S):
            await under_way
        fleet.server.start()
        await fleet.recover()
        assert await fleet.used(MONEY) >= fleet.books.micros, "whatever was paid is counted, rebuilt from the books"
    books = fleet.books
    assert books.faults == [], "no rate-only request failed"
    assert books.refused > 100, "the limit was reached"
    assert books.closed > 50
    assert books.micros <= MONEY.amount
    assert RATE.amount * 0.9 < books.tokens <= 2 * RATE.amount


async def test_with_a_redis_that_never_was_there_everything_has_its_fallback() -> None:
    clock = FakeClock()
    nobody = RedisCounters("redis://127.0.0.1:1", SystemClock(), wait_s=WAIT_S)
    guarded = Guarded(nobody, lambda: LocalMemoryCounters(clock), clock, workers=WORKERS)
    async with contextlib.aclosing(guarded):
        assert isinstance(await guarded.reserve("a", PLAIN, Amounts(tokens=1, slots=1), HOUR_US), Grant)
        with pytest.raises(StoreFault):
            await guarded.reserve("b", PAID, Amounts(requests=1), HOUR_US)
        assert await guarded.settle("a", Amounts(tokens=1)) is not None

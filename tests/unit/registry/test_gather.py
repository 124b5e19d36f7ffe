"""Registrations that arrive at once go into one transaction, and each is told its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import Busy, StoreFault
from convene.registry.gather import TOGETHER, WAITING_MAX, Gatherer
from convene.store.base_market import Registration
from convene.store.memory_market import MemoryMarket

if TYPE_CHECKING:
    from collections.abc import Sequence


class Slow(MemoryMarket):
    """A market that waits to be let go on, and notes how many came together."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.broken = False

    async def register(self, registrations: Sequence[Registration], now_us: int) -> list[bool]:
        self.batches.append(len(registrations))
        self.asked.set()
        await self.go.wait()
        if self.broken:
            raise StoreFault("out")
        return await super().register(registrations, now_us)


def one(number: int, stamp: int = 5) -> Registration:
    return Registration(id=f"agent1{number}", stamp=stamp, expires_us=9)


def gatherer(market: Slow) -> Gatherer:
    return Gatherer(lambda: market, lambda: 1)


async def test_what_comes_during_a_transaction_goes_into_the_next_one() -> None:
    market = Slow()
    market.go.clear()
    gather = gatherer(market)
    tasks = [asyncio.create_task(gather.register([one(number)])) for number in range(TOGETHER + 51)]
    await market.asked.wait()
    late = asyncio.create_task(gather.register([one(999), one(0, stamp=4)]))
    await asyncio.sleep(0)
    market.go.set()
    assert await asyncio.gather(*tasks) == [[True]] * (TOGETHER + 51)
    assert await late == [True, False]
    assert sum(market.batches) == TOGETHER + 53
    assert len(market.batches) <= 3
    assert max(market.batches) == TOGETHER


async def test_a_store_that_is_out_is_told_to_all_who_wait_and_the_next_may_try_again() -> None:
    market = Slow()
    market.broken = True
    gather = gatherer(market)
    told = await asyncio.gather(gather.register([one(1)]), gather.register([one(2)]), return_exceptions=True)
    assert all(isinstance(fault, StoreFault) for fault in told)
    market.broken = False
    assert await gather.register([one(1)]) == [True]


async def test_who_leaves_takes_nobody_along() -> None:
    market = Slow()
    market.go.clear()
    gather = gatherer(market)
    leaving = asyncio.create_task(gather.register([one(1)]))
    staying = asyncio.create_task(gather.register([one(2)]))
    await market.asked.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    market.go.set()
    assert await staying == [True]
    await gather.aclose()
    assert await market.count() == 2


async def test_too_many_at_once_are_refused() -> None:
    gather = gatherer(Slow())
    with pytest.raises(Busy):
        await gather.register([one(number) for number in range(WAITING_MAX + 1)])

"""What time does to the marketplace."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from convene.registry import upkeep as upkeep_module
from convene.registry.attestation import STALE_S
from convene.registry.upkeep import REMOVED_KEEP_US, Upkeep
from convene.store.base_market import Letter, Registration
from convene.store.memory_market import MemoryMarket

if TYPE_CHECKING:
    from fakes import FakeClock

NOBODY = "agent1nobody"


@pytest.fixture
def market() -> MemoryMarket:
    return MemoryMarket()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "SWEEP_S", 0.0)


def now_us(clock: FakeClock) -> int:
    return int(clock.now() * 1_000_000)


async def test_what_has_expired_goes_and_the_rest_stays(market: MemoryMarket, clock: FakeClock) -> None:
    for number, left_us in enumerate((0, 1)):
        letter = Letter(
            uuid=str(number), address=NOBODY, envelope=b"{}", received_us=1, expires_us=now_us(clock) + left_us
        )
        await market.drop(letter, 9)
    assert await Upkeep(lambda: market, clock).once() == 1
    assert [one.uuid for one in await market.letters(NOBODY, 0, 9)] == ["1"]


async def test_a_removed_agent_is_remembered_longer_than_its_signatures_are_taken(
    market: MemoryMarket, clock: FakeClock
) -> None:
    await market.register([Registration(id=NOBODY, stamp=5, expires_us=1)], 1)
    await market.remove(NOBODY, now_us(clock))
    upkeep = Upkeep(lambda: market, clock)
    clock.move(REMOVED_KEEP_US / 1_000_000)
    assert await upkeep.once() == 0
    assert await market.register([Registration(id=NOBODY, stamp=5, expires_us=1)], 1) == [False]
    clock.move(1)
    assert await upkeep.once() == 1
    assert await market.newer(0, 9) == []


async def test_the_sweep_goes_on_over_a_store_that_is_out(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    broken, market = MemoryMarket(), MemoryMarket()
    broken.close()
    letter = Letter(uuid="1", address=NOBODY, envelope=b"{}", received_us=1, expires_us=2)
    await market.drop(letter, 9)
    asked = iter((broken, market))
    over = asyncio.Event()

    def ask() -> MemoryMarket:
        try:
            return next(asked)
        except StopIteration:
            over.set()
            return market

    caplog.set_level(logging.INFO)
    sweeping = asyncio.create_task(Upkeep(ask, clock).sweep())
    async with asyncio.timeout(5):
        await over.wait()
    sweeping.cancel()
    await asyncio.wait([sweeping])
    assert await market.letters(NOBODY, 0, 9) == []
    assert "could not be removed: " in caplog.text
    assert "1 things of the marketplace have expired" in caplog.text


def test_a_removed_agent_is_remembered_longer_than_any_signature_of_it_is_accepted() -> None:
    assert REMOVED_KEEP_US > STALE_S * 1_000_000

"""The index follows the store, in short pieces, and says how far it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent, listings
from convene.errors import StoreFault
from convene.registry import agent_index, follower
from convene.registry.base_search import SearchRequest
from convene.registry.counter import Counter
from convene.registry.follower import Follower
from convene.registry.pace import HOLD_S, Pace
from convene.registry.search import Search
from convene.store.base_market import Manifest, Registration, Seen, Terms
from convene.store.memory_market import MemoryMarket
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base_market import AgentRow

PROTOCOL = "proto:" + "cd" * 32


class Parts:
    """A follower of a marketplace in memory, and a search over it."""

    def __init__(self) -> None:
        self.market = MemoryMarket()
        self.clock = FakeClock(NOW_US / 1_000_000)
        self.wanted: list[str] = []
        self.follower = Follower(lambda: self.market, self.clock, self.wanted.extend)
        self.counter = Counter(lambda: self.market, self.clock)
        self.search = Search(lambda: self.follower.index, self.clock, self.counter)

    async def put(self, *rows: AgentRow) -> None:
        for row in rows:
            await self.market.list_agent(msgspec.structs.replace(row, version=0), NOW_US)

    async def names(self, text: str) -> list[str]:
        page = await self.search.search(SearchRequest(text=text))
        return [hit.row.listing.name for hit in page.hits]


async def test_what_is_in_the_store_is_found_and_what_changes_there_follows() -> None:
    parts = Parts()
    await parts.put(*listings())
    assert not parts.follower.ready
    assert await parts.follower.catch_up() == len(listings())
    assert parts.follower.ready
    assert (await parts.names("weather"))[0] == "SkyCast"
    row = await parts.market.by_handle("skycast")
    assert row is not None
    changed = msgspec.structs.replace(row.listing, name="Umbrella")
    await parts.market.list_agent(msgspec.structs.replace(row, listing=changed), NOW_US)
    assert await parts.follower.catch_up() == 1
    assert (await parts.names("umbrella"))[0] == "Umbrella"
    await parts.market.remove(row.id, NOW_US)
    await parts.follower.catch_up()
    assert "Umbrella" not in await parts.names("weather umbrella")


async def test_an_agent_is_gone_while_it_is_switched_off_and_comes_back() -> None:
    parts = Parts()
    await parts.put(agent("thing"))
    for enabled, found in ((False, []), (True, ["thing"])):
        await parts.market.set_terms(agent("thing").id, Terms(enabled=enabled), NOW_US)
        await parts.follower.catch_up()
        assert await parts.names("thing") == found


async def test_what_is_counted_moves_the_ranking_and_no_words_are_indexed_anew() -> None:
    parts = Parts()
    await parts.put(agent("weather one"), agent("weather two"))
    await parts.follower.catch_up()
    assert await parts.names("weather") == ["weather one", "weather two"]
    assert len(parts.wanted) == 2
    failed = [Seen(id=agent("weather one").id, at_us=NOW_US, outcome="failed") for _ in range(3)]
    await parts.market.see(failed)
    await parts.follower.catch_up()
    parts.clock.move(700)
    assert await parts.names("weather") == ["weather two", "weather one"]
    assert len(parts.wanted) == 2
    assert parts.follower.index.words.places == 2


async def test_shown_and_chosen_agents_are_counted_in_one_write() -> None:
    parts = Parts()
    await parts.put(agent("weather one"), agent("weather two"))
    await parts.follower.catch_up()
    for _ in range(3):
        await parts.names("weather")
    await parts.names("one")
    assert parts.search.click(agent("weather two").id, "")
    before = (await parts.market.newer(0, 9))[-1].version
    await parts.counter.flush()
    await parts.counter.flush()
    one, two = [await parts.market.get(agent(name).id) for name in ("weather one", "weather two")]
    assert one is not None
    assert two is not None
    assert (one.tally.impressions, one.tally.picks) == (4, 0)
    assert (two.tally.impressions, two.tally.picks) == (3, 1)
    assert max(one.version, two.version) - before == 2


async def test_what_cannot_be_counted_now_is_counted_later(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    await parts.put(agent("thing"))
    parts.counter.shown([agent("thing").id])
    with monkeypatch.context() as patch:

        async def away(seen: Sequence[Seen]) -> None:
            raise StoreFault(f"{len(seen)} cannot be counted")

        patch.setattr(parts.market, "see", away)
        with pytest.raises(StoreFault):
            await parts.counter.flush()
    parts.counter.shown([agent("thing").id])
    await parts.counter.flush()
    row = await parts.market.get(agent("thing").id)
    assert row is not None
    assert row.tally.impressions == 2


async def test_protocols_have_the_names_that_somebody_has_published() -> None:
    parts = Parts()
    await parts.market.publish(Manifest(digest=PROTOCOL, name="WeatherProtocol", version="1.2", body=b"{}"), 10)
    await parts.put(agent("thing", protocols=(PROTOCOL, "proto:" + "ef" * 32)))
    await parts.follower.catch_up()
    page = await parts.search.search(SearchRequest(text="weather protocol"))
    spoken = [(one.name, one.version) for one in page.hits[0].protocols]
    assert spoken == [("WeatherProtocol", "1.2"), ("", "")]


async def test_an_agent_that_has_signed_off_is_not_found_until_it_registers_again() -> None:
    parts = Parts()
    row = agent("thing")
    await parts.put(row)
    stamp = int(parts.clock.now())
    await parts.market.set_status(row.id, stamp, NOW_US, active=False)
    await parts.follower.catch_up()
    assert await parts.names("thing") == []
    again = Registration(id=row.id, stamp=stamp + 1, expires_us=NOW_US * 2, protocols=row.protocols)
    await parts.market.register([again], NOW_US)
    await parts.follower.catch_up()
    assert await parts.names("thing") == ["thing"]


async def test_an_index_of_which_much_is_gone_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_index, "STALE_MIN", 3)
    parts = Parts()
    await parts.put(*(agent(f"thing {number}") for number in range(6)))
    await parts.follower.catch_up()
    for number in range(5):
        await parts.market.remove(agent(f"thing {number}").id, NOW_US)
    await parts.follower.catch_up()
    assert parts.follower.index.is_stale
    await parts.follower.renew()
    assert not parts.follower.index.is_stale
    assert parts.follower.index.words.places == 1
    assert await parts.names("thing") == ["thing 5"]
    await parts.put(agent("thing 9"))
    await parts.follower.catch_up()
    assert set(await parts.names("thing")) == {"thing 5", "thing 9"}


async def test_it_goes_on_following_when_the_store_comes_back_and_when_it_is_poked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follower, "POLL_S", 3600.0)
    parts = Parts()
    newer = parts.market.newer
    asked = asyncio.Event()

    async def away(version: int, limit: int) -> list[AgentRow]:
        asked.set()
        raise StoreFault("away", detail=f"{version} {limit}")

    monkeypatch.setattr(parts.market, "newer", away)
    running = asyncio.create_task(parts.follower.run())
    await asyncio.wait_for(asked.wait(), 5)
    monkeypatch.setattr(parts.market, "newer", newer)
    await parts.put(agent("thing"))
    async with asyncio.timeout(5):
        while not parts.follower.ready:
            parts.follower.poke()
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await parts.names("thing") == ["thing"]
    assert "cannot follow" in caplog.text


async def test_long_work_lets_others_run_as_soon_as_it_has_held_the_loop_long_enough() -> None:
    clock = FakeClock()
    pace = Pace(clock.monotonic)
    ran = []

    async def other() -> None:
        ran.append(clock.monotonic())

    waiting = asyncio.create_task(other())
    await pace.breathe()
    assert not ran
    clock.move(2 * HOLD_S)
    await pace.breathe()
    assert ran
    await waiting


async def test_a_first_pass_over_many_agents_lets_others_run_and_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follower, "TOLD_EVERY", 20)
    parts = Parts()
    await parts.put(*listings())
    turns = 0

    class Slow(FakeClock):
        def monotonic(self) -> float:
            self.move(HOLD_S / 2)
            return super().monotonic()

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    parts.follower = Follower(lambda: parts.market, Slow(NOW_US / 1_000_000))
    running = asyncio.create_task(other())
    with caplog.at_level("INFO"):
        await parts.follower.catch_up()
    running.cancel()
    assert turns >= len(listings()) // 3
    assert "has taken in" in caplog.text
    assert f"complete: {len(listings())} agents" in caplog.text

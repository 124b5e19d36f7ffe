"""The server's own marketplace as the model sees it: who is found, by what name, and what is learnt of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent, listings
from convene.registry.base import Interaction
from convene.registry.counter import Counter
from convene.registry.directory import LocalDirectory
from convene.registry.follower import Follower
from convene.registry.search import Search
from convene.store.base_market import Listing, Profile, Terms
from convene.store.memory_market import MemoryMarket
from fakes import FakeClock

if TYPE_CHECKING:
    from convene.store.base_market import AgentRow, Tally

CARD = "http://127.0.0.1:9/card"


class Parts:
    """A marketplace in memory, followed and searched."""

    def __init__(self) -> None:
        self.market = MemoryMarket()
        self.clock = FakeClock(NOW_US / 1_000_000)
        self.follower = Follower(lambda: self.market, self.clock)
        self.own = ""
        self.pokes = 0
        search = Search(lambda: self.follower.index, self.clock, Counter(lambda: self.market, self.clock))
        self.directory = LocalDirectory(search, lambda: self.market, self.clock, lambda: self.own, self._poke)

    def _poke(self) -> None:
        self.pokes += 1

    async def put(self, *rows: AgentRow) -> None:
        for row in rows:
            await self.market.list_agent(msgspec.structs.replace(row, version=0), NOW_US)
        await self.follower.catch_up()

    async def names(self, query: str, limit: int = 5) -> list[str]:
        return [one.name for one in await self.directory.search(query, limit)]

    async def tally(self, name: str) -> Tally:
        row = await self.market.get(agent(name).id)
        assert row is not None
        return row.tally

    async def call(self, name: str, outcome: str = "success", *, useful: bool | None = None) -> None:
        noted = Interaction(agent=agent(name).id, outcome=outcome, seconds=1.5, useful=useful)  # type: ignore[arg-type]  # tests name real outcomes
        await self.directory.note(noted)
        await self.follower.catch_up()


async def test_agents_of_all_three_protocols_come_from_one_search() -> None:
    parts = Parts()
    await parts.put(
        agent("weather chat"),
        agent("weather card", protocol="a2a", id=CARD, protocols=(), endpoints=(), expires_us=0),
        agent("weather tools", protocol="mcp", id="http://127.0.0.1:9/mcp", protocols=(), endpoints=(), expires_us=0),
    )
    found = {one.name: one for one in await parts.directory.search("weather", 5)}
    assert {one.protocol for one in found.values()} == {"acp", "a2a", "mcp"}
    assert found["weather chat"].address == agent("weather chat").id
    assert (found["weather card"].address, found["weather card"].url) == ("", CARD)


async def test_what_fits_is_found_and_what_does_not_is_not() -> None:
    parts = Parts()
    await parts.put(*listings())
    assert (await parts.names("weather in Rome"))[0] == "SkyCast"
    assert await parts.names("zzyzx") == []
    assert len(await parts.names("city travel booking", 2)) == 2


async def test_we_do_not_find_ourselves_nor_agents_that_cannot_be_asked() -> None:
    parts = Parts()
    await parts.put(agent("weather me"), agent("weather you"), agent("weather mute", protocols=()))
    parts.own = agent("weather me").id
    assert await parts.names("weather", 1) == ["weather you"]
    assert await parts.names("weather") == ["weather you"]


async def test_an_agent_of_a_place_is_found_by_models_too() -> None:
    parts = Parts()
    await parts.put(agent("weather here", geo=(48.0, 11.0, 5.0)))
    assert await parts.names("weather") == ["weather here"]


@pytest.mark.req("SEARCH-11", "PICK-06")
async def test_calls_that_fail_sink_an_agent_and_a_good_one_brings_it_back() -> None:
    parts = Parts()
    await parts.put(agent("weather one"), agent("weather two"))
    assert (await parts.names("weather"))[0] == "weather one"
    for _ in range(3):
        parts.clock.move(1)
        await parts.call("weather one", "timed_out")
    found = await parts.directory.search("weather", 5)
    assert [(one.name, one.reachable) for one in found] == [("weather two", True), ("weather one", False)]
    assert found[1].score < found[0].score / 4
    for _ in range(8):
        parts.clock.move(1)
        await parts.call("weather one", useful=True)
    found = await parts.directory.search("weather", 5)
    assert (found[0].name, found[0].reachable) == ("weather one", True)
    assert parts.pokes == 11


@pytest.mark.req("PICK-06")
async def test_a_market_of_equal_agents_learns_which_of_them_do_what_is_asked() -> None:
    """Whoever asks takes the first; how often each does well is hidden; calls come to those that do."""
    parts = Parts()
    hidden = {"weather bad": 0.1, "weather fair": 0.6, "weather good": 1.0}
    await parts.put(*(agent(name) for name in hidden))
    chosen = dict.fromkeys(hidden, 0)
    for _ in range(120):
        parts.clock.move(60)
        name = (await parts.names("weather"))[0]
        chosen[name] += 1
        await parts.call(name, useful=parts.clock.fraction() < hidden[name])
    assert chosen["weather good"] > 80
    assert chosen["weather bad"] < 15
    newcomer = agent("weather new")
    await parts.put(newcomer)
    assert "weather new" in await parts.names("weather")


async def test_a_call_counts_as_chosen_if_the_agent_was_shown_lately() -> None:
    parts = Parts()
    await parts.put(agent("weather one"), agent("other thing"))
    await parts.names("weather")
    await parts.call("weather one", useful=True)
    await parts.call("other thing")
    assert (await parts.tally("weather one")).picks == 1
    assert (await parts.tally("other thing")).picks == 0
    parts.clock.move(3601)
    await parts.call("weather one", "failed")
    tally = await parts.tally("weather one")
    assert (tally.calls, tally.successes, tally.judged, tally.useful, tally.picks) == (2, 1, 1, 1, 1)
    assert tally.seconds > 0


async def test_an_agent_that_was_not_waited_for_was_chosen_and_has_not_failed() -> None:
    parts = Parts()
    await parts.put(agent("weather one"))
    await parts.names("weather")
    await parts.call("weather one")
    await parts.call("weather one", "late")
    tally = await parts.tally("weather one")
    assert (tally.calls, tally.successes, tally.failures_in_row, tally.picks) == (1, 1, 0, 2)


@pytest.mark.req("PICK-04")
async def test_a_verdict_alone_is_no_call_and_no_choice() -> None:
    parts = Parts()
    await parts.put(agent("weather one"))
    await parts.names("weather")
    await parts.call("weather one")
    await parts.directory.note(Interaction(agent=agent("weather one").id, useful=False))
    tally = await parts.tally("weather one")
    assert (tally.calls, tally.successes, tally.judged, tally.useful, tally.picks) == (1, 1, 1, 0, 1)


@pytest.mark.req("PICK-07")
async def test_an_agent_is_found_by_every_name_it_has_active_or_not() -> None:
    parts = Parts()
    await parts.put(
        agent("Sky", handle="sky", active=False),
        agent("Card", protocol="a2a", id=CARD, protocols=(), endpoints=(), expires_us=0),
    )
    for name in (agent("Sky").id, "@sky", "sky", "@SKY"):
        found = await parts.directory.find(name)
        assert found is not None
        assert found.name == "Sky"
    assert await parts.names("sky") == []
    card = await parts.directory.find(CARD)
    assert card is not None
    assert card.url == CARD
    for nobody in ("@nobody", "", "@", "nobody"):
        assert await parts.directory.find(nobody) is None


async def test_an_agent_that_is_switched_off_is_neither_found_nor_shown() -> None:
    parts = Parts()
    await parts.put(agent("Sky", handle="sky"))
    await parts.market.set_terms(agent("Sky").id, Terms(enabled=False), NOW_US)
    await parts.follower.catch_up()
    assert await parts.directory.find("@sky") is None
    assert await parts.names("sky") == []


async def test_what_a_proxied_agent_really_is_is_not_told_and_a_nameless_one_has_its_address() -> None:
    parts = Parts()
    listing = Listing(url="http://10.0.0.1/secret", profile=Profile(description="Weather."))
    row = msgspec.structs.replace(agent("x"), listing=listing)
    await parts.put(row)
    (found,) = await parts.directory.search("weather", 5)
    assert (found.name, found.url, found.description) == (row.id, "", "Weather.")


async def test_what_an_agent_costs_is_told_with_it() -> None:
    parts = Parts()
    await parts.put(agent("Sky", handle="sky"))
    await parts.market.set_terms(agent("Sky").id, Terms(price_micros=250), NOW_US)
    await parts.follower.catch_up()
    (found,) = await parts.directory.search("sky", 1)
    assert found.price_micros == 250
    named = await parts.directory.find("@sky")
    assert named is not None
    assert named.price_micros == 250

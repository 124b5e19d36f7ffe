"""Months of a marketplace in virtual time: the ranking learns who does well, forgives, and lets newcomers in.

Whoever asks takes one of the first agents, as a model does: mostly the first. How often each agent does what is asked,
and when it is away, is hidden from the search; what it sees is what it is told of calls (`Directory.note`).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from agent_listings import NOW_US, agent
from convene.registry.base import Interaction
from convene.registry.counter import Counter
from convene.registry.directory import LocalDirectory
from convene.registry.follower import Follower
from convene.registry.search import Search
from convene.store.memory_market import MemoryMarket
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.registry.base import Found

SHOWN: Final = 5
LIKELY: Final = (0.7, 0.15, 0.08, 0.04, 0.03)
"""How likely the first, second, ... of those shown is asked."""
BETWEEN_S: Final = 600.0
"""A question comes every ten minutes."""


class Town:
    """Agents of one trade, and people who ask them."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 -- repeatable on purpose
        self.clock = FakeClock(NOW_US / 1_000_000, seed=seed)
        self.market = MemoryMarket()
        self.follower = Follower(lambda: self.market, self.clock)
        self.counter = Counter(lambda: self.market, self.clock)
        search = Search(lambda: self.follower.index, self.clock, self.counter)
        self.directory = LocalDirectory(search, lambda: self.market, self.clock)
        self.skill: dict[str, float] = {}
        self.away: set[str] = set()
        self.asked: dict[str, int] = {}
        self.good = 0

    async def open(self, name: str, skill: float) -> None:
        """Let an agent join."""
        listing = msgspec.structs.replace(agent(f"plumber {name}", "Mends taps and pipes."), version=0, expires_us=0)
        await self.market.list_agent(listing, self._now_us())
        await self.follower.catch_up()
        self.skill[listing.id] = skill
        self.asked[listing.id] = 0

    async def live(self, questions: int) -> float:
        """Let people ask; return the share of questions that were answered well."""
        self.good = 0
        self.asked = dict.fromkeys(self.asked, 0)
        for _ in range(questions):
            self.clock.move(BETWEEN_S)
            found = await self.directory.search("who mends my taps, a plumber", SHOWN)
            await self._ask(self._choose(found))
            await self.counter.flush()
            await self.follower.catch_up()
        return self.good / questions

    def id(self, name: str) -> str:
        return agent(f"plumber {name}").id

    def calls(self, *names: str) -> int:
        return sum(self.asked[self.id(name)] for name in names)

    def _choose(self, found: Iterable[Found]) -> str:
        """Return one of those that are said to answer, if there is any."""
        there = list(found)
        able = [one for one in there if one.reachable] or there
        weights = LIKELY[: len(able)]
        return self.draw.choices([one.address for one in able], weights=weights)[0]

    async def _ask(self, chosen: str) -> None:
        self.asked[chosen] += 1
        if chosen in self.away:
            await self.directory.note(Interaction(agent=chosen, outcome="timed_out", seconds=60.0))
            return
        did_well = self.draw.random() < self.skill[chosen]
        self.good += did_well
        await self.directory.note(Interaction(agent=chosen, outcome="success", seconds=2.0, useful=did_well))

    def _now_us(self) -> int:
        return int(self.clock.now() * 1_000_000)


async def town(seed: int, **skills: float) -> Town:
    made = Town(seed)
    for name, skill in skills.items():
        await made.open(name, skill)
    return made


@pytest.mark.req("PICK-06")
@pytest.mark.parametrize("seed", range(3))
async def test_questions_come_to_be_answered_better_than_by_chance_and_nearly_as_well_as_by_the_best(seed: int) -> None:
    skills = {f"n{number}": 0.2 + 0.08 * number for number in range(10)}
    place = await town(seed, **skills)
    chance = sum(skills.values()) / len(skills)
    await place.live(400)
    later = await place.live(200)
    assert later > chance + 0.15
    assert later > max(skills.values()) - 0.2


@pytest.mark.req("PICK-06")
@pytest.mark.parametrize("seed", range(3))
async def test_a_newcomer_is_tried_among_established_ones_and_a_good_one_makes_its_way(seed: int) -> None:
    place = await town(seed, **{f"old{number}": 0.75 for number in range(8)})
    await place.live(300)
    await place.open("new", 1.0)
    await place.live(250)
    assert place.calls("new") > 0
    await place.live(150)
    assert place.calls("new") > 150 / 9


async def test_a_poor_newcomer_is_tried_and_then_left_alone() -> None:
    place = await town(5, **{f"old{number}": 0.9 for number in range(6)})
    await place.live(200)
    await place.open("new", 0.0)
    await place.live(100)
    await place.live(200)
    assert place.calls("new") < 200 / 7


@pytest.mark.req("SEARCH-11")
@pytest.mark.parametrize("seed", range(3))
async def test_an_agent_that_is_away_is_soon_left_alone_and_is_found_again_when_it_is_back(seed: int) -> None:
    place = await town(seed, best=1.0, second=0.8, third=0.7)
    await place.live(100)
    assert place.calls("best") > 50
    place.away.add(place.id("best"))
    await place.live(60)
    assert place.calls("best") < 20
    found = await place.directory.find(place.id("best"))
    assert found is not None
    place.away.clear()
    assert await place.market.set_status(place.id("best"), int(place.clock.now()), NOW_US, active=True)
    place.clock.move(3600)
    hits = {one.address: one for one in await place.directory.search("plumber", SHOWN)}
    assert not hits[place.id("best")].reachable
    await place.directory.note(Interaction(agent=place.id("best"), outcome="success", seconds=1.0, useful=True))
    await place.follower.catch_up()
    await place.live(100)
    assert place.calls("best") > 40


async def test_everybody_of_many_newcomers_has_a_turn_at_being_shown() -> None:
    place = await town(7, **{f"old{number}": 0.9 for number in range(5)})
    await place.live(100)
    names = [f"new{number}" for number in range(6)]
    for name in names:
        await place.open(name, 0.9)
    await place.live(120)
    for name in names:
        row = await place.market.get(place.id(name))
        assert row is not None
        assert row.tally.impressions > 0, name


async def test_who_fits_better_is_asked_though_others_are_famous() -> None:
    place = await town(11, **{f"old{number}": 0.95 for number in range(4)})
    await place.live(150)
    roofer = msgspec.structs.replace(agent("roofer", "Mends roofs, gutters and chimneys."), version=0, expires_us=0)
    await place.market.list_agent(roofer, NOW_US)
    await place.follower.catch_up()
    found = await place.directory.search("who mends a roof and its gutters", SHOWN)
    assert found[0].name == "roofer"

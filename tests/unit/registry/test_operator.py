"""What operators do with agents: add, read anew, price, switch off, remove, ping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent, listings
from convene.errors import BadRequest, Conflict, NotFound
from convene.registry.base_operator import Card, Draft, Heard
from convene.registry.operator import DESCRIPTION_MAX, NAME_MAX, README_MAX, SKILL_MAX, SKILLS_MAX, Operator
from convene.store.base_market import Seen, Terms
from convene.store.memory_market import MemoryMarket
from fakes import FakeClock

if TYPE_CHECKING:
    from convene.registry.base import Found

URL = "http://127.0.0.1:9/.well-known/agent-card.json"
CARD = Card(protocol="a2a", url=URL, name="Weather", description="Rain.", readme="# Weather", skills=("Rain: tells",))
OPEN = Terms()


class Desk:
    """An operator over a marketplace in memory, with cards and pings that are made up."""

    def __init__(self) -> None:
        self.market = MemoryMarket()
        self.cards = {URL: CARD, "http://127.0.0.1:9": CARD}
        self.pinged: list[Found] = []
        self.pokes = 0
        self.operator = Operator(
            lambda: self.market, FakeClock(NOW_US / 1_000_000), self._describe, self._ping, self._poke
        )

    async def _describe(self, url: str) -> Card:
        if url not in self.cards:
            raise BadRequest("There is no agent at this address.", param="url")
        return self.cards[url]

    async def _ping(self, found: Found) -> Heard:
        self.pinged.append(found)
        await self.market.see([Seen(id=found.address or found.url, at_us=NOW_US, outcome="failed")])
        return Heard(outcome="failed", seconds=1.0, words="Nobody is there.")

    def _poke(self) -> None:
        self.pokes += 1


async def test_an_agent_is_listed_under_the_address_where_it_is_called() -> None:
    desk = Desk()
    hit = await desk.operator.add(Draft(url="http://127.0.0.1:9", owner="me"), OPEN)
    row = hit.row
    assert (row.id, row.protocol, row.owner, row.listed) == (URL, "a2a", "me", True)
    assert (row.listing.url, row.listing.name, row.listing.profile.readme) == (URL, "Weather", "# Weather")
    assert row.listing.skills == ("Rain: tells",)
    assert (hit.health, hit.kind) == ("new", "a2a")
    assert desk.pokes == 1


async def test_what_the_operator_says_comes_before_the_card() -> None:
    desk = Desk()
    draft = Draft(url=URL, name="Mine", handle="WETTER", description="Sun.", tags=("sky",))
    row = (await desk.operator.add(draft, Terms(enabled=False, price_micros=7))).row
    assert (row.listing.name, row.listing.handle, row.listing.profile.description) == ("Mine", "wetter", "Sun.")
    assert row.listing.tags == ("sky",)
    assert row.terms == Terms(enabled=False, price_micros=7)


async def test_adding_again_reads_the_card_anew_and_keeps_owner_handle_tags_and_tally() -> None:
    desk = Desk()
    await desk.operator.add(Draft(url=URL, handle="w", tags=("sky",), owner="me"), OPEN)
    await desk.market.see([Seen(id=URL, at_us=NOW_US, outcome="success")])
    desk.cards[URL] = msgspec.structs.replace(CARD, description="Snow.", skills=())
    row = (await desk.operator.add(Draft(url=URL, owner="you"), Terms(price_micros=3))).row
    assert (row.owner, row.listing.handle, row.listing.tags, row.tally.calls) == ("me", "w", ("sky",), 1)
    assert (row.listing.profile.description, row.listing.skills) == ("Snow.", ())
    assert row.terms.price_micros == 3


async def test_a_card_that_says_too_much_is_cut() -> None:
    desk = Desk()
    desk.cards[URL] = Card(
        protocol="mcp",
        url=URL,
        name="n" * 99,
        description="d" * 999,
        readme="r" * 99_999,
        skills=("s" * 999,) * 999,
    )
    listing = (await desk.operator.add(Draft(url=URL), OPEN)).row.listing
    assert (len(listing.name), len(listing.profile.description)) == (NAME_MAX, DESCRIPTION_MAX)
    assert (len(listing.profile.readme), len(listing.skills)) == (README_MAX, SKILLS_MAX)
    assert len(listing.skills[0]) == SKILL_MAX


@pytest.mark.parametrize("url", ["", "ftp://h/x", "http://", "agent1qxyz", "http:// x", "http://127.0.0.1:9/else"])
async def test_what_is_no_agent_is_not_added(url: str) -> None:
    desk = Desk()
    with pytest.raises(BadRequest) as caught:
        await desk.operator.add(Draft(url=url), OPEN)
    assert caught.value.param == "url"
    assert await desk.market.count() == 0


@pytest.mark.parametrize("handle", ["-x", "a b", "x" * 41, "@x", "ünlaut/"])
async def test_a_handle_that_cannot_be_typed_is_refused(handle: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await Desk().operator.add(Draft(url=URL, handle=handle), OPEN)
    assert caught.value.param == "handle"


async def test_a_handle_of_somebody_else_is_a_conflict() -> None:
    desk = Desk()
    await desk.market.list_agent(msgspec.structs.replace(agent("a", handle="w"), version=0), NOW_US)
    with pytest.raises(Conflict):
        await desk.operator.add(Draft(url=URL, handle="w"), OPEN)


async def test_terms_are_set_and_agents_removed_by_id_handle_or_an_address_whose_slashes_were_squeezed() -> None:
    desk = Desk()
    await desk.operator.add(Draft(url=URL, handle="w"), OPEN)
    for name in (URL, "@w", "@W", URL.replace("://", ":/")):
        assert (await desk.operator.show(name)).row.id == URL
    off = await desk.operator.set_terms("@w", Terms(enabled=False))
    assert not off.row.terms.enabled
    assert await desk.operator.remove(URL.replace("://", ":/")) == URL
    for gone in (URL, "@w", "", "@"):
        with pytest.raises(NotFound):
            await desk.operator.show(gone)


async def test_a_ping_goes_to_agents_that_are_switched_off_too_and_the_new_health_is_told() -> None:
    desk = Desk()
    await desk.operator.add(Draft(url=URL), Terms(enabled=False))
    for _ in range(3):
        hit, heard = await desk.operator.ping(URL)
    assert [found.url for found in desk.pinged] == [URL] * 3
    assert (heard.outcome, hit.health, hit.reachable) == ("failed", "unreachable", False)


async def test_where_no_agents_are_asked_none_is_added_or_pinged_but_all_are_listed() -> None:
    desk = Desk()
    await desk.operator.add(Draft(url=URL), OPEN)
    mute = Operator(lambda: desk.market, FakeClock())
    with pytest.raises(BadRequest):
        await mute.add(Draft(url=URL), OPEN)
    with pytest.raises(BadRequest):
        await mute.ping(URL)
    assert len((await mute.page(5))[0]) == 1


@pytest.mark.parametrize("limit", [1, 7, 61, 62, 63, 200])
async def test_pages_have_everybody_once_whatever_their_size(limit: int) -> None:
    desk = Desk()
    for row in listings():
        await desk.market.list_agent(msgspec.structs.replace(row, version=0), NOW_US)
    for row in listings()[::9]:
        await desk.market.remove(row.id, NOW_US)
    left = {row.id for row in listings()} - {row.id for row in listings()[::9]}
    seen: list[str] = []
    more, after = True, ""
    while more:
        hits, more = await desk.operator.page(limit, after)
        assert len(hits) <= limit
        seen += [hit.row.id for hit in hits]
        after = seen[-1]
    assert sorted(seen) == sorted(left)

"""The index of agents follows every store alike, whoever writes there."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent, listings
from convene.registry.base_search import SearchRequest
from convene.registry.counter import Counter
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.follower import Follower
from convene.registry.search import Search
from convene.store.base_market import Endpoint, Manifest, Registration, Seen, Terms
from fakes import FakeClock

if TYPE_CHECKING:
    from convene.store.base import Store
    from convene.store.base_market import AgentRow, Market
    from stores import OpenAnother

replace = msgspec.structs.replace
NAMES = tuple(f"weather {number}" for number in range(8))


def follower_of(store: Store) -> Follower:
    return Follower(lambda: store.market, FakeClock(NOW_US / 1_000_000))


def search_of(follower: Follower, counter: Counter | None = None) -> Search:
    return Search(lambda: follower.index, FakeClock(NOW_US / 1_000_000), counter)


def there(follower: Follower) -> dict[str, AgentRow]:
    return {facts.id: facts.row() for facts in follower.index.facts if facts is not None}


def registration(name: str, stamp: int) -> Registration:
    return Registration(
        id=agent(name).id,
        endpoints=(Endpoint("http://127.0.0.1:1/submit"),),
        protocols=(CHAT_PROTOCOL,),
        metadata={"geolocation": {"latitude": "48.1", "longitude": "11.5", "radius": "2"}},
        stamp=stamp,
        expires_us=NOW_US * 2,
    )


async def test_a_whole_marketplace_is_found_as_it_was_put_in(store: Store) -> None:
    for row in listings():
        await store.market.list_agent(replace(row, version=0), NOW_US)
    follower = follower_of(store)
    assert await follower.catch_up() == len(listings())
    assert await follower.catch_up() == 0
    page = await search_of(follower).search(SearchRequest(text="what is the weather"))
    wanted = next(row for row in listings() if row.listing.name == "SkyCast")
    assert page.hits[0].row.listing == wanted.listing
    assert page.hits[0].row == await store.market.get(wanted.id)


async def test_an_agent_that_only_registers_is_there_and_gets_its_name_with_its_listing(store: Store) -> None:
    await store.market.publish(Manifest(digest=CHAT_PROTOCOL, name="AgentChatProtocol", version="0.3.0", body=b"{}"), 9)
    await store.market.register([registration("weather", 5)], NOW_US)
    follower = follower_of(store)
    await follower.catch_up()
    search = search_of(follower)
    shown = search.show(agent("weather").id)
    assert shown is not None
    assert (shown.row.listing.name, shown.kind, shown.health) == ("", "custom", "new")
    row = await store.market.get(agent("weather").id)
    assert row is not None
    await store.market.list_agent(replace(row, listed=True, listing=agent("weather").listing), NOW_US)
    await follower.catch_up()
    page = await search.search(SearchRequest(text="weather", exclude_geo=False))
    assert [hit.row.listing.name for hit in page.hits] == ["weather"]


async def test_what_was_shown_and_chosen_is_counted_in_every_store(store: Store) -> None:
    await store.market.list_agent(replace(agent("weather"), version=0), NOW_US)
    follower = follower_of(store)
    await follower.catch_up()
    counter = Counter(lambda: store.market, FakeClock(NOW_US / 1_000_000))
    search = search_of(follower, counter)
    for _ in range(2):
        page = await search.search(SearchRequest(text="weather"))
    assert search.click(agent("weather").id, page.search_id)
    await counter.flush()
    await follower.catch_up()
    shown = search.show(agent("weather").id)
    assert shown is not None
    assert (shown.row.tally.impressions, shown.row.tally.picks) == (2, 1)


async def change(market: Market, draw: random.Random, stamp: int) -> None:
    """Do one of the things that happen to a row."""
    name = draw.choice(NAMES)
    row = await market.get(agent(name).id)
    kind = draw.randrange(6)
    if kind == 0:
        await market.register([registration(name, stamp)], NOW_US)
    elif kind == 1:
        described = agent(name, draw.choice(["Rain.", "Sun and rain.", "Wind."])).listing
        await market.list_agent(replace(row or agent(name, version=0), listed=True, listing=described), NOW_US)
    elif kind == 2:
        await market.set_terms(agent(name).id, Terms(enabled=draw.random() < 0.7), NOW_US)
    elif kind == 3:
        await market.remove(agent(name).id, NOW_US)
    elif kind == 4:
        await market.set_status(agent(name).id, stamp, NOW_US, active=draw.random() < 0.5)
    else:
        await market.see([Seen(id=agent(name).id, at_us=NOW_US, outcome=draw.choice(["success", "failed"]))])


@pytest.mark.parametrize("seed", range(3))
async def test_an_index_that_follows_writers_elsewhere_ends_as_one_made_afterwards(
    shared: OpenAnother, seed: int
) -> None:
    writer, reader = await shared(), await shared()
    followed = follower_of(reader)
    draw = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    for stamp in range(1, 41):
        await change(writer.market, draw, stamp)
        if draw.random() < 0.3:
            await followed.catch_up()
    await followed.catch_up()
    anew = follower_of(reader)
    await anew.catch_up()
    assert there(followed) == there(anew)
    assert all(row.terms.enabled and not row.removed for row in there(followed).values())


async def test_writers_at_the_same_time_leave_nothing_out_of_the_index(shared: OpenAnother) -> None:
    writers = [await shared(), await shared()]
    followed = follower_of(await shared())
    following = asyncio.create_task(followed.run())

    async def write(store: Store, start: int) -> None:
        for number in range(start, start + 15):
            await store.market.register([registration(f"weather {number}", 5)], NOW_US)

    await asyncio.gather(*(write(store, 100 * place) for place, store in enumerate(writers)))
    async with asyncio.timeout(20):
        while len(followed.index) < 30:
            followed.poke()
            await asyncio.sleep(0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert len(there(followed)) == 30

"""Several writers of one marketplace at the same time: nothing is lost, taken twice, or missed by who follows."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec

from convene.errors import Conflict
from convene.store.base_market import AgentRow, Letter, Listing, Registration, Seen

if TYPE_CHECKING:
    from convene.store.base_market import Market
    from stores import OpenAnother

WRITERS = 3


async def list_as(market: Market, name: str, handle: str) -> bool:
    row = await market.get(name) or AgentRow(id=name)
    try:
        await market.list_agent(msgspec.structs.replace(row, listed=True, listing=Listing(handle=handle)), 1)
    except Conflict:
        return False
    return True


async def test_a_handle_goes_to_one_of_all_who_ask_for_it_at_once(shared: OpenAnother) -> None:
    stores = [await shared() for _ in range(WRITERS)]
    for number in range(10):
        asked = [list_as(store.market, f"agent1{place}-{number}", f"h{number}") for place, store in enumerate(stores)]
        assert sum(await asyncio.gather(*asked)) == 1


async def test_of_two_listings_merged_at_once_one_is_told_to_read_again(shared: OpenAnother) -> None:
    stores = [await shared() for _ in range(WRITERS)]
    await stores[0].market.list_agent(AgentRow(id="agent1x"), 1)
    for number in range(10):
        rows = [await store.market.get("agent1x") for store in stores]
        told: list[bool] = []
        for place, (store, row) in enumerate(zip(stores, rows, strict=True)):
            assert row is not None
            listing = Listing(name=f"{number}-{place}")
            try:
                await store.market.list_agent(msgspec.structs.replace(row, listing=listing), 2)
            except Conflict as fault:
                told.append(fault.code == "agent_changed")
        assert told == [True] * (WRITERS - 1)
        final = await stores[0].market.get("agent1x")
        assert final is not None
        assert final.listing.name == f"{number}-0"


async def test_a_mailbox_is_emptied_once(shared: OpenAnother) -> None:
    stores = [await shared() for _ in range(WRITERS)]
    for number in range(10):
        letter = Letter(uuid=str(number), address="a", envelope=b"{}", received_us=number, expires_us=99)
        await stores[0].market.drop(letter, 99)
    took = await asyncio.gather(*(store.market.take("a", str(number)) for store in stores for number in range(10)))
    assert sum(took) == 10


async def test_who_follows_by_version_misses_no_change_of_any_writer(shared: OpenAnother) -> None:
    """In Postgres a later version could be committed before an earlier one, were the number not held until then."""
    stores = [await shared() for _ in range(WRITERS)]
    follower = await shared()
    done = asyncio.Event()
    known: dict[str, AgentRow] = {}

    async def write(market: Market, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 -- repeatable, not secret
        for stamp in range(25):
            names = [f"agent1{chance.randrange(8)}" for _ in range(chance.randrange(1, 4))]
            await market.register(
                [Registration(id=name, stamp=stamp * WRITERS + seed, expires_us=9) for name in names], stamp
            )
            await market.see([Seen(id=name, at_us=stamp, outcome="success") for name in names])

    async def follow() -> None:
        version, last = 0, False
        while not last:
            last = done.is_set()
            rows = await follower.market.newer(version, 7)
            while rows:
                versions = [row.version for row in rows]
                assert versions == sorted(set(versions))
                assert versions[0] > version
                version = versions[-1]
                known.update({row.id: row for row in rows})
                rows = await follower.market.newer(version, 7)

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(store.market, seed) for seed, store in enumerate(stores)))
    done.set()
    await following
    final = {row.id: row for row in await stores[0].market.newer(0, 99)}
    assert known == final
    assert sum(row.tally.calls for row in final.values()) == sum(row.tally.successes for row in final.values()) > 0

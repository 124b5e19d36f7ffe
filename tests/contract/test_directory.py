"""The contract of `convene.registry.base.Directory`, for this server's own marketplace on every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent, listings
from convene.errors import StoreFault
from convene.registry.base import Interaction
from convene.registry.counter import Counter
from convene.registry.directory import LocalDirectory
from convene.registry.follower import Follower
from convene.registry.search import Search
from convene.store.base_market import Terms
from fakes import FakeClock

if TYPE_CHECKING:
    from convene.store.base import Store


async def directory_of(store: Store) -> tuple[LocalDirectory, Follower]:
    clock = FakeClock(NOW_US / 1_000_000)
    for row in listings()[:12]:
        await store.market.list_agent(msgspec.structs.replace(row, version=0), NOW_US)
    follower = Follower(lambda: store.market, clock)
    await follower.catch_up()
    counter = Counter(lambda: store.market, clock)
    return LocalDirectory(Search(lambda: follower.index, clock, counter), lambda: store.market, clock), follower


async def test_who_fits_best_comes_first_with_all_that_is_needed_to_ask(store: Store) -> None:
    directory, _ = await directory_of(store)
    found = await directory.search("what is the weather in Rome", 3)
    assert 1 <= len(found) <= 3
    best = found[0]
    assert (best.name, best.handle, best.protocol, best.directory) == ("SkyCast", "skycast", "acp", "local")
    assert best.endpoints == ("http://127.0.0.1:8001/submit",)
    assert best.reachable
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


async def test_a_search_that_fits_nobody_finds_nobody(store: Store) -> None:
    directory, _ = await directory_of(store)
    assert list(await directory.search("zzyzx", 5)) == []


async def test_everybody_is_found_by_address_and_handle_and_nobody_by_else(store: Store) -> None:
    directory, _ = await directory_of(store)
    for row in listings()[:12]:
        for name in (row.id, f"@{row.listing.handle}", row.listing.handle):
            found = await directory.find(name)
            assert found is not None
            assert found.address == row.id
    for name in ("", "@", "@nobody", "agent1qnobody", "http://127.0.0.1:9/"):
        assert await directory.find(name) is None


@pytest.mark.parametrize("outcome", ["success", "failed", "timed_out", "refused"])
@pytest.mark.parametrize("useful", [None, True, False])
async def test_how_a_call_went_is_kept(store: Store, outcome: str, useful: bool | None) -> None:  # noqa: FBT001 -- a parameter of the test
    directory, _ = await directory_of(store)
    row = listings()[0]
    noted = Interaction(agent=row.id, outcome=outcome, seconds=2.0, useful=useful)  # type: ignore[arg-type]  # real outcomes
    await directory.note(noted)
    kept = await store.market.get(row.id)
    assert kept is not None
    assert kept.tally.calls == 1
    assert kept.tally.successes == (outcome == "success")
    assert kept.tally.judged == (useful is not None)
    assert kept.tally.useful == (useful is True)
    assert kept.tally.failures_in_row == (outcome in {"failed", "timed_out"})


async def test_what_is_said_of_strangers_is_not_kept(store: Store) -> None:
    directory, _ = await directory_of(store)
    before = await store.market.count()
    await directory.note(Interaction(agent="agent1qnobody", outcome="success", seconds=1.0))
    assert await store.market.count() == before


async def test_an_agent_that_is_switched_off_is_gone_from_both(store: Store) -> None:
    directory, follower = await directory_of(store)
    sky = listings()[0]
    await store.market.set_terms(sky.id, Terms(enabled=False), NOW_US)
    await follower.catch_up()
    assert await directory.find(sky.id) is None
    assert "SkyCast" not in [one.name for one in await directory.search("weather", 9)]


async def test_an_agent_is_found_by_name_as_soon_as_it_is_listed(store: Store) -> None:
    directory, follower = await directory_of(store)
    fresh = msgspec.structs.replace(agent("Fresh", "Tides.", handle="fresh"), version=0)
    await store.market.list_agent(fresh, NOW_US)
    assert await directory.find("@fresh") is not None
    assert list(await directory.search("tides", 3)) == []
    await follower.catch_up()
    assert [one.name for one in await directory.search("tides", 3)] == ["Fresh"]


async def test_a_store_that_is_gone_is_said_by_what_needs_it_and_searching_goes_on(store: Store) -> None:
    directory, _ = await directory_of(store)
    await store.aclose()
    assert (await directory.search("weather", 1))[0].name == "SkyCast"
    with pytest.raises(StoreFault):
        await directory.find("@skycast")
    with pytest.raises(StoreFault):
        await directory.note(Interaction(agent=agent("x").id, outcome="failed", seconds=1.0))

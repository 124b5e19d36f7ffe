"""The contract of `convene.store.base_market.Market`, run unchanged against every implementation."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import Conflict, StoreFault
from convene.store.base_market import (
    AgentRow,
    Asset,
    Challenge,
    Endpoint,
    Letter,
    Listing,
    Manifest,
    Profile,
    Registration,
    Seen,
    Tally,
    Terms,
)
from convene.store.memory import MemoryStore

if TYPE_CHECKING:
    from convene.store.base import Store
    from convene.store.base_market import Market
    from stores import OpenAnother

CHAT = "proto:" + "a" * 64
OTHER = "proto:" + "b" * 64
HOUR = 3_600_000_000
replace = msgspec.structs.replace


def registration(name: str = "ann", stamp: int = 100, **fields: object) -> Registration:
    given: dict[str, object] = {
        "endpoints": (Endpoint("http://127.0.0.1:1/submit"), Endpoint("http://127.0.0.1:2/submit", 3)),
        "protocols": (CHAT,),
        "metadata": {"geolocation": {"latitude": "52.2"}},
        "expires_us": HOUR,
    } | fields
    return Registration(id=f"agent1{name}", stamp=stamp, **given)  # type: ignore[arg-type]  # tests name real fields


def listing(handle: str = "", **fields: object) -> Listing:
    return Listing(name="Ann", handle=handle, **fields)  # type: ignore[arg-type]  # tests name real fields


def listed(name: str = "ann", owner: str = "user-1", **fields: object) -> AgentRow:
    given: dict[str, object] = {"listed": True, "listing": listing()} | fields
    return AgentRow(id=f"agent1{name}", owner=owner, **given)  # type: ignore[arg-type]  # tests name real fields


def letter(number: int, address: str = "agent1ann", **fields: object) -> Letter:
    given: dict[str, object] = {"envelope": b'{"n":1}', "received_us": 10 + number, "expires_us": 1_000} | fields
    return Letter(uuid=f"uuid-{number}", address=address, **given)  # type: ignore[arg-type]  # tests name real fields


async def known(market: Market, name: str = "ann") -> AgentRow:
    row = await market.get(f"agent1{name}")
    assert row is not None
    return row


async def test_a_registration_is_kept_as_it_came(store: Store) -> None:
    assert await store.market.register([registration()], 7) == [True]
    row = await known(store.market)
    assert row == AgentRow(
        id="agent1ann",
        endpoints=(Endpoint("http://127.0.0.1:1/submit"), Endpoint("http://127.0.0.1:2/submit", 3)),
        protocols=(CHAT,),
        metadata={"geolocation": {"latitude": "52.2"}},
        stamp=100,
        registered_us=7,
        expires_us=HOUR,
        created_us=7,
        changed_us=7,
        version=row.version,
    )
    assert await store.market.count() == 1
    assert await store.market.get("agent1bob") is None


async def test_only_a_newer_registration_replaces_the_old_one(store: Store) -> None:
    await store.market.register([registration(stamp=100)], 7)
    assert await store.market.register([registration(stamp=100, protocols=(OTHER,))], 8) == [False]
    assert await store.market.register([registration(stamp=99)], 8) == [False]
    assert (await known(store.market)).protocols == (CHAT,)
    assert await store.market.speakers(OTHER, 0, 9) == []
    assert await store.market.register([registration(stamp=101, protocols=(OTHER,), prefix="test-agent")], 9) == [True]
    row = await known(store.market)
    assert (row.protocols, row.prefix, row.created_us, row.registered_us) == ((OTHER,), "test-agent", 7, 9)


async def test_the_very_registration_that_stands_lasts_longer_when_it_comes_again(store: Store) -> None:
    await store.market.register([registration(stamp=100)], 7)
    await store.market.set_status("agent1ann", 100, 8, active=False)
    assert await store.market.register([registration(stamp=100, expires_us=2 * HOUR)], 9) == [True]
    row = await known(store.market)
    assert (row.expires_us, row.registered_us, row.active) == (2 * HOUR, 9, False)
    other = registration(stamp=100, endpoints=(Endpoint("http://127.0.0.1:9/submit"),))
    assert await store.market.register([other], 10) == [False]


async def test_many_register_at_once_and_each_is_told_its_own(store: Store) -> None:
    await store.market.register([registration("bob", 50)], 7)
    batch = [registration("ann", 50), registration("bob", 49), registration("ann", 51), registration("eve", 1)]
    assert await store.market.register(batch, 8) == [True, False, True, True]
    assert (await known(store.market)).stamp == 51
    assert await store.market.register([], 9) == []


async def test_an_agent_says_of_its_state(store: Store) -> None:
    assert not await store.market.set_status("agent1ann", 100, 7, active=False)
    await store.market.register([registration(stamp=100)], 7)
    assert await store.market.set_status("agent1ann", 105, 8, active=False)
    assert not (await known(store.market)).active
    assert not await store.market.set_status("agent1ann", 104, 9, active=True)
    assert await store.market.set_status("agent1ann", 105, 9, active=True)
    assert (await known(store.market)).active


async def test_registering_makes_active_unless_something_newer_was_said(store: Store) -> None:
    await store.market.register([registration(stamp=100)], 7)
    assert not await store.market.set_status("agent1ann", 99, 8, active=False)
    await store.market.set_status("agent1ann", 110, 8, active=False)
    await store.market.register([registration(stamp=105)], 9)
    assert not (await known(store.market)).active
    await store.market.register([registration(stamp=111)], 10)
    assert (await known(store.market)).active


async def test_a_listing_stands_beside_the_record(store: Store) -> None:
    await store.market.register([registration()], 7)
    before = await known(store.market)
    full = listing(
        "ann",
        url="https://ann.example",
        agent_type="uagent",
        profile=Profile(description="d", readme="# r \x00", avatar_url="a", starter_prompts=({"title": "t"},)),
        skills=("s",),
        tags=("t", "u"),
        geo=(1.5, -2.0, 3.0),
        metadata={"a": [1, None]},
    )
    wanted = replace(
        before, owner="user-1", listed=True, listing=full, endpoints=(Endpoint("http://new/"),), expires_us=2 * HOUR
    )
    row = await store.market.list_agent(
        replace(wanted, stamp=999, status_stamp=999, active=False, terms=Terms(price_micros=9), created_us=1), 9
    )
    assert row == await known(store.market)
    assert row == replace(wanted, changed_us=9, version=row.version)
    assert row.version > before.version
    assert await store.market.by_handle("ann") == row
    assert await store.market.by_url("https://ann.example") == row


async def test_an_agent_may_be_listed_before_it_registers(store: Store) -> None:
    row = await store.market.list_agent(listed(protocol="a2a", endpoints=(Endpoint("http://x/1"),)), 9)
    assert (row.owner, row.listed, row.protocol, row.created_us, row.stamp) == ("user-1", True, "a2a", 9, 0)
    assert row.endpoints == (Endpoint("http://x/1"),)
    assert await store.market.register([registration(stamp=1)], 10) == [True]
    after = await known(store.market)
    assert (after.listing, after.owner, after.created_us, after.stamp) == (row.listing, "user-1", 9, 1)


async def test_a_handle_is_one_agents(store: Store) -> None:
    await store.market.list_agent(listed(listing=listing("best")), 9)
    with pytest.raises(Conflict) as refused:
        await store.market.list_agent(listed("bob", listing=listing("best")), 9)
    assert refused.value.code == "handle_taken"
    assert await store.market.get("agent1bob") is None
    await store.market.list_agent(replace(await known(store.market), listing=listing("other")), 10)
    bob = await store.market.list_agent(listed("bob", listing=listing("best")), 11)
    assert await store.market.by_handle("best") == bob
    assert await store.market.by_handle("") is None
    await store.market.list_agent(listed("eve"), 11)
    await store.market.list_agent(listed("dan"), 11)


async def test_two_who_merge_at_once_do_not_lose_each_others(store: Store) -> None:
    first = await store.market.list_agent(listed(), 9)
    await store.market.list_agent(replace(first, listing=listing("one")), 10)
    for stale in (first, replace(first, version=0), replace(first, version=999), listed("bob", version=3)):
        with pytest.raises(Conflict) as refused:
            await store.market.list_agent(stale, 11)
        assert refused.value.code == "agent_changed"
    assert (await known(store.market)).listing.handle == "one"


async def test_the_operators_terms_are_kept(store: Store) -> None:
    terms = Terms(enabled=False, price_micros=5)
    assert not await store.market.set_terms("agent1ann", terms, 7)
    await store.market.register([registration()], 7)
    assert await store.market.set_terms("agent1ann", terms, 8)
    await store.market.register([registration(stamp=101)], 9)
    assert (await known(store.market)).terms == terms


async def test_a_removed_agent_is_gone_and_indexes_learn_of_it(store: Store) -> None:
    await store.market.register([registration()], 7)
    row = await known(store.market)
    await store.market.list_agent(replace(row, owner="u", listed=True, listing=listing("ann", url="http://a")), 8)
    await store.market.see([Seen(id="agent1ann", at_us=5, outcome="success")])
    await store.market.drop(letter(1), 9)
    before = (await known(store.market)).version
    assert await store.market.remove("agent1ann", 9)
    assert not await store.market.remove("agent1ann", 9)
    for found in (
        await store.market.get("agent1ann"),
        await store.market.by_handle("ann"),
        await store.market.by_url("http://a"),
    ):
        assert found is None
    assert await store.market.page("u", 9) == []
    assert await store.market.speakers(CHAT, 0, 9) == []
    assert await store.market.speakers("", 0, 9) == []
    assert await store.market.letters("agent1ann", 0, 9) == []
    assert await store.market.count() == 0
    [gone] = await store.market.newer(before, 9)
    assert (gone.id, gone.removed, gone.listing, gone.tally) == ("agent1ann", True, Listing(), Tally())
    assert not await store.market.set_status("agent1ann", 999, 9, active=True)


async def test_nothing_old_brings_a_removed_agent_back(store: Store) -> None:
    await store.market.register([registration(stamp=100)], 7)
    await store.market.set_status("agent1ann", 100, 7, active=True)
    await store.market.set_terms("agent1ann", Terms(enabled=False), 8)
    await store.market.remove("agent1ann", 9)
    assert await store.market.register([registration(stamp=100)], 10) == [False]
    assert await store.market.get("agent1ann") is None
    assert await store.market.register([registration(stamp=101)], 11) == [True]
    row = await known(store.market)
    assert (row.listed, row.owner, row.created_us, row.active, row.terms.enabled) == (False, "", 11, True, False)


async def test_a_removed_agent_may_be_listed_anew(store: Store) -> None:
    await store.market.register([registration(stamp=100)], 7)
    await store.market.set_status("agent1ann", 110, 7, active=True)
    await store.market.remove("agent1ann", 9)
    fresh = listed(endpoints=(Endpoint("http://new/"),), stamp=40, listing=listing("ann"))
    row = await store.market.list_agent(fresh, 12)
    assert (row.stamp, row.status_stamp, row.created_us, row.removed, row.active) == (100, 110, 12, False, True)
    assert (row.endpoints, row.protocols, row.listing.handle) == ((Endpoint("http://new/"),), (), "ann")


async def test_pages_hold_an_owners_listed_agents_newest_first(store: Store) -> None:
    for at, name in enumerate(("a", "b", "c", "d")):
        await store.market.list_agent(listed(name), 10 + at)
    await store.market.list_agent(listed("z", owner="user-2"), 20)
    await store.market.list_agent(replace(await known(store.market, "c"), listed=False), 21)
    assert [row.id for row in await store.market.page("user-1", 2)] == ["agent1d", "agent1b"]
    assert [row.id for row in await store.market.page("user-1", 2, 2)] == ["agent1a"]


async def test_of_agents_with_one_url_the_oldest_is_found(store: Store) -> None:
    for at, name in enumerate(("b", "a")):
        await store.market.list_agent(listed(name, listing=listing(url="http://same")), 10 + at)
    found = await store.market.by_url("http://same")
    assert found is not None
    assert found.id == "agent1b"
    assert await store.market.by_url("") is None


async def test_every_change_gives_a_version_of_its_own(store: Store) -> None:
    market = store.market
    await market.register([registration("a"), registration("b"), registration("c")], 7)
    assert [row.id for row in await market.newer(0, 9)] == ["agent1a", "agent1b", "agent1c"]
    [first] = await market.newer(0, 1)
    assert [row.id for row in await market.newer(first.version, 9)] == ["agent1b", "agent1c"]
    last = (await market.newer(0, 9))[-1].version
    await market.set_status("agent1a", 200, 8, active=False)
    await market.see([Seen(id="agent1b", at_us=9, shown=1), Seen(id="nobody", at_us=9, shown=1)])
    await market.set_terms("agent1c", Terms(price_micros=1), 8)
    await market.list_agent(replace(await known(market, "a"), listed=True), 9)
    rows = await market.newer(last, 9)
    assert [row.id for row in rows] == ["agent1b", "agent1c", "agent1a"]
    assert len({row.version for row in rows}) == 3
    await market.register([registration("a", 99)], 9)
    assert await market.newer(rows[-1].version, 9) == []


async def test_speakers_are_active_unexpired_and_newest_first(store: Store) -> None:
    market = store.market
    await market.register([registration("a", protocols=(CHAT, OTHER, CHAT))], 10)
    await market.register([registration("b")], 11)
    await market.register([registration("late", expires_us=50), registration("off")], 12)
    await market.set_status("agent1off", 200, 12, active=False)
    assert [row.id for row in await market.speakers(CHAT, 60, 9)] == ["agent1b", "agent1a"]
    assert [row.id for row in await market.speakers(CHAT, 40, 1)] == ["agent1late"]
    assert [row.id for row in await market.speakers(OTHER, 60, 9)] == ["agent1a"]
    assert [row.id for row in await market.speakers("", 60, 9)] == ["agent1b", "agent1a"]
    await market.register([registration("a", 101)], 13)
    assert await market.speakers(OTHER, 60, 9) == []


async def test_tallies_count_what_was_seen(store: Store) -> None:
    await store.market.register([registration()], 7)
    changed = (await known(store.market)).changed_us
    await store.market.see(
        [
            Seen(id="agent1ann", at_us=20, outcome="failed", seconds=9.0, shown=3, picked=1),
            Seen(id="agent1ann", at_us=19, outcome="timed_out"),
            Seen(id="agent1ann", at_us=21, outcome="refused", useful=False),
            Seen(id="agent1bob", at_us=21, outcome="success"),
        ]
    )
    row = await known(store.market)
    assert row.tally == Tally(calls=3, judged=1, failures_in_row=2, failed_us=20, impressions=3, picks=1)
    assert row.changed_us == changed
    await store.market.see([Seen(id="agent1ann", at_us=30, outcome="success", seconds=2.0, useful=True)])
    await store.market.see([Seen(id="agent1ann", at_us=29, outcome="success", seconds=4.0)])
    tally = (await known(store.market)).tally
    assert (tally.successes, tally.useful, tally.judged, tally.failures_in_row) == (2, 1, 2, 0)
    assert tally.answered_us == 30
    assert tally.seconds == pytest.approx(2.4)
    await store.market.see([])


async def test_letters_wait_in_their_order_for_their_address(store: Store) -> None:
    market = store.market
    for number in (2, 1):
        assert await market.drop(letter(number), 9)
    await market.drop(letter(3, "agent1bob"), 9)
    await market.drop(letter(4, expires_us=15), 9)
    assert [one.uuid for one in await market.letters("agent1ann", 15, 9)] == ["uuid-1", "uuid-2"]
    assert await market.letters("agent1ann", 10, 1) == [letter(1)]
    assert not await market.take("agent1bob", "uuid-1")
    assert await market.take("agent1ann", "uuid-1")
    assert not await market.take("agent1ann", "uuid-1")
    assert [one.uuid for one in await market.letters("agent1ann", 15, 9)] == ["uuid-2"]


async def test_a_full_mailbox_takes_no_more(store: Store) -> None:
    for number in (1, 2):
        assert await store.market.drop(letter(number), 2)
    assert not await store.market.drop(letter(3), 2)
    assert await store.market.drop(letter(4, "agent1bob"), 2)
    await store.market.take("agent1ann", "uuid-1")
    assert await store.market.drop(letter(3), 2)


async def test_a_protocol_stays_as_it_was_published_first(store: Store) -> None:
    market = store.market
    chat = Manifest(digest=CHAT, name="chat", version="1", body=b"{}")
    other = Manifest(digest=OTHER, name="other", version="2", body=b"[]")
    assert await market.publish(chat, 2)
    assert await market.publish(replace(chat, name="else"), 2)
    assert await market.publish(other, 2)
    assert not await market.publish(replace(other, digest="proto:" + "c" * 64), 2)
    assert await market.publish(other, 2)
    assert await market.manifests() == [chat, other]
    assert await market.manifests([OTHER, "gone"]) == [other]
    assert await market.manifests([]) == []


async def test_a_protocol_of_which_only_the_name_was_known_gets_its_body(store: Store) -> None:
    market = store.market
    named = Manifest(digest=CHAT, name="chat", version="1")
    assert await market.publish(named, 1)
    assert await market.publish(replace(named, name="else", body=b"{}"), 1)
    assert await market.publish(replace(named, body=b"[]"), 1)
    assert await market.manifests() == [replace(named, body=b"{}")]


async def test_a_challenge_is_answered_once_and_by_whom_it_was_given(store: Store) -> None:
    market = store.market
    await market.challenge(Challenge(address="agent1ann", owner="u", text="old", expires_us=100))
    await market.challenge(Challenge(address="agent1ann", owner="u", text="new", expires_us=100))
    await market.challenge(Challenge(address="agent1ann", owner="v", text="his", expires_us=100))
    for address, owner, text, now_us in (
        ("agent1ann", "u", "old", 50),
        ("agent1ann", "v", "new", 50),
        ("agent1bob", "u", "new", 50),
        ("agent1ann", "u", "new", 100),
    ):
        assert not await market.answered(address, owner, text, now_us)
    assert await market.answered("agent1ann", "u", "new", 99)
    assert not await market.answered("agent1ann", "u", "new", 99)
    assert await market.answered("agent1ann", "v", "his", 99)


async def test_a_file_is_its_owners_until_it_expires(store: Store) -> None:
    market = store.market
    asset = Asset(
        id="one", owner="agent1ann", name="a.png", media_type="image/png", contents=b"\x00\xff", expires_us=100
    )
    assert await market.keep_asset(asset, 2)
    assert await market.asset("one", 99) == asset
    assert await market.asset("one", 100) is None
    assert await market.asset("two", 1) is None
    changed = replace(asset, contents=b"new", readers=("agent1bob", "*"))
    assert await market.keep_asset(changed, 1)
    assert await market.asset("one", 1) == changed
    assert not await market.keep_asset(replace(asset, owner="agent1bob"), 9)
    assert await market.asset("one", 1) == changed
    assert await market.keep_asset(replace(asset, id="two"), 2)
    assert not await market.keep_asset(replace(asset, id="three"), 2)


async def test_what_has_expired_is_forgotten(store: Store) -> None:
    market = store.market
    await market.drop(letter(1, expires_us=50), 9)
    await market.drop(letter(2, expires_us=51), 9)
    await market.challenge(Challenge(address="a", owner="u", text="t", expires_us=50))
    await market.keep_asset(
        Asset(id="one", owner="o", name="n", media_type="t", contents=b"", expires_us=50), assets_max=9
    )
    assert await market.forget(50, 0) == 3
    assert [one.uuid for one in await market.letters("agent1ann", 0, 9)] == ["uuid-2"]
    assert await market.forget(50, 0) == 0


async def test_rows_that_nobody_needs_any_more_are_forgotten(store: Store) -> None:
    market = store.market
    await market.register([registration("a"), registration("idle", expires_us=30), registration("kept")], 7)
    await market.list_agent(replace(await known(market, "kept"), listed=True, expires_us=30), 8)
    await market.list_agent(listed("never"), 8)
    await market.remove("agent1a", 20)
    last = (await market.newer(0, 9))[-1].version
    assert await market.forget(40, 20) == 0
    assert await market.forget(40, 31) == 2
    assert [(row.id, row.removed) for row in await market.newer(last, 9)] == [("agent1idle", True)]
    assert await market.count() == 2
    assert await market.register([registration("a", 1)], 41) == [True]


async def test_a_closed_store_refuses(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreFault):
        await store.market.get("agent1ann")
    with pytest.raises(StoreFault):
        await store.market.register([registration()], 7)


async def test_what_one_writer_keeps_another_finds_and_all_of_it_survives(shared: OpenAnother) -> None:
    first, second = await shared(), await shared()
    await first.market.register([registration()], 7)
    await first.market.list_agent(replace(await known(first.market), listed=True, listing=listing("ann")), 8)
    assert await second.market.by_handle("ann") == await known(first.market)
    await first.aclose()
    third = await shared()
    assert await third.market.get("agent1ann") == await second.market.get("agent1ann")


async def _step(market: Market, chance: random.Random, at: int) -> object:
    name = chance.choice("abcd")
    agent_id = f"agent1{name}"
    kind = chance.randrange(9)
    if kind <= 1:
        protocols = tuple(chance.sample((CHAT, OTHER), chance.randrange(3)))
        return await market.register([registration(name, chance.randrange(40), protocols=protocols)], at)
    if kind == 2:
        return await market.set_status(agent_id, chance.randrange(40), at, active=chance.random() < 0.5)
    if kind == 3:
        return await _list(market, chance, name, at)
    if kind == 4:
        return await market.remove(agent_id, at) if chance.random() < 0.5 else None
    return await _rest(market, chance, kind, agent_id, at)


async def _list(market: Market, chance: random.Random, name: str, at: int) -> object:
    row = await market.get(f"agent1{name}") or listed(name)
    change = replace(row, owner="u", listed=chance.random() < 0.8, listing=listing(chance.choice(("", "x", "y"))))
    try:
        return (await market.list_agent(change, at)).listing
    except Conflict as fault:
        return fault.code


async def _rest(market: Market, chance: random.Random, kind: int, agent_id: str, at: int) -> object:
    if kind == 5:
        outcome = chance.choice(("success", "failed", "timed_out", "refused", None))
        seen = Seen(id=agent_id, at_us=chance.randrange(99), outcome=outcome, seconds=chance.random(), shown=1)  # type: ignore[arg-type]  # one of the words
        await market.see([seen])
        return None
    if kind == 6:
        return await market.set_terms(agent_id, Terms(price_micros=at), at)
    if kind == 7:
        return await market.forget(at, at - 30)
    return [row.id for row in await market.speakers(chance.choice((CHAT, OTHER, "")), at, 9)]


@pytest.mark.parametrize("seed", range(3))
async def test_all_stores_go_the_same_ways(store: Store, seed: int) -> None:
    model = MemoryStore()
    mine, theirs = random.Random(seed), random.Random(seed)  # noqa: S311 -- repeatable, not secret
    for at in range(1, 200):
        assert await _step(store.market, mine, at) == await _step(model.market, theirs, at), at
    bare = [[replace(row, version=0) for row in await one.market.newer(0, 99)] for one in (store, model)]
    assert bare[0] == bare[1]
    await model.aclose()

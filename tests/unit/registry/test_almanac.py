"""The Almanac: who comes in, what replaces what, where agents are."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from convene.errors import BadRequest, Busy, Conflict, Forbidden, StoreFault
from convene.registry.almanac import BATCH_MAX, COUNT_S, KNOWN, MANIFEST_BYTES_MAX, manifest_digest
from convene.registry.base_desks import NOBODY, Asker
from convene.registry.documents import CHAT_PROTOCOL
from convene.store.base_market import Endpoint, Listing, Terms
from market_desks import ANNS, KEEP_US, OPEN, Desks
from signed_agents import SignedAgent

ANN, BOB, EVE = SignedAgent("ann"), SignedAgent("bob"), SignedAgent("eve")
replace = msgspec.structs.replace


@pytest.fixture
def desks() -> Desks:
    return Desks()


@pytest.mark.req("REG-01", "REG-04")
async def test_a_registration_is_kept_for_its_time(desks: Desks) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    row = await desks.row(ANN.address)
    assert (row.stamp, row.registered_us, row.expires_us) == (int(desks.now), desks.now_us, desks.now_us + KEEP_US)
    assert await desks.almanac.resolve(ANN.address) == row
    desks.clock.move(48 * 3600)
    assert await desks.almanac.resolve(ANN.address) is None, "it has expired"
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    assert await desks.almanac.resolve(ANN.address) == await desks.row(ANN.address)


@pytest.mark.req("REG-12")
async def test_what_is_older_than_what_stands_is_refused(desks: Desks) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    for age in (1, 3600):
        with pytest.raises(Conflict) as refused:
            await desks.almanac.register([ANN.registration(desks.now - age)], OPEN)
        assert refused.value.code == "stale_registration"
    with pytest.raises(Conflict):
        await desks.almanac.register([ANN.registration(desks.now, protocols=[])], OPEN)


async def test_a_bureau_that_posts_what_it_signed_at_its_start_stays_registered(desks: Desks) -> None:
    """A Bureau of uagents 0.26.1 signs once and posts the same bytes every hour, for days."""
    body = ANN.registration(desks.now)
    for _ in range(24 * 5):
        await desks.almanac.register([body], OPEN)
        desks.clock.move(3600)
    assert await desks.almanac.resolve(ANN.address) is not None


async def test_an_old_signature_brings_no_removed_agent_back(desks: Desks) -> None:
    body = ANN.registration(desks.now)
    await desks.almanac.register([body], OPEN)
    await desks.market.remove(ANN.address, desks.now_us)
    with pytest.raises(Conflict):
        await desks.almanac.register([body], OPEN)
    assert await desks.almanac.resolve(ANN.address) is None


async def test_one_forged_entry_keeps_the_whole_batch_out(desks: Desks) -> None:
    forged = BOB.registration(desks.now) | {"protocols": []}
    with pytest.raises(BadRequest):
        await desks.almanac.register([ANN.registration(desks.now), forged], OPEN)
    assert await desks.market.count() == 0
    with pytest.raises(BadRequest):
        await desks.almanac.register([ANN.registration(desks.now)] * (BATCH_MAX + 1), OPEN)


async def test_old_entries_of_a_batch_are_passed_over(desks: Desks) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    await desks.almanac.register([ANN.registration(desks.now - 5), BOB.registration(desks.now)], OPEN)
    assert (await desks.row(ANN.address)).stamp == int(desks.now)
    assert await desks.almanac.resolve(BOB.address) is not None


@pytest.mark.parametrize("asker", [OPEN, ANNS, Asker(owner="x", trusted=True)])
async def test_who_is_trusted_or_has_a_key_registers_anybody(desks: Desks, asker: Asker) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], asker)
    assert await desks.almanac.resolve(ANN.address) is not None


async def test_a_stranger_registers_those_on_the_list_and_those_who_are_known() -> None:
    desks = Desks(allow=frozenset({BOB.address}))
    await desks.almanac.register([BOB.registration(desks.now)], NOBODY)
    with pytest.raises(Forbidden) as refused:
        await desks.almanac.register([ANN.registration(desks.now)], NOBODY)
    assert refused.value.code == "registration_closed"
    with pytest.raises(Forbidden):
        await desks.almanac.register([BOB.registration(desks.now), ANN.registration(desks.now)], NOBODY)
    await desks.almanac.register([ANN.registration(desks.now)], ANNS)
    desks.clock.move(5)
    await desks.almanac.register([ANN.registration(desks.now)], NOBODY)
    assert (await desks.row(ANN.address)).stamp == int(desks.now)


async def test_a_full_registry_takes_no_new_agents() -> None:
    desks = Desks(agents_max=2)
    for agent in (ANN, BOB):
        await desks.almanac.register([agent.registration(desks.now)], OPEN)
    with pytest.raises(Busy):
        await desks.almanac.register([EVE.registration(desks.now)], OPEN)
    desks.clock.move(1)
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    await desks.market.remove(BOB.address, desks.now_us)
    desks.clock.move(COUNT_S + 1)
    await desks.almanac.register([EVE.registration(desks.now)], OPEN)


async def test_a_store_that_is_out_is_said(desks: Desks) -> None:
    desks.market.close()
    with pytest.raises(StoreFault):
        await desks.almanac.register([ANN.registration(desks.now)], OPEN)


@pytest.mark.req("REG-06")
async def test_a_state_of_an_unknown_agent_is_taken_and_kept_nowhere(desks: Desks) -> None:
    await desks.almanac.set_status(ANN.address, ANN.status(desks.now, active=True))
    assert await desks.market.count() == 0


async def test_a_state_is_the_agents_own_and_in_order(desks: Desks) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    stopped = ANN.status(desks.now + 5, active=False)
    await desks.almanac.set_status(ANN.address, stopped)
    assert not (await desks.row(ANN.address)).active
    await desks.almanac.set_status(ANN.address, ANN.status(desks.now + 4, active=True))
    assert not (await desks.row(ANN.address)).active
    desks.clock.move(10)
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    assert (await desks.row(ANN.address)).active
    await desks.almanac.set_status(ANN.address, stopped)
    assert (await desks.row(ANN.address)).active, "a state from before the registration is old"
    for address, body in (
        (BOB.address, ANN.status(desks.now, active=False)),
        (ANN.address, BOB.status(desks.now, active=False)),
        (ANN.address, ANN.status(desks.now, active=False) | {"is_active": True}),
        (ANN.address, ANN.status(desks.now, active=False) | {"timestamp": int(desks.now) + 1}),
    ):
        with pytest.raises(BadRequest):
            await desks.almanac.set_status(address, body)
    assert (await desks.row(ANN.address)).active


@pytest.mark.req("RES-05")
async def test_we_resolve_ourselves_once_we_are_somebody(desks: Desks) -> None:
    assert await desks.almanac.resolve(desks.me.address) == desks.own()
    assert await desks.almanac.resolve(f"agent://{desks.me.address}") == desks.own()
    desks.known = False
    assert await desks.almanac.resolve(desks.me.address) is None


@pytest.mark.req("RES-06")
async def test_an_agent_resolves_by_address_and_by_handle(desks: Desks) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    row = await desks.row(ANN.address)
    await desks.market.list_agent(replace(row, listing=Listing(handle="ann")), desks.now_us)
    for name in (ANN.address, f"test-agent://{ANN.address}", f"agent://x/{ANN.address}", "ann", "@ann", "agent://ann"):
        found = await desks.almanac.resolve(name)
        assert found is not None, name
        assert found.id == ANN.address
    assert await desks.almanac.resolve("nobody") is None
    for wrong in ("fetch://ann", "two words", "", "-x", "x" * 41, "a/b", "ä"):
        with pytest.raises(BadRequest):
            await desks.almanac.resolve(wrong)


async def test_an_agent_that_is_switched_off_is_not_there(desks: Desks) -> None:
    await desks.almanac.register([ANN.registration(desks.now)], OPEN)
    await desks.market.set_terms(ANN.address, Terms(enabled=False), desks.now_us)
    assert await desks.almanac.resolve(ANN.address) is None
    assert await desks.almanac.speakers(CHAT_PROTOCOL, 9) == []


@pytest.mark.req("REG-09")
async def test_known_protocols_are_named_once(desks: Desks) -> None:
    await desks.almanac.prepare()
    await desks.almanac.prepare()
    named = {one.digest: (one.name, one.version) for one in await desks.almanac.manifests()}
    assert named == {digest: (name, version) for digest, name, version in KNOWN}


def test_the_digests_of_known_protocols_are_those_of_the_library() -> None:
    from uagents_core.contrib.protocols.chat import chat_protocol_spec  # noqa: PLC0415 -- only this test asks it
    from uagents_core.contrib.protocols.payment import payment_protocol_spec  # noqa: PLC0415 -- the same
    from uagents_core.contrib.protocols.subscriptions import subscription_protocol_spec  # noqa: PLC0415 -- the same

    specs = (chat_protocol_spec, payment_protocol_spec, subscription_protocol_spec)
    for spec in specs:
        for role in (None, *(spec.roles or ())):
            made = spec.manifest(role)
            if role is None or spec is payment_protocol_spec:
                known = {digest: (name, version) for digest, name, version in KNOWN}
                found = made["metadata"]
                if found["digest"] in known:
                    assert known[found["digest"]] == (found["name"], found["version"])
            assert manifest_digest(made) == made["metadata"]["digest"]
    assert chat_protocol_spec.digest == CHAT_PROTOCOL


async def test_a_manifest_that_is_too_large_is_refused(desks: Desks) -> None:
    body: dict[str, Any] = {"version": "1.0", "metadata": {}, "models": [], "interactions": []}
    await desks.almanac.publish(body)
    body["models"] = [{"digest": "model:1", "schema": "x" * MANIFEST_BYTES_MAX}]
    with pytest.raises(BadRequest):
        await desks.almanac.publish(body)


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_posted_in_whatever_order_the_newest_word_stands(seed: int) -> None:
    """Replays of everything that was ever signed change nothing that is newer."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable, not secret
    desks = Desks()
    signed: list[tuple[int, str, dict[str, Any]]] = []
    best: dict[str, int] = {}
    state: dict[str, tuple[int, bool]] = {}
    for _ in range(120):
        desks.clock.move(chance.choice((0, 1, 5)))
        agent = chance.choice((ANN, BOB))
        if signed and chance.random() < 0.5:
            stamp, kind, body = chance.choice(signed)
        elif chance.random() < 0.6:
            urls = (f"http://127.0.0.1:{chance.randrange(1, 9)}/submit",)
            stamp, kind, body = int(desks.now), "registration", agent.registration(desks.now, urls)
            signed.append((stamp, kind, body))
        else:
            active = chance.random() < 0.5
            stamp, kind, body = int(desks.now), "status", agent.status(desks.now, active=active)
            signed.append((stamp, kind, body))
        address = str(body["agent_identifier"]).removeprefix("agent://")
        if kind == "registration":
            new = stamp > best.get(address, -1)
            try:
                await desks.almanac.register([body], OPEN)
            except Conflict:
                assert not new
            if new:
                best[address] = stamp
                if state.get(address, (0, True))[0] <= stamp:
                    state[address] = (state.get(address, (0, True))[0], True)
        else:
            await desks.almanac.set_status(address, body)
            if address in best and stamp >= max(best[address], state.get(address, (0, True))[0]):
                state[address] = (stamp, bool(body["is_active"]))
        for known, newest in best.items():
            row = await desks.row(known)
            assert row.stamp == newest
            assert row.active == state.get(known, (0, True))[1]
            assert all(isinstance(one, Endpoint) for one in row.endpoints)

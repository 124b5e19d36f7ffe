"""Whose an agent is, and who may write how it presents itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import BadRequest, Busy, Conflict, ConveneError, Forbidden, NotFound, Unauthorized
from convene.registry.base_desks import NOBODY, Asker
from convene.registry.listing import NEVER_US
from convene.registry.listings import CHALLENGE_S, OWNED_MAX, TOKEN_S, TRIES
from convene.store.base_market import AgentRow, Listing
from market_desks import ANNS, BOBS, OPEN, PROXY, Desks
from signed_agents import CHAT, SignedAgent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANN, BOB = SignedAgent("ann"), SignedAgent("bob")
SELF = Asker(agent=ANN.address, trusted=True)
replace = msgspec.structs.replace


@pytest.fixture
def desks() -> Desks:
    return Desks()


async def own(desks: Desks, agent: SignedAgent = ANN, asker: Asker = ANNS) -> None:
    text = await desks.listings.challenge(agent.address, asker.owner)
    await desks.listings.prove(agent.address, asker.owner, text, agent.answer(text))


@pytest.mark.req("LIST-05")
async def test_a_challenge_is_new_each_time_and_is_used_once(desks: Desks) -> None:
    first = await desks.listings.challenge(ANN.address, "user-ann")
    second = await desks.listings.challenge(ANN.address, "user-ann")
    assert first != second
    with pytest.raises(BadRequest):
        await desks.listings.prove(ANN.address, "user-ann", first, ANN.answer(first))
    await desks.listings.prove(ANN.address, "user-ann", second, ANN.answer(second))
    with pytest.raises(BadRequest):
        await desks.listings.prove(ANN.address, "user-ann", second, ANN.answer(second))
    assert (await desks.row(ANN.address)).owner == "user-ann"


@pytest.mark.req("LIST-05")
async def test_a_challenge_is_for_one_owner_one_agent_and_five_minutes(desks: Desks) -> None:
    text = await desks.listings.challenge(ANN.address, "user-ann")
    for address, owner, answer in (
        (ANN.address, "user-bob", ANN.answer(text)),
        (BOB.address, "user-ann", BOB.answer(text)),
        (ANN.address, "user-ann", BOB.answer(text)),
        (ANN.address, "user-ann", ""),
        (ANN.address, "user-ann", ANN.me.sign_digest(hashlib.sha256(b"other").digest())),
    ):
        with pytest.raises(BadRequest) as refused:
            await desks.listings.prove(address, owner, text, answer)
        assert refused.value.code == "invalid_challenge"
    desks.clock.move(CHALLENGE_S)
    with pytest.raises(BadRequest):
        await desks.listings.prove(ANN.address, "user-ann", text, ANN.answer(text))
    assert await desks.market.get(ANN.address) is None
    for wrong in ("", "agent1q", "user1" + "q" * 60, ANN.address + "q"):
        with pytest.raises(BadRequest):
            await desks.listings.challenge(wrong, "user-ann")


async def test_an_agent_that_has_an_owner_gets_no_other(desks: Desks) -> None:
    await own(desks)
    with pytest.raises(Conflict) as refused:
        await own(desks, asker=BOBS)
    assert refused.value.code == "agent_owned"
    await own(desks)
    await desks.listings.delete(ANN.address, ANNS)
    await own(desks, asker=BOBS)
    assert (await desks.row(ANN.address)).owner == "user-bob"


@pytest.mark.req("LIST-07")
async def test_only_the_proven_owner_and_the_agent_write_a_listing(desks: Desks) -> None:
    body = {"address": ANN.address, "name": "Ann"}
    stranger = Asker(agent=BOB.address, trusted=True)
    for asker in (NOBODY, OPEN, ANNS, BOBS, stranger):
        with pytest.raises(Forbidden) as refused:
            await desks.listings.save(body, asker)
        assert refused.value.code == "agent_not_proven"
    await own(desks)
    assert (await desks.listings.save(body, ANNS)).listing.name == "Ann"
    for asker in (NOBODY, OPEN, BOBS, stranger):
        with pytest.raises(Forbidden):
            await desks.listings.save(body | {"name": "Evil"}, asker)
    row = await desks.listings.save({"name": "Me"}, SELF)
    assert (row.listing.name, row.owner) == ("Me", "user-ann")


async def test_a_key_without_an_owner_owns_nothing(desks: Desks) -> None:
    """An agent's own listing has an empty owner, which must equal nobody's."""
    await desks.listings.save({"name": "Me"}, SELF)
    for asker in (NOBODY, OPEN):
        assert await desks.listings.show(ANN.address, asker) is None
        with pytest.raises(Forbidden):
            await desks.listings.save({"address": ANN.address, "name": "Evil"}, asker)
        with pytest.raises(NotFound):
            await desks.listings.delete(ANN.address, asker)


@pytest.mark.req("LIST-12")
async def test_a_listing_alone_makes_an_agent_resolve_and_stay(desks: Desks) -> None:
    """`register_chat_agent` never registers with the Almanac."""
    await own(desks)
    body = {"address": ANN.address, "url": "http://web/hook", "endpoints": [{"url": PROXY, "weight": 1}]}
    row = await desks.listings.save(body | {"protocols": [CHAT]}, ANNS)
    assert (row.expires_us, row.protocols, row.stamp) == (NEVER_US, (CHAT,), 0)
    desks.clock.move(400 * 86_400)
    assert await desks.almanac.resolve(ANN.address) == row


async def test_what_an_agent_registers_after_its_listing_counts(desks: Desks) -> None:
    await own(desks)
    await desks.listings.save({"address": ANN.address, "endpoints": [{"url": PROXY, "weight": 1}]}, ANNS)
    await desks.almanac.register([ANN.registration(desks.now)], NOBODY)
    row = await desks.row(ANN.address)
    assert row.endpoints[0].url != PROXY
    assert (row.owner, row.listed) == ("user-ann", True)


class Busybody:
    """Writes a row between somebody's reading and writing of it, some times."""

    def __init__(self, desks: Desks, times: int) -> None:
        self._desks = desks
        self._get = desks.market.get
        self._times = times

    def __call__(self, agent_id: str) -> Awaitable[AgentRow | None]:
        return self._meddle(agent_id)

    async def _meddle(self, agent_id: str) -> AgentRow | None:
        row = await self._get(agent_id)
        if self._times and row is not None:
            self._times -= 1
            await self._desks.market.list_agent(
                replace(row, listing=replace(row.listing, agent_type=f"type {self._times}")), 1
            )
        return row


def meddled(desks: Desks, times: int) -> Callable[[str], Awaitable[AgentRow | None]]:
    return Busybody(desks, times)


async def test_a_listing_is_merged_again_if_somebody_else_was_faster(
    desks: Desks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await own(desks)
    monkeypatch.setattr(desks.market, "get", meddled(desks, 2))
    row = await desks.listings.save({"address": ANN.address, "name": "Ann"}, ANNS)
    assert (row.listing.name, row.listing.agent_type) == ("Ann", "type 0")
    monkeypatch.setattr(desks.market, "get", meddled(desks, TRIES))
    with pytest.raises(Busy):
        await desks.listings.save({"address": ANN.address, "name": "Other"}, ANNS)


async def test_a_handle_that_is_taken_is_said_and_not_tried_again(desks: Desks) -> None:
    for agent in (ANN, BOB):
        await own(desks, agent)
    await desks.listings.save({"address": ANN.address, "handle": "best"}, ANNS)
    with pytest.raises(Conflict) as refused:
        await desks.listings.save({"address": BOB.address, "handle": "best"}, ANNS)
    assert refused.value.code == "handle_taken"


async def test_an_owner_lists_so_many_and_no_more(desks: Desks) -> None:
    for number in range(OWNED_MAX):
        row = AgentRow(id=f"agent1{number}", owner="user-ann", listed=True)
        await desks.market.list_agent(row, number)
    with pytest.raises(Busy):
        await own(desks)
    await own(desks, asker=BOBS)


@pytest.mark.req("LIST-09")
async def test_an_agent_sees_itself_and_in_an_open_registry_even_unknown(desks: Desks) -> None:
    shown = await desks.listings.show(ANN.address, SELF)
    assert shown is not None
    assert (shown.id, shown.version, shown.listing) == (ANN.address, 0, Listing())
    assert await desks.market.count() == 0, "looking makes no agent"
    assert await desks.listings.show(ANN.address, replace(SELF, trusted=False)) is None
    await desks.listings.save({"name": "Me"}, SELF)
    assert await desks.listings.show(ANN.address, replace(SELF, trusted=False)) == await desks.row(ANN.address)
    for asker in (ANNS, OPEN, NOBODY, Asker(agent=BOB.address, trusted=True)):
        assert await desks.listings.show(ANN.address, asker) is None


async def test_an_owner_sees_an_agent_from_its_proof_on(desks: Desks) -> None:
    assert await desks.listings.show(ANN.address, ANNS) is None
    await own(desks)
    assert await desks.listings.show(ANN.address, ANNS) == await desks.row(ANN.address)
    assert await desks.listings.show(ANN.address, BOBS) is None
    assert await desks.listings.page(ANNS, 9, 0) == [], "proven is not listed"
    await desks.listings.save({"address": ANN.address}, ANNS)
    assert await desks.listings.page(ANNS, 9, 0) == [await desks.row(ANN.address)]
    assert await desks.listings.page(BOBS, 9, 0) == []


@pytest.mark.req("LIST-13")
async def test_a_listing_goes_and_what_the_agent_registers_stays(desks: Desks) -> None:
    await own(desks)
    await desks.listings.save({"address": ANN.address, "name": "Ann", "handle": "ann"}, ANNS)
    await desks.almanac.register([ANN.registration(desks.now)], NOBODY)
    with pytest.raises(NotFound):
        await desks.listings.delete(ANN.address, BOBS)
    await desks.listings.delete(ANN.address, ANNS)
    row = await desks.row(ANN.address)
    assert (row.listed, row.owner, row.listing, row.stamp) == (False, "", Listing(), int(desks.now))
    assert await desks.market.by_handle("ann") is None
    with pytest.raises(NotFound):
        await desks.listings.delete(ANN.address, ANNS)
    await desks.listings.delete(ANN.address, SELF)


async def test_an_agent_that_was_only_listed_goes_whole(desks: Desks) -> None:
    await own(desks)
    await desks.listings.save({"address": ANN.address, "endpoints": [{"url": PROXY, "weight": 1}]}, ANNS)
    await desks.listings.delete(ANN.address, ANNS)
    assert await desks.market.get(ANN.address) is None
    with pytest.raises(NotFound):
        await desks.listings.delete(ANN.address, SELF)


@pytest.mark.req("LIST-17")
async def test_a_token_proves_an_agent_for_a_day_in_every_process(desks: Desks) -> None:
    text = await desks.listings.challenge(ANN.address, "")
    token, ends = await desks.listings.login(ANN.address, text, ANN.answer(text))
    assert ends == int(desks.now) + TOKEN_S
    another = Desks()
    assert desks.listings.logged_in(token) == another.listings.logged_in(token) == ANN.address
    forged = [
        "",
        "a",
        "..",
        token[:-1],
        token.replace(ANN.address, BOB.address),
        token.replace(str(ends), str(ends + 1)),
        token.replace(str(ends), "9" * 40),
        f"{ANN.address}.{ends}.{ANN.me.sign(f'convene agent token {ANN.address} {ends}'.encode())}",
    ]
    for wrong in forged:
        with pytest.raises(Unauthorized):
            desks.listings.logged_in(wrong)
    desks.clock.move(TOKEN_S)
    with pytest.raises(Unauthorized):
        desks.listings.logged_in(token)


async def test_a_challenge_of_an_owner_gives_no_token(desks: Desks) -> None:
    text = await desks.listings.challenge(ANN.address, "user-ann")
    with pytest.raises(BadRequest):
        await desks.listings.login(ANN.address, text, ANN.answer(text))


async def test_without_an_identity_of_our_own_there_are_no_tokens(desks: Desks) -> None:
    desks.known = False
    text = await desks.listings.challenge(ANN.address, "")
    with pytest.raises(ConveneError, match="identity"):
        await desks.listings.login(ANN.address, text, ANN.answer(text))

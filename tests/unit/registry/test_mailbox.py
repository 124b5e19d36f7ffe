"""Mailboxes: who has one, what may be left in it, what its agent gets."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from convene.errors import BadRequest, Busy, NotFound, TooLarge
from convene.registry.mailbox import LETTER_BYTES_MAX, PAGE_BYTES_MAX
from convene.registry.posted import check_sender, read_posted
from convene.store.base_market import Letter, Terms
from market_desks import MAILBOX, OPEN, PROXY, Desks
from signed_agents import SESSION, SignedAgent

ANN, BOB = SignedAgent("ann"), SignedAgent("bob")


@pytest.fixture
async def desks() -> Desks:
    """Return desks where Ann has a mailbox."""
    desks = Desks()
    await desks.almanac.register([ANN.registration(desks.now, (MAILBOX,))], OPEN)
    return desks


def letter(text: str = "hello", **fields: object) -> bytes:
    return json.dumps(BOB.envelope(ANN.address, text) | fields).encode()


@pytest.mark.req("MBOX-01", "MBOX-02", "MBOX-03")
async def test_envelopes_wait_as_they_were_posted_in_their_order(desks: Desks) -> None:
    for text in ("one", "two"):
        await desks.mailboxes.submit(letter(text))
        desks.clock.move(0.001)
    found = await desks.mailboxes.waiting(ANN.address)
    assert found is not None
    assert [one.envelope for one in found] == [letter("one"), letter("two")]
    assert {UUID(one.uuid).version for one in found} == {4}
    assert await desks.mailboxes.take(ANN.address, found[0].uuid)
    assert not await desks.mailboxes.take(ANN.address, found[0].uuid)
    assert not await desks.mailboxes.take(BOB.address, found[1].uuid)
    assert [one.uuid for one in await desks.mailboxes.waiting(ANN.address) or ()] == [found[1].uuid]


async def test_an_envelope_waits_for_its_time(desks: Desks) -> None:
    await desks.mailboxes.submit(letter())
    desks.clock.move(3_599)
    assert await desks.mailboxes.waiting(ANN.address)
    desks.clock.move(1)
    assert await desks.mailboxes.waiting(ANN.address) == []


@pytest.mark.req("MBOX-02")
async def test_who_has_no_mailbox_has_none(desks: Desks) -> None:
    assert await desks.mailboxes.waiting(BOB.address) is None
    assert not await desks.mailboxes.is_ready(BOB.address)
    assert await desks.mailboxes.is_ready(ANN.address)
    body = json.dumps(ANN.envelope(BOB.address)).encode()
    with pytest.raises(NotFound):
        await desks.mailboxes.submit(body)
    await desks.almanac.register([BOB.registration(desks.now, (PROXY,))], OPEN)
    with pytest.raises(NotFound):
        await desks.mailboxes.submit(body)
    await desks.market.set_terms(ANN.address, Terms(enabled=False), desks.now_us)
    assert not await desks.mailboxes.is_ready(ANN.address)
    with pytest.raises(NotFound):
        await desks.mailboxes.submit(letter())


@pytest.mark.req("LIST-17")
async def test_an_old_librarys_endpoint_is_a_mailbox_too(desks: Desks) -> None:
    await desks.almanac.register([BOB.registration(desks.now, ("http://127.0.0.1:8000/v1/submit",))], OPEN)
    assert await desks.mailboxes.is_ready(BOB.address)


async def test_a_full_mailbox_takes_no_more_until_its_agent_has_been_there(desks: Desks) -> None:
    for _ in range(3):
        await desks.mailboxes.submit(letter())
    with pytest.raises(Busy):
        await desks.mailboxes.submit(letter())
    [first, *_] = await desks.mailboxes.waiting(ANN.address) or ()
    await desks.mailboxes.take(ANN.address, first.uuid)
    await desks.mailboxes.submit(letter())


async def test_what_is_too_large_is_refused_before_it_is_read(desks: Desks) -> None:
    with pytest.raises(TooLarge):
        await desks.mailboxes.submit(b"x" * (LETTER_BYTES_MAX + 1))


async def test_one_poll_gets_so_many_bytes_and_at_least_one_envelope(desks: Desks) -> None:
    for number in range(3):
        big = Letter(
            uuid=str(number),
            address=ANN.address,
            envelope=b"x" * (PAGE_BYTES_MAX // 2),
            received_us=number,
            expires_us=2**60,
        )
        await desks.market.drop(big, 9)
    assert len(await desks.mailboxes.waiting(ANN.address) or ()) == 2
    await desks.market.take(ANN.address, "0")
    await desks.market.take(ANN.address, "1")
    assert len(await desks.mailboxes.waiting(ANN.address) or ()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 2000,
        letter(session="x"),
        letter(session="00000000-0000-1000-8000-000000000000"),
        letter(expires=-1),
        letter(nonce=2**64),
        letter(expires="soon"),
        letter(target="agent1q"),
        letter(target=None),
        letter(schema_digest="m" * 201),
        letter(sender="s" * 201),
    ],
)
async def test_what_is_no_envelope_is_refused_in_the_agents_words(desks: Desks, body: bytes) -> None:
    with pytest.raises(BadRequest, match="contents do not match envelope schema"):
        await desks.mailboxes.submit(body)


@pytest.mark.parametrize(
    "change",
    [
        {"payload": None},
        {"payload": "aGk="},
        {"schema_digest": "model:" + "1" * 64},
        {"session": "11111111-1111-4111-8111-111111111111"},
        {"expires": 5},
        {"nonce": 5},
        {"signature": None},
        {"signature": "sig1qqqq"},
        {"sender": ANN.address},
        {"sender": "user1qqqqqqqq"},
    ],
)
def test_what_its_sender_has_not_signed_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadRequest) as refused:
        check_sender(read_posted(json.dumps(BOB.envelope(ANN.address) | change).encode()))
    assert refused.value.code == "invalid_signature"


def test_sessions_are_compared_as_they_are_signed() -> None:
    posted = read_posted(letter(session=SESSION.upper()))
    assert posted.session == SESSION
    check_sender(posted)


def test_what_is_not_signed_may_be_anything() -> None:
    check_sender(read_posted(letter(version=9, protocol_digest="anything", extra=[1])))

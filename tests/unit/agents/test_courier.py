"""The way to an agent: which endpoints are tried, and what is made of each way that it can end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent_doubles import FakeFetched, FakeSigner
from convene.agents import chat_codec as codec
from convene.agents.courier import ENDPOINTS_MAX, Away, Courier
from convene.agents.envelope import read_envelope
from convene.egress import EgressBusy, EgressFailed, EgressRefused
from convene.errors import NotFound, StoreFault, TimedOut, Unavailable, UpstreamFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.egress import Request

DRAFT = codec.write_acknowledgement("44444444-4444-4444-8444-444444444444", at=1.0)
SESSION = "55555555-5555-4555-8555-555555555555"
DOWN = EgressFailed("no", "connect")


class Wire:
    """Answers by URL."""

    def __init__(self, **answers: Any) -> None:  # noqa: ANN401 -- an answer or a fault each
        self.answers = answers
        self.asked: list[Request] = []

    async def fetch(self, request: Request) -> FakeFetched:
        self.asked.append(request)
        answer = self.answers[request.url]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, FakeFetched)
        return answer


async def send(wire: Wire, *endpoints: str, known: Sequence[str] | Exception = ()) -> tuple[str, str]:
    async def resolve(_: str) -> Sequence[str]:
        if isinstance(known, Exception):
            raise known
        return known

    courier = Courier(FakeSigner("us"), wire, resolve)  # type: ignore[arg-type]  # a double of what it uses
    delivery = await courier.send(DRAFT, "agent1qthem", SESSION, endpoints)
    return delivery.outcome, delivery.words


@pytest.mark.req("HOSTED-04")
@pytest.mark.parametrize(
    ("here", "elsewhere", "said", "sender", "posted"),
    [
        (("a",), ("b",), "", "agent1qus", "a"),
        ((), ("b",), "", "agent1qaway", "b"),
        ((), (), "", "agent1qaway", "card"),
        ((), ("b",), "agent1qus", "agent1qus", "b"),
        (("a",), (), "agent1qaway", "agent1qaway", "a"),
        ((), Unavailable("down"), "", "agent1qaway", "card"),
    ],
)
async def test_an_agent_is_written_to_by_who_its_own_registry_knows(
    here: Sequence[str], elsewhere: Sequence[str] | Exception, said: str, sender: str, posted: str
) -> None:
    async def resolve(_: str) -> Sequence[str]:
        return here

    async def resolve_away(_: str) -> Sequence[str]:
        if isinstance(elsewhere, Exception):
            raise elsewhere
        return elsewhere

    wire = Wire(**{posted: FakeFetched()})
    away = Away(FakeSigner("away"), resolve_away)
    courier = Courier(FakeSigner("us"), wire, resolve, away=away)  # type: ignore[arg-type]  # a double of what it uses
    delivery = await courier.send(DRAFT, "agent1qthem", SESSION, ("card",), sender=said)
    assert delivery.outcome == "delivered"
    [request] = wire.asked
    envelope = read_envelope(request.body)
    assert (envelope.sender, request.url) == (sender, posted)
    assert envelope.signature == FakeSigner(sender.removeprefix("agent1q")).sign_digest(envelope.digest())
    assert [courier.is_us(one) for one in ("agent1qus", "agent1qaway", "agent1qthem")] == [True, True, False]


async def test_the_envelope_is_ours_to_them_and_signed() -> None:
    wire = Wire(a=FakeFetched())
    assert await send(wire, "a") == ("delivered", "")
    envelope = read_envelope(wire.asked[0].body)
    assert (envelope.sender, envelope.target, envelope.session) == ("agent1qus", "agent1qthem", SESSION)
    assert envelope.signature == FakeSigner("us").sign_digest(envelope.digest())
    assert envelope.expires is None


async def hand_over(*endpoints: str, told: bool | Exception | None) -> tuple[str, str, int]:
    wire = Wire(a=FakeFetched(), b=FakeFetched())

    async def resolve(_: str) -> Sequence[str]:
        return endpoints

    async def near(endpoint: str, body: bytes) -> bool | None:
        assert read_envelope(body).target == "agent1qthem"
        if endpoint != "a":
            return None
        if isinstance(told, Exception):
            raise told
        return told

    courier = Courier(FakeSigner("us"), wire, resolve, near)  # type: ignore[arg-type]  # a double of what it uses
    delivery = await courier.send(DRAFT, "agent1qthem", SESSION)
    return delivery.outcome, delivery.words, len(wire.asked)


async def test_what_is_for_an_endpoint_of_our_own_goes_over_no_network() -> None:
    assert await hand_over("a", told=True) == ("delivered", "", 0)
    assert await hand_over("a", told=None) == ("delivered", "", 1)
    assert await hand_over("b", told=True) == ("delivered", "", 1)
    assert await hand_over("a", "b", told=False) == ("refused", "The agent refused the message.", 0)
    refused = await hand_over("a", told=NotFound("No mailbox."))
    assert refused == ("refused", "The agent refused the message. No mailbox.", 0)
    assert (await hand_over("a", "b", told=Unavailable("Away.")))[::2] == ("delivered", 1), "nothing was sent"
    assert (await hand_over("a", told=StoreFault("Out.")))[0] == "unreachable"
    assert (await hand_over("a", "b", told=TimedOut("Slow.")))[::2] == ("unknown", 0), "not sent again: nobody knows"


async def test_what_the_registry_says_counts_more_than_what_a_listing_said() -> None:
    wire = Wire(a=FakeFetched(), b=FakeFetched())
    await send(wire, "a", known=["b"])
    assert [request.url for request in wire.asked] == ["b"]


async def test_a_registry_that_fails_is_done_without() -> None:
    assert (await send(Wire(a=FakeFetched()), "a", known=UpstreamFault("down")))[0] == "delivered"
    assert (await send(Wire(), known=UpstreamFault("down")))[0] == "unreachable"


@pytest.mark.req("CALL-06")
async def test_the_next_endpoint_is_tried_where_nothing_was_sent_and_only_there() -> None:
    wire = Wire(a=DOWN, b=EgressRefused("no"), c=EgressBusy("full"), d=FakeFetched())
    assert (await send(wire, "a", "b", "c", "d"))[0] == "delivered"
    wire = Wire(a=EgressFailed("late", "timeout"), b=FakeFetched())
    assert (await send(wire, "a", "b"))[0] == "unknown"
    assert len(wire.asked) == 1
    many = {f"e{number}": DOWN for number in range(9)}
    wire = Wire(**many)
    assert (await send(wire, *many))[0] == "unreachable"
    assert len(wire.asked) == ENDPOINTS_MAX


@pytest.mark.req("CALL-05")
@pytest.mark.parametrize(
    ("status", "body", "outcome", "words"),
    [
        (400, b'{"error": "unable to route envelope"}', "refused", "unable to route envelope"),
        (404, b'{"detail": "not here"}', "refused", "not here"),
        (400, b"<html>", "refused", "(400)"),
        (502, b"", "unknown", "(502)"),
        (302, b"", "unknown", "(302)"),
    ],
)
async def test_a_refusal_is_told_in_the_agents_words(status: int, body: bytes, outcome: str, words: str) -> None:
    found = await send(Wire(a=FakeFetched(status, body)), "a")
    assert found[0] == outcome
    assert words in found[1]

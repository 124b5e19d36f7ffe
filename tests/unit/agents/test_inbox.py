"""The inbox against everything that strangers post to it: nothing foreign is accepted, nothing harms (goal E7)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from agent_doubles import FakeFetched, FakeSigner, House, PlayedAgent, kinds, text_of
from convene.agents import chat_codec as codec
from convene.agents import inbox as inboxes
from convene.agents.base import Verdict
from convene.agents.envelope import Draft, Envelope, seal
from convene.agents.inbox import Inbox
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ID = "44444444-4444-4444-8444-444444444444"
SESSION = "55555555-5555-4555-8555-555555555555"


def scene(play: Callable[[House], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- whatever the scene returns
    async def whole(world: World) -> Any:  # noqa: ANN401
        house = House(world.clock)
        try:
            return await play(house)
        finally:
            await house.aclose()

    return run(whole, 1)


def chat(text: str = "injected", msg_id: str = ID) -> Draft:
    return codec.write_chat((codec.Text(text), codec.EndSession()), msg_id=msg_id, at=1.0)


async def slow_echo(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
    del sender, said
    await asyncio.sleep(10)
    await agent.say(session, "the true answer", codec.EndSession())


def session_of(agent: PlayedAgent) -> str:
    return next(envelope.session for envelope, said in agent.received if isinstance(said, codec.ChatMessage))


async def attacked(house: House, attack: Callable[[PlayedAgent, str], Awaitable[Verdict]]) -> tuple[str, Verdict]:
    """Ask, let somebody attack the session while the answer is waited for, and return answer and verdict."""
    agent = house.agent("honest", slow_echo)
    talk = asyncio.ensure_future(house.heard(agent, "hello"))
    await asyncio.sleep(1)
    verdict = await attack(agent, session_of(agent))
    return text_of(await talk), verdict


def test_an_envelope_that_somebody_else_has_signed_is_refused() -> None:
    async def play(house: House) -> Any:  # noqa: ANN401
        async def forge(agent: PlayedAgent, session: str) -> Verdict:
            body = seal(chat(), agent.me.address, house.me.address, session, FakeSigner("mallory").sign_digest)
            return await house.inbox.receive(body)

        return await attacked(house, forge)

    answer, verdict = scene(play)
    assert answer == "the true answer"
    assert verdict.status == 400
    assert "signature" in verdict.error


def test_an_envelope_without_a_signature_or_of_a_user_is_refused() -> None:
    async def play(house: House) -> Any:  # noqa: ANN401
        async def unsigned(agent: PlayedAgent, session: str) -> Verdict:
            body = seal(chat(), agent.me.address, house.me.address, session, lambda _: "")
            verdict = await house.inbox.receive(body)
            body = seal(chat(), "user1q", house.me.address, session, FakeSigner("mallory").sign_digest)
            assert (await house.inbox.receive(body)).status == 400
            return verdict

        return await attacked(house, unsigned)

    assert scene(play)[1].status == 400


def test_who_writes_into_a_session_of_anothers_is_not_heard() -> None:
    async def play(house: House) -> Any:  # noqa: ANN401
        async def foreign(agent: PlayedAgent, session: str) -> Verdict:
            del agent
            return await house.agent("mallory").say(session, "injected", codec.EndSession())

        return await attacked(house, foreign)

    answer, verdict = scene(play)
    assert answer == "the true answer"
    assert verdict == Verdict()


@pytest.mark.req("ENVL-06")
def test_a_message_of_an_earlier_turn_that_is_posted_again_is_not_heard_again() -> None:
    async def play(house: House) -> list[str]:
        agent = house.agent("echo")
        posted: list[bytes] = []
        receive = house.inbox.receive

        async def record(body: bytes) -> Verdict:
            posted.append(body)
            return await receive(body)

        house.inbox.receive = record  # type: ignore[method-assign]

        async def answer(one: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender
            await one.say(session, said.content[0], codec.EndSession())

        agent.play = answer
        first = await house.heard(agent, "one", call="c1")
        agent.play = slow_echo
        second = asyncio.ensure_future(house.heard(agent, "two", call="c2"))
        await asyncio.sleep(1)
        for body in tuple(posted):
            assert (await receive(body)).status == 200
        return [text_of(first), text_of(await second)]

    assert scene(play) == ["one", "the true answer"]


def test_the_same_envelope_twice_at_the_same_time_is_heard_once() -> None:
    async def play(house: House) -> str:
        async def twice(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            body = seal(chat("once"), agent.me.address, house.me.address, session, agent.me.sign_digest)
            await asyncio.gather(house.inbox.receive(body), house.inbox.receive(body))

        return text_of(await house.heard(house.agent("twice", twice), "hello"))

    assert scene(play) == "once"


def test_an_envelope_for_somebody_else_is_refused_in_the_words_of_agents() -> None:
    async def play(house: House) -> Verdict:
        agent = house.agent("lost")
        body = seal(chat(), agent.me.address, "agent1qelse", SESSION, agent.me.sign_digest)
        return await house.inbox.receive(body)

    assert scene(play) == Verdict(400, "unable to route envelope")


@pytest.mark.req("ACP-15")
def test_a_message_of_an_unknown_schema_is_reported_and_answered_with_200(caplog: pytest.LogCaptureFixture) -> None:
    async def play(house: House) -> Any:  # noqa: ANN401
        async def other(agent: PlayedAgent, session: str) -> Verdict:
            return await agent.send(session, Draft(schema_digest="model:other", protocol_digest="", body=b"{}"))

        return await attacked(house, other)

    with caplog.at_level("WARNING"):
        answer, verdict = scene(play)
    assert answer == "the true answer"
    assert verdict == Verdict()
    assert "model:other" in caplog.text


@pytest.mark.req("ENVL-07")
def test_an_envelope_that_is_too_large_is_refused_before_it_is_read() -> None:
    async def play(house: House) -> Verdict:
        return await house.inbox.receive(b" " * (inboxes.BODY_BYTES_MAX + 1))

    assert scene(play).status == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"\xff", b"[" * 5000, b'{"sender": 1}'],
    ids=["none", "empty", "list", "bytes", "deep", "type"],
)
def test_what_is_no_envelope_is_refused_in_the_words_of_agents(body: bytes) -> None:
    async def play(house: House) -> Verdict:
        return await house.inbox.receive(body)

    verdict = scene(play)
    assert verdict.status == 400
    assert "envelope schema" in verdict.error


def test_a_payload_that_is_not_base64_is_refused() -> None:
    async def play(house: House) -> Verdict:
        agent = house.agent("x")
        envelope = Envelope(
            sender=agent.me.address,
            target=house.me.address,
            session=SESSION,
            schema_digest=codec.CHAT_MESSAGE,
            payload="***",
        )
        signed = msgspec.structs.replace(envelope, signature=agent.me.sign_digest(envelope.digest()))
        return await house.inbox.receive(msgspec.json.encode(signed))

    assert scene(play).status == 400


def test_a_stranger_is_told_that_its_message_arrived_and_that_is_all() -> None:
    async def play(house: House) -> tuple[Verdict, list[str]]:
        agent = house.agent("stranger")
        verdict = await agent.say(SESSION, "let me in", msg_id=ID)
        await asyncio.sleep(1)
        return verdict, agent.acknowledged

    assert scene(play) == (Verdict(), [ID])


def test_strangers_are_handed_to_who_wants_them() -> None:
    async def play(house: House) -> list[str]:
        heard: list[str] = []

        async def take(envelope: Envelope, said: codec.ChatMessage) -> Verdict:
            heard.append(f"{envelope.sender} {said.content}")
            return Verdict()

        house.inbox = Inbox(house.courier, house.letters, house.clock, lambda *_: True, take)
        agent = house.agent("stranger")
        await agent.say(SESSION, "let me in")
        await agent.send(SESSION, codec.write_acknowledgement(ID, at=1.0))
        return heard

    assert scene(play) == ["agent1qstranger (Text(text='let me in'),)"]


@pytest.mark.req("CALL-03", "TRAP-04")
def test_the_inbox_answers_at_once_however_long_the_agent_takes_to_be_told() -> None:
    async def play(house: House) -> float:
        agent = house.agent("slow to read")
        fetch = house.post.fetch

        async def wait(request: Any) -> FakeFetched:  # noqa: ANN401
            await asyncio.sleep(12)
            return await fetch(request)

        house.post.fetch = wait  # type: ignore[method-assign]
        began = house.clock.monotonic()
        await agent.say(SESSION, "hello")
        took = house.clock.monotonic() - began
        await asyncio.sleep(13)
        assert len(agent.acknowledged) == 1
        return took

    assert scene(play) == pytest.approx(0.0, abs=0.005)


def test_acknowledgements_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "ACKNOWLEDGING_MAX", 2)

    async def play(house: House) -> int:
        agent = house.agent("flood")
        for _ in range(5):
            await agent.say(SESSION, "hello")
        await asyncio.sleep(1)
        return len(agent.acknowledged)

    assert scene(play) == 2


def test_what_cannot_be_kept_is_asked_for_again() -> None:
    async def play(house: House) -> Verdict:
        agent = house.agent("x")
        house.sessions.broken = True
        return await agent.say(SESSION, "hello")

    assert scene(play).status == 503


def test_going_down_lets_go_of_what_is_not_acknowledged() -> None:
    async def play(house: House) -> list[str]:
        agent = house.agent("slow")

        async def never(request: Any) -> FakeFetched:  # noqa: ANN401
            del request
            await asyncio.sleep(1000)
            return FakeFetched()

        house.post.fetch = never  # type: ignore[method-assign]
        await agent.say(SESSION, "hello")
        await house.inbox.aclose()
        return agent.acknowledged

    assert scene(play) == []


def test_an_acknowledgement_of_something_else_is_no_sign_of_life() -> None:
    async def play(house: House) -> list[str]:
        async def odd(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            await agent.send(session, codec.write_acknowledgement(ID, at=1.0))

        return kinds(await house.heard(house.agent("odd", odd, acknowledges=False), "hello"))

    assert scene(play) == ["error"]

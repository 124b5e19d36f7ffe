"""What holds for agents of every protocol: an agent that does not answer is left alone, a full table says so."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from agent_doubles import kinds
from convene.agents.base import AgentCard, Conversation, Heard
from convene.agents.breaker import Breaker
from convene.agents.faults import error
from convene.agents.guarded import GuardedTalker
from convene.agents.pace import Pace
from convene.agents.seats import Seats
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CARD = AgentCard(protocol="a2a", url="https://a.test", name="a")


class Scripted:
    """A talker that says what it is told."""

    protocol = "a2a"

    def __init__(self, *script: Heard, seconds: float = 0.0) -> None:
        self.script = script
        self.seconds = seconds
        self.asked = 0
        self.given_up = 0

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        del card, conversation, say
        self.asked += 1
        await asyncio.sleep(self.seconds)
        for heard in self.script:
            yield heard

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        del card, conversation
        self.given_up += 1


async def ask(talker: GuardedTalker, owner: str = "o") -> list[Heard]:
    return [one async for one in talker.talk(CARD, Conversation(owner=owner, key="k", call_key="c"), "hi")]


def guarded(world: World, inner: Scripted, seats: int = 32) -> GuardedTalker:
    return GuardedTalker(inner, Seats(seats), Breaker(world.clock.monotonic))  # type: ignore[arg-type]  # a double


def test_an_agent_that_does_not_answer_is_left_alone_and_then_tried_once() -> None:
    async def scene(world: World) -> None:
        inner = Scripted(error("no answer", "timed_out"))
        talker = guarded(world, inner)
        for _ in range(3):
            await ask(talker)
        [refused] = await ask(talker)
        assert refused.metadata == {"reason": "left_alone"}
        assert inner.asked == 3
        await asyncio.sleep(16)
        inner.script = (Heard(kind="end"),)
        assert kinds(await ask(talker)) == ["end"]
        assert kinds(await ask(talker)) == ["end"]

    run(scene, 1)


def test_an_agent_that_fails_in_its_own_words_is_there() -> None:
    async def scene(world: World) -> None:
        inner = Scripted(error("out of stock", "agent_error"))
        talker = guarded(world, inner)
        for _ in range(5):
            await ask(talker)
        assert inner.asked == 5

    run(scene, 1)


def test_whoever_leaves_says_nothing_of_the_agent_and_gives_the_seat_back() -> None:
    async def scene(world: World) -> None:
        inner = Scripted(Heard(kind="acknowledged"), Heard(kind="end"))
        talker = guarded(world, inner, seats=1)
        for _ in range(5):
            async with aclosing(talker.talk(CARD, Conversation(owner="o", key="k", call_key="c"), "hi")) as talk:
                await anext(talk)
        assert kinds(await ask(talker)) == ["acknowledged", "end"]
        await talker.give_up(CARD, Conversation(owner="o", key="k", call_key="c"))
        assert inner.given_up == 1
        assert talker.protocol == "a2a"

    run(scene, 1)


def test_who_waits_too_long_for_a_seat_is_told_and_the_other_owner_goes_first() -> None:
    async def scene(world: World) -> None:
        inner = Scripted(Heard(kind="end"), seconds=50.0)
        talker = guarded(world, inner, seats=2)
        first, second, third, other = await asyncio.gather(*(ask(talker) for _ in range(3)), ask(talker, "other"))
        assert [kinds(one) for one in (first, second, other)] == [["end"]] * 3
        assert third[0].metadata == {"reason": "busy"}

    run(scene, 1)


def test_a_pace_is_kept_towards_agents_of_directories_elsewhere_only() -> None:
    async def scene(world: World) -> None:
        inner = Scripted(Heard(kind="end"))
        talker = GuardedTalker(inner, Seats(), pace=Pace(1, world.clock.monotonic))  # type: ignore[arg-type]  # a double
        elsewhere = AgentCard(protocol="acp", address="agent1q", name="a", directory="agentverse")
        about = Conversation(owner="o", key="k", call_key="c")
        began = world.clock.monotonic()
        for card in (CARD, elsewhere, CARD, elsewhere):
            assert kinds([one async for one in talker.talk(card, about, "hi")]) in (["end"], ["error"])
        assert world.clock.monotonic() - began == 60.0

    run(scene, 1)

"""What every talker does (`agents.base.Talker`), whatever it speaks: over agents that tests play, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import pytest

from a2a_doubles import A2aHouse, A2aWireDouble
from agent_doubles import House, Post
from convene.agents import chat_codec
from convene.agents.base import AgentCard, Conversation, Heard
from convene.agents.envelope import Draft
from mcp_agent_doubles import CARD, McpHouse
from sessions_double import SessionsDouble
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from a2a_doubles import PlayedA2a, Step
    from agent_doubles import PlayedAgent
    from convene.agents.base import Talker
    from convene.clock import Clock

ENDS = {"end", "error", "needs_input", "payment"}


class Scene(Protocol):
    """One agent that echoes, and our side. At the questions `fail` and `hang` it does what they say."""

    sessions: SessionsDouble
    card: AgentCard

    def talker(self) -> Talker:
        """Return a talker that knows what the store knows, as after a restart."""
        ...

    def asked(self) -> list[str]:
        """Return what the agent was asked."""
        ...

    def conversations(self) -> list[str]:
        """Return in which conversation of the agent's each question was."""
        ...

    def down(self, *, is_down: bool) -> None:
        """Take the agent off the network, or put it back."""
        ...

    async def aclose(self) -> None:
        """End all that the agent still does."""
        ...


class ChatScene:
    """The Agent Chat Protocol."""

    def __init__(self, clock: Clock) -> None:
        self.sessions = SessionsDouble()
        self.post = Post()
        self.clock = clock
        self.houses: list[House] = [House(clock, post=self.post, sessions=self.sessions)]
        self.agent = self.houses[0].agent("echo", self._play)
        self.card = self.agent.card

    async def _play(self, agent: PlayedAgent, sender: str, session: str, said: chat_codec.ChatMessage) -> None:
        del sender
        text = "".join(one.text for one in said.content if isinstance(one, chat_codec.Text))
        if text == "fail":
            # An error message has a body of one field; the codec has no writer for it, as we never send one.
            draft = Draft(schema_digest=chat_codec.ERROR_MESSAGE, protocol_digest="", body=b'{"error":"no"}')
            await agent.send(session, draft)
        elif text != "hang":
            await agent.say(session, f"echo: {text}", chat_codec.EndSession())

    def talker(self) -> Talker:
        self.houses.append(House(self.clock, post=self.post, sessions=self.sessions))
        self.agent.house = self.houses[-1]  # whoever is up now has the inbox
        return self.houses[-1].talker

    def asked(self) -> list[str]:
        return [
            one.text
            for _, said in self.agent.received
            if isinstance(said, chat_codec.ChatMessage)
            for one in said.content
            if isinstance(one, chat_codec.Text)
        ]

    def conversations(self) -> list[str]:
        return [one.session for one, said in self.agent.received if isinstance(said, chat_codec.ChatMessage)]

    def down(self, *, is_down: bool) -> None:
        if is_down:
            del self.post.agents[self.agent.url]
        else:
            self.post.agents[self.agent.url] = self.agent

    async def aclose(self) -> None:
        for house in self.houses:
            await house.aclose()


class A2aScene:
    """A2A; in which form says the test."""

    def __init__(self, clock: Clock, *, legacy: bool, rest: bool, streams: bool) -> None:
        self.sessions = SessionsDouble()
        self.network = A2aWireDouble()
        self.clock = clock
        self.house = A2aHouse(clock, self.network, self.sessions)
        self.agent = self.house.agent("echo", self._play, legacy=legacy, rest=rest, streams=streams)
        self.card = AgentCard(protocol="a2a", url=self.agent.url, name="echo")

    async def _play(self, agent: PlayedA2a, text: str) -> AsyncGenerator[Step]:
        del agent
        yield ("working",)
        if text == "fail":
            yield ("failed", "no")
            return
        if text == "hang":
            yield 300.0
        yield ("artifact", "a", f"echo: {text}")
        yield ("completed",)

    def talker(self) -> Talker:
        return A2aHouse(self.clock, self.network, self.sessions).talker

    def asked(self) -> list[str]:
        return self.agent.asked

    def conversations(self) -> list[str]:
        return [
            next(task.context_id for task in self.agent.tasks.values() if one in task.history)
            for one in self.agent.messages
        ]

    def down(self, *, is_down: bool) -> None:
        self.network.down = {"echo.test"} if is_down else set()

    async def aclose(self) -> None:
        await self.house.aclose()


class McpScene:
    """MCP; a server knows no conversations, so the keys of calls stand for them."""

    def __init__(self, clock: Clock) -> None:
        self.house = McpHouse(clock)
        self.sessions = self.house.sessions
        self.card = CARD

    def talker(self) -> Talker:
        return self.house.fresh().talker

    def asked(self) -> list[str]:
        return [str(arguments["text"]) for _, arguments, _ in self.house.servers.calls]

    def conversations(self) -> list[str]:
        return []

    def down(self, *, is_down: bool) -> None:
        self.house.servers.is_down = is_down

    async def aclose(self) -> None:
        return None


MAKERS: dict[str, Callable[[Clock], Scene]] = {
    "acp": ChatScene,
    "mcp": McpScene,
    "a2a": lambda clock: A2aScene(clock, legacy=False, rest=False, streams=True),
    "a2a-whole": lambda clock: A2aScene(clock, legacy=False, rest=True, streams=False),
    "a2a-0.3": lambda clock: A2aScene(clock, legacy=True, rest=False, streams=True),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[Clock], Scene]:
    return MAKERS[request.param]


def conversation(call: str = "one", key: str = "k", owner: str = "o") -> Conversation:
    return Conversation(owner=owner, key=key, call_key=call)


async def heard(scene: Scene, say: str, about: Conversation | None = None, talker: Talker | None = None) -> list[Heard]:
    spoken = (talker or scene.talker()).talk(scene.card, about or conversation(), say)
    return [one async for one in spoken]


def played(make: Callable[[Clock], Scene], play: Callable[[Scene, World], object]) -> None:
    """Play a scene and put everything away."""

    async def whole(world: World) -> None:
        scene = make(world.clock)
        try:
            await play(scene, world)  # type: ignore[misc]  # a coroutine function
        finally:
            await scene.aclose()

    run(whole, 1)


def text_of(found: list[Heard]) -> str:
    return "".join(one.text for one in found if one.kind == "text")


@pytest.mark.req("AGENT-01")
def test_a_question_is_answered_and_the_last_thing_heard_is_the_end(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        found = await heard(scene, "hello, ü")
        assert text_of(found) == "echo: hello, ü"
        assert [one.kind for one in found if one.kind in ENDS] == ["end"]
        assert found[-1].kind == "end"
        assert scene.asked() == ["hello, ü"]
        assert scene.talker().protocol == scene.card.protocol

    played(make, play)


@pytest.mark.req("AGENT-01")
def test_an_agent_that_fails_ends_the_talk_with_its_words(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        found = await heard(scene, "fail")
        assert (found[-1].kind, found[-1].text, found[-1].metadata) == ("error", "no", {"reason": "agent_error"})

    played(make, play)


def test_a_repeat_of_a_call_after_a_restart_tells_the_same_and_asks_nobody(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        first = await heard(scene, "hello")
        again = await heard(scene, "hello")
        assert text_of(first) == text_of(again) == "echo: hello"
        assert scene.asked() == ["hello"]

    played(make, play)


def test_a_talk_that_was_left_half_way_is_gone_on_with_and_nobody_is_asked_twice(
    make: Callable[[Clock], Scene],
) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        async with aclosing(scene.talker().talk(scene.card, conversation(), "hello")) as talk:
            assert (await anext(talk)).kind == "acknowledged"
            await asyncio.sleep(1)
            await anext(talk)
        assert text_of(await heard(scene, "hello")) == "echo: hello"
        assert scene.asked() == ["hello"]

    played(make, play)


def test_turns_of_a_conversation_are_one_for_the_agent_and_owners_are_kept_apart(
    make: Callable[[Clock], Scene],
) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        for about in (
            conversation("one"),
            conversation("two"),
            conversation("three", key="other"),
            conversation("four", owner="another"),
        ):
            await heard(scene, "hello", about)
        if scene.card.protocol == "mcp":
            return
        first, second, elsewhere, foreign = scene.conversations()
        assert first == second
        assert len({first, elsewhere, foreign}) == 3

    played(make, play)


def test_an_agent_that_is_down_is_an_error_and_may_be_asked_when_it_is_back(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        scene.down(is_down=True)
        found = await heard(scene, "hello")
        assert (found[-1].kind, found[-1].metadata) == ("error", {"reason": "unreachable"})
        scene.down(is_down=False)
        assert text_of(await heard(scene, "hello")) == "echo: hello"
        assert scene.asked() == ["hello"]

    played(make, play)


@pytest.mark.req("HOSTED-03")
def test_an_answer_is_waited_for_as_long_as_decided_and_no_longer(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        began = world.clock.monotonic()
        found = await heard(scene, "hang")
        assert (found[-1].kind, found[-1].metadata) == ("error", {"reason": "timed_out"})
        assert 239 <= world.clock.monotonic() - began <= 250

    played(make, play)


def test_a_store_that_is_broken_is_an_error_and_nobody_is_asked(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        scene.sessions.broken = True
        found = await heard(scene, "hello")
        assert (found[-1].kind, found[-1].metadata) == ("error", {"reason": "store"})
        assert scene.asked() == []

    played(make, play)


def test_giving_up_never_raises_whatever_is_known_of_the_call(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        talker = scene.talker()
        await talker.give_up(scene.card, conversation("never asked"))
        await heard(scene, "hello", talker=talker)
        await talker.give_up(scene.card, conversation())
        scene.down(is_down=True)
        scene.sessions.broken = True
        await talker.give_up(scene.card, conversation())

    played(make, play)


def test_questions_of_many_conversations_at_once_get_their_own_answers(make: Callable[[Clock], Scene]) -> None:
    async def play(scene: Scene, world: World) -> None:
        del world
        talker = scene.talker()
        asked = [
            heard(scene, f"question {number}", conversation(f"call {number}", key=f"key {number}"), talker)
            for number in range(50)
        ]
        answers = await asyncio.gather(*asked)
        assert [text_of(one) for one in answers] == [f"echo: question {number}" for number in range(50)]

    played(make, play)

"""Agents that ask us: what is a question, what it is answered with, what ends a circle, what a crash leaves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from agent_doubles import SECRET, House, PlayedAgent, text_of, verify
from convene.agent_hops import ACP_KEY
from convene.agents import chat_codec as codec
from convene.agents import responder as responders
from convene.agents.base import Verdict
from convene.agents.chat_protocol import ChatTalker
from convene.agents.inbox import Inbox
from convene.agents.questions import Question, Questions
from convene.agents.responder import FAILED, NOTHING, Budget, Pace, Responder, ResponderTerms
from convene.egress import EgressFailed
from convene.errors import OverBudget, StoreFault
from fakes import FakeClock
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from convene.agents.responder import Reply
    from sessions_double import SessionsDouble

SESSION = "55555555-5555-4555-8555-555555555555"
OTHER = "66666666-6666-4666-8666-666666666666"
ID = "44444444-4444-4444-8444-444444444444"


class PlayedReply:
    """Says pieces: a number waits, a text is said, a fault is raised."""

    def __init__(self, run_id: str, pieces: tuple[object, ...]) -> None:
        self.run_id = run_id
        self._pieces = pieces

    async def texts(self) -> AsyncGenerator[str]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, int | float):
                await asyncio.sleep(piece)
            else:
                yield str(piece)


class PlayedReplies:
    """A `Replies` that says these pieces; `kept` are the runs that outlive a crash."""

    def __init__(self, *pieces: object) -> None:
        self.pieces = pieces
        self.asked: list[Question] = []
        self.went_on: list[str] = []
        self.kept: set[str] = set()
        self.refusal: Exception | None = None

    async def begin(self, question: Question) -> Reply:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(question)
        run_id = f"run_{len(self.asked)}"
        self.kept.add(run_id)
        return PlayedReply(run_id, self.pieces)

    async def go_on(self, question: Question) -> Reply | None:
        self.went_on.append(question.run_id)
        return PlayedReply(question.run_id, self.pieces) if question.run_id in self.kept else None


class Desk(House):
    """Our side, which answers."""

    def __init__(
        self, world: World, replies: PlayedReplies, sessions: SessionsDouble | None = None, **terms: object
    ) -> None:
        super().__init__(world.clock, sessions=sessions)
        self.replies = replies
        questions = Questions(lambda: self.sessions, world.clock)
        self.responder = Responder(
            self.courier,
            questions,
            replies,
            world.clock,
            SECRET,
            ResponderTerms(**terms),  # type: ignore[arg-type]  # tests name real fields
        )
        self.inbox = Inbox(self.courier, self.letters, world.clock, verify, self.responder.take)
        self.talker = ChatTalker(self.courier, self.inbox, self.letters, self.breaker, world.clock, SECRET)


def scene(replies: PlayedReplies, play: Callable[[Desk], Awaitable[Any]], **terms: object) -> Any:  # noqa: ANN401
    async def whole(world: World) -> Any:  # noqa: ANN401
        async with opened(world, replies, **terms) as desk:
            return await play(desk)

    return run(whole, 1)


@asynccontextmanager
async def opened(world: World, replies: PlayedReplies, **terms: Any) -> AsyncIterator[Desk]:  # noqa: ANN401
    desk = Desk(world, replies, **terms)
    try:
        yield desk
    finally:
        await desk.responder.aclose()
        await desk.aclose()


def chats(agent: PlayedAgent, session: str = SESSION) -> list[codec.ChatMessage]:
    return [
        said for envelope, said in agent.received if isinstance(said, codec.ChatMessage) and envelope.session == session
    ]


def texts(agent: PlayedAgent, session: str = SESSION) -> list[str]:
    return ["".join(one.text for one in said.content if isinstance(one, codec.Text)) for said in chats(agent, session)]


@pytest.mark.req("ACP-05", "ACP-03")
def test_a_question_is_acknowledged_at_once_and_answered_in_its_session_with_an_end_mark() -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("asker")
        assert await agent.say(SESSION, "how are you?", codec.Meta({ACP_KEY: "agent1qx"}), msg_id=ID) == Verdict()
        await asyncio.sleep(1)
        assert (agent.acknowledged, texts(agent)) == ([ID], [])
        await asyncio.sleep(10)
        return agent

    replies = PlayedReplies(5.0, "Well, ", "thanks.")
    agent = scene(replies, play)
    [said] = chats(agent)
    assert said.content == (codec.Text("Well, thanks."), codec.EndSession())
    [asked] = replies.asked
    assert (asked.sender, asked.session, asked.text, asked.hops) == (
        agent.me.address,
        SESSION,
        "how are you?",
        ("agent1qx",),
    )


@pytest.mark.req("ENVL-06")
def test_the_same_message_again_is_acknowledged_again_and_answered_once() -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("asker")
        for pause_s in (0.0, 0.0, 20.0, 20.0):
            await asyncio.sleep(pause_s)
            await agent.say(SESSION, "hello", msg_id=ID)
        await asyncio.gather(*(agent.say(SESSION, "hello", msg_id=ID) for _ in range(3)))
        await asyncio.sleep(20)
        return agent

    agent = scene(PlayedReplies(1.0, "Hi."), play)
    assert texts(agent) == ["Hi."]
    assert len(agent.acknowledged) == 7


def test_questions_of_one_conversation_are_answered_in_turn_those_of_several_at_the_same_time() -> None:
    async def play(desk: Desk) -> tuple[int, int, list[str]]:
        agent = desk.agent("asker")
        for text in ("one", "two"):
            await agent.say(SESSION, text)
        await agent.say(OTHER, "three")
        await asyncio.sleep(6)
        first = len(texts(agent)), len(texts(agent, OTHER))
        await asyncio.sleep(6)
        return *first, texts(agent)

    replies = PlayedReplies(5.0, "Done.")
    assert scene(replies, play) == (1, 1, ["Done.", "Done."])
    assert [one.text for one in replies.asked] == ["one", "three", "two"]


@pytest.mark.parametrize(
    "content", [(), (" \n",), (codec.StartSession(),), (codec.EndSession(),), (codec.Meta({"confidence": "1"}),)]
)
def test_a_message_without_text_is_no_question(content: tuple[Any, ...]) -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("quiet")
        await agent.say(SESSION, *content)
        await asyncio.sleep(5)
        return agent

    agent = scene(PlayedReplies("x"), play)
    assert (len(agent.acknowledged), chats(agent)) == (1, [])


def test_a_message_that_closes_a_conversation_is_not_answered_unless_it_is_all_of_it() -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("asker")
        await agent.say(SESSION, "only this", codec.EndSession())
        await asyncio.sleep(1)
        await agent.say(SESSION, "thanks, bye", codec.EndSession())
        await asyncio.sleep(1)
        return agent

    assert texts(scene(PlayedReplies("Yes."), play)) == ["Yes."]


def test_an_agent_that_closes_each_answer_of_ours_with_one_of_its_own_ends_the_circle_at_once() -> None:
    async def play(desk: Desk) -> PlayedAgent:
        async def echo(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender
            await agent.say(session, said.content[0], codec.EndSession())

        agent = desk.agent("echo", echo)
        await agent.say(SESSION, "ping")
        await asyncio.sleep(300)
        return agent

    assert texts(scene(PlayedReplies("pong"), play)) == ["pong"]


def test_an_agent_that_answers_every_answer_is_told_once_and_then_left_in_silence() -> None:
    async def play(desk: Desk) -> tuple[PlayedAgent, int]:
        async def careless(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, said
            await agent.say(session, "and you?")

        agent = desk.agent("careless", careless)
        await agent.say(SESSION, "ping")
        await asyncio.sleep(600)
        before = len(texts(agent))
        await agent.say(OTHER, "a conversation of its own")
        await asyncio.sleep(30)
        return agent, before

    agent, before = scene(PlayedReplies("pong"), play, per_minute=3)
    assert (before, texts(agent)[:3]) == (4, ["pong", "pong", "pong"])
    assert "which is the most that is answered" in texts(agent)[3]
    assert texts(agent, OTHER)[0] == "pong"


def test_a_conversation_that_waits_a_minute_is_answered_again() -> None:
    budget = Budget(2, clock := FakeClock())
    assert [budget.admit("a") for _ in range(4)] == [True, True, False, None]
    assert budget.admit("b") is True
    clock.move(59.9)
    assert budget.admit("a") is None
    clock.move(0.2)
    assert budget.admit("a") is True


def test_the_paces_that_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responders, "TALKS_MAX", 3)
    budget = Budget(1, FakeClock())
    for number in range(50):
        assert budget.admit(f"talk {number}") is True
    assert budget.admit("talk 49") is False


def test_who_is_not_listed_is_told_so_and_nothing_is_asked() -> None:
    async def play(desk: Desk) -> tuple[list[str], list[str]]:
        listed, other = desk.agent("listed"), desk.agent("other")
        await listed.say(SESSION, "hello")
        await other.say(OTHER, "hello")
        await asyncio.sleep(1)
        return texts(listed), texts(other, OTHER)

    replies = PlayedReplies("Hi.")
    answered, refused = scene(replies, play, allow=frozenset({"agent1qlisted"}))
    assert answered == ["Hi."]
    assert refused == ["This agent answers only agents that its operator has listed."]
    assert len(replies.asked) == 1


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((OverBudget("Your limit is used up."),), "Your limit is used up."),
        (("Half of", OverBudget("No more.")), "Half of\n\nNo more."),
        ((RuntimeError("secret"),), FAILED),
        (("Half of", RuntimeError("secret")), f"Half of\n\n{FAILED}"),
        ((), NOTHING),
        ((" ",), NOTHING),
    ],
)
def test_what_goes_wrong_is_said_as_text_and_nothing_of_ours_is_told(pieces: tuple[Any, ...], words: str) -> None:
    async def play(desk: Desk) -> list[str]:
        agent = desk.agent("asker")
        await agent.say(SESSION, "hello")
        await asyncio.sleep(5)
        return texts(agent)

    assert scene(PlayedReplies(*pieces), play) == [words]


def test_a_refusal_before_the_turn_is_said_as_text() -> None:
    replies = PlayedReplies()
    replies.refusal = OverBudget("Your limit is used up.")

    async def play(desk: Desk) -> list[str]:
        agent = desk.agent("asker")
        await agent.say(SESSION, "hello")
        await asyncio.sleep(5)
        return texts(agent)

    assert scene(replies, play) == ["Your limit is used up."]


def test_a_message_that_is_too_long_is_not_read_to_a_model() -> None:
    async def play(desk: Desk) -> list[str]:
        agent = desk.agent("asker")
        await agent.say(SESSION, "x" * (responders.TEXT_MAX + 1))
        await asyncio.sleep(1)
        return texts(agent)

    replies = PlayedReplies("x")
    assert scene(replies, play) == [responders.TOO_LONG]
    assert replies.asked == []


@pytest.mark.req("ACP-02")
def test_a_streamed_answer_comes_in_pieces_between_stream_marks() -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("asker")
        await agent.say(SESSION, "hello")
        await asyncio.sleep(20)
        return agent

    pieces = ("One, ", 1.0, "two, ", 1.0, "three", "!")
    said = chats(scene(PlayedReplies(*pieces), play, stream=True))
    assert [type(one).__name__ for one in said[0].content] == ["StartStream", "Text"]
    assert [type(one).__name__ for one in said[-1].content] == ["Text", "EndStream", "EndSession"]
    assert "".join(one.text for each in said for one in each.content if isinstance(one, codec.Text)) == (
        "One, two, three!"
    )
    ids = {
        one.stream_id for each in said for one in each.content if isinstance(one, codec.StartStream | codec.EndStream)
    }
    assert len(ids) == 1
    assert len({one.msg_id for one in said}) == len(said) > 2


@pytest.mark.req("ACP-02")
@pytest.mark.parametrize("missed", ["first", "second"])
def test_a_streamed_answer_has_no_gap_when_the_agent_was_away_for_a_while(missed: str) -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("asker")
        await agent.say(SESSION, "hello")
        await asyncio.sleep(0.5 if missed == "first" else 1.5)
        del desk.post.agents[agent.url]
        desk.courier._resolve = lambda _: _found(agent.url)
        await asyncio.sleep(20)
        desk.post.agents[agent.url] = agent
        await asyncio.sleep(40)
        return agent

    async def _found(url: str) -> list[str]:
        return [url]

    said = chats(scene(PlayedReplies(1.0, "One, ", 1.0, "two, ", 30.0, "three, ", 5.0, "four."), play, stream=True))
    assert "".join(one.text for each in said for one in each.content if isinstance(one, codec.Text)) == (
        "One, two, three, four."
    )
    assert isinstance(said[-1].content[-1], codec.EndSession)
    marks = [type(one).__name__ for each in said for one in each.content if "Stream" in type(one).__name__]
    assert marks == ([] if missed == "first" else ["StartStream", "EndStream"])


def test_a_short_streamed_answer_is_one_message() -> None:
    async def play(desk: Desk) -> PlayedAgent:
        agent = desk.agent("asker")
        await agent.say(SESSION, "hello")
        await asyncio.sleep(5)
        return agent

    [said] = chats(scene(PlayedReplies("Hi."), play, stream=True))
    assert said.content == (codec.Text("Hi."), codec.EndSession())


def test_an_answer_that_cannot_be_delivered_is_tried_again_and_then_given_up() -> None:
    async def play(desk: Desk) -> tuple[list[str], int]:
        back, gone = desk.agent("back"), desk.agent("gone")
        for agent in (back, gone):
            await agent.say(SESSION, "hello")
        for agent in (back, gone):
            agent.breaks = EgressFailed("No.", "connect")
        await asyncio.sleep(2)
        back.breaks = None
        await asyncio.sleep(60)
        return texts(back), len(texts(gone))

    replies = PlayedReplies(1.0, "Hi.")
    assert scene(replies, play) == (["Hi."], 0)
    assert len(replies.asked) == 2


@pytest.mark.req("CALL-06")
def test_an_answer_that_may_have_arrived_is_not_sent_again() -> None:
    async def play(desk: Desk) -> int:
        agent = desk.agent("asker")
        await agent.say(SESSION, "hello")
        await asyncio.sleep(0.5)
        agent.breaks = EgressFailed("No.", "broken")
        before = len(desk.post.posted)
        await asyncio.sleep(60)
        return len(desk.post.posted) - before

    assert scene(PlayedReplies(1.0, "Hi."), play) == 1


def crash(world: World, desk: Desk, replies: PlayedReplies, **terms: object) -> Desk:
    """Return a new server over the store of one that is dead, with the same agents."""
    after = Desk(world, replies, desk.sessions, **terms)
    after.post.agents = desk.post.agents
    for agent in after.post.agents.values():
        agent.house = after
    return after


@pytest.mark.parametrize("kept", [True, False])
def test_a_question_that_a_crash_has_left_is_answered_once_by_its_run_or_anew(kept: bool) -> None:  # noqa: FBT001
    async def play(world: World) -> tuple[list[str], PlayedReplies, list[Question]]:
        before = PlayedReplies(50.0, "never")
        async with opened(world, before) as desk:
            agent = desk.agent("asker")
            await agent.say(SESSION, "hello", msg_id=ID)
            await asyncio.sleep(5)
        replies = PlayedReplies("Here I am.")
        replies.kept = {"run_1"} if kept else set()
        after = crash(world, desk, replies)
        await after.responder.watch()
        await asyncio.sleep(5)
        await agent.say(SESSION, "hello", msg_id=ID)
        await after.responder.watch()
        await asyncio.sleep(5)
        await after.responder.aclose()
        await after.aclose()
        return texts(agent), replies, replies.asked

    said, replies, asked = run(play, 1)
    assert said == ["Here I am."]
    assert replies.went_on == ["run_1"]
    assert len(asked) == (0 if kept else 1)


def test_an_answer_that_was_about_to_be_sent_is_sent_under_the_same_id() -> None:
    async def play(world: World) -> list[codec.ChatMessage]:
        async with opened(world, PlayedReplies("Hi.")) as desk:
            agent = desk.agent("asker")
            close = desk.responder._questions.close

            async def die(question: Question) -> None:
                del question
                raise StoreFault("killed")

            desk.responder._questions.close = die  # type: ignore[method-assign]
            await agent.say(SESSION, "hello")
            await asyncio.sleep(5)
            desk.responder._questions.close = close  # type: ignore[method-assign]
        replies = PlayedReplies("another")
        after = crash(world, desk, replies)
        await after.responder.watch()
        await asyncio.sleep(5)
        await after.responder.aclose()
        await after.aclose()
        assert replies.asked == []
        return chats(agent)

    first, second = run(play, 1)
    assert first == second


def test_a_question_that_nobody_waits_for_any_more_is_forgotten() -> None:
    async def play(world: World) -> tuple[list[str], int]:
        async with opened(world, PlayedReplies(50.0)) as desk:
            agent = desk.agent("asker")
            await agent.say(SESSION, "hello")
            await asyncio.sleep(5)
        await asyncio.sleep(responders.LATE_S)
        after = crash(world, desk, PlayedReplies("too late"))
        await after.responder.watch()
        await asyncio.sleep(5)
        await after.responder.aclose()
        await after.aclose()
        return texts(agent), len(await after.responder._questions.left(alone=True))

    assert run(play, 1) == ([], 0)


def test_among_several_servers_a_question_is_held_while_it_is_worked_on() -> None:
    async def play(world: World) -> tuple[list[str], int]:
        async with opened(world, PlayedReplies(200.0, "Slow."), shared=True) as desk:
            agent = desk.agent("asker")
            await agent.say(SESSION, "hello")
            await asyncio.sleep(1)
            replies = PlayedReplies("Stolen.")
            other = Desk(world, replies, desk.sessions, shared=True)
            watching = asyncio.ensure_future(other.responder.watch())
            await asyncio.sleep(300)
            watching.cancel()
            await asyncio.wait([watching])
            return texts(agent), len(replies.asked)

    assert run(play, 1) == (["Slow."], 0)


def test_a_store_that_comes_back_is_looked_at_again() -> None:
    async def play(world: World) -> list[str]:
        async with opened(world, PlayedReplies(50.0)) as desk:
            agent = desk.agent("asker")
            await agent.say(SESSION, "hello")
            await asyncio.sleep(5)
        after = crash(world, desk, PlayedReplies("Hi."))
        desk.sessions.broken = True
        watching = asyncio.ensure_future(after.responder.watch())
        await asyncio.sleep(5)
        desk.sessions.broken = False
        await asyncio.sleep(30)
        await watching
        await after.responder.aclose()
        await after.aclose()
        return texts(agent)

    assert run(play, 1) == ["Hi."]


def test_more_questions_than_can_wait_are_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responders, "OPEN_MAX", 2)

    async def play(desk: Desk) -> list[int]:
        agent = desk.agent("flood")
        verdicts = [await agent.say(SESSION, f"number {number}") for number in range(3)]
        await asyncio.sleep(1)
        assert len(agent.acknowledged) == 2
        return [one.status for one in verdicts]

    assert scene(PlayedReplies(50.0), play) == [200, 200, 503]


def test_a_question_that_cannot_be_kept_is_asked_for_again() -> None:
    async def play(desk: Desk) -> Verdict:
        desk.sessions.broken = True
        return await desk.agent("asker").say(SESSION, "hello")

    assert scene(PlayedReplies("x"), play).status == 503


@pytest.mark.req("END-06")
@pytest.mark.parametrize("hops", [(), (codec.Meta({ACP_KEY: "agent1qourselves"}),)])
def test_while_an_answer_is_waited_for_a_message_in_another_session_is_that_answer_unless_it_says_otherwise(
    hops: tuple[codec.Meta, ...],
) -> None:
    async def play(desk: Desk) -> tuple[str, list[str]]:
        async def answer_elsewhere(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender, session
            if "question" in str(said.content):
                await agent.say(OTHER, "from a timer", *hops)

        agent = desk.agent("odd", answer_elsewhere)
        heard = await desk.heard(agent, "question")
        await asyncio.sleep(5)
        return text_of(heard), texts(agent, OTHER)

    heard, answered = scene(PlayedReplies("answered"), play)
    assert (heard, answered) == (("", ["answered"]) if hops else ("from a timer", []))


def test_an_agent_that_has_answered_us_may_ask_us() -> None:
    async def play(desk: Desk) -> tuple[str, list[str]]:
        async def echo(agent: PlayedAgent, sender: str, session: str, said: codec.ChatMessage) -> None:
            del sender
            if session != OTHER:
                await agent.say(session, said.content[0], codec.EndSession())

        agent = desk.agent("friend", echo)
        heard = text_of(await desk.heard(agent, "question"))
        await agent.say(OTHER, "now I ask you")
        await asyncio.sleep(5)
        return heard, texts(agent, OTHER)

    assert scene(PlayedReplies("answered"), play) == ("question", ["answered"])


def test_a_question_is_kept_and_read_again_whole() -> None:
    asked = Question(sender="a", session="s", msg_id="m", text="t", hops=("x", "y"), at=1.0, run_id="r", reply="z")
    assert msgspec.json.decode(msgspec.json.encode(asked), type=Question) == asked


def test_a_flood_is_asked_to_come_again_before_anything_is_written() -> None:
    async def play(desk: Desk) -> tuple[list[int], int, int]:
        flood, other = desk.agent("flood"), desk.agent("other")
        sessions = [f"55555555-5555-4555-8555-{number:012d}" for number in range(5)]
        verdicts = [(await flood.say(session, "hello")).status for session in sessions]
        rows = len(desk.sessions.records)
        await flood.say("55555555-5555-4555-8555-999999999999", "hello")
        assert len(desk.sessions.records) == rows
        answered = (await other.say(OTHER, "hello")).status
        await asyncio.sleep(61)
        return verdicts, answered, (await flood.say(SESSION, "hello")).status

    assert scene(PlayedReplies("Hi."), play, per_sender=3) == ([200, 200, 200, 503, 503], 200, 200)


def test_all_senders_together_have_a_pace_too() -> None:
    pace = Pace(2, 5, clock := FakeClock())
    assert [pace.admit(f"agent {number}") for number in range(7)] == [True] * 5 + [False] * 2
    clock.move(60)
    assert [pace.admit("one") for _ in range(3)] == [True, True, False]
    assert pace.admit("two")

"""The composition of answering: an answer out of a turn, an answer out of a run that a crash has left, who is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convene.agents.questions import Question
from convene.app_answering import FAILED, AgentReplies, Lookup
from convene.errors import ConveneError
from convene.events import Finished, StepChanged, TextDelta
from convene.limits.allowance import Allowance
from convene.registry.base import Found
from convene.serving.agent_callers import AgentCallers
from convene.serving.base_runs import RunEnded
from convene.store.base_runs import Run
from market_doubles import ADDRESS, Market

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.serving.base_answering import Question as Asking
    from convene.serving.base_runs import Piece

ASKED = Question(sender="agent1qa", session="s", msg_id="m", text="hello", hops=("agent1qb",), at=1.0, run_id="run_1")
OWNER = "agent:agent1qa"
STEP = StepChanged(id="s1", kind="model", name="model", status="running")


class PlayedTurn:
    """A turn that says these events."""

    run_id = "run_9"
    model = "m"

    def __init__(self, *events: Event) -> None:
        self._events = events

    async def events(self) -> AsyncGenerator[Event]:
        for event in self._events:
            yield event


class Answers:
    """An `Answering` that notes what it is asked and what is kept."""

    def __init__(self, *events: Event) -> None:
        self.asked: list[Asking] = []
        self.kept: list[tuple[str, ...]] = []
        self._events = events

    async def ask(self, question: Asking) -> PlayedTurn:
        self.asked.append(question)
        return PlayedTurn(*self._events)

    async def remember(self, *kept: str) -> None:
        self.kept.append(kept)


class Runs:
    """Runs of one owner, and what readers get of them."""

    def __init__(self, *pieces: Piece) -> None:
        self.store = self
        self._pieces = pieces

    async def get(self, owner: str, run_id: str) -> Run | None:
        if (owner, run_id) != (OWNER, "run_1"):
            return None
        return Run(
            id=run_id,
            owner=owner,
            key_id=owner,
            session_id="",
            request_id="",
            turn_id="t",
            model="m",
            request=b"",
            created_us=0,
        )

    async def read(self, run: Run, after: int) -> AsyncGenerator[list[Piece]]:
        assert (run.id, after) == ("run_1", 0)
        for piece in self._pieces:
            yield [piece]


def replies(answers: Answers, runs: Runs) -> AgentReplies:
    callers = AgentCallers("free", Allowance())
    return AgentReplies(answers, callers, runs)  # type: ignore[arg-type]  # doubles


async def test_a_question_is_asked_for_its_proved_sender_in_its_own_conversation() -> None:
    answers = Answers(STEP, TextDelta("Hi"), TextDelta("."), Finished("stop"))
    reply = await replies(answers, Runs()).begin(ASKED)
    assert (reply.run_id, [text async for text in reply.texts()]) == ("run_9", ["Hi", "."])
    [asked] = answers.asked
    assert (asked.who.owner, asked.caller, asked.conversation) == (OWNER, "agent1qa", "acp:s")
    assert (asked.text, asked.hops, asked.outlives) == ("hello", ("agent1qb",), False)


async def test_an_answer_that_a_crash_has_left_is_read_from_its_run_and_remembered() -> None:
    pieces: list[Any] = [(1, STEP), (0, TextDelta("He")), (0, TextDelta("re.")), (2, RunEnded("done"))]
    answers = Answers()
    reply = await replies(answers, Runs(*pieces)).go_on(ASKED)
    assert reply is not None
    assert [text async for text in reply.texts()] == ["He", "re."]
    assert answers.kept == [(OWNER, "acp:s", "run_1", "hello", "Here.")]
    assert answers.asked == []


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (RunEnded("failed", "upstream_error", "The model is down."), "The model is down."),
        (RunEnded("cancelled"), FAILED),
    ],
)
async def test_a_run_that_has_failed_is_a_fault_in_its_words(end: RunEnded, words: str) -> None:
    answers = Answers()
    reply = await replies(answers, Runs((0, TextDelta("Ha")), (1, end))).go_on(ASKED)
    assert reply is not None
    with pytest.raises(ConveneError, match=words):
        [text async for text in reply.texts()]
    assert answers.kept == []


async def test_a_run_that_has_never_begun_or_is_anothers_is_none() -> None:
    other = Question(sender="agent1qeve", session="s", msg_id="m", text="hello", at=1.0, run_id="run_1")
    assert await replies(Answers(), Runs()).go_on(other) is None


async def test_agents_are_shown_by_what_they_are_called_by() -> None:
    market = Market().add("booker", "x", skills=("tables",))
    url = Found(protocol="a2a", name="web", url="https://a.test/card", description="On the web.", reachable=False)
    market.agents["url"] = (url, ())
    lookup = Lookup(market)  # type: ignore[arg-type]  # a double of what it uses
    assert lookup.anybody()
    first, second = await lookup.search("tables", 5)
    assert (first.agent, first.handle, first.skills, first.reachable) == (ADDRESS, "booker", ("tables",), True)
    assert (second.agent, second.protocol, second.reachable) == ("https://a.test/card", "a2a", False)
    found = await lookup.find(" @booker ")
    assert found == first
    assert await lookup.find("@nobody") is None

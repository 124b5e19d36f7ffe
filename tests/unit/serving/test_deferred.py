"""Outstanding work of a session: noted, polled for, told, told again, and forgotten."""

from __future__ import annotations

import pytest

from convene.errors import StoreFault
from convene.events import Finished, StepChanged, TextDelta, ToolRan
from convene.messages import Message
from convene.serving.deferred import NOTHING_USED, SENTENCE, TOLD_AGAIN_S, Deferrals, Patience, is_poll
from convene.serving.sessions import Conversations
from run_doubles import RunHouse, an_answer
from sessions_double import SessionsDouble

PENDING = [TextDelta(SENTENCE), Finished("stop"), NOTHING_USED]


class House(RunHouse):
    """Runs with sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = SessionsDouble()
        memory = Conversations(lambda: self.notes, lambda: self.runs.store, self.clock)
        self.memory = memory
        self.deferrals = Deferrals(memory, self.runs, self.clock)

    async def deferred(self, run_id: str = "run_1") -> None:
        await self.memory.enter("o", "s")
        await self.deferrals.note("o", "s", run_id)

    async def text(self) -> str | None:
        found = await self.deferrals.look("o", "s")
        return None if found is None else "".join(one.text for one in found if isinstance(one, TextDelta))


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.req("DEFER-04")
@pytest.mark.parametrize("text", ["Any update?", " any update ", "ANY UPDATE!", "Any update?\n"])
def test_a_poll_is_known_by_its_words(text: str) -> None:
    assert is_poll([Message(role="user", content="before"), Message(role="user", content=text)])


@pytest.mark.parametrize(
    "message",
    [
        Message(role="user", content="Any update on my order?"),
        Message(role="user", content=""),
        Message(role="assistant", content="Any update?"),
    ],
)
def test_anything_else_is_none(message: Message) -> None:
    assert not is_poll([message])


@pytest.mark.req("DEFER-03", "DEFER-07", "DEFER-09")
async def test_the_sentence_then_the_result_again_and_again_then_nothing(house: House) -> None:
    assert await house.text() is None
    journal = await house.begun()
    await house.deferred()
    assert [await house.deferrals.look("o", "s") for _ in range(2)] == [PENDING, PENDING]
    await journal.finish("done", an_answer("all said"))
    assert [await house.text() for _ in range(2)] == ["all said", "all said"]
    house.clock.move(TOLD_AGAIN_S + 1)
    assert await house.text() is None
    assert house.notes.kept["o", "s"] == {}


@pytest.mark.req("DEFER-05")
async def test_only_owner_and_session_together_find_it(house: House) -> None:
    await house.begun()
    await house.deferred()
    assert await house.deferrals.look("other", "s") is None
    assert await house.deferrals.look("o", "other") is None


@pytest.mark.req("DEFER-08")
async def test_a_run_that_failed_is_told_as_text_with_its_reason(house: House) -> None:
    journal = await house.begun()
    await house.deferred()
    await journal.finish("failed", an_answer("so far"), "upstream_error", "The model is gone.")
    assert await house.text() == "The work on your message could not be finished: The model is gone."


async def test_a_run_that_nobody_knows_any_more_is_forgotten(house: House) -> None:
    await house.deferred("run_gone")
    assert await house.text() is None


async def test_while_one_of_two_goes_on_nothing_is_told_and_then_both_are(house: House) -> None:
    first, second = await house.begun("run_1"), await house.begun("run_2")
    await house.deferred("run_1")
    await house.deferred("run_2")
    await first.finish("done", an_answer("one"))
    assert await house.text() == SENTENCE
    await second.finish("done", an_answer("two"))
    assert await house.text() == "one\n\ntwo"


async def test_what_was_told_is_not_told_with_the_next_one(house: House) -> None:
    await (await house.begun("run_1")).finish("done", an_answer("one"))
    await house.deferred("run_1")
    assert await house.text() == "one"
    await (await house.begun("run_2")).finish("done", an_answer("two"))
    await house.deferred("run_2")
    assert await house.text() == "two"


async def test_what_was_answered_after_all_is_dropped_whatever_the_store_says(house: House) -> None:
    await house.begun()
    await house.deferred()
    house.notes.broken = True
    await house.deferrals.drop("o", "s", "run_1")
    assert await house.deferrals.conversation("o", "s") is None
    with pytest.raises(StoreFault):
        await house.text()
    house.notes.broken = False
    await house.deferrals.drop("o", "s", "run_1")
    assert await house.text() is None


def step(status: str, kind: str = "agent") -> StepChanged:
    return StepChanged(id="s1", kind=kind, name="ask_agent", status=status)  # type: ignore[arg-type]  # tests name real ones


def test_patience_knows_whether_agents_work_and_whether_anything_was_said() -> None:
    streamed, whole = Patience(whole=False), Patience(whole=True)
    for one in (streamed, whole):
        assert (one.waits_for_agents, one.can_end) == (False, True)
        one.note(step("running", "model"))
        one.note(ToolRan(id="c", tool_name="t"))
        assert not one.waits_for_agents
        one.note(step("running"))
        assert one.waits_for_agents
        one.note(step("done"))
        assert not one.waits_for_agents
        one.note(TextDelta("a"))
    assert (streamed.can_end, whole.can_end) == (False, True)

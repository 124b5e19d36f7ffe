"""Questions that go on by themselves: begun, followed, ended, refused, and remembered before they are over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.errors import NotFound, RateLimited
from convene.events import Finished, TextDelta
from convene.serving import asked_tasks
from convene.serving.asked_tasks import AskedTasks
from convene.serving.base import Outcome, Principal
from convene.serving.base_answering import Question
from convene.serving.base_runs import RunEnded
from run_doubles import RunHouse, an_answer, job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event

WHO = Principal(key_id="k", owner="o")
ASKED = Question(who=WHO, text="hi", conversation="a2a:c")


class Turn:
    """A turn that begins its run in a house, says something, and ends it."""

    model = "m"

    def __init__(self, house: House) -> None:
        self.run_id = "run_1"
        self.outcome = Outcome()
        self._house = house

    async def events(self) -> AsyncGenerator[Event]:
        house = self._house
        if house.refusal is not None:
            raise house.refusal
        begun = job("run_1", session="a2a:c", text="hi", owner="o")
        journal = await house.runs.runs.begin(begun)
        try:
            await house.may_go_on.wait()
            house.check()
            yield TextDelta("Yes.")
            journal.saw(TextDelta("Yes."))
            await journal.finish("done", an_answer("Yes."))
            await house.may_settle.wait()
            yield Finished("stop")
            house.kept.append(("settled",))
        except BaseException:
            await journal.finish("failed", an_answer(""), "upstream_error", "The model is down.")
            raise


class House:
    """Runs in a store, and an `Answering` whose turns are played."""

    def __init__(self) -> None:
        self.runs = RunHouse()
        self.refusal: Exception | None = None
        self.fault: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_settle = asyncio.Event()
        self.kept: list[tuple[str, ...]] = []
        self.tasks = AskedTasks(self, self.runs.runs, "a2a:")

    def check(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def ask(self, question: Question) -> Turn:
        assert question == ASKED
        return Turn(self)

    async def remember(self, *kept: str) -> None:
        self.kept.append(kept)


@pytest.fixture
async def house() -> AsyncGenerator[House]:
    one = House()
    yield one
    await one.tasks.aclose()


async def events_of(house: House, task: Any) -> list[Any]:  # noqa: ANN401 -- a task
    return [event async for found in house.tasks.read(task) for event in found]


async def test_a_task_is_there_as_soon_as_its_run_is_written_down(house: House) -> None:
    task = await house.tasks.begin(ASKED)
    assert (task.run.status, task.context, task.said, task.answer) == ("running", "c", "hi", "")
    assert not task.is_over
    house.may_go_on.set()
    house.may_settle.set()
    events = await events_of(house, task)
    assert isinstance(events[-1], RunEnded)
    done = await house.tasks.show(WHO, task.run.id)
    assert (done.run.status, done.answer, done.is_over) == ("done", "Yes.", True)


async def test_the_end_is_told_once_the_turn_is_settled_and_remembered(house: House) -> None:
    task = await house.tasks.begin(ASKED)
    house.may_go_on.set()
    reading = asyncio.ensure_future(events_of(house, task))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not reading.done()
    house.may_settle.set()
    await reading
    assert house.kept == [("settled",)]


async def test_a_refusal_before_the_run_is_raised_and_leaves_nothing(house: House) -> None:
    house.refusal = RateLimited("Too many.")
    with pytest.raises(RateLimited):
        await house.tasks.begin(ASKED)
    with pytest.raises(NotFound):
        await house.tasks.show(WHO, "run_1")
    await asyncio.sleep(0)
    assert house.runs.runs._expected == {}


@pytest.mark.parametrize("fault", [RateLimited("No more."), RuntimeError("a bug")])
async def test_a_fault_after_that_is_the_runs_to_tell(house: House, fault: Exception) -> None:
    house.fault = fault
    task = await house.tasks.begin(ASKED)
    house.may_go_on.set()
    await events_of(house, task)
    failed = await house.tasks.show(WHO, task.run.id)
    assert (failed.run.status, failed.message, failed.answer) == ("failed", "The model is down.", "")


async def test_who_gives_up_beginning_does_not_end_the_task(house: House) -> None:
    beginning = asyncio.ensure_future(house.tasks.begin(ASKED))
    while "run_1" not in house.runs.runs.live:  # noqa: ASYNC110 -- the task does it
        await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait([beginning])
    house.may_go_on.set()
    house.may_settle.set()
    await events_of(house, await house.tasks.show(WHO, "run_1"))
    assert (await house.tasks.show(WHO, "run_1")).answer == "Yes."


async def test_runs_of_others_and_of_other_protocols_are_no_tasks(house: House) -> None:
    await house.tasks.begin(ASKED)
    with pytest.raises(NotFound):
        await house.tasks.show(Principal(key_id="k2", owner="eve"), "run_1")
    await house.runs.begun("run_2", session="mine")
    with pytest.raises(NotFound):
        await house.tasks.show(WHO, "run_2")
    with pytest.raises(NotFound):
        await house.tasks.cancel(WHO, "run_2")


async def test_a_task_that_does_not_end_when_it_is_told_to_is_shown_as_it_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_tasks, "END_S", 0.01)
    task = await house.tasks.begin(ASKED)
    assert (await house.tasks.cancel(WHO, task.run.id)).run.status == "running"


async def test_an_answer_that_another_process_has_finished_is_remembered_when_it_is_looked_at(house: House) -> None:
    task = await house.tasks.begin(ASKED)
    house.may_go_on.set()
    house.may_settle.set()
    await events_of(house, task)
    house.kept.clear()
    await house.tasks.show(WHO, task.run.id)
    assert house.kept == []
    store = house.runs.store
    store.runs["run_1"] = msgspec.structs.replace(store.runs["run_1"], fence=2)
    await house.tasks.show(WHO, task.run.id)
    assert house.kept == [("o", "a2a:c", "run_1", "hi", "Yes.")]

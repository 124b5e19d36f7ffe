"""What a session remembers of a turn: its plan and what its tools returned, no messages (SESSION-03)."""

from __future__ import annotations

import msgspec
import pytest

from convene.errors import StoreFault
from convene.events import Fold, TextDelta, ToolRan
from convene.serving.base_agentic import Round
from convene.serving.base_steps import StepPlan
from convene.serving.remembering import RESULT_BYTES_MAX, RESULTS_MAX, notes_of
from run_doubles import RunHouse, an_answer


def ran(step: str, result: object = None, status: str = "done") -> ToolRan:
    return ToolRan(id=step, tool_name="look", args={"q": step}, result=result, status=status)  # type: ignore[arg-type]


def gathered(*tools: ToolRan) -> Fold:
    found = Fold()
    found.extend((TextDelta("a message"), *tools))
    return found


def test_plan_and_results_are_worth_keeping_messages_and_failures_are_not() -> None:
    notes = notes_of("run_1", gathered(ran("s1", {"sky": "blue"}), ran("s2", None, "failed")), b'{"steps":[]}')
    assert {name: msgspec.json.decode(body) for name, body in notes.items()} == {
        "plan": {"steps": []},
        "result:run_1:s1": {"tool_name": "look", "args": {"q": "s1"}, "result": {"sky": "blue"}},
    }
    assert b"a message" not in b"".join(notes.values())


@pytest.mark.parametrize("plan", [b"", b"no json", b"null", b"\xff"])
def test_a_plan_that_is_none_is_not_kept(plan: bytes) -> None:
    assert notes_of("run_1", gathered(), plan) == {}


def test_a_plan_that_the_model_wrote_is_the_text_of_its_round() -> None:
    output = msgspec.json.encode(Round(text='{"steps":[1]}', step_id="s1"))
    assert notes_of("run_1", gathered(), output) == {"plan": b'{"steps":[1]}'}
    prose = msgspec.json.encode(Round(text="I have no plan."))
    assert notes_of("run_1", gathered(), prose) == {"plan": prose}


def test_so_many_results_are_kept_the_last_ones_and_large_ones_are_cut() -> None:
    notes = notes_of("r", gathered(*(ran(f"s{number}") for number in range(RESULTS_MAX + 5))), b"")
    assert list(notes) == [f"result:r:s{number}" for number in range(5, RESULTS_MAX + 5)]
    (large,) = notes_of("r", gathered(ran("s1", "x" * RESULT_BYTES_MAX)), b"").values()
    assert msgspec.json.decode(large) == {"tool_name": "look", "args": {}, "cut": True}
    assert all(len(body) <= RESULT_BYTES_MAX for body in notes.values())


async def test_a_run_that_is_done_leaves_its_notes_in_its_session() -> None:
    house = RunHouse()
    await house.sessions.enter("o", "s")
    journal = await house.begun(session="s")
    for plan in (b'{"steps":[1]}', b'{"steps":[1,2]}'):
        step = await journal.open(StepPlan(kind="plan", name="plan", input=plan))
        await step.close("done", plan)
    answer = an_answer()
    answer.add(ran("s3", 7))
    await journal.finish("done", answer)
    assert set(await house.sessions.recall("o", "s")) == {"plan", "result:run_1:s3"}
    assert (await house.sessions.recall("o", "s"))["plan"] == b'{"steps":[1,2]}'


async def test_a_plan_from_before_a_kill_is_remembered_too() -> None:
    house = RunHouse()
    await house.sessions.enter("o", "s")
    journal = await house.begun(session="s")
    plan = StepPlan(kind="plan", name="plan")
    await (await journal.open(plan)).close("done", b"[1]")
    journal = await house.after_a_kill()
    await journal.open(plan)
    await journal.finish("done", an_answer())
    assert await house.sessions.recall("o", "s") == {"plan": b"[1]"}


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_run_that_did_not_end_well_leaves_nothing(status: str) -> None:
    house = RunHouse()
    await house.sessions.enter("o", "s")
    journal = await house.begun(session="s")
    answer = an_answer()
    answer.add(ran("s1"))
    await journal.finish(status, answer)  # type: ignore[arg-type]  # one of the words
    assert await house.sessions.recall("o", "s") == {}


async def test_without_a_session_nothing_is_remembered_and_a_store_that_fails_is_no_fault_of_the_run() -> None:
    house = RunHouse()
    answer = an_answer()
    answer.add(ran("s1"))
    await (await house.begun()).finish("done", answer)
    assert house.talk.records == {}
    house.talk.broken = True
    await (await house.begun("run_2", session="s")).finish("done", answer)
    assert house.store.runs["run_2"].status == "done"
    with pytest.raises(StoreFault):
        await house.sessions.recall("o", "s")

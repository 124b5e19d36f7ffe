"""The journal of a run: every step is written before its effect and after it, and is never done twice (D4)."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from convene.errors import Conflict, StoreFault
from convene.events import Fold, StepChanged, TextDelta, ToolRan
from convene.serving.base_runs import RunEnded
from convene.serving.base_steps import StepPlan
from convene.serving.journal import OUTCOME_BYTES_MAX, RunDivergedError, StoredJournal, shown_of
from convene.usage import Usage
from run_doubles import WHO, RunHouse, a_round, a_tool, an_answer


@pytest.fixture
def house() -> RunHouse:
    return RunHouse()


async def test_a_step_is_written_before_its_effect_and_after_it(house: RunHouse) -> None:
    journal = await house.begun()
    step = await journal.open(StepPlan(kind="tool", name="look", input=b'{"q":1}', summary="looks", depends_on=("s9",)))
    (row,) = house.store.rows.values()
    assert (row.number, row.status, row.attempt, row.fence, row.input, row.output) == (
        1, "running", 1, 1, b'{"q":1}', b"",
    )  # fmt: skip
    assert step.recorded is None
    assert step.change == StepChanged(
        id="s1", kind="tool", name="look", status="running", summary="looks", depends_on=("s9",),
        started_at=house.clock.now(),
    )  # fmt: skip
    house.clock.move(2)
    change = await step.close("done", b"[1]", summary="found", usage=Usage(3, 4), cost_micros=9)
    (row,) = house.store.rows.values()
    assert (row.status, row.output, row.prompt_tokens, row.completion_tokens, row.cost_micros) == (
        "done", b"[1]", 3, 4, 9,
    )  # fmt: skip
    assert (change.status, change.summary, change.ended_at) == ("done", "found", house.clock.now())
    assert change.usage == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert shown_of(row).step == change


async def test_numbers_and_changes_count_in_the_order_of_the_calls_not_of_the_waits(house: RunHouse) -> None:
    journal = await house.begun()
    second_first = [journal.open(a_tool(name)) for name in ("a", "b", "c")]
    steps = [await waiter for waiter in reversed(second_first)]
    assert [(step.id, step.change.name) for step in steps] == [("s3", "c"), ("s2", "b"), ("s1", "a")]
    closing, opening = steps[2].close("done"), journal.open(a_tool("d"))
    await asyncio.gather(opening, closing)
    assert [(row.number, row.seq, row.status) for row in house.store.written] == [
        (1, 1, "running"), (2, 2, "running"), (3, 3, "running"), (1, 4, "done"), (4, 5, "running"),
    ]  # fmt: skip


async def test_words_for_readers_alone_are_not_written(house: RunHouse) -> None:
    journal = await house.begun()
    step = await journal.open(a_tool())
    shown = step.show("half way", {"seen": 1})
    assert (shown.summary, shown.detail, shown.status) == ("half way", {"seen": 1}, "running")
    assert step.show("nearly").detail == {"seen": 1}
    assert len(house.store.written) == 1
    assert (await step.close("failed")).summary == "nearly", "the last words stay if the end has none"


async def test_after_a_kill_an_ended_step_is_given_from_the_journal_and_not_written_again(house: RunHouse) -> None:
    journal = await house.begun()
    for number, status in enumerate(("done", "failed", "skipped"), 1):
        step = await journal.open(a_tool(arguments=b"%d" % number))
        await step.close(status, b"out %d" % number)  # type: ignore[arg-type]  # one of the words
    before = dict(house.store.rows)
    journal = await house.after_a_kill()
    for number, status in enumerate(("done", "failed", "skipped"), 1):
        step = await journal.open(a_tool(arguments=b"%d" % number))
        assert step.recorded is not None
        assert (step.recorded.status, step.recorded.output) == (status, b"out %d" % number)
        assert step.recorded.change.status == status
        with pytest.raises(RuntimeError, match="not closed again"):
            step.close("done")
    assert house.store.rows == before


async def test_a_step_that_was_begun_is_done_again_with_the_same_key_and_one_attempt_more(house: RunHouse) -> None:
    journal = await house.begun()
    first = await journal.open(a_tool())
    key = first.idempotency_key
    for attempt in (2, 3):
        journal = await house.after_a_kill()
        step = await journal.open(a_tool())
        assert step.recorded is None
        assert step.idempotency_key == key == "run_1:s1:1"
        (row,) = house.store.rows.values()
        assert (row.attempt, row.fence, row.status) == (attempt, attempt, "running")


async def test_keys_of_different_steps_and_runs_differ(house: RunHouse) -> None:
    journals = [await house.begun(run_id) for run_id in ("run_1", "run_11")]
    keys = {(await journal.open(a_tool())).idempotency_key for journal in journals for _ in range(3)}
    assert len(keys) == 6


async def test_changes_go_on_counting_after_a_kill(house: RunHouse) -> None:
    journal = await house.begun()
    await (await journal.open(a_tool())).close("done")
    journal = await house.after_a_kill()
    await journal.open(a_tool())
    await journal.open(a_tool("next"))
    assert [row.seq for row in house.store.written] == [1, 2, 3]


@pytest.mark.parametrize(
    "other",
    [a_tool("other"), a_tool(arguments=b'{"other":1}'), StepPlan(kind="agent", name="look", input=b"{}")],
    ids=["name", "input", "kind"],
)
@pytest.mark.parametrize("ended", [True, False])
async def test_another_step_than_before_the_kill_is_refused_and_says_what_differs(
    house: RunHouse, other: StepPlan, *, ended: bool
) -> None:
    journal = await house.begun()
    step = await journal.open(a_tool())
    if ended:
        await step.close("done", b"secret")
    before = dict(house.store.rows)
    journal = await house.after_a_kill()
    with pytest.raises(RunDivergedError, match=r"step s1 was tool 'look' before"):
        await journal.open(other)
    assert house.store.rows == before


async def test_nothing_begins_in_a_run_whose_end_was_asked_for(house: RunHouse) -> None:
    journal = await house.begun()
    told: list[str] = []
    journal.attach(lambda: told.append("end"))
    step = await journal.open(a_tool())
    journal.cancel()
    journal.cancel()
    assert told == ["end"]
    with pytest.raises(Conflict) as raised:
        await journal.open(a_tool())
    assert raised.value.code == "run_cancelled"
    assert (await step.close("done")).status == "done", "what was under way may still say how it ended"


async def test_who_attaches_late_hears_at_once_that_the_end_was_asked_for(house: RunHouse) -> None:
    journal = await house.begun()
    journal.cancel()
    told: list[str] = []
    journal.attach(lambda: told.append("end"))
    assert told == ["end"]


async def test_a_store_that_fails_is_told_to_who_waits(house: RunHouse) -> None:
    journal = await house.begun()
    step = await journal.open(a_tool())
    house.store.broken = True
    with pytest.raises(StoreFault):
        await journal.open(a_tool())
    with pytest.raises(StoreFault):
        await step.close("done")


async def test_a_lost_hold_is_told_to_who_waits_and_the_run_stays_the_new_holders(house: RunHouse) -> None:
    lost = await house.begun()
    step = await lost.open(a_tool())
    held = await house.after_a_kill()
    with pytest.raises(Conflict):
        await step.close("done", b"late")
    await lost.finish("failed", Fold(), "conflict")
    assert house.store.runs["run_1"].status == "running"
    assert house.runs.live == {"run_1": held}, "the end of the lost one does not take the run from its new holder"


async def test_a_caller_that_is_cancelled_loses_nothing_that_it_has_written(house: RunHouse) -> None:
    journal = await house.begun()
    step = await journal.open(a_tool())

    async def close() -> None:
        await step.close("done", b"out")

    task = asyncio.create_task(close())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    (row,) = house.store.rows.values()
    assert row.status == "done"
    await asyncio.sleep(0)
    assert [piece[1].status for piece in journal.log.entries if isinstance(piece[1], StepChanged)][-1] == "done"


async def test_a_round_under_way_keeps_what_is_reserved_for_it_until_its_use_is_known(house: RunHouse) -> None:
    journal = await house.begun()
    reported = await journal.open(a_round(1, reserved=100))
    broken = await journal.open(a_round(2, reserved=200))
    skipped = await journal.open(a_round(3, reserved=300))
    assert [row.reserved_tokens for row in await house.store.steps("run_1")] == [100, 200, 300]
    await reported.close("done", usage=Usage(1, 2))
    await broken.close("failed")
    await skipped.close("skipped")
    assert {row.number: row.reserved_tokens for row in house.store.rows.values()} == {1: 0, 2: 200, 3: 0}


async def test_the_end_is_kept_with_the_answer_and_ends_what_was_under_way(house: RunHouse) -> None:
    journal = await house.begun()
    await (await journal.open(a_tool("a"))).close("done")
    await journal.open(a_round(2, reserved=50))
    await journal.finish("cancelled", an_answer(), "run_cancelled")
    run = house.store.runs["run_1"]
    assert (run.status, run.finished_us) == ("cancelled", house.runs.now_us())
    assert run.expires_us == house.runs.now_us() + house.runs.terms.keep_us
    rows = await house.store.steps("run_1")
    assert [(row.number, row.status, row.reserved_tokens) for row in rows] == [(1, "done", 0), (2, "failed", 50)]
    assert house.runs.live == {}
    assert journal.log.entries[-1] == (5, RunEnded("cancelled", "run_cancelled"))
    assert journal.log.over


async def test_the_first_end_counts(house: RunHouse) -> None:
    journal = await house.begun()
    await journal.finish("done", an_answer())
    await journal.finish("failed", Fold(), "late")
    assert house.store.runs["run_1"].status == "done"
    assert sum(isinstance(piece[1], RunEnded) for piece in journal.log.entries) == 1


async def test_an_end_that_the_store_does_not_take_is_written_as_soon_as_it_does(house: RunHouse) -> None:
    journal = await house.begun()
    house.store.broken = True
    await journal.finish("done", an_answer())
    with pytest.raises(StoreFault):
        await house.runs.look()
    assert house.store.runs["run_1"].finished_us is None
    house.store.broken = False
    await house.runs.look()
    assert house.store.runs["run_1"].status == "done"
    await house.runs.look()


async def test_a_run_that_ends_because_the_server_stops_is_left_to_the_next(house: RunHouse) -> None:
    journal = await house.begun()
    house.going_down = True
    await journal.finish("cancelled", Fold(), "client_left")
    assert house.store.runs["run_1"].status == "running"
    assert journal.log.over
    assert house.runs.live == {}


@pytest.mark.parametrize("status", ["done", "failed"])
async def test_a_run_that_ends_by_itself_while_the_server_stops_has_ended(house: RunHouse, status: str) -> None:
    journal = await house.begun()
    house.going_down = True
    await journal.finish(status, Fold())  # type: ignore[arg-type]  # one of the words
    assert house.store.runs["run_1"].status == status


async def test_a_run_that_its_owner_ended_has_ended_though_the_server_stops(house: RunHouse) -> None:
    journal = await house.begun()
    journal.cancel()
    house.going_down = True
    await journal.finish("cancelled", Fold(), "run_cancelled")
    assert house.store.runs["run_1"].status == "cancelled"


async def test_text_becomes_durable_with_the_step_that_follows_it(house: RunHouse) -> None:
    journal = await house.begun()
    one = await journal.open(a_round(1))
    for text in ("so ", "far"):
        journal.saw(TextDelta(text))
    await one.close("done", usage=Usage(1, 1))
    journal.saw(TextDelta(", so good"))
    two = await journal.open(a_tool())
    await two.close("done")
    journal.saw(TextDelta("; the rest is in the answer"))
    assert [shown_of(row).said for row in await house.store.steps("run_1")] == [((2, "so far"),), ((3, ", so good"),)]


def changes(journal: StoredJournal) -> list[tuple[int, str, str]]:
    return [(seq, event.id, event.status) for seq, event in journal.log.entries if isinstance(event, StepChanged)]


def text_of(journal: StoredJournal) -> str:
    return "".join(event.text for _, event in journal.log.entries if isinstance(event, TextDelta))


async def test_the_log_has_durable_steps_once_in_order_and_other_events_between_them(house: RunHouse) -> None:
    journal = await house.begun()
    one = await journal.open(a_round(1))
    journal.saw(one.change)
    journal.saw(TextDelta("a"))
    progress = one.show("half way")
    journal.saw(progress)
    end = await one.close("done")
    journal.saw(end)
    assert changes(journal) == [(1, "s1", "running"), (0, "s1", "running"), (2, "s1", "done")]
    assert [seq for seq, _ in journal.log.entries] == [1, 0, 0, 2]


@pytest.mark.parametrize("after_close", [True, False], ids=["text after the end of its round", "text before it"])
async def test_what_is_said_again_after_a_kill_is_in_the_log_once(house: RunHouse, *, after_close: bool) -> None:
    async def play(journal: StoredJournal, upto: int) -> None:
        for number in range(1, upto + 1):
            step = await journal.open(a_round(number))
            said = TextDelta(f"text of round {number}. ")
            if step.recorded is not None:
                journal.saw(step.recorded.change)
                journal.saw(said)
            elif after_close:
                journal.saw(await step.close("done", usage=Usage(1, 1)))
                journal.saw(said)
            else:
                journal.saw(said)
                journal.saw(await step.close("done", usage=Usage(1, 1)))

    await play(await house.begun(), 3)
    journal = await house.after_a_kill()
    await play(journal, 5)
    assert text_of(journal) == "".join(f"text of round {number}. " for number in range(1, 6))
    numbers = [seq for seq, _, _ in changes(journal)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(numbers)


async def test_what_a_killed_round_had_said_is_forgotten(house: RunHouse) -> None:
    journal = await house.begun()
    await journal.open(a_round(1))
    journal.saw(TextDelta("was never fin"))
    journal = await house.after_a_kill()
    step = await journal.open(a_round(1))
    journal.saw(TextDelta("other words"))
    await step.close("done", usage=Usage(1, 1))
    assert text_of(journal) == "other words"
    assert [shown_of(row).said for row in house.store.rows.values()] == [((3, "other words"),)]


async def test_parallel_steps_end_in_any_order_and_a_kill_repeats_only_those_that_had_not_ended(
    house: RunHouse,
) -> None:
    names = ("a", "b", "c")
    for order in itertools.permutations(range(3)):
        for ended in range(4):
            run_id = f"run_{''.join(map(str, order))}{ended}"
            journal = await house.begun(run_id)
            steps = [await journal.open(a_tool(name)) for name in names]
            for place in order[:ended]:
                await steps[place].close("done", names[place].encode())
            journal = await house.after_a_kill()
            again = [await journal.open(a_tool(name)) for name in names]
            done = [step.recorded is not None for step in again]
            assert done == [place in order[:ended] for place in range(3)]
            await journal.finish("done", an_answer())


async def test_an_answer_that_is_too_large_is_kept_without_what_tools_returned(house: RunHouse) -> None:
    journal = await house.begun()
    answer = an_answer("the text stays")
    answer.add(ToolRan(id="s1", tool_name="look", args={"q": 1}, result="x" * OUTCOME_BYTES_MAX))
    await journal.finish("done", answer)
    assert len(house.store.runs["run_1"].outcome) < 10_000
    kept = (await house.runs.show(WHO, "run_1")).answer
    assert kept is not None
    assert kept.choices[0].text == "the text stays"
    assert [(ran.args, ran.result) for ran in kept.tools] == [({"q": 1}, None)]
    assert [noticed.code for noticed in kept.notices] == ["results_not_kept"]


async def test_ends_that_the_store_does_not_take_are_bounded(house: RunHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convene.serving.runs.OWED_MAX", 2)
    journals = [await house.begun(f"run_{number}") for number in range(3)]
    house.store.broken = True
    for journal in journals:
        await journal.finish("done", an_answer())
    house.store.broken = False
    await house.runs.look()
    assert [run.status for run in house.store.runs.values()] == ["running", "done", "done"]

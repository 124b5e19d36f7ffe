"""Runs as their owners see them: listed, shown, read again from any place, cancelled; a foreign one is not there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, Busy, NotFound
from convene.events import (
    Began,
    CallDelta,
    Cited,
    Finished,
    Fold,
    Noticed,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    ToolRan,
    UsageReported,
    fold,
)
from convene.serving import runs as runs_module
from convene.serving.base_runs import RunEnded, answer_of
from convene.serving.run_log import RunLog, joined
from convene.serving.runs import READERS_MAX, RunTerms
from convene.usage import Usage
from run_doubles import OTHER, WHO, RunHouse, a_round, a_tool, an_answer, job

if TYPE_CHECKING:
    from convene.events import Event
    from convene.serving.base_runs import Piece
    from convene.serving.journal import StoredJournal, StoredStep


@pytest.fixture
def house() -> RunHouse:
    return RunHouse()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at the store again and again does so without a pause."""
    monkeypatch.setattr(runs_module, "POLL_S", 0.0)
    monkeypatch.setattr(runs_module, "WATCH_S", 0.0)
    monkeypatch.setattr(runs_module, "SWEEP_S", 0.0)


async def read(house: RunHouse, run_id: str = "run_1", after: int = 0) -> list[Piece]:
    """Read a run to its end."""
    found: list[Piece] = []
    async with asyncio.timeout(5):
        async for pieces in house.runs.read(house.store.runs[run_id], after):
            found += pieces
    return found


def words(pieces: list[Piece]) -> list[object]:
    """Return pieces in short: text as it is, a step as `id status`, an end as its status, others by their class."""
    short: list[object] = []
    for seq, event in pieces:
        match event:
            case TextDelta():
                short.append(event.text)
            case StepChanged():
                short.append((seq, f"{event.id} {event.status}"))
            case RunEnded():
                short.append((seq, event.status))
            case _:
                short.append(type(event).__name__)
    return short


async def two_rounds(journal: StoredJournal) -> None:
    """Play two rounds with a tool between them: durable events 1 to 6, text before 2 and before 6."""
    await first_round(journal)
    await second_round(journal)


async def first_round(journal: StoredJournal) -> None:
    one = await journal.open(a_round(1))
    journal.saw(TextDelta("I "))
    journal.saw(TextDelta("look. "))
    await one.close("done", usage=Usage(10, 2))


async def second_round(journal: StoredJournal) -> None:
    tool = await journal.open(a_tool())
    await tool.close("done", b"{}")
    two = await journal.open(a_round(2))
    journal.saw(TextDelta("Found "))
    journal.saw(TextDelta("it."))
    await two.close("done", usage=Usage(20, 3), cost_micros=7)


WHOLE: list[str | tuple[int, str]] = [
    (1, "s1 running"), "I look. ", (2, "s1 done"), (3, "s2 running"), (4, "s2 done"), (5, "s3 running"), "Found it.",
    (6, "s3 done"),
]  # fmt: skip


async def test_whoever_comes_back_gets_what_is_behind_its_place_then_what_comes(house: RunHouse) -> None:
    journal = await house.begun()
    await first_round(journal)
    reading = asyncio.create_task(read(house, after=2))
    await asyncio.sleep(0)
    await second_round(journal)
    await journal.finish("done", an_answer("I look. Found it."))
    found = words(await reading)
    assert [one for one in found if isinstance(one, tuple)] == [
        (3, "s2 running"), (4, "s2 done"), (5, "s3 running"), (6, "s3 done"), (7, "done"),
    ]  # fmt: skip
    assert "".join(one for one in found if isinstance(one, str)) == "Found it."


@pytest.mark.parametrize("after", range(9))
async def test_a_late_reader_gets_the_text_so_far_as_one_delta_in_its_place(house: RunHouse, after: int) -> None:
    journal = await house.begun()
    await two_rounds(journal)
    journal.saw(TextDelta("More "))
    journal.saw(TextDelta("to come"))
    reading = house.runs.read(house.store.runs["run_1"], after)
    first = await anext(reading)
    expected = WHOLE[next((i for i, one in enumerate(WHOLE) if isinstance(one, tuple) and one[0] == after), -1) + 1 :]
    assert words(first) == [*(expected if after <= 6 else []), "More to come"]
    await reading.aclose()


async def test_a_reader_that_leaves_does_not_disturb_the_others(house: RunHouse) -> None:
    journal = await house.begun()
    readers = [asyncio.create_task(read(house)) for _ in range(3)]
    await asyncio.sleep(0)
    readers[0].cancel()
    await asyncio.wait([readers[0]])
    await two_rounds(journal)
    await journal.finish("done", an_answer())
    for reader in readers[1:]:
        assert words(await reader)[-1] == (7, "done")
    assert journal.log.readers == 0


async def test_readers_of_one_run_are_bounded(house: RunHouse) -> None:
    journal = await house.begun()
    journal.saw(TextDelta("x"))
    reading = [house.runs.read(house.store.runs["run_1"], 0) for _ in range(READERS_MAX + 1)]
    for reader in reading[:-1]:
        await anext(reader)
    with pytest.raises(Busy):
        await anext(reading[-1])
    await reading[0].aclose()
    again = house.runs.read(house.store.runs["run_1"], 0)
    assert words(await anext(again)) == ["x"]
    for reader in (*reading, again):
        await reader.aclose()


@pytest.mark.parametrize("after", range(9))
async def test_a_run_that_is_over_is_read_from_the_store_from_any_place(house: RunHouse, after: int) -> None:
    journal = await house.begun()
    await two_rounds(journal)
    answer = an_answer("I look. Found it. The rest.")
    answer.add(ToolRan(id="s2", tool_name="look"))
    await journal.finish("done", answer)
    start = next((place + 1 for place, one in enumerate(WHOLE) if isinstance(one, tuple) and one[0] == after), 0)
    # of a step the store tells the last state only
    behind = [one for one in WHOLE[start:] if not (isinstance(one, tuple) and one[1].endswith("running"))]
    end = [" The rest.", "Finished", "ToolRan", "UsageReported", (7, "done")]
    assert words(await read(house, after=after)) == ([*behind, *end] if after < 7 else end[-1:])


async def test_a_run_of_another_process_is_followed_in_the_store_to_its_end(house: RunHouse) -> None:
    elsewhere = await house.begun()
    house.runs.live.clear()
    reading = house.runs.read(house.store.runs["run_1"], 0)
    one = await elsewhere.open(a_round(1))
    assert words(await anext(reading)) == [(1, "s1 running")]
    elsewhere.saw(TextDelta("I look. "))
    await one.close("done", usage=Usage(1, 1))
    assert words(await anext(reading)) == ["I look. ", (2, "s1 done")]
    elsewhere.saw(TextDelta("The end."))
    await elsewhere.finish("done", an_answer("I look. The end."))
    assert words(await anext(reading)) == ["The end.", "Finished", "UsageReported", (3, "done")]
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_a_reader_is_handed_on_when_another_process_and_then_this_one_takes_the_run_up(house: RunHouse) -> None:
    lost = await house.begun()
    await two_rounds(lost)
    reading = house.runs.read(house.store.runs["run_1"], 0)
    assert words(await anext(reading)) == WHOLE
    journal = await house.after_a_kill()
    lost.drop()
    third = await _replayed(journal)
    found = asyncio.create_task(_rest(reading))
    journal.saw(TextDelta(" Really."))
    await third.close("done")
    await journal.finish("done", an_answer("I look. Found it. Really."))
    assert [one for one in await found if one != "Finished"] == [
        (7, "s4 running"), " Really.", (8, "s4 done"), (9, "done"),
    ]  # fmt: skip


async def _replayed(journal: StoredJournal) -> StoredStep:
    for plan in (a_round(1), a_tool(), a_round(2)):
        step = await journal.open(plan)
        assert step.recorded is not None
        journal.saw(step.recorded.change)
        if plan.kind == "model":
            journal.saw(TextDelta("I look. " if plan == a_round(1) else "Found it."))
    return await journal.open(a_tool("last"))


async def _rest(reading: object) -> list[object]:
    found: list[Piece] = []
    async with asyncio.timeout(5):
        async for pieces in reading:  # type: ignore[attr-defined]  # a generator of pieces
            found += pieces
    return words(found)


async def test_a_stale_text_of_a_killed_round_makes_the_reader_get_the_answer_whole(house: RunHouse) -> None:
    journal = await house.begun()
    side = await journal.open(a_round(1))
    journal.saw(TextDelta("Killed wor"))
    await (await journal.open(a_tool())).close("done")  # a second stream made it durable
    assert side.recorded is None
    await journal.finish("done", an_answer("Other words."))
    found = words(await read(house))
    assert found[-4:] == ["Other words.", "Finished", "UsageReported", (5, "done")]


async def test_a_run_that_is_forgotten_while_it_is_read_is_not_there(house: RunHouse) -> None:
    await house.begun()
    run = house.store.runs.pop("run_1")
    house.runs.live.clear()
    with pytest.raises(NotFound):
        await anext(house.runs.read(run, 0))


async def test_a_foreign_run_is_not_there_like_a_missing_one(house: RunHouse) -> None:
    await house.begun()
    for work in (house.runs.show, house.runs.cancel):
        told = set()
        for who, run_id in ((OTHER, "run_1"), (WHO, "run_2"), (OTHER, "run_2")):
            with pytest.raises(NotFound) as raised:
                await work(who, run_id)
            told.add((raised.value.message, raised.value.code, raised.value.param))
        assert len(told) == 1
    assert not house.store.runs["run_1"].cancel_asked
    assert await house.runs.page(OTHER, 10, None, "") == ([], False)
    with pytest.raises(BadRequest):
        await house.runs.page(OTHER, 10, None, "run_1")


async def test_runs_are_listed_newest_first_page_by_page_and_by_session(house: RunHouse) -> None:
    for number in range(5):
        await house.begun(f"run_{'x' * number}", session="a" if number % 2 else "b" * 300)
    seen: list[str] = []
    after = ""
    while True:
        page, more = await house.runs.page(WHO, 2, None, after)
        seen += (run.id for run in page)
        if not more:
            break
        after = page[-1].id
    assert seen == ["run_xxxx", "run_xxx", "run_xx", "run_x", "run_"]
    assert [run.id for run in (await house.runs.page(WHO, 9, "a", ""))[0]] == ["run_xxx", "run_x"]
    assert len((await house.runs.page(WHO, 9, "b" * 300, ""))[0]) == 3
    assert all(len(run.session_id) <= 256 for run in house.store.runs.values())


async def test_a_run_is_shown_with_its_steps_what_it_has_used_and_its_answer(house: RunHouse) -> None:
    journal = await house.begun()
    await two_rounds(journal)
    state = await house.runs.show(WHO, "run_1")
    assert [(step.id, step.status) for step in state.steps] == [("s1", "done"), ("s2", "done"), ("s3", "done")]
    assert (state.usage, state.cost_micros, state.answer) == (Usage(30, 5), 7, None)
    await journal.finish("done", an_answer("whole"))
    answer = (await house.runs.show(WHO, "run_1")).answer
    assert answer is not None
    assert answer.choices[0].text == "whole"


async def test_cancelling_ends_a_run_here_at_once_and_elsewhere_when_its_holder_looks(house: RunHouse) -> None:
    told: list[str] = []
    both = asyncio.Event()
    here, there = await house.begun("run_here"), await house.begun("run_there")
    here.attach(lambda: told.append("here"))

    def end_there() -> None:
        told.append("there")
        both.set()

    there.attach(end_there)
    assert (await house.runs.cancel(WHO, "run_here")).cancel_asked
    assert told == ["here"]
    await house.store.ask_cancel("o", "run_there")  # as another process writes it
    watching = asyncio.create_task(house.runs.watch())
    async with asyncio.timeout(5):
        await both.wait()
    assert told == ["here", "there"]
    house.store.broken = True
    for _ in range(5):
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled(), "a store that fails does not end the watch"


async def test_a_request_that_is_too_large_is_not_kept(house: RunHouse) -> None:
    house.runs.terms = RunTerms(request_bytes_max=2000)
    await house.runs.begin(job("run_small"))
    await house.runs.begin(job("run_large", text="x" * 2000))
    assert house.store.runs["run_small"].request
    assert house.store.runs["run_large"].request == b""


async def test_what_is_over_is_forgotten_when_its_time_is_up(house: RunHouse) -> None:
    await (await house.begun()).finish("done", an_answer())
    sweeping = asyncio.create_task(house.runs.sweep())
    await asyncio.sleep(0)
    assert "run_1" in house.store.runs
    house.clock.move(house.runs.terms.keep_us / 1e6 + 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert "run_1" not in house.store.runs
    house.store.broken = True
    for _ in range(10):
        await asyncio.sleep(0)
    sweeping.cancel()
    await asyncio.wait([sweeping])
    assert sweeping.cancelled()


EVERYTHING: tuple[Event, ...] = (
    Began("up", "m", "fp"),
    ReasoningDelta("why"),
    TextDelta("text"),
    TextDelta("other", 1),
    RefusalDelta("no", 1),
    CallDelta(0, '{"a":', "c1", "f"),
    CallDelta(0, "1}"),
    CallDelta(1, "{}", "c2", "g"),
    Finished("tool_calls"),
    Finished("length", 1),
    ToolRan(id="s1", tool_name="look", args={"q": 1}, result=[1, None]),
    Cited("https://a.test", "A", 0, 4),
    Noticed("code", "words"),
    UsageReported(Usage(5, 7, 1, 2)),
)


def test_an_answer_is_kept_without_loss() -> None:
    gathered = fold(EVERYTHING)
    again = fold(answer_of(gathered).events())
    assert answer_of(again) == answer_of(gathered)
    assert (again.tools, again.citations, again.notices) == (gathered.tools, gathered.citations, gathered.notices)
    assert (again.began, again.usage, again.finish) == (gathered.began, gathered.usage, gathered.finish)
    assert again.choices[0].tool_calls == gathered.choices[0].tool_calls
    assert answer_of(Fold()).events().__next__.__name__ == "__next__"
    assert list(answer_of(Fold()).events()) == []


def test_neighbouring_deltas_of_one_kind_and_choice_are_joined_and_no_others() -> None:
    pieces: list[Piece] = [
        (0, TextDelta("a")), (0, TextDelta("b")), (0, TextDelta("c", 1)), (0, ReasoningDelta("d")),
        (0, ReasoningDelta("e")), (0, TextDelta("f")), (3, a_step()), (0, TextDelta("g")),
    ]  # fmt: skip
    assert joined(pieces) == [
        (0, TextDelta("ab")), (0, TextDelta("c", 1)), (0, ReasoningDelta("de")), (0, TextDelta("f")), (3, a_step()),
        (0, TextDelta("g")),
    ]  # fmt: skip


def a_step() -> StepChanged:
    return StepChanged(id="s1", kind="tool", name="look", status="done")


async def test_a_log_that_ended_ends_every_reader_wherever_it_is() -> None:
    log = RunLog()
    log.add((1, a_step()))
    waiting = asyncio.create_task(_all(log, 1))
    await asyncio.sleep(0)
    log.end()
    assert await waiting == []
    assert await _all(log, 0) == [(1, a_step())]


async def _all(log: RunLog, after: int) -> list[Piece]:
    return [piece async for pieces in log.read(after) for piece in pieces]

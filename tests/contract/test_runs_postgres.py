"""What only the journal of runs in Postgres has: a connection that may be lost before or after a commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from contract.test_runs import HOLD, NOW_US, run_of, step_of
from convene.errors import StoreFault
from convene.store import postgres_runs, sql_runs
from convene.store.base_runs import Hold
from convene.store.postgres import PostgresStore
from postgres_gate import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from convene.store.postgres_wire import Session
    from convene.store.sql_runs import Work
    from postgres_gate import Gate

DEADLINE_S = 60.0


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def behind(gate: Gate) -> AsyncIterator[PostgresStore]:
    """A store whose way to the database may be shut."""
    opened = await PostgresStore.open(gate.url)
    yield opened
    gate.set("open")
    await opened.aclose()


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many writes each transaction is asked to hold."""
    sizes: list[int] = []
    send = postgres_runs.PostgresRuns._send

    async def noting(session: Session, works: Sequence[Work]) -> None:
        sizes.append(len(works))
        await send(session, works)

    monkeypatch.setattr(postgres_runs.PostgresRuns, "_send", staticmethod(noting))
    return sizes


async def test_what_a_turn_of_the_loop_calls_is_one_transaction(store: PostgresStore, groups: list[int]) -> None:
    await asyncio.gather(
        store.runs.begin(run_of(1)),
        store.runs.begin(run_of(2)),
        *(store.runs.record(HOLD, [step_of(number=number)]) for number in range(1, 6)),
    )
    assert groups == [7]


async def test_a_group_has_a_greatest_size(
    store: PostgresStore, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_runs, "GROUP_MAX", 3)
    await asyncio.gather(
        store.runs.begin(run_of()), *(store.runs.record(HOLD, [step_of(number=number)]) for number in range(1, 8))
    )
    assert groups == [3, 3, 2]
    assert len(await store.runs.steps("run_1")) == 7


async def test_a_commit_whose_answer_is_lost_is_repeated_to_the_same_effect(
    store: PostgresStore, behind: PostgresStore, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    await behind.runs.begin(run_of())
    send = postgres_runs.PostgresRuns._send

    async def send_and_lose_the_commit(session: Session, works: Sequence[Work]) -> None:
        await send(session, works)
        if gate.state == "open" and not lost:
            lost.append(len(works))
            gate.set("mute")

    lost: list[int] = []
    monkeypatch.setattr(postgres_runs.PostgresRuns, "_send", staticmethod(send_and_lose_the_commit))
    writes = [
        behind.runs.begin(run_of(2)),
        behind.runs.record(Hold("run_2", 1), [step_of("run_2")]),
        behind.runs.finish(HOLD, "done", b"answer", NOW_US, NOW_US, [step_of(status="done")]),
    ]
    await until(lambda: store.runs.steps("run_2"))
    assert lost == [3]
    assert not any(write.done() for write in writes)
    gate.set("open")
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*writes)
    assert [run.status for run in await store.runs.page("ann", 9)] == ["running", "done"]
    assert [step.status for step in await store.runs.steps("run_1")] == ["done"]
    assert len(await store.runs.steps("run_2")) == 1


async def test_while_the_database_is_away_writes_wait_and_then_are_told(
    behind: PostgresStore, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await behind.runs.begin(run_of())
    monkeypatch.setattr(postgres_runs, "STUCK_S", 0.05)
    gate.set("shut")
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(StoreFault):
            await behind.runs.record(HOLD, [step_of(number=1)])
    assert "could not be written" in caplog.text
    gate.set("open")
    async with asyncio.timeout(DEADLINE_S):
        await behind.runs.record(HOLD, [step_of(number=2)])
    assert [step.number for step in await behind.runs.steps("run_1")] == [2]


async def test_a_database_that_comes_back_in_time_is_written_to(behind: PostgresStore, gate: Gate) -> None:
    await behind.runs.begin(run_of())
    gate.set("shut")
    waiting = behind.runs.record(HOLD, [step_of()])
    with pytest.raises(StoreFault):  # it is really away
        await behind.database.rows("SELECT 1")
    assert not waiting.done()
    gate.set("open")
    async with asyncio.timeout(DEADLINE_S):
        await waiting
    assert len(await behind.runs.steps("run_1")) == 1


async def test_one_that_no_column_takes_is_told_and_takes_no_other_along(store: PostgresStore) -> None:
    await store.runs.begin(run_of())
    writes = [
        store.runs.record(HOLD, [step_of(number=1)]),
        store.runs.record(HOLD, [step_of(number=2, cost_micros=1 << 70)]),
        store.runs.record(HOLD, [step_of(number=3, name=object())]),
        store.runs.record(HOLD, [step_of(number=4)]),
    ]
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(one) for one in ends] == [type(None), StoreFault, StoreFault, type(None)]
    assert [step.number for step in await store.runs.steps("run_1")] == [1, 4]


async def test_a_fault_of_ours_leaves_nobody_waiting(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await store.runs.begin(run_of())
    with monkeypatch.context() as broken:

        async def send(*_: object) -> None:
            raise RuntimeError("a fault of ours")

        broken.setattr(postgres_runs.PostgresRuns, "_send", staticmethod(send))
        with pytest.raises(StoreFault):
            await store.runs.record(HOLD, [step_of(number=1)])
    assert "a fault of ours" in caplog.text
    await store.runs.record(HOLD, [step_of(number=2)])
    assert [step.number for step in await store.runs.steps("run_1")] == [2]


async def test_texts_that_postgres_cannot_hold_are_mended(store: PostgresStore) -> None:
    await store.runs.begin(run_of(session_id="a\0b", model="\ud800"))
    await store.runs.record(HOLD, [step_of(name="x\0")])
    [run] = await store.runs.page("ann", 9, "a\0b")
    assert (run.session_id, run.model) == ("a\ufffdb", "\ufffd")
    assert [step.name for step in await store.runs.steps("run_1")] == ["x\ufffd"]


async def test_closing_writes_what_is_left(store: PostgresStore, postgres_url: str) -> None:
    closing = await PostgresStore.open(postgres_url)
    begun, recorded = closing.runs.begin(run_of()), closing.runs.record(HOLD, [step_of()])
    await closing.aclose()
    await asyncio.gather(begun, recorded)
    assert len(await store.runs.steps("run_1")) == 1
    with pytest.raises(StoreFault):
        closing.runs.record(HOLD, [step_of()])


async def test_what_cannot_be_written_at_the_end_is_told(
    behind: PostgresStore, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    await behind.runs.begin(run_of())
    monkeypatch.setattr(sql_runs, "STUCK_S", 0.05)
    monkeypatch.setattr(postgres_runs, "GROUP_MAX", 1)
    gate.set("shut")
    waiting = [behind.runs.record(HOLD, [step_of(number=number)]) for number in (1, 2)]
    async with asyncio.timeout(DEADLINE_S):
        await behind.runs.aclose()
        for write in waiting:
            with pytest.raises(StoreFault):
                await write

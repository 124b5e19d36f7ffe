"""What only the journal of runs in SQLite can show: commits shared by a turn of the loop, other writers, faults."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from contract.test_runs import HOLD, NOW_US, run_of, step_of
from convene.errors import Conflict, StoreFault
from convene.store import sql_runs, sqlite_runs, sqlite_sync
from convene.store.base_runs import Hold
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from convene.store.sql_runs import Work
    from convene.store.sqlite_runs import SqliteRuns


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path)
    yield opened
    await opened.aclose()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many writes each transaction is asked to hold."""
    sizes: list[int] = []
    commit = sqlite_runs.SqliteRuns._commit

    def noting(runs: SqliteRuns, works: Sequence[Work]) -> None:
        sizes.append(len(works))
        commit(runs, works)

    monkeypatch.setattr(sqlite_runs.SqliteRuns, "_commit", noting)
    return sizes


def connection_of(store: SqliteStore) -> sqlite3.Connection:
    connection = store.runs._connection
    assert connection is not None
    return connection


def kept(path: Path) -> list[tuple[Any, ...]]:
    """Return the steps that another connection sees."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT run_id, number, status FROM run_steps ORDER BY run_id, number").fetchall()


# Commits.


async def test_what_a_turn_of_the_loop_calls_is_one_commit(store: SqliteStore, commits: list[int]) -> None:
    await store.runs.begin(run_of())
    await asyncio.gather(
        store.runs.record(HOLD, [step_of(number=1, status="done")]),
        store.runs.record(HOLD, [step_of(number=2)]),
        store.runs.begin(run_of(2)),
    )
    assert commits == [1, 3]


async def test_what_is_acknowledged_is_seen_by_others_before_the_caller_goes_on(store: SqliteStore, path: Path) -> None:
    await store.runs.begin(run_of())
    await store.runs.record(HOLD, [step_of()])
    assert kept(path) == [("run_1", 1, "running")]


async def test_a_commit_waits_for_no_disk_and_makes_no_checkpoint_on_the_loop(store: SqliteStore) -> None:
    """`synchronous` 1 is NORMAL: what is committed survives a kill, and a power cut after the next sync of the WAL."""
    await store.runs.begin(run_of())
    for setting, value in (("synchronous", 1), ("wal_autocheckpoint", 0), ("foreign_keys", 1)):
        assert connection_of(store).execute(f"PRAGMA {setting}").fetchone() == (value,)


async def test_nothing_is_opened_before_the_first_write(store: SqliteStore) -> None:
    assert await store.runs.page("ann", 9) == []
    assert store.runs._connection is None


async def test_checkpoints_keep_the_wal_short_and_are_made_by_another_thread(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()

    def checkpoint(where: Path) -> None:
        threads.add(threading.current_thread())
        sqlite_sync.checkpoint(where)

    monkeypatch.setattr(sqlite_runs, "CHECKPOINT_COMMITS", 10)
    monkeypatch.setattr(sqlite_runs, "checkpoint", checkpoint)
    monkeypatch.setattr(sqlite_sync, "RESTART_FRAMES", 100)
    await store.runs.begin(run_of())
    for number in range(400):
        await store.runs.record(HOLD, [step_of(number=number + 1, seq=number + 1, output=b"x" * 8000)])
        if store.runs._checkpoint is not None:
            await store.runs._checkpoint
    size = path.with_name("runs.db-wal").stat().st_size
    assert size < 2_000_000  # some 8 MB without
    assert threads
    assert threading.main_thread() not in threads
    assert len(await store.runs.steps("run_1")) == 400


# While others write, or nothing can be written.


async def test_while_another_process_writes_the_loop_goes_on_and_the_queue_waits(
    store: SqliteStore, path: Path
) -> None:
    await store.runs.begin(run_of())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = store.runs.record(HOLD, [step_of(number=1)])
        for _ in range(50):
            await asyncio.sleep(0)
        second = store.runs.record(HOLD, [step_of(number=2)])
        assert not first.done()
        assert not second.done()
        other.execute("COMMIT")
        await asyncio.gather(first, second)
    assert [step.number for step in await store.runs.steps("run_1")] == [1, 2]


async def test_a_store_that_stays_busy_tells_those_who_wait_and_takes_the_next(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_runs, "STUCK_S", 0.0)
    await store.runs.begin(run_of())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFault):
            await store.runs.record(HOLD, [step_of(number=1)])
        other.execute("COMMIT")
    await store.runs.record(HOLD, [step_of(number=2)])
    assert [step.number for step in await store.runs.steps("run_1")] == [2]
    assert "could not be written" in caplog.text


async def test_a_full_disk_holds_writes_back_until_there_is_room(store: SqliteStore) -> None:
    await store.runs.begin(run_of())
    [pages] = connection_of(store).execute("PRAGMA page_count").fetchone()
    connection_of(store).execute(f"PRAGMA max_page_count = {pages}")
    many = [store.runs.record(HOLD, [step_of(number=number, output=b"x" * 9000)]) for number in range(1, 30)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(one.done() for one in many)
    connection_of(store).execute("PRAGMA max_page_count = 1000000")
    await asyncio.gather(*many)
    assert len(await store.runs.steps("run_1")) == 29


async def test_so_many_writes_may_wait_and_no_more(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_runs, "QUEUE_MAX", 2)
    waiting = [store.runs.begin(run_of(1)), store.runs.begin(run_of(2))]
    with pytest.raises(StoreFault, match="Too many"):
        store.runs.begin(run_of(3))
    await asyncio.gather(*waiting)
    await store.runs.begin(run_of(3))


async def test_one_that_no_column_takes_is_told_and_takes_no_other_along(store: SqliteStore) -> None:
    await store.runs.begin(run_of())
    writes = [
        store.runs.record(HOLD, [step_of(number=1)]),
        store.runs.record(HOLD, [step_of(number=2, cost_micros=1 << 70)]),
        store.runs.begin(run_of(2, created_us=1 << 70)),
        store.runs.record(HOLD, [step_of(number=3, name=object())]),
        store.runs.record(HOLD, [step_of(number=4)]),
    ]
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(one) for one in ends] == [type(None), StoreFault, StoreFault, StoreFault, type(None)]
    assert [step.number for step in await store.runs.steps("run_1")] == [1, 4]


async def test_those_after_an_unfit_one_wait_for_another_process_as_usual(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.runs.begin(run_of())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        write = sqlite_runs.SqliteRuns._write

        def busy_after(connection: sqlite3.Connection, work: Work) -> None:
            """Let the other process begin to write as soon as the unfit one was met."""
            try:
                write(connection, work)
            except OverflowError:
                connection.execute("ROLLBACK")
                other.execute("BEGIN IMMEDIATE")
                monkeypatch.setattr(sqlite_runs.SqliteRuns, "_write", staticmethod(write))
                raise

        monkeypatch.setattr(sqlite_runs.SqliteRuns, "_write", staticmethod(busy_after))
        unfit = store.runs.record(HOLD, [step_of(number=1, cost_micros=1 << 70)])
        fit = store.runs.record(HOLD, [step_of(number=2)])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not fit.done()
        other.execute("COMMIT")
        with pytest.raises(StoreFault):
            await unfit
        await fit
    assert kept(path) == [("run_1", 2, "running")]


# Closing.


async def test_closing_writes_what_is_left(path: Path) -> None:
    store = await SqliteStore.open(path)
    begun, recorded = store.runs.begin(run_of()), store.runs.record(HOLD, [step_of()])
    await store.aclose()
    await store.runs.aclose()
    await asyncio.gather(begun, recorded)
    assert kept(path) == [("run_1", 1, "running")]
    with pytest.raises(StoreFault):
        store.runs.record(HOLD, [step_of()])


async def test_what_cannot_be_written_at_the_end_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(path)
    await store.runs.begin(run_of())
    monkeypatch.setattr(sql_runs, "STUCK_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = store.runs.finish(HOLD, "done", b"", NOW_US, NOW_US)
        await store.runs.aclose()
        with pytest.raises(StoreFault):
            await waiting
        other.execute("ROLLBACK")
    await store.aclose()


# What is kept of a run whose writes were repeated.


async def test_a_write_that_was_tried_twice_is_judged_by_its_last_try(store: SqliteStore, path: Path) -> None:
    """Whoever takes a run over while a write of the former holder waits, takes it before that write."""
    await store.runs.begin(run_of())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = store.runs.record(HOLD, [step_of()])
        for _ in range(10):
            await asyncio.sleep(0)
        other.execute("UPDATE runs SET fence = 2")
        other.execute("COMMIT")
        with pytest.raises(Conflict):
            await waiting
    await store.runs.record(Hold("run_1", 2), [step_of(number=5)])
    assert kept(path) == [("run_1", 5, "running")]

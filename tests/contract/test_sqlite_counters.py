"""What only counters in a file can show: boots, locks, forgetting. The contract itself is `test_counters.py`."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from typing import TYPE_CHECKING, Final

import pytest

from contract.counters_backends import BOOT_ID, IntegerClock
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit
from convene.store import sqlite_counters
from convene.store.base import StoreFault
from convene.store.base_counters import Past
from convene.store.sqlite_counters import WAIT_S, LocalSqliteCounters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR_US: Final = 3_600_000_000
RATE: Final = Limit.rate(Unit.REQUESTS, 10, DAY_US, scope="key", subject="k1", name="requests per day")
SLOTS: Final = Limit.slots(2, scope="key", subject="k1")
BUDGET: Final = Limit.budget(Unit.MICROS, 100, "day", scope="key", subject="k1", name="budget per day")
LIMITS: Final = (RATE, SLOTS, BUDGET)
COST: Final = Amounts(requests=2, micros=30, slots=1)


@pytest.fixture
def clock() -> IntegerClock:
    return IntegerClock()


@pytest.fixture
def counters(tmp_path: Path, clock: IntegerClock) -> Iterator[LocalSqliteCounters]:
    opened = LocalSqliteCounters.open(tmp_path / "data", clock, BOOT_ID)
    yield opened
    opened.close()


@contextlib.contextmanager
def other(tmp_path: Path, clock: IntegerClock, boot_id: str = BOOT_ID) -> Iterator[LocalSqliteCounters]:
    opened = LocalSqliteCounters.open(tmp_path / "data", clock, boot_id)
    yield opened
    opened.close()


@contextlib.contextmanager
def raw(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file past our code."""
    [path] = (tmp_path / "data").glob("counters-*.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def count(tmp_path: Path, table: str) -> int:
    with raw(tmp_path) as connection:
        [number] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 -- our own names
    return int(number)


def test_counters_outlive_their_process(tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters) -> None:
    assert counters.fresh()
    before = counters.reserve("a", LIMITS, COST, HOUR_US)
    counters.close()
    with other(tmp_path, clock) as again:
        assert not again.fresh()
        assert again.levels(LIMITS) == before
        settled = again.settle("a", Amounts(requests=1))
        assert settled is not None
        assert settled.states[1:] == (0, 0)


def test_another_boot_begins_with_empty_counters_and_removes_the_old(
    tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters
) -> None:
    assert counters.fresh()
    counters.reserve("a", LIMITS, COST, HOUR_US)
    counters.close()
    clock.now_us = 7_000_000
    with other(tmp_path, clock, "b0071d") as again:
        assert again.fresh()
        assert not again.fresh()
        assert again.levels(LIMITS).states == (clock.now_us, 0, 0)
        assert again.settle("a", Amounts()) is None
        names = {path.name for path in (tmp_path / "data").iterdir()}
        assert names == {"counters-1-b0071d.db", "counters-1-b0071d.db-wal", "counters-1-b0071d.db-shm"}


def test_a_file_that_a_power_cut_has_torn_is_never_opened_again(tmp_path: Path, clock: IntegerClock) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"counters-1-{BOOT_ID}.db").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    with other(tmp_path, clock, "next-boot") as counters:
        assert isinstance(counters.reserve("a", LIMITS, COST, HOUR_US), Grant)


def test_files_are_for_their_owner_only(tmp_path: Path, counters: LocalSqliteCounters) -> None:
    counters.reserve("a", LIMITS, COST, HOUR_US)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_what_is_no_database_is_a_store_fault(tmp_path: Path, clock: IntegerClock) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"counters-1-{BOOT_ID}.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreFault) as caught:
        LocalSqliteCounters.open(tmp_path / "data", clock, BOOT_ID)
    assert str(tmp_path) in caught.value.detail
    assert str(tmp_path) not in caught.value.message


def test_a_folder_that_cannot_be_made_is_a_store_fault(tmp_path: Path, clock: IntegerClock) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StoreFault):
        LocalSqliteCounters.open(tmp_path / "data", clock, BOOT_ID)


def test_closed_counters_are_a_store_fault(counters: LocalSqliteCounters) -> None:
    counters.close()
    counters.close()
    with pytest.raises(StoreFault):
        counters.reserve("a", LIMITS, COST, HOUR_US)
    with pytest.raises(StoreFault):
        counters.expire()


def test_a_lock_that_is_held_too_long_is_a_store_fault_and_no_more(
    tmp_path: Path, counters: LocalSqliteCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal A8: a decision within 50 ms. The pauses are counted, not the time, which a busy machine stretches."""
    pauses: list[float] = []
    monkeypatch.setattr(counters, "_pause", pauses.append)
    with raw(tmp_path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for call in (
            lambda: counters.reserve("a", LIMITS, COST, HOUR_US),
            lambda: counters.settle("a", COST),
            lambda: counters.renew(["a"], HOUR_US),
            counters.expire,
        ):
            pauses.clear()
            with pytest.raises(StoreFault) as caught:
                call()
            assert "locked" in caught.value.detail
            assert WAIT_S <= sum(pauses) < WAIT_S + 0.002
        connection.execute("ROLLBACK")
    assert isinstance(counters.reserve("a", LIMITS, COST, HOUR_US), Grant)


def test_time_that_runs_out_ends_the_waiting_too(
    tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may stretch a pause of 50 us to the whole 50 ms."""
    pauses: list[float] = []

    def stretched(pause_s: float) -> None:
        pauses.append(pause_s)
        clock.pass_us(int(WAIT_S * 1e6))

    monkeypatch.setattr(counters, "_pause", stretched)
    with raw(tmp_path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFault):
            counters.reserve("a", LIMITS, COST, HOUR_US)
    assert len(pauses) == 1


def test_a_lock_that_is_held_for_a_moment_is_waited_for(
    tmp_path: Path, counters: LocalSqliteCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw(tmp_path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        pauses: list[float] = []

        def let_go(pause_s: float) -> None:
            pauses.append(pause_s)
            if len(pauses) == 2:
                connection.execute("COMMIT")

        monkeypatch.setattr(counters, "_pause", let_go)
        assert isinstance(counters.reserve("a", LIMITS, COST, HOUR_US), Grant)
        assert len(pauses) == 2


def test_a_fault_that_is_no_lock_is_not_waited_for(
    tmp_path: Path, counters: LocalSqliteCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "_pause", lambda _: pytest.fail("waited"))
    with raw(tmp_path) as connection:
        connection.execute("DROP TABLE cells")
    with pytest.raises(StoreFault):
        counters.reserve("a", LIMITS, COST, HOUR_US)


def test_a_call_that_fails_halfway_keeps_nothing(tmp_path: Path, counters: LocalSqliteCounters) -> None:
    assert isinstance(counters.reserve("a", LIMITS, COST, HOUR_US), Grant)
    before = counters.levels(LIMITS)
    with raw(tmp_path) as connection:
        connection.execute("CREATE TRIGGER broken BEFORE INSERT ON cells BEGIN SELECT raise(ABORT, 'broken'); END")
        with pytest.raises(StoreFault):
            counters.reserve("b", LIMITS, COST, HOUR_US)
        with pytest.raises(StoreFault):
            counters.settle("a", COST)
        connection.execute("DROP TRIGGER broken")
    assert counters.levels(LIMITS) == before
    assert counters.settle("b", COST) is None
    assert counters.settle("a", COST) is not None


def test_two_leases_over_in_different_calls_are_both_ended_once(
    tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters
) -> None:
    assert isinstance(counters.reserve("a", LIMITS, COST, MINUTE_US), Grant)
    assert isinstance(counters.reserve("b", LIMITS, COST, 2 * MINUTE_US), Grant)
    clock.pass_us(MINUTE_US)
    assert counters.levels(LIMITS).states[1] == 1
    clock.pass_us(MINUTE_US)
    with other(tmp_path, clock) as there:
        assert sorted((*there.expire(), *counters.expire())) == ["a", "b"]
        assert there.expire() == counters.expire() == ()
        assert there.levels(LIMITS).states[1] == 0


def test_an_over_lease_that_is_settled_is_not_ended_again(clock: IntegerClock, counters: LocalSqliteCounters) -> None:
    assert isinstance(counters.reserve("a", LIMITS, COST, MINUTE_US), Grant)
    clock.pass_us(MINUTE_US)
    assert counters.levels(LIMITS).states[1] == 0
    assert counters.settle("a", COST) is not None
    assert isinstance(counters.reserve("b", LIMITS, COST, MINUTE_US), Grant)
    assert counters.expire() == ()
    assert counters.levels(LIMITS).states[1] == 1


def idle(number: int) -> tuple[Limit, ...]:
    subject = f"idle{number}"
    return (
        Limit.rate(Unit.REQUESTS, 9, MINUTE_US, scope="key", subject=subject, name="requests per minute"),
        Limit.slots(2, scope="key", subject=subject),
        Limit.budget(Unit.MICROS, 100, "day", scope="key", subject=subject, name="budget per day"),
        Limit.budget(Unit.MICROS, 100, "month", scope="key", subject=subject, name="budget per month"),
    )


def test_what_means_nothing_any_more_is_forgotten(
    tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters
) -> None:
    total = Limit.budget(Unit.MICROS, 100, "total", scope="key", subject="k1", name="budget in total")
    kept = (*LIMITS, total)
    assert isinstance(counters.reserve("kept", kept, COST, 90 * DAY_US), Grant)
    assert counters.settle("kept", Amounts(requests=2_000, micros=1)) is not None
    for number in range(300):
        assert isinstance(counters.reserve(f"l{number}", idle(number), COST, HOUR_US), Grant)
        counters.settle(f"l{number}", COST)
    many = count(tmp_path, "names")
    for _ in range(5):
        counters.expire()
    assert count(tmp_path, "names") == many - 300 - 1  # slots, all of them given back
    clock.pass_us(3 * DAY_US)
    for _ in range(5):
        counters.expire()
    assert count(tmp_path, "names") == 300 + 2  # this month, the long debt and the total
    clock.pass_us(40 * DAY_US)
    for _ in range(5):
        counters.expire()
    assert count(tmp_path, "names") == 2
    levels = counters.levels(kept)
    assert levels.states[0] > levels.now_us
    assert levels.states[1:] == (0, 0, 1)


def test_a_counter_that_another_process_forgot_is_begun_anew(
    tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters
) -> None:
    limits = idle(1)
    with other(tmp_path, clock) as there:
        for number in range(3):
            assert isinstance(counters.reserve(f"l{number}", limits, Amounts(requests=9), HOUR_US), Grant)
            counters.settle(f"l{number}", Amounts(requests=9))
            assert isinstance(counters.reserve(f"m{number}", limits, Amounts(requests=1), HOUR_US), Refusal)
            clock.pass_us(100 * DAY_US)
            assert there.expire() == ()
            assert there.expire() == ()
            assert count(tmp_path, "names") == 0


def test_sets_that_no_lease_uses_are_removed_and_come_back(
    tmp_path: Path, clock: IntegerClock, counters: LocalSqliteCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_counters, "_SETS_MOST", 2)
    with other(tmp_path, clock) as there:
        assert isinstance(there.reserve("theirs", LIMITS, COST, HOUR_US), Grant)
        there.settle("theirs", COST)
        for number in range(3):
            assert isinstance(counters.reserve(f"l{number}", idle(number), COST, HOUR_US), Grant)
        assert count(tmp_path, "sets") == 4
        counters.expire()
        assert count(tmp_path, "sets") == 3
        assert isinstance(there.reserve("again", LIMITS, COST, HOUR_US), Grant)
    assert count(tmp_path, "sets") == 4
    with other(tmp_path, clock) as new:
        for lease in ("again", "l0", "l1", "l2"):
            assert new.settle(lease, COST) is not None


def test_many_kinds_of_callers_are_more_than_are_kept_ready(
    clock: IntegerClock, counters: LocalSqliteCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_counters, "_PLANS_MOST", 4)
    for number in range(10):
        assert isinstance(counters.reserve(f"l{number}", idle(number), COST, HOUR_US), Grant)
    for number in range(10):
        settled = counters.settle(f"l{number}", Amounts(requests=1))
        assert settled is not None
        assert settled.states == (clock.now_us + MINUTE_US // 9, 0, 0, 0)


def test_the_past_makes_no_sets(tmp_path: Path, counters: LocalSqliteCounters) -> None:
    counters.replay([Past(LIMITS, COST, 0)])
    assert count(tmp_path, "sets") == 0
    assert counters.levels(LIMITS).states[1:] == (0, 30)

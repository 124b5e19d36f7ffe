"""How SQLite files are opened while others hold the locks for which SQLite itself does not wait."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

import pytest

from convene.clock import SystemClock
from convene.errors import StoreFault
from convene.store import sqlite
from convene.store.base_runs import Run
from convene.store.sqlite import SqliteStore
from convene.store.sqlite_counters import LocalSqliteCounters
from convene.store.sqlite_open import busy_s, is_busy, opened
from ledger_samples import intent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

HOLD_PENDING: Final = """
import fcntl, sys
with open(sys.argv[1], "rb+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0x40000000)
    print("held", flush=True)
    sys.stdin.readline()
    fcntl.lockf(file, fcntl.LOCK_UN, 1, 0x40000000)
    print("free", flush=True)
    sys.stdin.readline()
"""
"""Holds the lock that whoever closes a file takes for a moment."""


class Crowded(sqlite3.Connection):
    """A connection whose second statement finds others in the way, once."""

    _executed = 0

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:  # type: ignore[override]
        self._executed += 1
        if self._executed == 2:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(statement, values)


class Pauses:
    """The pauses of a start; after so many of them the others let go."""

    def __init__(self, after: int = -1, let_go: Callable[[], object] = bool) -> None:
        self.seconds: list[float] = []
        self._after = after
        self._let_go = let_go

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._after:
            self._let_go()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


@contextlib.contextmanager
def pending(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a closer; a line lets it go."""
    with subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", HOLD_PENDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "free\n"


def run(number: int) -> Run:
    return Run(id=f"run_{number}", owner="ann", key_id="k", turn_id="t", model="m", request=b"{}", created_us=number)


def to_wal(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")


def mode_of(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        [mode] = connection.execute("PRAGMA journal_mode").fetchone()
    return str(mode)


@contextlib.contextmanager
def writer_before_wal(path: Path) -> Iterator[sqlite3.Connection]:
    """Another that writes to a fresh file, not in WAL yet."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE first (id)")
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_sqlite_itself_waits_for_nobody_when_a_file_becomes_wal(path: Path) -> None:
    """Why `opened` is there; if this fails one day, SQLite has changed."""
    with writer_before_wal(path), contextlib.closing(sqlite3.connect(path, timeout=3600.0)) as connection:
        with pytest.raises(sqlite3.OperationalError) as caught:
            to_wal(connection)
        assert is_busy(caught.value)


def test_a_file_becomes_wal_as_soon_as_another_has_written(path: Path) -> None:
    with writer_before_wal(path) as other:
        pauses = Pauses(3, lambda: other.execute("COMMIT"))
        opened(path, to_wal, pause=pauses).close()
    assert mode_of(path) == "wal"
    assert len(pauses.seconds) == 3
    assert pauses.seconds == sorted(pauses.seconds)


def test_who_does_not_let_go_is_waited_for_as_long_as_was_said_and_no_longer(path: Path) -> None:
    pauses = Pauses()
    with writer_before_wal(path):
        with pytest.raises(sqlite3.OperationalError) as caught:
            opened(path, to_wal, 1.0, pauses)
        assert is_busy(caught.value)
        assert 1.0 <= sum(pauses.seconds) < 1.1
        assert max(pauses.seconds) < 0.1


def test_what_is_wrong_for_another_reason_is_not_tried_again(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    pauses = Pauses()
    with pytest.raises(sqlite3.DatabaseError) as caught:
        opened(path, to_wal, pause=pauses)
    assert not is_busy(caught.value)
    assert pauses.seconds == []


def test_a_start_that_is_interrupted_leaves_nothing_open(path: Path) -> None:
    seen: list[sqlite3.Connection] = []

    def prepare(connection: sqlite3.Connection) -> None:
        seen.append(connection)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(path, prepare)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        seen[0].execute("SELECT 1")


def test_statements_wait_for_nobody_until_they_are_told_to(path: Path) -> None:
    with contextlib.closing(opened(path, to_wal)) as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
        busy_s(connection, 1.5)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (1500,)


def test_counters_are_opened_while_another_process_closes_them(tmp_path: Path) -> None:
    clock = SystemClock()
    counters = LocalSqliteCounters.open(tmp_path, clock, "boot")
    counters.close()
    [path] = tmp_path.glob("counters-*.db")
    with pending(path) as closer:
        pauses = Pauses(2, lambda: let_go(closer))
        LocalSqliteCounters.open(tmp_path, clock, "boot", pauses).close()
    assert len(pauses.seconds) == 2


async def test_the_books_and_the_runs_open_while_a_thread_of_this_process_closes_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their connections wait for nobody later, but at their opening they must.

    In one process the lock of a closer is a flag inside SQLite; it shows 2 times in 500 where three threads close.
    """
    store = await SqliteStore.open(path)
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Crowded))
        await asyncio.gather(store.ledger.begin(intent(1)), store.runs.begin(run(1)))
    assert await store.ledger.open_intents() == [intent(1)]
    assert await store.runs.get("ann", run(1).id) is not None
    for connection in (store.ledger._mover._connection, store.runs._connection):
        assert isinstance(connection, Crowded)
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    await store.aclose()


async def test_a_start_that_others_keep_waiting_says_so_and_leaves_no_thread_and_no_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await SqliteStore.open(path)).aclose()
    before = {thread.name for thread in threading.enumerate()}
    monkeypatch.setattr(sqlite, "START_S", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFault, match="Another process keeps the store locked") as caught:
            await SqliteStore.open(path)
        assert str(path) in caught.value.detail
    assert {thread.name for thread in threading.enumerate()} == before
    assert list(path.with_name(f"{path.name}-writers").iterdir()) == []
    await (await SqliteStore.open(path)).aclose()

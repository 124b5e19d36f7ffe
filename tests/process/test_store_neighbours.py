"""A store that is open stays whole whatever other processes open and close beside it: verbs, backups, doctors.

Found by hand: the second connection of a server dropped the first one's POSIX locks, so the next verb that ran beside
it took itself for the last user of the file and deleted the write-ahead log that the server was writing to.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from convene.clock import SystemClock
from convene.limits.limit import MINUTE_US, Amounts, Grant, Limit, Unit
from convene.store.base_ledger import Filter, Whose
from convene.store.sqlite import SqliteStore
from convene.store.sqlite_counters import SqliteCounters
from ledger_samples import entry, intent

if TYPE_CHECKING:
    from pathlib import Path

NEIGHBOUR = """
import sqlite3, sys
for mode in ("rw", "ro"):
    connection = sqlite3.connect(f"file:{sys.argv[1]}?mode={mode}", uri=True)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if mode == "rw":
        connection.execute("CREATE TABLE IF NOT EXISTS neighbour (x INTEGER)")
        connection.execute("INSERT INTO neighbour VALUES (1)")
        connection.commit()
    connection.close()
"""


async def neighbour(path: Path) -> None:
    """Let another process open, change and close the file."""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", NEIGHBOUR, str(path)], check=True)


@pytest.mark.req("USAGE-01")
async def test_the_log_of_an_open_store_survives_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "data" / "convene.db"
    store = await SqliteStore.open(path, SystemClock())
    try:
        for number in range(3):
            await store.ledger.begin(intent(number))
            await store.ledger.finish(entry(number))
            await store.keys.list_all()
            # Reading opens a connection of its own in this process; the neighbour's goes and comes in another.
            found = [one.id async for one in store.ledger.entries(Filter(whose=Whose("all")))]
            assert len(found) == number + 1
            await neighbour(path)
            assert path.with_name("convene.db-wal").exists()
        assert (await store.ledger.total(Whose("all"))).requests == 3
    finally:
        await store.aclose()
    again = await SqliteStore.open(path, SystemClock())
    assert (await again.ledger.total(Whose("all"))).requests == 3
    await again.aclose()


async def test_the_counters_of_a_host_survive_their_neighbours(tmp_path: Path) -> None:
    limit = Limit.rate(Unit.REQUESTS, 10, MINUTE_US, scope="key", subject="k", name="requests per minute")
    first = SqliteCounters.open(tmp_path, SystemClock(), "boot")
    second = SqliteCounters.open(tmp_path, SystemClock(), "boot")
    (path,) = (tmp_path / name for name in os.listdir(tmp_path) if name.endswith(".db"))  # noqa: PTH208 -- one call
    for number in range(5):
        await neighbour(path)
        for counters in (first, second):
            answer = await counters.reserve(f"{id(counters)}-{number}", (limit,), Amounts(requests=1), 10_000_000)
            assert isinstance(answer, Grant), number
    levels = await first.levels((limit,))
    assert levels.states[0] - levels.now_us > 9 * MINUTE_US // 10
    await first.aclose()
    await second.aclose()


def test_a_file_that_exists_is_not_opened_to_make_it_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    path = tmp_path / "convene.db"
    path.touch(0o644)
    monkeypatch.setattr("convene.store.sqlite_file.os.close", opened.append)
    from_before = path.stat().st_ino
    sqlite_file = sys.modules["convene.store.sqlite_file"]
    sqlite_file.make_private(path)
    assert (opened, path.stat().st_ino, path.stat().st_mode & 0o777) == ([], from_before, 0o600)

"""Many processes start on one SQLite file at the same moment, and a frozen one lets the others wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from convene.errors import StoreFault
from convene.store import sqlite
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES: Final = 8
FILES: Final = 25
START: Final = """
import asyncio, fcntl, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from convene.clock import SystemClock
from convene.errors import StoreFault
from convene.store.base_runs import Run
from convene.store.sqlite import SqliteStore
from convene.store.sqlite_counters import SqliteCounters
from ledger_samples import entry, intent

async def start(path, number):
    counters = SqliteCounters.open(path.parent, SystemClock(), "boot")
    store = await SqliteStore.open(path)
    await store.ledger.begin(intent(number))
    await store.ledger.finish(entry(number))
    await store.runs.begin(
        Run(id=f"run_{number}", owner="ann", key_id="k", turn_id=f"t{number}", model="m", request=b"{}", created_us=1)
    )
    await store.aclose()
    await counters.aclose()

for line in sys.stdin:
    with open(Path(line.strip()).with_name("gate"), "rb") as gate:
        print("ready", flush=True)
        fcntl.flock(gate, fcntl.LOCK_SH)
    try:
        asyncio.run(start(Path(line.strip()), int(sys.argv[1])))
    except StoreFault as fault:
        print(fault.detail, flush=True)
    else:
        print("done", flush=True)
"""
HOLD: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("free", flush=True)
"""


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_that_start_on_a_fresh_file_at_once_all_start(tmp_path: Path) -> None:
    """Without the retries of `sqlite_open.py` 6 in 1,200 starts failed on an idle machine, of counters or store."""
    tests = str(Path(__file__).parents[1])
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child(START, str(number), tests)) for number in range(PROCESSES)]
        for number in range(FILES):
            path = tmp_path / str(number) / "convene.db"
            path.parent.mkdir()
            with path.with_name("gate").open("wb") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                for process in children:
                    tell(process, str(path))
                assert [hear(process) for process in children] == ["ready"] * PROCESSES
            said = [hear(process) for process in children]
            assert said == ["done"] * PROCESSES
            with contextlib.closing(sqlite3.connect(path)) as connection:
                for table in ("entries", "runs"):
                    [found] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 -- of this file
                    assert found == PROCESSES


async def test_a_start_waits_for_a_frozen_writer_and_says_so_when_it_has_waited_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "convene.db"
    await (await SqliteStore.open(path)).aclose()
    with child(HOLD, str(path)) as frozen:
        assert hear(frozen) == "held"
        frozen.send_signal(signal.SIGSTOP)
        with monkeypatch.context() as hasty:
            hasty.setattr(sqlite, "START_S", 0.05)
            with pytest.raises(StoreFault, match="Another process keeps the store locked"):
                await SqliteStore.open(path)
        starting = asyncio.create_task(SqliteStore.open(path))
        await asyncio.wait([starting], timeout=0.2)
        assert not starting.done()
        frozen.send_signal(signal.SIGCONT)
        tell(frozen, "")
        assert hear(frozen) == "free"
        await (await starting).aclose()

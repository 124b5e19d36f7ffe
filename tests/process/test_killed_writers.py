"""What a killed process had under way is another's at once, and nothing of a process that lives or was only frozen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from ledger_samples import intent
from process.run_store_child import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.store.base import Store

SILENCE_US: Final = 30_000_000
"""Longer than this test takes: a death that is known sooner was told by a lock."""
TRIES: Final = 20
BEGIN_ALL: Final = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from ledger_samples import intent
from process.run_store_child import open_store, say
from convene.store.base_runs import Run

async def work(where, folder, number):
    store = await open_store(where, Path(folder))
    await store.ledger.begin(intent(number))
    await store.answers.claim("ann", f"key-{number}", b"f" * 32, 9e9, 1.0)
    await store.runs.begin(
        Run(id=f"run_{number}", owner="ann", key_id="k", turn_id="t", model="m", request=b"{}", created_us=number)
    )
    say("begun")
    await asyncio.Event().wait()

asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@contextlib.contextmanager
def child(where: str, folder: Path, number: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has a request, a claim and a run under way."""
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", BEGIN_ALL, where, str(folder), str(number), tests], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill it, and wait until the system has taken back what it held."""
    process.kill()
    process.wait()


def freeze(process: subprocess.Popen[str], where: str) -> None:
    """Stop it at a moment at which it holds no lock of the database: whoever does is waited for, which is not asked."""
    for _ in range(TRIES):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # it has stopped
        if "://" in where:
            return
        with contextlib.closing(sqlite3.connect(where, timeout=1.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
            else:
                connection.execute("ROLLBACK")
                return
    pytest.fail("it held a lock whenever it was stopped")


async def found_dead(store: Store) -> tuple[set[str], set[str]]:
    """Return what may be ended for others: intents, and runs that are taken over now."""
    intents = {one.id for one in await store.ledger.orphans(SILENCE_US)}
    return intents, {run.id for run in await store.runs.claim(SILENCE_US, 10)}


async def claim(store: Store, number: int) -> str:
    return (await store.answers.claim("ann", f"key-{number}", b"f" * 32, 9e9, 1.0)).state


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return str(tmp_path / "convene.db")


async def test_a_start_after_a_kill_waits_for_no_silence(where: str, tmp_path: Path) -> None:
    with child(where, tmp_path, 1) as dead, child(where, tmp_path, 2):
        await asyncio.to_thread(kill, dead)
        store = await open_store(where, tmp_path)
        assert await found_dead(store) == ({intent(1).id}, {"run_1"})
        assert [await claim(store, number) for number in (1, 2)] == ["mine", "running"]
        await store.aclose()


async def test_another_process_sees_a_kill_as_soon_as_it_looks(where: str, tmp_path: Path) -> None:
    store = await open_store(where, tmp_path)
    with child(where, tmp_path, 1) as dead, child(where, tmp_path, 2):
        assert await found_dead(store) == (set(), set())
        await asyncio.to_thread(kill, dead)
        assert (await found_dead(store))[1] == {"run_1"}
        assert (await found_dead(store))[0] == {intent(1).id}  # whoever looked for runs has taken it off the table
        assert [await claim(store, number) for number in (1, 2)] == ["mine", "running"]
    await store.aclose()


async def test_a_frozen_process_is_not_dead(where: str, tmp_path: Path) -> None:
    with child(where, tmp_path, 1) as frozen:
        await asyncio.to_thread(freeze, frozen, where)
        store = await open_store(where, tmp_path)
        assert await found_dead(store) == (set(), set())
        assert await claim(store, 1) == "running"
        frozen.send_signal(signal.SIGCONT)
        await store.aclose()


async def test_of_processes_that_start_together_after_a_kill_one_goes_on(where: str, tmp_path: Path) -> None:
    with child(where, tmp_path, 1) as dead:
        await asyncio.to_thread(kill, dead)
    stores = await asyncio.gather(*(open_store(where, tmp_path) for _ in range(3)))
    claims = await asyncio.gather(*(store.runs.claim(SILENCE_US, 10) for store in stores))
    assert [(run.id, run.fence) for runs in claims for run in runs] == [("run_1", 2)]
    for store in stores:
        await store.aclose()

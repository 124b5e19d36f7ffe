"""kill -9 of a process that writes the books: nothing acknowledged is lost, nothing is there twice (goal B1)."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from convene.store.sqlite import SqliteStore
from ledger_samples import entry
from process.ledger_kill import Acknowledged, Later, Report, compare

KILLS = int(os.environ.get("CONVENE_TEST_KILLS", "20"))
"""`make soak` sets more."""


async def test_whatever_was_acknowledged_before_a_kill_is_there_once_afterwards(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("ledger_kill.py")), str(tmp_path / "books.db")]
    process = await asyncio.create_subprocess_exec(
        *command, "--kills", str(KILLS), "--seed", str(os.getpid()), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60 + 2 * KILLS)
    report = msgspec.json.decode(output, type=Report)
    assert (report.lost, report.wrong) == ([], [])
    assert process.returncode == 0
    assert report.kills >= KILLS
    assert report.finished > KILLS  # it was killed while it wrote
    assert report.orphans > 0


@pytest.mark.parametrize(("begun", "finished", "lost"), [({1}, {1}, 0), ({1, 2}, {1}, 1), ({3}, {1, 4}, 2)])
async def test_the_comparison_finds_what_is_missing(
    tmp_path: Path, begun: set[int], finished: set[int], lost: int
) -> None:
    """Entry 1 is there; the harness would notice if another was not."""
    path = tmp_path / "books.db"
    await compare(path, Acknowledged({1}, {1}), 0, report := Report())
    assert len(report.lost) == 2
    store = await SqliteStore.open(path, Later())
    await store.ledger.finish(entry(1))
    await store.aclose()
    await compare(path, Acknowledged(begun, finished), 0, report := Report())
    assert len(report.lost) == lost

"""kill -9 of a process that writes the books: nothing acknowledged is lost, nothing is there twice (goal B1)."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from ledger_samples import entry
from process.ledger_kill import Acknowledged, Later, Report, compare, open_books

KILLS = int(os.environ.get("CONVENE_TEST_KILLS", "20"))
"""`make soak` sets more."""


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("postgres_url") if request.param == "postgres" else tmp_path / "books.db")


async def test_whatever_was_acknowledged_before_a_kill_is_there_once_afterwards(where: str) -> None:
    command = [sys.executable, str(Path(__file__).with_name("ledger_kill.py")), where]
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
async def test_the_comparison_finds_what_is_missing(where: str, begun: set[int], finished: set[int], lost: int) -> None:
    """Entry 1 is there; the harness would notice if another was not."""
    await compare(where, Acknowledged({1}, {1}), 0, report := Report())
    assert len(report.lost) == 2
    store = await open_books(where, Later())
    await store.ledger.finish(entry(1))
    await store.aclose()
    await compare(where, Acknowledged(begun, finished), 0, report := Report())
    assert len(report.lost) == lost

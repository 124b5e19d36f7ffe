"""The journal of runs under kill -9: what was acknowledged is there, and every run has exactly one new holder (D4)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from convene.errors import Conflict
from convene.store.base_runs import Hold
from process.run_store_child import STEPS, open_store

if TYPE_CHECKING:
    from convene.store.base import Store
    from convene.store.base_runs import Run

KILLS: Final = int(os.environ.get("CONVENE_TEST_RUN_KILLS", "6"))
ACKNOWLEDGED: Final = 150
"""Lines of a child before it is killed; the kill comes in the middle of whatever it does then."""
SOON_US: Final = 60_000_000
"""A silence that no child of this test reaches: its death is told by its lock, or not at all."""


class Heard:
    """What a child had been promised."""

    def __init__(self, lines: list[str]) -> None:
        self.begun: set[str] = set()
        self.finished: set[str] = set()
        self.steps: dict[str, int] = defaultdict(int)
        for line in lines:
            kind, run_id, number = line.split()
            if kind == "b":
                self.begun.add(run_id)
            elif kind == "f":
                self.finished.add(run_id)
            else:
                self.steps[run_id] = max(self.steps[run_id], int(number))


def killed_child(where: str, folder: Path, first: int) -> Heard:
    """Let a child write until it has acknowledged enough, kill it, and return what it had been promised."""
    script = Path(__file__).with_name("run_store_child.py")
    with subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, str(script), where, str(folder), str(first)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(ACKNOWLEDGED + first % 7)]
        child.kill()
        lines += child.stdout.readlines()
    assert all(lines), "the child ended by itself"
    return Heard(lines)


async def check(store: Store, heard: Heard, claimed: dict[str, Run]) -> None:
    """Compare what is there with what was promised."""
    for run_id in heard.begun:
        run = await store.runs.get("ann", run_id)
        assert run is not None, f"{run_id} was begun and is gone"
        steps = await store.runs.steps(run_id)
        assert [step.number for step in steps] == list(range(1, len(steps) + 1))
        assert len(steps) >= heard.steps[run_id], f"a step of {run_id} is gone"
        assert (run_id in claimed) == (run.status == "running")
        if run_id in heard.finished:
            assert (run.status, len(steps)) == ("done", STEPS)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_nothing_acknowledged_is_lost_and_each_run_of_the_killed_goes_to_one(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = str(request.getfixturevalue("postgres_url")) if kind == "postgres" else str(tmp_path / "convene.db")
    first, second = await open_store(where, tmp_path), await open_store(where, tmp_path)
    try:
        for kill in range(KILLS):
            heard = await asyncio.to_thread(killed_child, where, tmp_path, kill * 1_000_000)
            claims = await asyncio.gather(*(store.runs.claim(SOON_US, 10_000) for store in (first, second)))
            claimed = {run.id: run for runs in claims for run in runs}
            assert len(claimed) == sum(map(len, claims)), "a run was given to both"
            assert {run.fence for run in claimed.values()} <= {2}
            await check(first, heard, claimed)
            for run_id in claimed:
                with pytest.raises(Conflict):
                    await first.runs.finish(Hold(run_id, 1), "done", b"", 1, 1)
                await first.runs.finish(Hold(run_id, 2), "done", b"", 1, 1)
    finally:
        await first.aclose()
        await second.aclose()

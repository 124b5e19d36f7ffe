"""kill -9 of a server in the middle of agentic runs: they go on, and nothing is done or billed twice (goal D4)."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from process.run_double import CALLS, POINTS, STEPS
from process.run_kill import drill, plan

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("CONVENE_TEST_KILLS", "6"))
"""`make soak` runs the drill itself, at every point."""


@pytest.mark.parametrize("kills_per_run", [1, 3])
async def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(tmp_path: Path, kills_per_run: int) -> None:
    report = await drill(tmp_path, KILLS, kills_per_run, seed=1)
    assert report.wrong == []
    assert report.runs == KILLS // kills_per_run
    assert report.runs <= report.kills <= KILLS  # a repeat may pass by the point of the next kill
    assert report.repeated_effects + report.repeated_rounds > 0  # it was killed while something was under way


async def test_a_run_goes_on_from_postgres_too(tmp_path: Path, postgres_url: str) -> None:
    report = await drill(tmp_path, KILLS // 2, 1, seed=os.getpid(), database=postgres_url)
    assert report.wrong == []
    assert report.kills == KILLS // 2


async def test_a_run_goes_on_in_other_workers_with_the_tools_of_an_mcp_server(tmp_path: Path) -> None:
    report = await drill(tmp_path, 2, 1, seed=os.getpid(), workers=2)
    assert report.wrong == []
    assert report.kills == 2


def test_the_plan_has_every_point_once_before_any_twice_and_kills_of_a_run_in_the_order_of_its_steps() -> None:
    assert (len(CALLS) + sum(CALLS), STEPS, len(POINTS)) == (20, 20, 40)
    chance = random.Random(1)  # noqa: S311 -- repeatable on purpose
    points = [point for group in plan(80, 1, chance) for point in group]
    assert set(points[:40]) == set(points[40:]) == set(POINTS)
    for group in plan(40, 4, chance):
        rounds = [number if kind == "round" else 0 for kind, number, _ in group]
        named = [number for number in rounds if number]
        assert named == sorted(named)

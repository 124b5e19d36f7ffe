"""Long work lets others run when it has held the loop for long enough, and not before."""

from __future__ import annotations

import asyncio

import pytest

from convene.registry.pace import HOLD_S, Pace
from fakes import FakeClock


async def turns_of_others(steps_s: list[float], hold_s: float = HOLD_S) -> list[int]:
    """Return how many turns another task has had after each step of a work that takes so long."""
    clock, turns, seen = FakeClock(), 0, list[int]()

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    pace = Pace(clock.monotonic, hold_s)
    task = asyncio.create_task(other())
    for step_s in steps_s:
        clock.move(step_s)
        await pace.breathe()
        seen.append(turns)
    task.cancel()
    return seen


@pytest.mark.parametrize(
    ("steps_ms", "expected"),
    [([1.9], [0]), ([2.1], [1]), ([1.5, 1.0, 1.5, 1.0], [0, 1, 1, 2]), ([9.0, 0.1, 9.0], [1, 1, 2])],
)
async def test_others_have_a_turn_whenever_the_loop_was_held_for_its_time(
    steps_ms: list[float], expected: list[int]
) -> None:
    assert await turns_of_others([step / 1000 for step in steps_ms]) == expected

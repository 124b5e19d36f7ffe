"""A pace: never more in any minute than allowed, and nobody waits longer than he must."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.agents.pace import Pace
from convene.app_agents import pace_of
from convene.config import Agents, Config
from fakes import FakeClock
from simulation import World, run


def times(per_minute: int, arrivals: list[float]) -> list[float]:
    async def scene(world: World) -> list[float]:
        pace, went = Pace(per_minute, world.clock.monotonic), list[float]()

        async def come(after: float) -> None:
            await asyncio.sleep(after)
            await pace.wait()
            went.append(world.clock.monotonic())

        began = world.clock.monotonic()
        await asyncio.gather(*(come(after) for after in arrivals))
        return [one - began for one in went]

    return run(scene, 1)


@pytest.mark.req("HOSTED-05")
def test_a_few_go_at_once_and_the_others_are_spread_out() -> None:
    went = times(60, [0.0] * 30)
    assert went[:10] == pytest.approx([0.0] * 10)
    assert went[10:] == pytest.approx([float(number) for number in range(1, 21)])


@pytest.mark.req("HOSTED-05")
@given(st.integers(1, 120), st.lists(st.floats(0, 200), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_minute_has_more_than_it_may_and_a_few(per_minute: int, arrivals: list[float]) -> None:
    went = sorted(times(per_minute, arrivals))
    most = per_minute + max(1, per_minute // 6)
    for begin in went:
        assert sum(begin <= one < begin + 59.99 for one in went) <= most


def test_who_comes_seldom_never_waits() -> None:
    assert times(60, [0.0, 2.0, 4.0, 60.0]) == pytest.approx([0.0, 2.0, 4.0, 60.0])


@pytest.mark.req("HOSTED-05")
@pytest.mark.parametrize(
    ("agents", "has"),
    [
        (Agents(), False),
        (Agents(directory="https://agentverse.ai"), True),
        (Agents(directory="https://eu.agentverse.ai/x"), True),
        (Agents(directory="https://notagentverse.ai"), False),
        (Agents(directory="http://127.0.0.1:8000", directory_per_minute=5), True),
    ],
)
def test_the_hosted_service_has_a_pace_and_others_as_the_operator_says(agents: Agents, *, has: bool) -> None:
    assert (pace_of(Config(agents=agents), FakeClock()) is not None) == has

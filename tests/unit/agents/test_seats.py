"""Seats at an agent's table: nobody gets all of them, and who was served longest ago comes next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.agents.seats import FullError, Seats
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Sequence


async def sit(seats: Seats, owner: str, log: list[str], seconds: float = 1.0, agent: str = "a") -> None:
    async with seats.seat(agent, owner):
        log.append(owner)
        await asyncio.sleep(seconds)


def test_one_owner_gets_half_of_the_seats_and_waits_for_the_rest() -> None:
    async def scene(world: World) -> tuple[list[str], list[str]]:
        del world
        seats, log = Seats(4), list[str]()
        tasks = [asyncio.ensure_future(sit(seats, "greedy", log)) for _ in range(6)]
        tasks.append(asyncio.ensure_future(sit(seats, "modest", log)))
        await asyncio.sleep(0.5)
        early = [*log]
        await asyncio.gather(*tasks)
        return early, log

    early, log = run(scene, 1)
    assert early == ["greedy", "greedy", "modest"]
    assert log.count("greedy") == 6


def test_who_was_served_longest_ago_comes_next() -> None:
    async def scene(world: World) -> list[str]:
        del world
        seats, log = Seats(2), list[str]()
        order = ["a", "b", "a", "a", "a", "b", "c"]
        await asyncio.gather(*(sit(seats, owner, log) for owner in order))
        return log

    log = run(scene, 1)
    assert log[:2] == ["a", "b"]
    assert sorted(log[2:4]) == ["a", "b"]
    assert "c" in log[2:5]


def test_agents_do_not_wait_for_each_other_and_nothing_is_left_behind() -> None:
    async def scene(world: World) -> tuple[float, int]:
        seats, log = Seats(1), list[str]()
        began = world.clock.monotonic()
        await asyncio.gather(*(sit(seats, "o", log, agent=f"agent {number}") for number in range(10)))
        return world.clock.monotonic() - began, len(seats._tables)

    seconds, left = run(scene, 1)
    assert seconds == pytest.approx(1.0)
    assert left == 0


def test_a_table_with_too_many_waiting_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convene.agents.seats.WAITING_MAX", 1)

    async def scene(world: World) -> None:
        del world
        seats, log = Seats(1), list[str]()
        tasks = [asyncio.ensure_future(sit(seats, "o", log)) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(FullError):
            await sit(seats, "o", log)
        await asyncio.gather(*tasks)

    run(scene, 1)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 8)), max_size=20), st.integers(1, 4)
)
@settings(max_examples=60, deadline=None)
def test_whoever_leaves_whenever_no_seat_is_lost_or_given_twice(
    people: Sequence[tuple[str, int, int]], count: int
) -> None:
    async def scene(world: World) -> None:
        del world
        seats, sitting, share = Seats(count), list[str](), max(1, count // 2)

        async def come(owner: str, after: int, patience: int) -> None:
            await asyncio.sleep(after)
            try:
                async with asyncio.timeout(patience), seats.seat("a", owner):
                    sitting.append(owner)
                    assert len(sitting) <= count
                    assert sitting.count(owner) <= share
                    try:
                        await asyncio.sleep(3)
                    finally:
                        sitting.remove(owner)
            except TimeoutError:
                pass

        await asyncio.gather(*(come(*person) for person in people))
        log: list[str] = []
        await asyncio.gather(*(sit(seats, "later", log) for _ in range(3)))
        assert len(log) == 3
        assert not seats._tables

    run(scene, 1)

"""Work beside each other ends together: by its results, by the first fault, or by whoever cancels it."""

from __future__ import annotations

import asyncio

import pytest

from convene.errors import Malformed
from convene.serving.beside import beside


class Work:
    """Pieces of work that note how they ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def wait(self, name: str) -> str:
        """Wait for ever, and take a moment to end."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended.append(name)
        return name


async def give(name: str, turns_of_loop: int = 0) -> str:
    for _ in range(turns_of_loop):
        await asyncio.sleep(0)
    return name


async def fail(turns_of_loop: int = 0) -> str:
    await give("", turns_of_loop)
    raise Malformed("broke off")


async def test_results_come_in_the_order_of_the_work() -> None:
    assert await beside(give("a", 3), give("b"), give("c", 1)) == ["a", "b", "c"]
    assert await beside() == []


async def test_the_first_fault_ends_the_others_before_it_is_raised() -> None:
    work = Work()
    with pytest.raises(Malformed):
        await beside(work.wait("a"), fail(2), give("c"), work.wait("d"))
    assert work.ended == ["a", "d"]


async def test_two_faults_at_the_same_time_are_one() -> None:
    with pytest.raises(Malformed):
        await beside(fail(), fail())


async def test_a_caller_that_is_cancelled_ends_all_of_it_first() -> None:
    work = Work()
    task = asyncio.create_task(beside(work.wait("a"), work.wait("b")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), work.ended) == (True, ["a", "b"])

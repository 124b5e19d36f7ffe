"""The waiting line: order, bounds, and that nobody who leaves it takes a place along."""

from __future__ import annotations

import asyncio

import pytest

from convene.errors import Busy
from convene.providers.local_line import WaitingLine
from fakes import FakeClock


class Visitor:
    """Somebody who takes a place and keeps it until told to go."""

    def __init__(self, line: WaitingLine, name: str, log: list[str]) -> None:
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(line, name, log))

    async def _visit(self, line: WaitingLine, name: str, log: list[str]) -> None:
        async with line.place():
            log.append(name)
            await self.leave.wait()


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_places_are_given_in_the_order_of_arrival() -> None:
    line, log = WaitingLine(2, 9, FakeClock()), list[str]()
    visitors = [Visitor(line, name, log) for name in "abcde"]
    await settle()
    assert log == ["a", "b"]
    assert line.waiting == 3
    for visitor in visitors:
        visitor.leave.set()
    await asyncio.gather(*(visitor.task for visitor in visitors))
    assert log == list("abcde")
    assert (line.free, line.waiting) == (2, 0)


async def test_a_late_comer_does_not_overtake_the_line() -> None:
    line, log = WaitingLine(1, 9, FakeClock()), list[str]()
    first, second = Visitor(line, "a", log), Visitor(line, "b", log)
    await settle()
    first.leave.set()
    third = Visitor(line, "c", log)
    await settle()
    assert log == ["a", "b"]
    second.leave.set()
    third.leave.set()
    await asyncio.gather(first.task, second.task, third.task)
    assert log == ["a", "b", "c"]


async def test_a_full_line_refuses_and_says_when_to_come_back() -> None:
    clock = FakeClock()
    line, log = WaitingLine(1, 1, clock), list[str]()
    holder, waiter = Visitor(line, "a", log), Visitor(line, "b", log)
    await settle()
    with pytest.raises(Busy) as caught:
        async with line.place():
            raise AssertionError("there was no place")
    assert caught.value.retry_after_s == 10.0, "two stays of five seconds before it"
    holder.leave.set()
    waiter.leave.set()
    await asyncio.gather(holder.task, waiter.task)


async def test_the_guess_follows_the_stays_measured() -> None:
    clock = FakeClock()
    line = WaitingLine(1, 0, clock)
    for _ in range(60):
        async with line.place():
            clock.move(30.0)
    async with line.place():
        with pytest.raises(Busy) as caught:
            async with line.place():
                raise AssertionError("there was no place")
    assert caught.value.retry_after_s == 30.0


async def test_a_cancelled_waiter_leaves_the_line() -> None:
    line, log = WaitingLine(1, 9, FakeClock()), list[str]()
    holder, gone, waiter = (Visitor(line, name, log) for name in "abc")
    await settle()
    gone.task.cancel()
    await settle()
    assert gone.task.cancelled()
    assert line.waiting == 1
    holder.leave.set()
    waiter.leave.set()
    await asyncio.gather(holder.task, waiter.task)
    assert log == ["a", "c"]
    assert line.free == 1


async def test_a_place_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    line, log = WaitingLine(1, 9, FakeClock()), list[str]()
    async with line.place():
        gone, waiter = (Visitor(line, name, log) for name in "bc")
        await settle()
    assert line.waiting == 1, "the place is on its way to the first of them"
    gone.task.cancel()
    waiter.leave.set()
    await waiter.task
    assert gone.task.cancelled()
    assert log == ["c"]
    assert (line.free, line.waiting) == (1, 0)


async def test_a_failure_inside_gives_the_place_back() -> None:
    line = WaitingLine(1, 0, FakeClock())
    with pytest.raises(RuntimeError):
        async with line.place():
            raise RuntimeError("inside")
    assert line.free == 1

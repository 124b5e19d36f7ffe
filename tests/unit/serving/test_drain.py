"""An answer whose client has left is read to its end for the books, and settled exactly once whatever ends it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from convene.errors import Malformed
from convene.events import Event, Finished, TextDelta, UsageReported
from convene.serving import drain as module
from convene.serving.drain import Drains, Pump
from convene.serving.terms import Terms
from convene.usage import Usage
from unit.serving.test_turn import EVENTS, Books, Told, start

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.providers.base import Generation

DRAIN = Terms(on_disconnect="drain", drain_s=5.0)
TRUTH = UsageReported(Usage(5, 7))
LONG: tuple[Event, ...] = (*(TextDelta(f"{n} ") for n in range(600)), Finished("stop"), TRUTH)


async def settled(books: Books) -> None:
    """Wait until the books have a settlement."""
    async with asyncio.timeout(60):
        while not books.settled:  # noqa: ASYNC110 -- a bounded wait for a task
            await asyncio.sleep(0)


@pytest.mark.req("OAI-35")
@pytest.mark.parametrize("after", [0, 1, 3, 300])
async def test_a_client_that_leaves_is_billed_what_the_upstream_says_at_the_end(after: int) -> None:
    model, books = Told(*LONG), Books()
    turn = start(model, books, terms=DRAIN)
    async with aclosing(turn.events()) as events:
        for _ in range(after + 1):
            await anext(events)
    await settled(books)
    (outcome,) = books.settled
    assert (outcome.status, outcome.usage) == ("client_left", Usage(5, 7))
    assert model.closed == 1


@pytest.mark.parametrize("way", ["stream", "whole"])
async def test_a_cancellation_at_every_await_is_drained_and_settles_once(way: str) -> None:
    for turns_of_loop in range(60):
        model, books = Told(*EVENTS), Books()
        turn = start(model, books, terms=DRAIN)

        async def read(turn: object = turn) -> object:
            assert isinstance(turn, type(start(Told(), Books())))
            return await turn.answer() if way == "whole" else [event async for event in turn.events()]

        task = asyncio.create_task(read())
        for _ in range(turns_of_loop):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if books.reserved:
            await settled(books)
            assert books.settled[0].usage == Usage(5, 7) or not model.asked
        assert len(books.settled) == len(books.reserved)
        if not task.cancelled():
            return
    pytest.fail("the turn never came to its end")


async def test_without_a_leaving_client_a_drained_model_answers_as_any_other() -> None:
    model, books = Told(*LONG), Books()
    turn = start(model, books, terms=DRAIN)
    assert tuple([event async for event in turn.events()]) == LONG
    assert [outcome.status for outcome in books.settled] == ["ok"]


async def test_a_fault_of_the_model_reaches_the_client_through_the_pump() -> None:
    books = Books()
    turn = start(Told(TextDelta("a"), Malformed("broke off")), books, terms=DRAIN)
    with pytest.raises(Malformed):
        [event async for event in turn.events()]
    assert [outcome.status for outcome in books.settled] == ["failed"]


async def test_a_fault_while_nobody_listens_settles_by_estimate() -> None:
    books = Books()
    turn = start(Told(TextDelta("abc"), Malformed("broke off")), books, terms=DRAIN)
    async with aclosing(turn.events()) as events:
        await anext(events)
    await settled(books)
    assert books.settled[0].usage == Usage(6, 1, estimated=True)


class Endless(Told):
    """Says a word and then nothing more."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        self.asked.append(generation)
        try:
            yield TextDelta("abc")
            await asyncio.Event().wait()
        finally:
            self.closed += 1


async def test_a_drain_ends_after_its_time_and_cancels_the_model() -> None:
    model, books = Endless(), Books()
    turn = start(model, books, terms=Terms(on_disconnect="drain", drain_s=0.01))
    async with aclosing(turn.events()) as events:
        await anext(events)
    async with asyncio.timeout(60):
        while not books.settled:  # noqa: ASYNC110 -- a bounded wait for a timer
            await asyncio.sleep(0.005)
    assert books.settled[0].usage == Usage(6, 1, estimated=True)
    assert model.closed == 1


async def test_closing_cuts_drains_off_and_settles_them() -> None:
    model, drains = Endless(), Drains()
    notes: list[Event] = []
    pump = Pump(model.generate(None))  # type: ignore[arg-type]  # it does not look
    async with aclosing(pump.events()) as events:
        await anext(events)
    ended: list[str] = []
    drains.adopt(pump.finish(notes.append), lambda: ended.append("settled"), 60)
    await asyncio.sleep(0)
    await drains.aclose(0.01)
    assert (ended, model.closed) == (["settled"], 1)
    await drains.aclose()


async def test_a_slow_client_holds_the_model_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_MAX", 4)
    made = 0

    async def generate() -> AsyncGenerator[Event]:
        nonlocal made
        for _ in range(100):
            made += 1
            yield TextDelta("x")

    pump = Pump(generate())
    async with aclosing(pump.events()) as events:
        await anext(events)
        for _ in range(20):
            await asyncio.sleep(0)
        assert made <= 7
        assert len([event async for event in events]) == 99


# Counting what was cut short.


async def count_words(generation: Generation, written: str) -> Usage:
    """Count as a tokenizer would, after a moment."""
    await asyncio.sleep(0)
    return Usage(len(generation.messages), len(written.split()))


@pytest.mark.req("OAI-35")
async def test_where_a_tokenizer_is_at_hand_what_was_cut_short_is_counted() -> None:
    books = Books()
    turn = start(Told(TextDelta("one two "), TextDelta("three"), TextDelta(" four")), books, tally=count_words)
    async with aclosing(turn.events()) as events:
        await anext(events)
        await anext(events)
    await settled(books)
    assert (books.settled[0].usage, books.settled[0].status) == (Usage(1, 3), "client_left")


async def test_an_answer_that_broke_off_is_counted_too() -> None:
    books = Books()
    turn = start(Told(TextDelta("one two"), Malformed("broke off")), books, tally=count_words)
    with pytest.raises(Malformed):
        [event async for event in turn.events()]
    await settled(books)
    assert (books.settled[0].usage, books.settled[0].status) == (Usage(1, 2), "failed")


@pytest.mark.parametrize("fault", [Malformed("no"), None])
async def test_a_tokenizer_that_fails_or_takes_too_long_leaves_the_estimate(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    monkeypatch.setattr("convene.serving.turn.TALLY_S", 0.01)

    async def never(generation: Generation, written: str) -> Usage:
        assert (len(generation.messages), written) == (1, "abc")
        if fault is not None:
            raise fault
        await asyncio.Event().wait()
        return Usage()

    books = Books()
    turn = start(Told(TextDelta("abc"), TextDelta("d")), books, tally=never)
    async with aclosing(turn.events()) as events:
        await anext(events)
    async with asyncio.timeout(60):
        while not books.settled:  # noqa: ASYNC110 -- a bounded wait for a timer
            await asyncio.sleep(0.005)
    assert books.settled[0].usage == Usage(6, 1, estimated=True)


async def test_a_reported_usage_is_never_counted_again() -> None:
    async def refuse(generation: Generation, written: str) -> Usage:
        raise AssertionError((generation, written))

    books = Books()
    turn = start(Told(*EVENTS), books, tally=refuse)
    assert len([event async for event in turn.events()]) == len(EVENTS)
    assert books.settled[0].usage == Usage(5, 7)

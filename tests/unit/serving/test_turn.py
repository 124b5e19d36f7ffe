"""A turn settles its lease exactly once, whatever ends it and wherever, and says what was used."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, Busy, Malformed, NotFound
from convene.events import (
    Began,
    CallDelta,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolRan,
    UsageReported,
)
from convene.messages import Message
from convene.providers.base import Capabilities, Generation, Sampling
from convene.serving.admission import OpenLease
from convene.serving.base import ChatRequest, ModelCard, Outcome, Principal
from convene.serving.catalog import Catalog, Deployment, Tally
from convene.serving.terms import PLAIN, Terms
from convene.serving.turn import Turn, Turns
from convene.usage import Usage
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from convene.events import Event
    from convene.serving.admission import Ask

    Whole = Callable[[Generation], Awaitable[Sequence[Event]]]

WHO = Principal(key_id="k", owner="o")
EVENTS: tuple[Event, ...] = (
    Began("up", "m"),
    TextDelta("twelve bytes"),
    CallDelta(0, "{}", "c", "f"),
    Finished("tool_calls"),
    UsageReported(Usage(5, 7)),
)


class Told:
    """A model that emits what it is told, with a turn of the loop before each event; an error among them is raised."""

    def __init__(self, *events: Event | Exception) -> None:
        self.capabilities = Capabilities()
        self.upstream = "up"
        self.closed = 0
        self.asked: list[Generation] = []
        self._events = events

    def ready(self) -> str | None:
        return None

    @property
    def whole(self) -> Whole | None:
        return None

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        self.asked.append(generation)
        try:
            for event in self._events:
                await asyncio.sleep(0)
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed += 1
            await asyncio.sleep(0)


class AtOnce(Told):
    """The same model with the short way to a whole answer; the long way is barred."""

    @property
    def whole(self) -> Whole | None:
        return self._gather

    async def _gather(self, generation: Generation) -> list[Event]:
        return [event async for event in Told.generate(self, generation)]

    def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        raise AssertionError(f"a whole answer is asked for at once: {generation}")


class Books(OpenLease):
    """Counts reservations and settlements; may refuse, may take its time."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.reserved: list[Ask] = []
        self.settled: list[Outcome] = []
        self._refusal = refusal
        self._outcome = Outcome()

    async def reserve(self, ask: Ask, outcome: Outcome) -> Books:
        if self._refusal is not None:
            raise self._refusal
        self.reserved.append(ask)
        self._outcome = outcome
        return self

    def settle(self) -> None:
        self.settled.append(self._outcome)

    async def written(self) -> None:
        await asyncio.sleep(0)


def start(
    model: Told,
    books: Books,
    clock: FakeClock | None = None,
    generation: Generation | None = None,
    terms: Terms = PLAIN,
    tally: Tally | None = None,
) -> Turn:
    """Return an accepted turn of `model` under the name asked, an alias."""
    card = ModelCard(id="real", created=0, owned_by="up", upstream="up", target="t", aliases=("asked",))
    turns = Turns(Catalog([Deployment(card=card, chat=model, terms=terms, tally=tally)]), books, clock or FakeClock())
    generation = generation or Generation(messages=(Message(role="user", content="abcdef"),))
    turn = turns.start(ChatRequest(model="asked", generation=generation), WHO, "req_1")
    assert isinstance(turn, Turn)
    return turn


async def drain(turn: Turn) -> Sequence[Event]:
    """Return all events of a turn."""
    return [event async for event in turn.events()]


@pytest.mark.req("CHAT-36")
async def test_a_turn_passes_every_event_on_and_settles_once_with_the_reported_usage() -> None:
    model, books, clock = Told(*EVENTS), Books(), FakeClock(now=1_800_000_000.9)
    turn = start(model, books, clock)
    assert tuple(await drain(turn)) == EVENTS
    assert (turn.model, turn.created, turn.id[:9]) == ("asked", 1_800_000_000, "chatcmpl-")
    (outcome,) = books.settled
    assert outcome is turn.outcome
    assert (outcome.model, outcome.upstream, outcome.finish) == ("real", "up", "tool_calls")
    assert outcome.usage == Usage(5, 7)
    (ask,) = books.reserved
    assert (ask.principal, ask.model, ask.model_asked, ask.id, ask.request_id) == (
        WHO,
        "real",
        "asked",
        turn.id,
        "req_1",
    )
    assert model.closed == 1


async def test_usage_of_several_generations_adds_up_and_the_last_upstream_counts() -> None:
    books = Books()
    model = Told(
        Began("one", "m"),
        UsageReported(Usage(1, 2, 1)),
        Began("two", "m"),
        Finished("stop"),
        UsageReported(Usage(3, 4)),
    )
    await drain(start(model, books))
    assert books.settled[0].usage == Usage(4, 6, 1)
    assert books.settled[0].upstream == "two"


@pytest.mark.req("OPS-11")
@pytest.mark.parametrize("kind", [Told, AtOnce])
async def test_tools_and_agents_of_the_servers_own_are_counted_by_name_and_status(kind: type[Told]) -> None:
    books = Books()
    ran = (
        ToolRan(id="1", tool_name="search"),
        ToolRan(id="2", tool_name="search", status="failed"),
        ToolRan(id="3", tool_name="weather", type="agent_manifest"),
    )
    await start(kind(*EVENTS, *ran), books).answer()
    (outcome,) = books.settled
    assert outcome.tools == (("search", "done"), ("search", "failed"))
    assert (outcome.tool_calls, outcome.agent_calls) == (2, 1)


@pytest.mark.req("OAI-35")
@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([TextDelta("twelve bytes")], 4),
        ([ReasoningDelta("abc"), TextDelta("de")], 2),
        ([RefusalDelta("abcdefg")], 3),
        ([CallDelta(0, '{"a":1}', "c", "fn")], 3),
        ([TextDelta("\u20ac")], 1),
    ],
)
async def test_a_turn_that_breaks_off_is_settled_with_an_estimate_of_what_was_used(
    events: list[Event], tokens: int
) -> None:
    books = Books()
    with pytest.raises(Malformed):
        await drain(start(Told(Began("up", "m"), *events, Malformed("broke off")), books))
    (outcome,) = books.settled
    assert outcome.usage == Usage(6, tokens, estimated=True)
    assert outcome.finish == "upstream_malformed"


async def test_the_books_are_on_the_disk_before_an_answer_or_a_fault_is_told() -> None:
    class Slow(Books):
        """Writes in its own time."""

        done = False

        async def written(self) -> None:
            assert self.settled
            for _ in range(5):
                await asyncio.sleep(0)
            self.done = True

    for kind in (Told, AtOnce):
        books = Slow()
        await start(kind(*EVENTS), books).answer()
        assert books.done
        books = Slow()
        with pytest.raises(Malformed):
            await start(kind(TextDelta("abc"), Malformed("broke off")), books).answer()
        assert books.done


async def test_a_turn_that_fails_before_its_first_event_has_used_nothing() -> None:
    books = Books()
    with pytest.raises(Busy):
        await drain(start(Told(Busy("full")), books))
    assert [(outcome.usage, outcome.finish, outcome.first_event_ms) for outcome in books.settled] == [
        (None, "server_busy", None)
    ]


async def test_a_fault_of_our_own_settles_too() -> None:
    books = Books()
    with pytest.raises(ZeroDivisionError):
        await drain(start(Told(TextDelta("abc"), ZeroDivisionError()), books))
    assert [outcome.usage for outcome in books.settled] == [Usage(6, 1, estimated=True)]


async def test_a_turn_that_is_not_admitted_asks_no_model_and_settles_nothing() -> None:
    model, books = Told(*EVENTS), Books(Busy("no room"))
    with pytest.raises(Busy):
        await drain(start(model, books))
    assert (model.asked, books.settled) == ([], [])


@pytest.mark.parametrize("kind", [Told, AtOnce])
async def test_a_whole_answer_is_the_fold_of_the_events_and_settles_once(kind: type[Told]) -> None:
    model, books = kind(*EVENTS), Books()
    gathered = await start(model, books).answer()
    assert gathered.usage == Usage(5, 7)
    assert "".join(gathered.choices[0].text) == "twelve bytes"
    assert [(call.id, call.arguments) for call in gathered.choices[0].tool_calls] == [("c", "{}")]
    (outcome,) = books.settled
    assert (outcome.usage, outcome.finish, outcome.upstream) == (Usage(5, 7), "tool_calls", "up")
    assert model.closed == len(model.asked) == 1


@pytest.mark.parametrize("kind", [Told, AtOnce])
async def test_a_whole_answer_that_fails_settles_once_with_the_faults_name(kind: type[Told]) -> None:
    for fault in (Malformed("broke off"), ZeroDivisionError()):
        books = Books()
        with pytest.raises(type(fault)):
            await start(kind(TextDelta("abc"), fault), books).answer()
        (outcome,) = books.settled
        assert outcome.finish == ("upstream_malformed" if isinstance(fault, Malformed) else "internal_error")
        assert outcome.status == "failed"


@pytest.mark.parametrize("after", range(len(EVENTS)))
@pytest.mark.req("OAI-35")
async def test_a_reader_that_stops_anywhere_closes_the_model_and_settles_once(after: int) -> None:
    model, books = Told(*EVENTS), Books()
    turn = start(model, books)
    async with aclosing(turn.events()) as events:
        for _ in range(after + 1):
            await anext(events)
    assert model.closed == 1
    (outcome,) = books.settled
    assert outcome.usage is not None
    assert outcome.usage.estimated == (after < len(EVENTS) - 1)


@pytest.mark.parametrize("way", ["stream", "whole", "at once"])
async def test_a_cancellation_at_every_await_settles_exactly_what_was_reserved(way: str) -> None:
    for turns_of_loop in range(40):
        model, books = (AtOnce if way == "at once" else Told)(*EVENTS), Books()
        turn = start(model, books)
        task: asyncio.Task[object] = asyncio.create_task(drain(turn) if way == "stream" else turn.answer())
        for _ in range(turns_of_loop):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert len(books.settled) == len(books.reserved), turns_of_loop
        assert model.closed == len(model.asked), turns_of_loop
        if not task.cancelled():
            break
    else:
        pytest.fail("the turn never came to its end")
    assert turns_of_loop > len(EVENTS)


async def test_the_time_to_the_first_event_counts_from_the_start() -> None:
    clock, books = FakeClock(), Books()

    class Slow(Told):
        async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
            clock.move(0.25)
            async for event in super().generate(generation):
                yield event
                clock.move(1)

    await drain(start(Slow(*EVENTS), books, clock))
    assert books.settled[0].first_event_ms == pytest.approx(250)


def test_an_unknown_model_and_an_impossible_wish_are_refused_before_anything_is_reserved() -> None:
    books = Books()
    turns = Turns(Catalog([]), books, FakeClock())
    generation = Generation(messages=(Message(role="user", content="x"),))
    with pytest.raises(NotFound):
        turns.start(ChatRequest(model="none", generation=generation), WHO)
    model = Told()
    model.capabilities = Capabilities(logprobs=False)
    wish = Generation(messages=generation.messages, sampling=Sampling(logprobs=True))
    with pytest.raises(BadRequest):
        start(model, books, generation=wish)
    assert books.reserved == []


async def test_the_model_gets_the_generation_fitted_to_it() -> None:
    model = Told(*EVENTS)
    model.capabilities = Capabilities(temperature=0.2, output_tokens_max=10)
    wish = Generation(messages=(Message(role="user", content="x"),), sampling=Sampling(max_tokens=99))
    await drain(start(model, Books(), generation=wish))
    assert model.asked[0].sampling == Sampling(max_tokens=10, temperature=0.2)

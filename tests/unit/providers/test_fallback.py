"""Several models as one: who is asked when, and what a caller sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, ConveneError, Malformed, RateLimited, Rejected, TimedOut, Unavailable
from convene.events import Began, Event, Finished, TextDelta, UsageReported
from convene.providers.base import Capabilities, Generation
from convene.providers.fallback import Fallback, shared_capabilities
from convene.usage import Usage
from unit.providers.upstream_doubles import ask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Listed:
    """A `ChatModel` that gives a list of events; an error among them is raised."""

    whole = None

    def __init__(self, upstream: str, *events: Event | ConveneError, reason: str | None = None) -> None:
        self.upstream = upstream
        self.capabilities = Capabilities()
        self.asked = 0
        self.closed = 0
        self._events = events
        self._reason = reason

    def ready(self) -> str | None:
        return self._reason

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        assert generation.messages
        self.asked += 1
        try:
            for event in self._events:
                if isinstance(event, ConveneError):
                    raise event
                yield event
        finally:
            self.closed += 1


def answer(upstream: str) -> list[Event]:
    return [Began(upstream, "m"), TextDelta(f"from {upstream}"), Finished("stop"), UsageReported(Usage(1, 1))]


async def gather(model: Fallback) -> list[Event]:
    return [event async for event in model.generate(ask())]


async def test_the_first_model_answers_alone() -> None:
    first, second = Listed("a", *answer("a")), Listed("b", *answer("b"))
    assert await gather(Fallback([first, second])) == answer("a")
    assert second.asked == 0


@pytest.mark.parametrize("kind", [Unavailable, TimedOut, Rejected, Malformed, RateLimited])
async def test_the_next_is_asked_after_a_fault_before_the_first_delta(kind: type[ConveneError]) -> None:
    first, second = Listed("a", Began("a", "m"), kind("down")), Listed("b", *answer("b"))
    assert await gather(Fallback([first, second])) == answer("b")
    assert first.closed == 1


async def test_a_bad_request_is_the_callers_to_mend_and_nobody_else_is_asked() -> None:
    second = Listed("b", *answer("b"))
    with pytest.raises(BadRequest):
        await gather(Fallback([Listed("a", BadRequest("no")), second]))
    assert second.asked == 0


async def test_after_the_first_delta_a_fault_is_final() -> None:
    second = Listed("b", *answer("b"))
    seen: list[Event] = []
    events = Fallback([Listed("a", *answer("a")[:2], Malformed("cut")), second]).generate(ask())
    seen.append(await anext(events))
    seen.append(await anext(events))
    with pytest.raises(Malformed):
        await anext(events)
    assert seen == answer("a")[:2]
    assert second.asked == 0


async def test_when_all_fail_the_preferred_models_fault_is_told() -> None:
    with pytest.raises(TimedOut, match="first"):
        await gather(Fallback([Listed("a", TimedOut("first")), Listed("b", Unavailable("second"))]))


async def test_models_that_are_not_ready_are_passed_over_unless_none_is() -> None:
    first, second = Listed("a", *answer("a"), reason="down"), Listed("b", *answer("b"))
    assert await gather(Fallback([first, second])) == answer("b")
    assert first.asked == 0
    assert await gather(Fallback([first])) == answer("a")


async def test_closing_closes_the_model_inside() -> None:
    first = Listed("a", *answer("a"))
    events = Fallback([first]).generate(ask())
    await anext(events)
    await events.aclose()
    assert first.closed == 1


def test_it_is_ready_while_any_of_them_is() -> None:
    ready, down = Listed("a"), Listed("b", reason="down")
    assert Fallback([down, ready]).ready() is None
    assert Fallback([down, down]).ready() == "down; down"


def test_it_has_the_preferred_models_upstream() -> None:
    assert Fallback([Listed("a"), Listed("b")]).upstream == "a"


def test_none_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fallback([])


def test_it_can_do_what_all_of_them_can() -> None:
    every = [
        Capabilities(context_window=8000, vision=False, temperature=0.2, reasoning=True),
        Capabilities(context_window=4000, output_tokens_max=100, tools=False, temperature=0.7),
    ]
    assert shared_capabilities(every) == Capabilities(
        context_window=4000, output_tokens_max=100, temperature=0.2, vision=False, tools=False, reasoning=False
    )

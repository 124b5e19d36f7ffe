"""What every `ChatModel` does, whoever generates: one suite, one `Subject` for each kind of model.

To add a kind: write a function that returns its `Subject` and put it into `KINDS`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from convene.clock import SystemClock
from convene.errors import ClientFault, ConveneError, Refused, UpstreamFault
from convene.events import (
    Began,
    CallDelta,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    UsageReported,
    fold,
)
from convene.messages import Message
from convene.providers.base import Capabilities, ChatModel, Generation
from convene.providers.fallback import Fallback
from convene.providers.scripted import ScriptedSettings, catalogue
from unit.providers.upstream_doubles import (
    DONE,
    USAGE,
    FakeClient,
    FakeResponse,
    Stall,
    chunk,
    model_at,
    ok,
    refused,
    streamed,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.http.base import Request


class Subject(NamedTuple):
    """A kind of model in the states that the suite needs; None where it cannot be brought into one."""

    speaks: ChatModel
    """Answers any small question with some text."""
    fails: ChatModel | None
    """Fails before its first event."""
    breaks_off: ChatModel | None
    """Fails after a delta."""
    stalls: ChatModel | None
    """Gives a delta in a stream, then nothing for a long time."""
    left: Callable[[], bool]
    """Whether the work of `stalls` has ended."""


def answer(request: Request) -> FakeResponse:
    """Answer as a host does: whole or streamed, as asked."""
    if msgspec.json.decode(request.body)["stream"]:
        return streamed(
            chunk({"role": "assistant", "content": ""}), chunk("Hel"), chunk("lo", finish="stop"), USAGE, DONE
        )
    return ok(whole("Hello"))


def openai_subject() -> Subject:
    stalled = FakeClient(streamed(chunk("Hel"), Stall()))
    return Subject(
        model_at(FakeClient(answer=answer)),
        model_at(FakeClient(answer=lambda _: refused(500))),
        model_at(FakeClient(answer=lambda _: streamed(chunk("Hel")))),
        model_at(stalled),
        lambda: stalled.responses[0].closed,
    )


def fallback_subject() -> Subject:
    inner = openai_subject()
    assert inner.fails is not None
    assert inner.breaks_off is not None
    assert inner.stalls is not None
    return Subject(
        Fallback([inner.fails, inner.speaks]),
        Fallback([inner.fails]),
        Fallback([inner.breaks_off, inner.speaks]),
        Fallback([inner.stalls]),
        inner.left,
    )


def scripted_subject() -> Subject:
    models = catalogue(SystemClock(), ScriptedSettings(enabled=True))
    return Subject(
        models["scripted-echo"],
        models["scripted-fail-before"],
        models["scripted-fail-after"],
        None,
        lambda: True,
    )


KINDS = {"openai": openai_subject, "fallback": fallback_subject, "scripted": scripted_subject}

QUESTION = Generation(
    messages=(Message(role="system", content="Be kind."), Message(role="user", content="Hello there"))
)
STREAMED = msgspec.structs.replace(QUESTION, stream=True)
DELTAS = (TextDelta, ReasoningDelta, RefusalDelta, CallDelta)


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return KINDS[request.param]()


async def gather(model: ChatModel, generation: Generation) -> list[Event]:
    return [event async for event in model.generate(generation)]


async def gather_until_fault(model: ChatModel) -> tuple[list[Event], ConveneError]:
    """Return the fault of a streamed generation and what came before it."""
    seen: list[Event] = []
    try:
        async for event in model.generate(STREAMED):
            seen.append(event)  # noqa: PERF401 - what came before the fault counts
    except ConveneError as fault:
        return seen, fault
    raise AssertionError("no fault")


def test_it_says_what_it_can_do_and_whose_it_is(subject: Subject) -> None:
    assert isinstance(subject.speaks.capabilities, Capabilities)
    assert subject.speaks.upstream
    assert subject.speaks.ready() is None


@pytest.mark.parametrize("generation", [QUESTION, STREAMED], ids=["whole", "streamed"])
async def test_events_are_began_deltas_one_finished_a_choice_and_usage_last(
    subject: Subject, generation: Generation
) -> None:
    events = await gather(subject.speaks, generation)
    kinds = [type(event) for event in events]
    assert kinds[0] is Began
    assert kinds[-1] is UsageReported
    finished = kinds.index(Finished)
    assert kinds.count(Began) == kinds.count(Finished) == kinds.count(UsageReported) == 1
    assert kinds[1:finished]
    assert all(kind in DELTAS for kind in kinds[1:finished])
    assert kinds[finished + 1 :] == [UsageReported]


async def test_a_stream_and_a_whole_answer_say_the_same(subject: Subject) -> None:
    one, other = [fold(await gather(subject.speaks, each)) for each in (QUESTION, STREAMED)]
    assert "".join(one.choice(0).text) == "".join(other.choice(0).text) != ""
    assert one.choice(0).finish == other.choice(0).finish


async def test_tokens_of_prompt_and_answer_are_counted(subject: Subject) -> None:
    usage = fold(await gather(subject.speaks, QUESTION)).usage
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.cached_tokens <= usage.prompt_tokens
    assert usage.reasoning_tokens <= usage.completion_tokens


async def test_two_generations_at_once_do_not_mix(subject: Subject) -> None:
    one, other = await asyncio.gather(gather(subject.speaks, STREAMED), gather(subject.speaks, STREAMED))
    assert [type(event) for event in one] == [type(event) for event in other]


async def test_a_failure_before_the_first_event_is_one_of_our_faults_and_nothing_else_comes(subject: Subject) -> None:
    if subject.fails is None:
        pytest.skip("this kind cannot be made to fail")
    seen, fault = await gather_until_fault(subject.fails)
    assert isinstance(fault, UpstreamFault | Refused | ClientFault)
    assert not any(isinstance(event, DELTAS) for event in seen)


async def test_a_failure_in_mid_answer_comes_after_its_deltas_and_without_an_end(subject: Subject) -> None:
    if subject.breaks_off is None:
        pytest.skip("this kind cannot be made to break off")
    seen, fault = await gather_until_fault(subject.breaks_off)
    assert isinstance(fault, UpstreamFault)
    assert any(isinstance(event, DELTAS) for event in seen)
    assert not any(isinstance(event, UsageReported) for event in seen)
    assert fault.message


async def test_closing_in_mid_answer_ends_the_work(subject: Subject) -> None:
    if subject.stalls is None:
        pytest.skip("this kind has no work that could go on")
    events = subject.stalls.generate(STREAMED)
    while not isinstance(await asyncio.wait_for(anext(events), 60), DELTAS):
        pass
    await asyncio.wait_for(events.aclose(), 60)
    assert subject.left()


async def test_closing_at_once_is_harmless(subject: Subject) -> None:
    events = subject.speaks.generate(STREAMED)
    await events.aclose()
    unstarted = subject.speaks.generate(QUESTION)
    await anext(unstarted)
    await unstarted.aclose()
    assert isinstance((await gather(subject.speaks, QUESTION))[-1], UsageReported)

"""The face of runs: what `api/` knows of agentic turns that are under way or over (`runs.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.events import (
    Began,
    CallDelta,
    Cited,
    Finished,
    FinishReason,
    Fold,
    Noticed,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    ToolRan,
    UsageReported,
)
from convene.messages import ToolCall
from convene.store.base_runs import Run, RunStatus
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from convene.events import Event
    from convene.serving.base import Principal

__all__ = ["Answer", "Piece", "Run", "RunDesk", "RunEnded", "RunState", "RunStatus", "answer_of"]


class RunEnded(msgspec.Struct, frozen=True):
    """The last event of a run. `fault` is the code of the error that ended it, `message` its words."""

    status: RunStatus
    fault: str = ""
    message: str = ""


Piece = tuple[int, "Event | RunEnded"]
"""An event as readers of a run get it; its number, larger than all before, if it is durable, else 0."""


class AnswerChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One choice of an answer."""

    index: int = 0
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: FinishReason | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run came to, as it is kept once it is over: a `Fold` as a value, without the steps."""

    choices: tuple[AnswerChoice, ...] = ()
    began: Began | None = None
    tools: tuple[ToolRan, ...] = ()
    citations: tuple[Cited, ...] = ()
    notices: tuple[Noticed, ...] = ()
    usage: Usage | None = None
    fault: str = ""
    message: str = ""

    def events(self) -> Iterator[Event]:
        """Yield events whose fold is this answer."""
        if self.began is not None:
            yield self.began
        for choice in self.choices:
            if choice.reasoning:
                yield ReasoningDelta(choice.reasoning, choice.index)
            if choice.text:
                yield TextDelta(choice.text, choice.index)
            if choice.refusal:
                yield RefusalDelta(choice.refusal, choice.index)
            for place, call in enumerate(choice.calls):
                yield CallDelta(place, call.arguments, call.id, call.name, choice.index)
            if choice.finish is not None:
                yield Finished(choice.finish, choice.index)
        yield from self.tools
        yield from self.citations
        yield from self.notices
        if self.usage is not None:
            yield UsageReported(self.usage)


def answer_of(gathered: Fold, fault: str = "", message: str = "") -> Answer:
    """Return a gathered turn as it is kept."""
    return Answer(
        choices=tuple(
            AnswerChoice(
                index=index,
                text="".join(choice.text),
                reasoning="".join(choice.reasoning),
                refusal="".join(choice.refusal),
                calls=choice.tool_calls,
                finish=choice.finish,
            )
            for index, choice in sorted(gathered.choices.items())
        ),
        began=gathered.began,
        tools=tuple(gathered.tools),
        citations=tuple(gathered.citations),
        notices=tuple(gathered.notices),
        usage=gathered.usage,
        fault=fault,
        message=message,
    )


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """One run as its owner sees it."""

    run: Run
    steps: tuple[StepChanged, ...]
    """As they are now, by number."""
    usage: Usage
    """What its rounds have used so far, before a crash and after it."""
    cost_by_step: tuple[tuple[str, int], ...]
    """What each step has cost that has cost anything, in micro-units."""
    answer: Answer | None
    """Once it is over."""
    conversation_id: str | None = None

    @property
    def cost_micros(self) -> int:
        """What all of it has cost."""
        return sum(micros for _, micros in self.cost_by_step)


class RunDesk(Protocol):
    """Runs as their owners see them. A foreign run answers like a missing one (invariant 9).

    Every call raises `StoreFault` if the store cannot be used.
    """

    async def page(self, who: Principal, limit: int, session_id: str | None, after: str) -> tuple[Sequence[Run], bool]:
        """Return the caller's runs, newest first, those behind the id `after`; and whether there are more.

        Raises `BadRequest` if there is no run `after`.
        """
        ...

    async def show(self, who: Principal, run_id: str) -> RunState:
        """Return a run. Raises `NotFound`."""
        ...

    def read(self, run: Run, after: int) -> AsyncGenerator[list[Piece]]:
        """Yield what is behind the durable event `after`, then what comes, ending with `RunEnded`.

        Works for a run of another process too: then text comes when its round has ended. Raises `Busy` if the run has
        too many readers already.
        """
        ...

    async def cancel(self, who: Principal, run_id: str) -> Run:
        """Ask for a run's end and return it as it is now; one that is over stays so. Raises `NotFound`."""
        ...

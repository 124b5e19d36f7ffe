"""The seam between a turn and the journal of its run: every step is opened before its effect and closed after.

    step = await journal.open(StepPlan("tool", "web_search", arguments))     durable; numbered in the order of the calls
    if step.recorded is None: do it                                           else it was done before a crash: replay
    change = await step.close("done", output)                                 durable

`open` and `close` take their number and their place in the queue when they are called, not when they are awaited:
closing one step and opening the next before awaiting either makes one commit of both. A run that is taken up again
after a crash repeats the same calls in the same order, and gets what was recorded. `runs.py` keeps the journal in the
store; `PassingJournal` keeps nothing, for tests and simulations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from convene.events import StepChanged, StepKind

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from convene.usage import Usage

EndStatus = Literal["done", "failed", "skipped"]


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A step that is about to be taken."""

    kind: StepKind
    name: str
    input: bytes = b""
    """What makes it this step and no other, as JSON: a tool's name and arguments, a round's number."""
    depends_on: tuple[str, ...] = ()
    summary: str = ""
    detail: dict[str, object] | None = None
    reserved_tokens: int = 0
    """Of a model's round: what it may use at most or by estimate, so that a kill in it is billed at that."""
    reserved_micros: int = 0


class Recorded(msgspec.Struct, frozen=True):
    """How a step ended before the crash."""

    status: EndStatus
    output: bytes
    change: StepChanged


class OpenStep(Protocol):
    """A step under way."""

    @property
    def id(self) -> str:
        """What readers call it: `s1`, `s2` ..., unique in the run."""
        ...

    @property
    def recorded(self) -> Recorded | None:
        """How it ended, if it has ended already; then it must not be done again, nor closed."""
        ...

    @property
    def idempotency_key(self) -> str:
        """`run:step:group`, the same when the step is repeated after a crash."""
        ...

    @property
    def change(self) -> StepChanged:
        """The step as readers see it now."""
        ...

    def show(self, summary: str, detail: dict[str, object] | None = None) -> StepChanged:
        """Return the step with other words, for readers alone; nothing is written."""
        ...

    def close(
        self,
        status: EndStatus,
        output: bytes = b"",
        *,
        summary: str = "",
        detail: dict[str, object] | None = None,
        usage: Usage | None = None,
        cost_micros: int = 0,
    ) -> Awaitable[StepChanged]:
        """End the step; awaited, that survives kill -9.

        Raises `StoreFault`, and `Conflict` if another holds the run.
        """
        ...


class Journal(Protocol):
    """The journal of one run, in the hands of the turn that drives it."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    def open(self, plan: StepPlan) -> Awaitable[OpenStep]:
        """Begin the next step; awaited, that survives kill -9.

        Raises `StoreFault`, `Conflict` if another holds the run, and `Conflict` with the code `run_cancelled` if its
        end was asked for.
        """
        ...

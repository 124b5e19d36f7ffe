"""A journal that keeps nothing: numbers and shows steps, forgets them, and survives no kill.

For tests, simulations and servers without a store. `runs.py` keeps runs in the store behind the same seams
(`base_steps.py`, `base_agentic.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from convene.events import StepChanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.events import Event, Fold, StepStatus
    from convene.serving.base_agentic import Job
    from convene.serving.base_steps import EndStatus, StepPlan
    from convene.usage import Usage


class PassingStep:
    """A step that nobody writes down."""

    recorded = None

    def __init__(self, run_id: str, number: int, plan: StepPlan, now: Callable[[], float]) -> None:
        self.id = f"s{number}"
        self.idempotency_key = f"{run_id}:{self.id}:1"
        self._plan = plan
        self._now = now
        self._started_at = now()
        self.change = self._changed("running", plan.summary, plan.detail)

    def show(self, summary: str, detail: dict[str, object] | None = None) -> StepChanged:
        """Return the running step with other words."""
        self.change = self._changed("running", summary, detail or self._plan.detail)
        return self.change

    async def close(
        self,
        status: EndStatus,
        output: bytes = b"",
        *,
        summary: str = "",
        detail: dict[str, object] | None = None,
        usage: Usage | None = None,
        cost_micros: int = 0,
    ) -> StepChanged:
        """Return the step as it ended."""
        del output, cost_micros
        self.change = self._changed(status, summary or self.change.summary, detail or self.change.detail, usage)
        return self.change

    def _changed(
        self, status: StepStatus, summary: str, detail: dict[str, object] | None, usage: Usage | None = None
    ) -> StepChanged:
        plan = self._plan
        return StepChanged(
            id=self.id,
            kind=plan.kind,
            name=plan.name,
            status=status,
            depends_on=plan.depends_on,
            summary=summary,
            started_at=self._started_at,
            ended_at=None if status == "running" else self._now(),
            usage=None if usage is None else usage_of_step(usage),
            detail=detail,
        )


class PassingJournal:
    """The journal of one run, kept nowhere."""

    def __init__(self, run_id: str, now: Callable[[], float]) -> None:
        self.run_id = run_id
        self._now = now
        self._opened = 0

    def open(self, plan: StepPlan) -> Awaitable[PassingStep]:
        """Return the next step; it has its number from now on."""
        self._opened += 1
        return _ready(PassingStep(self.run_id, self._opened, plan, self._now))

    def attach(self, cancel: Callable[[], None]) -> None:
        """Nobody ends such a run from outside."""

    def saw(self, event: Event) -> None:
        """Nobody comes back for it."""

    async def finish(
        self, status: Literal["done", "failed", "cancelled"], answer: Fold, fault: str = "", message: str = ""
    ) -> None:
        """Nothing was begun."""


class PassingRuns:
    """A `RunRoom` that keeps nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    async def begin(self, job: Job) -> PassingJournal:
        """Return a journal that keeps nothing."""
        return PassingJournal(job.run_id, self._now)


async def _ready(step: PassingStep) -> PassingStep:
    return step


def usage_of_step(usage: Usage) -> dict[str, int]:
    """Return a round's tokens as readers of `intermediate_steps` see them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }

"""A plan as a validated graph: what a model may write down, which steps can run, what a failure leaves. Pure.

    read_plan(text)  ──► steps, or `PlanRefused` in words the model can mend
    Plan             ──► wave(): the steps whose dependencies are done, in order      done / failed / skipped
                     ──► revise(steps): what is still to come is replaced; what is done stays

`planner.py` asks models for plans and runs the waves; nothing here asks anybody anything.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO_TOOL: Final = "none"
"""What a step that only thinks names as its tool."""
STEPS_MAX: Final = 12
"""Steps of one plan: more than anybody follows on a screen; a longer task is re-planned on the way."""
ALL_STEPS_MAX: Final = 36
"""Steps of a plan with all its revisions."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,24}")
"""Not in the schema: not every host binds a text to a pattern."""
NOTHING: Final = frozenset({"none", "null", "n/a", "unknown"})
"""How models say that they know no input, beside leaving it empty."""
TASK_MAX: Final = 400
INPUT_MAX: Final = 4_000
PlannedStatus = Literal["pending", "running", "done", "failed", "skipped"]


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step as a model has written it."""

    id: str
    task: str
    """What is to be found out or done, in a sentence."""
    tool: str = NO_TOOL
    input: str = ""
    """What the tool is to be given, where it is known now: a text, or an object as JSON."""
    depends_on: tuple[str, ...] = ()


class PlanRefused(Exception):
    """What a model wrote is no plan; the text tells it why."""


class _Written(msgspec.Struct):
    """The form of a plan on the wire."""

    steps: list[PlannedStep]


class Plan:
    """A plan while it is carried out."""

    def __init__(self, steps: Iterable[PlannedStep]) -> None:
        """Take steps that `read_plan` has read."""
        self._steps = {step.id: step for step in steps}
        self._status: dict[str, PlannedStatus] = dict.fromkeys(self._steps, "pending")
        self._results: dict[str, str] = {}

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        """All steps, those that were replaced left out, in the order in which they were planned."""
        return tuple(self._steps.values())

    def status(self, step_id: str) -> PlannedStatus:
        """Return how a step stands."""
        return self._status[step_id]

    def result(self, step_id: str) -> str:
        """Return what a step has given, or why it failed; empty while it has not ended."""
        return self._results.get(step_id, "")

    @property
    def failures(self) -> tuple[PlannedStep, ...]:
        """The steps that failed, in order."""
        return self._in("failed")

    @property
    def open(self) -> tuple[PlannedStep, ...]:
        """The steps that have not ended, in order."""
        return tuple(step for step in self.steps if self._status[step.id] in ("pending", "running"))

    def wave(self) -> tuple[PlannedStep, ...]:
        """Return the pending steps that can run now, beside each other; empty when none can."""
        return tuple(
            step
            for step in self._in("pending")
            if all(self._status.get(needed) == "done" for needed in step.depends_on)
        )

    def run(self, step_id: str) -> None:
        """Note that a step runs."""
        self._status[step_id] = "running"

    def end(self, step_id: str, result: str, *, failed: bool = False) -> None:
        """Note what a step gave, or why it failed."""
        self._status[step_id] = "failed" if failed else "done"
        self._results[step_id] = result

    def skip_blocked(self) -> tuple[PlannedStep, ...]:
        """Skip the pending steps that wait for what will never be done, and return them."""
        skipped: list[PlannedStep] = []
        lost = {step.id for step in self.steps if self._status[step.id] in ("failed", "skipped")}
        for step in self._in("pending"):  # a step stands behind those it depends on: one walk finds all
            if lost.intersection(step.depends_on):
                lost.add(step.id)
                self._status[step.id] = "skipped"
                skipped.append(step)
        return tuple(skipped)

    def revise(self, steps: Sequence[PlannedStep]) -> tuple[PlannedStep, ...]:
        """Put these steps in the place of all that are pending, and return those that were dropped."""
        dropped = self._in("pending")
        for step in dropped:
            del self._steps[step.id], self._status[step.id]
        self._steps |= {step.id: step for step in steps}
        self._status |= {step.id: "pending" for step in steps}
        return dropped

    def _in(self, status: PlannedStatus) -> tuple[PlannedStep, ...]:
        return tuple(step for step in self.steps if self._status[step.id] == status)


def plan_schema(tools: Sequence[str], *, least: int = 1, most: int = STEPS_MAX) -> dict[str, object]:
    """Return the JSON schema of a plan of `least` to `most` steps over these tools.

    Every property is required, as strict hosts want it.
    """
    step: dict[str, object] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "task", "tool", "input", "depends_on"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 24},
            "task": {"type": "string", "minLength": 1, "maxLength": 200},
            "tool": {"type": "string", "enum": [NO_TOOL, *tools]},
            "input": {"type": "string", "maxLength": 200},
            "depends_on": {"type": "array", "maxItems": STEPS_MAX, "items": {"type": "string", "maxLength": 24}},
        },
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["steps"],
        "properties": {"steps": {"type": "array", "minItems": least, "maxItems": most, "items": step}},
    }


def read_plan(text: str, tools: Sequence[str], so_far: Plan | None = None) -> tuple[PlannedStep, ...]:
    """Return the steps that `text` holds, each behind those it depends on; with a plan `so_far`, they continue it.

    Raises `PlanRefused`.
    """
    try:
        written = msgspec.json.decode(text.encode(), type=_Written).steps
    except (msgspec.DecodeError, UnicodeError) as fault:
        raise PlanRefused(f"This is not a plan: {fault}.") from fault
    known = {} if so_far is None else {step.id: step for step in so_far.steps}
    kept = set(known) if so_far is None else {one for one in known if so_far.status(one) != "pending"}
    _check_size(written, kept, empty=so_far is not None)
    steps: dict[str, PlannedStep] = {}
    for step in written:
        if _ID.fullmatch(step.id) is None:
            raise PlanRefused(f"An id is 1 to 24 letters, digits, - and _, not {step.id[:40]!r}.")
        if step.id in steps or step.id in kept:
            raise PlanRefused(f"Each step needs an id of its own; {step.id!r} is there twice or was used before.")
        if step.tool != NO_TOOL and step.tool not in tools:
            raise PlanRefused(
                f"Step {step.id!r} names the tool {step.tool!r}; there are: {_listed((NO_TOOL, *tools))}."
            )
        steps[step.id] = msgspec.structs.replace(
            step,
            task=step.task[:TASK_MAX],
            input=step.input[:INPUT_MAX],
            depends_on=tuple(dict.fromkeys(step.depends_on)),
        )
    done = set() if so_far is None else {one for one in kept if so_far.status(one) == "done"}
    return _ordered(steps, done)


def arguments_of(step: PlannedStep, parameters: dict[str, object]) -> dict[str, object] | None:
    """Return the arguments of a tool that the plan itself names, or None if a model has to find them.

    They are an object as JSON, or the only text that the tool asks for. A step that depends on others never has them:
    what those give is to go into its arguments.
    """
    text = step.input.strip()
    if not text or text.lower() in NOTHING or step.depends_on:
        return None
    if text.startswith("{"):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return given if isinstance(given, dict) else None
    properties, required = parameters.get("properties"), parameters.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list | tuple) or len(required) != 1:
        return None
    [name] = required
    wanted = properties.get(name)
    return {name: text} if isinstance(wanted, dict) and wanted.get("type") == "string" else None


def _check_size(written: Sequence[PlannedStep], kept: set[str], *, empty: bool) -> None:
    if not written and not empty:
        raise PlanRefused("A plan needs at least one step.")
    if len(written) > STEPS_MAX:
        raise PlanRefused(f"A plan has at most {STEPS_MAX} steps, not {len(written)}.")
    if len(kept) + len(written) > ALL_STEPS_MAX:
        raise PlanRefused(f"With what was done before, there may be {ALL_STEPS_MAX} steps in all.")


def _ordered(steps: dict[str, PlannedStep], done: set[str]) -> tuple[PlannedStep, ...]:
    """Return the steps, each behind those it depends on, else in their order. Raises `PlanRefused` for a circle."""
    for step in steps.values():
        unknown = [needed for needed in step.depends_on if needed not in steps and needed not in done]
        if unknown:
            raise PlanRefused(
                f"Step {step.id!r} depends on {_listed(unknown)}, which is no step that is or will be done."
            )
    placed: dict[str, PlannedStep] = {}
    left = dict(steps)
    while left:
        ready = [one for one in left.values() if all(needed in placed or needed in done for needed in one.depends_on)]
        if not ready:
            raise PlanRefused(f"These steps wait for each other: {_listed(left)}.")
        for step in ready:
            placed[step.id] = left.pop(step.id)
    return tuple(placed.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)

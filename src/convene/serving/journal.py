"""The journal of one run in the store: every step written before its effect and after it (goals D4, D5).

    open(plan)  ──► recorded, ended:  what it gave, from the journal; nothing is written
                ──► recorded, begun:  again, with the same idempotency key and one attempt more
                ──► new:              its row, durable; then its effect
    saw(event)  ──► log ──► readers who come back; text also becomes durable with the step that follows it
    finish      ──► the answer, durable; then the end of the log

A repetition whose steps are not those of the journal is refused: what ran before must never be taken for something
else. `runs.py` makes journals and looks after them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

import msgspec

from convene.errors import Conflict, ConveneError, StoreFault
from convene.events import Noticed, StepChanged, TextDelta
from convene.moments import SECOND_US
from convene.serving.base_runs import RunEnded, answer_of
from convene.serving.base_steps import Recorded
from convene.serving.passing import usage_of_step
from convene.serving.remembering import notes_of
from convene.serving.run_log import RunLog
from convene.store.base_runs import Hold, RunStatus, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from convene.clock import Clock
    from convene.events import Event, Fold
    from convene.serving.base_runs import Answer
    from convene.serving.base_steps import EndStatus, StepPlan
    from convene.store.base_runs import Run, Runs
    from convene.usage import Usage

T = TypeVar("T")
log = logging.getLogger("convene.runs")

GROUP: Final = 1
"""The attempts of a step that share an idempotency key. There is one group: whatever is repeated is the same call."""
OUTCOME_BYTES_MAX: Final = 4_194_304
"""A larger answer is kept without what tools returned."""
CUT: Final = Noticed("results_not_kept", "What tools returned in this run was too large to be kept with it.")
_encode = msgspec.json.Encoder().encode


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step's row for readers: how it looks, and the text that came between the durable event before and its own."""

    step: StepChanged
    said: tuple[tuple[int, str], ...] = ()
    """By the number of the durable event that each piece came before."""


_shown_of = msgspec.json.Decoder(Shown).decode


def shown_of(row: Step) -> Shown:
    """Return a row as readers see it."""
    return _shown_of(row.shown)


class RunEnd(msgspec.Struct, frozen=True):
    """The end of a run, to be written."""

    hold: Hold
    status: RunStatus
    outcome: bytes
    at_us: int
    expires_us: int
    steps: tuple[Step, ...]

    def write(self, runs: Runs) -> Awaitable[None]:
        """Write it. Raises as `store.base_runs.Runs.finish`."""
        return runs.finish(self.hold, self.status, self.outcome, self.at_us, self.expires_us, self.steps)


class Room(Protocol):
    """What a journal knows of the room that looks after it."""

    @property
    def going_down(self) -> bool:
        """Whether this process ends: a run that ends for that is left to the next."""
        ...

    def owe(self, end: RunEnd) -> None:
        """Write an end as soon as the store takes it."""
        ...

    def leave(self, journal: StoredJournal) -> None:
        """Let go of a run that is over here."""
        ...

    async def remember(self, run: Run, notes: Mapping[str, bytes]) -> None:
        """Keep notes in the run's session; never raises for a store that fails."""
        ...


class RunDivergedError(ConveneError):
    """A run that was taken up again does other steps than before; it cannot go on."""

    code = "run_diverged"


class StoredStep:
    """A step under way, or one that ended before a crash (`base_steps.OpenStep`)."""

    __slots__ = ("_journal", "change", "id", "idempotency_key", "recorded", "row", "said")

    def __init__(self, journal: StoredJournal, row: Step, shown: Shown, recorded: Recorded | None) -> None:
        self._journal = journal
        self.row = row
        self.said = shown.said
        self.id = f"s{row.number}"
        self.idempotency_key = f"{row.run_id}:{self.id}:{GROUP}"
        self.recorded = recorded
        self.change = shown.step

    def show(self, summary: str, detail: dict[str, object] | None = None) -> StepChanged:
        """Return the running step with other words; nothing is written."""
        self.change = msgspec.structs.replace(self.change, summary=summary, detail=detail or self.change.detail)
        return self.change

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
        """End the step (`base_steps.OpenStep`)."""
        if self.recorded is not None:
            raise RuntimeError(f"step {self.id} ended before a crash and is not closed again")
        row = msgspec.structs.replace(
            self.row,
            status=status,
            output=output,
            prompt_tokens=0 if usage is None else usage.prompt_tokens,
            completion_tokens=0 if usage is None else usage.completion_tokens,
            reserved_tokens=0 if usage is not None or status == "skipped" else self.row.reserved_tokens,
            reserved_micros=0 if usage is not None or status == "skipped" else self.row.reserved_micros,
            cost_micros=cost_micros,
        )
        return self._journal.ended(self, row, summary or self.change.summary, detail or self.change.detail, usage)


class StoredJournal:
    """The journal of one run (`base_agentic.RunJournal`). Belongs to one event loop, and to one holder of the run."""

    def __init__(
        self,
        run: Run,
        runs: Runs,
        clock: Clock,
        keep_us: int,
        recorded: Iterable[Step] = (),
        *,
        room: Room | None = None,
    ) -> None:
        """`recorded` are the rows of a run that is taken up again. `keep_us`: how long it is kept once it is over."""
        self.run = run
        self.run_id = run.id
        self.hold = Hold(run.id, run.fence)
        self.log = RunLog()
        self.cancel_asked = run.cancel_asked
        self.over = False
        self._runs = runs
        self._clock = clock
        self._keep_us = keep_us
        self._room = room
        self._cancel: Callable[[], None] | None = None
        self._opened = 0
        self._seq = 0
        self._said: list[str] = []
        self._under_way: dict[str, StoredStep] = {}
        self._published: dict[str, StepChanged] = {}
        self._rows = {row.number: row for row in recorded}
        self._skip = 0
        self._plan = b""
        self._seed()

    def _seed(self) -> None:
        """Put what readers had seen before the crash into the log, in the order they saw it."""
        shown = [(row.seq, shown_of(row)) for row in self._rows.values()]
        pieces: list[tuple[int, int, Event]] = []
        for seq, one in shown:
            begun = msgspec.structs.replace(one.step, status="running", ended_at=None, usage=None)
            for said_at, text in one.said:
                pieces.append((said_at, 0, TextDelta(text)))
                if said_at != seq:  # who has this event has the text before it, though the row tells a later one
                    pieces.append((said_at, 1, begun))
            pieces.append((seq, 1, one.step))
            self._published[one.step.id] = one.step
            self._skip += sum(len(text) for _, text in one.said)
            self._seq = max(self._seq, seq)
        for seq, is_step, event in sorted(pieces, key=lambda piece: piece[:2]):
            self.log.add((seq if is_step else 0, event))

    def open(self, plan: StepPlan) -> Awaitable[StoredStep]:
        """Begin the next step (`base_steps.Journal`)."""
        if self.cancel_asked:
            raise run_cancelled()
        self._opened += 1
        number = self._opened
        row = self._rows.get(number)
        if row is not None:
            _same(row, plan)
            if row.status not in {"running", "pending"}:
                return _at_once(self._recorded(row))
        change = StepChanged(
            id=f"s{number}",
            kind=plan.kind,
            name=plan.name,
            status="running",
            depends_on=plan.depends_on,
            summary=plan.summary,
            started_at=self._clock.now(),
            detail=plan.detail,
        )
        fresh = Step(
            run_id=self.run_id,
            number=number,
            seq=0,
            kind=plan.kind,
            name=plan.name,
            status="running",
            attempt=1 if row is None else row.attempt + 1,
            input=plan.input,
            reserved_tokens=plan.reserved_tokens,
            reserved_micros=plan.reserved_micros,
        )
        step = StoredStep(self, fresh, Shown(change, () if row is None else shown_of(row).said), None)
        self._under_way[step.id] = step
        return self._write(step, fresh, change, step)

    def ended(
        self, step: StoredStep, row: Step, summary: str, detail: dict[str, object] | None, usage: Usage | None
    ) -> Awaitable[StepChanged]:
        """Write the end of a step, for the step itself."""
        change = msgspec.structs.replace(
            step.change,
            status=row.status,
            summary=summary,
            ended_at=self._clock.now(),
            detail=detail,
            usage=None if usage is None else usage_of_step(usage),
        )
        step.change = change
        self._note_plan(row)
        self._under_way.pop(step.id, None)
        return self._write(step, row, change, change)

    def attach(self, cancel: Callable[[], None]) -> None:
        """Take how to end the run from outside (`base_agentic.RunJournal`)."""
        self._cancel = cancel
        if self.cancel_asked:
            cancel()

    def cancel(self) -> None:
        """End the run, as its owner asked; again does nothing more."""
        if not self.cancel_asked:
            self.cancel_asked = True
            if self._cancel is not None and not self.over:
                self._cancel()

    def saw(self, event: Event) -> None:
        """Take note of an event that goes out to the reader (`base_agentic.RunJournal`)."""
        if isinstance(event, StepChanged):
            if self._published.get(event.id) == event:
                return  # it was put into the log when it was durable
        elif isinstance(event, TextDelta) and not event.choice:
            if self._skip:
                length = len(event.text)
                if length <= self._skip:
                    self._skip -= length
                    return
                event, self._skip = TextDelta(event.text[self._skip :]), 0
            self._said.append(event.text)
        self.log.add((0, event))

    async def finish(
        self, status: Literal["done", "failed", "cancelled"], answer: Fold, fault: str = "", message: str = ""
    ) -> None:
        """End the run with its answer (`base_agentic.RunJournal`); never raises for a store that fails."""
        if status == "cancelled" and not self.cancel_asked and self._room is not None and self._room.going_down:
            self.drop()
            return
        if status == "done" and self.run.session_id and self._room is not None and not self.over:
            notes = notes_of(self.run_id, answer, self._plan)
            if notes:
                await self._room.remember(self.run, notes)
        await self.close(status, answer_of(answer, fault, message))

    async def close(self, status: RunStatus, answer: Answer) -> None:
        """End the run, and with it the steps that are under way. The first end counts."""
        if self.over:
            return
        self.over = True
        now = self._clock.now()
        rows = []
        for step in self._under_way.values():
            change = msgspec.structs.replace(step.change, status="failed", ended_at=now)
            rows.append(self._numbered(step, msgspec.structs.replace(step.row, status="failed"), change))
            self._published[step.id] = change
            self.log.add((rows[-1].seq, change))
        at_us = int(now * SECOND_US)
        end = RunEnd(self.hold, status, outcome_of(answer), at_us, at_us + self._keep_us, tuple(rows))
        try:
            await end.write(self._runs)
        except StoreFault as fault:
            log.warning("the end of run %s could not be written yet: %s", self.run_id, fault.detail or fault.message)
            if self._room is not None:
                self._room.owe(end)
        except Conflict:
            log.warning("run %s is held by another process, which will end it", self.run_id)
        finally:
            self.log.add((self._seq + 1, RunEnded(status, answer.fault, answer.message)))
            self._leave()

    def drop(self) -> None:
        """Leave the run as it is, for another holder; its readers here see no end of it."""
        if not self.over:
            self.over = True
            self._leave()

    def _leave(self) -> None:
        self.log.end()
        if self._room is not None:
            self._room.leave(self)

    def _recorded(self, row: Step) -> StoredStep:
        shown = shown_of(row)
        self._note_plan(row)
        status: EndStatus = "failed" if row.status == "failed" else "skipped" if row.status == "skipped" else "done"
        return StoredStep(self, row, shown, Recorded(status, row.output, shown.step))

    def _note_plan(self, row: Step) -> None:
        if row.kind == "plan" and row.status == "done":
            self._plan = row.output

    def _numbered(self, step: StoredStep, row: Step, change: StepChanged) -> Step:
        """Return the row with the next number and with what was said since the one before."""
        self._seq += 1
        if self._said:
            step.said = (*step.said, (self._seq, "".join(self._said)))
            self._said.clear()
        return msgspec.structs.replace(
            row, seq=self._seq, fence=self.hold.fence, shown=_encode(Shown(change, step.said))
        )

    def _write(self, step: StoredStep, row: Step, change: StepChanged, result: T) -> asyncio.Future[T]:
        """Write a row, in its place of the queue from now on; a caller that is cancelled loses nothing."""
        row = step.row = self._numbered(step, row, change)
        self._published[step.id] = change
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        written = asyncio.ensure_future(self._runs.record(self.hold, (row,)))

        def ended(written: asyncio.Future[None]) -> None:
            fault = asyncio.CancelledError() if written.cancelled() else written.exception()
            if fault is None:
                if not self.log.over:
                    self.log.add((row.seq, change))
                if not done.done():
                    done.set_result(result)
            elif not done.done():
                done.set_exception(fault)
                done.exception()  # whether anybody asks or not: the caller may be gone

        written.add_done_callback(ended)
        return done


def outcome_of(answer: Answer) -> bytes:
    """Return an answer as it is kept: what tools returned is left out where that would be too much."""
    outcome = _encode(answer)
    if len(outcome) <= OUTCOME_BYTES_MAX:
        return outcome
    tools = tuple(msgspec.structs.replace(ran, result=None) for ran in answer.tools)
    return _encode(msgspec.structs.replace(answer, tools=tools, notices=(*answer.notices, CUT)))


def run_cancelled() -> Conflict:
    """Return what a run ends with that was cancelled."""
    return Conflict("The run was cancelled.", code="run_cancelled")


def _same(row: Step, plan: StepPlan) -> None:
    if (row.kind, row.name, row.input) != (plan.kind, plan.name, plan.input):
        raise RunDivergedError(
            f"The run could not be taken up again: step s{row.number} was {row.kind} {row.name!r} before the server "
            f"stopped and is {plan.kind} {plan.name!r} now{'' if row.name != plan.name else ', with another input'}. "
            "Ask again.",
            detail=f"run {row.run_id}",
        )


def _at_once(value: T) -> asyncio.Future[T]:
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    done.set_result(value)
    return done

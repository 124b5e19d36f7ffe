"""The seam of runs: the journal of every agentic turn, written before the effect of each step (goals D4, D5).

    begin(run)         a run exists                             awaited: it survives kill -9
    record(hold, ...)  steps begun or ended, all or nothing     awaited: they survive kill -9
    finish(hold, ...)  the run is over, with its answer         awaited: it survives kill -9

Each takes its place in the queue when it is called, not when it is awaited, so that the end of one step and the
beginning of the next are one commit. A run belongs to one holder, by a number that grows whenever another takes it over
(`Hold.fence`): what a former holder writes is refused with `Conflict`. A run whose holder died is found by `claim`, and
its ended steps are never done again. The owner is part of every look-up (invariant 9). Every implementation passes
`tests/contract/test_runs.py` unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from convene.errors import Conflict
from convene.events import StepKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

RunStatus = Literal["running", "done", "failed", "cancelled"]
RecordedStatus = Literal["pending", "running", "done", "failed", "skipped"]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One agentic turn, as kept. Times are Unix microseconds."""

    id: str
    """`run_...`: unique, made by the server, ordered by time."""
    owner: str
    key_id: str
    session_id: str = ""
    request_id: str = ""
    turn_id: str
    """`chatcmpl-...`: of the answer, and of the first entry in the ledger."""
    model: str
    """As it was asked for."""
    request: bytes
    """All that is needed to go on with it, as JSON; only `serving/` reads it."""
    created_us: int
    fence: int = 1
    """Who holds it: one more with each holder."""
    status: RunStatus = "running"
    cancel_asked: bool = False
    finished_us: int | None = None
    outcome: bytes = b""
    """The answer or the fault, as JSON, once it is over."""
    expires_us: int = 0
    """When it may be forgotten; counts once it is over."""

    @property
    def changed_us(self) -> int:
        """When it ended, or began if it has not."""
        return self.created_us if self.finished_us is None else self.finished_us


class Lately(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are wanted, the ones that changed last first."""

    owner: str
    prefix: str
    """What the names of their sessions begin with: plain letters and punctuation."""
    session_id: str = ""
    """Empty: of all these sessions."""
    status: RunStatus | None = None
    since_us: int = 0
    """Begun, or ended, then or later."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a run: written when it begins, again when it ends. `(run_id, number)` is its key."""

    run_id: str
    number: int
    """From 1, given in an order that is the same when the run is repeated."""
    seq: int
    """Grows with every change of any step of the run: what a reader who comes back has not seen yet is behind it."""
    kind: StepKind
    name: str
    status: RecordedStatus
    attempt: int = 1
    """How often it was begun."""
    fence: int = 0
    """Whose work it is: the fence of the hold that wrote it last, so that the books tell apart what each has used."""
    input: bytes = b""
    """What decides whether a repetition is the same step, as JSON."""
    output: bytes = b""
    """What it gave, as JSON, once it has ended."""
    shown: bytes = b""
    """The step as readers see it (`intermediate_steps`), as JSON."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reserved_tokens: int = 0
    """Of a model's round that has not ended: what it may use, prompt and answer."""
    reserved_micros: int = 0
    cost_micros: int = 0


class Hold(msgspec.Struct, frozen=True):
    """The right to write to a run."""

    run_id: str
    fence: int


def lost_hold(hold: Hold) -> Conflict:
    """Return what a former holder is told."""
    return Conflict("Another process goes on with this run.", code="run_lost", detail=f"{hold.run_id} {hold.fence}")


def is_after(created_us: int, run_id: str, after: tuple[int, str] | None) -> bool:
    """Whether a run is older than the last one of the page before."""
    return after is None or (created_us, run_id) < after


class Runs(Protocol):
    """The runs of one store. Every call, and every awaitable it returns, raises `StoreFault` if it cannot be used."""

    def begin(self, run: Run) -> Awaitable[None]:
        """Write a new run down, held by this process at `run.fence`. One whose id is there is left as it is."""
        ...

    def record(self, hold: Hold, steps: Sequence[Step]) -> Awaitable[None]:
        """Write steps down, a known number in the place of what was there. Raises `Conflict` if the hold was lost."""
        ...

    def finish(
        self, hold: Hold, status: RunStatus, outcome: bytes, at_us: int, expires_us: int, steps: Sequence[Step] = ()
    ) -> Awaitable[None]:
        """End a run, with its last steps. Raises `Conflict` if the hold was lost; ended runs stay as they ended."""
        ...

    async def claim(self, dead_after_us: int, limit: int) -> Sequence[Run]:
        """Take over running runs whose holder is dead, oldest first; of several that ask, one is given each.

        Dead is who has shown no life for so long, has closed its store, or was a process of this machine that is no
        more, so that a restart after a kill need not wait (D4). The fence of what is returned has grown by one.
        """
        ...

    async def get(self, owner: str, run_id: str) -> Run | None:
        """Return the owner's run, or None."""
        ...

    async def steps(self, run_id: str, after_seq: int = 0) -> list[Step]:
        """Return the run's steps changed after `after_seq`, in the order of their last change."""
        ...

    async def by_turns(self, turn_ids: Sequence[str]) -> list[Run]:
        """Return the runs behind these answers, whoever owns them: for the books."""
        ...

    async def page(
        self, owner: str, limit: int, session_id: str | None = None, after: tuple[int, str] | None = None
    ) -> list[Run]:
        """Return the owner's runs, newest first, at most `limit` of those older than `after` (created_us, id)."""
        ...

    async def latest(self, which: Lately, limit: int, after: tuple[int, str] | None = None) -> tuple[list[Run], int]:
        """Return these runs, at most `limit` of those behind `after` (`changed_us`, id), and how many there are."""
        ...

    async def ask_cancel(self, owner: str, run_id: str) -> bool:
        """Ask the holder to end a run; False: the owner has no such run. One that is over stays as it ended."""
        ...

    async def asked_to_cancel(self) -> set[str]:
        """Return which runs held by this process are to be ended."""
        ...

    async def forget(self, now_us: int, owner: str | None = None, session_id: str | None = None) -> int:
        """Delete runs that are over and whose time is up; of a session all that are over. Return how many."""
        ...

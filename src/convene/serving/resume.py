"""Taking up the runs of the dead: after a restart at once, after another worker's death within seconds (goal D4).

    claim ──► the books get what the dead has used ──► journal with what there is ──► a turn without a client
                                                          └──► steps that ended are not done again

A run is taken up at most `resumes_max` times, then it fails; one whose key is void by now, or whose end was asked for,
is cancelled. A turn that its limits refuse waits for them. Not here: whose life has ended (`store/`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from convene.errors import ConveneError, Refused, StoreFault
from convene.serving.base_agentic import Job
from convene.serving.base_runs import Answer
from convene.serving.run_books import entry_id, entry_of_killed, turn_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from convene.serving.base import Principal, Turn
    from convene.serving.base_agentic import RunJournal
    from convene.serving.journal import StoredJournal
    from convene.serving.runs import KeptRuns
    from convene.store.base_ledger import Entry, Intent, Ledger
    from convene.store.base_runs import Run, Step

T = TypeVar("T")
log = logging.getLogger("convene.runs")

CLAIM_S: Final = 1.0
"""How often runs of the dead are looked for."""
DEAD_AFTER_US: Final = 30_000_000
"""The silence that counts as death where nobody can tell; see `store/presence.py`."""
AT_ONCE: Final = 16
"""Runs taken up here that go on at the same time."""
READY_S: Final = 10.0
"""How long runs wait at the start until those who offer tools have been asked."""
PAUSE_S: Final = 1.0
"""Before another try, where the store or the limits do not let a run go on."""
WAIT_S: Final = 600.0
"""How long a run that was taken up waits for its limits."""
_job_of = msgspec.json.Decoder(Job).decode


class Turns(Protocol):
    """Runs a turn again (`turn.py`)."""

    def resume(self, job: Job, principal: Principal, journal: RunJournal, turn_id: str) -> Turn:
        """Return a turn that goes on with a run, under another id. Raises as `start`."""
        ...


class Resumption:
    """Takes up runs for one server. Belongs to one event loop."""

    def __init__(
        self,
        runs: KeptRuns,
        turns: Turns,
        ledger: Callable[[], Ledger],
        holder: Callable[[str], Awaitable[Principal | None]],
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            runs: where runs are kept.
            turns: runs a turn again.
            ledger: gives the ledger of the store that is open.
            holder: says who is behind a key id now; None: it is void.
            ready: waits until it is known which tools there are, so that a run finds those that it had.
        """
        self._ready = ready
        self._runs = runs
        self._turns = turns
        self._ledger = ledger
        self._holder = holder
        self._tasks: set[asyncio.Task[None]] = set()

    async def watch(self) -> None:
        """Take up what there is, at once and again and again, until cancelled."""
        await self._wait()
        while True:
            try:
                await self.look()
            except StoreFault as fault:
                log.warning("runs of the dead could not be looked for: %s", fault.detail or fault.message)
            await asyncio.sleep(CLAIM_S)

    async def _wait(self) -> None:
        """Wait for the tools, but not for ever: a run can go on without one that is down."""
        if self._ready is not None:
            try:
                async with asyncio.timeout(READY_S):
                    await self._ready()
            except TimeoutError:
                log.warning("runs of the dead go on although it is not known yet which tools there are")

    async def look(self) -> int:
        """Take up what there is, and return how much that was. Raises `StoreFault`."""
        room = AT_ONCE - len(self._tasks)
        found = await self._runs.store.claim(DEAD_AFTER_US, room) if room > 0 else ()
        for run in found:
            self._keep(self._take_up(run))
        return len(found)

    async def aclose(self) -> None:
        """Leave what was taken up to the next holder."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def entries(self, intents: Sequence[Intent]) -> Mapping[str, Entry | None]:
        """Return the entries of killed runs (`bookkeeping.KnownKilled`); one that goes on is entered by its holder."""
        store = self._runs.store
        runs = {run.turn_id: run for run in await store.by_turns([turn_of(intent.id)[0] for intent in intents])}
        found: dict[str, Entry | None] = {}
        for intent in intents:
            run = runs.get(turn_of(intent.id)[0])
            if run is not None:
                over = run.status != "running"
                found[intent.id] = entry_of_killed(intent, run, await store.steps(run.id)) if over else None
        return found

    def _keep(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="resumed run")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_up(self, run: Run) -> None:
        rows = await _patiently(run, lambda: self._past(run))
        principal = await _patiently(run, lambda: self._holder(run.key_id))
        journal = self._runs.take_up(run, rows)
        try:
            await self._go_on(run, principal, journal)
        except ConveneError as fault:
            log.warning("run %s could not go on: %s %s", run.id, fault.message, fault.detail)
            await journal.close("failed", Answer(fault=fault.code, message=fault.message))
        except Exception:  # whatever it is, the run must not look as if it were still going on
            log.exception("run %s could not go on", run.id)
            await journal.close("failed", Answer(fault="internal_error", message="The run failed."))
        finally:
            journal.drop()

    async def _past(self, run: Run) -> list[Step]:
        """Return what the run has done, once the books have what that has used."""
        rows = await self._runs.store.steps(run.id)
        open_now = {intent.id: intent for intent in await self._ledger().open_intents()}
        for fence in range(1, run.fence):
            intent = open_now.get(entry_id(run.turn_id, fence))
            if intent is not None:
                await self._ledger().finish(entry_of_killed(intent, run, rows))
        return rows

    async def _go_on(self, run: Run, principal: Principal | None, journal: StoredJournal) -> None:
        if run.cancel_asked:
            await journal.close("cancelled", Answer(fault="run_cancelled", message="The run was cancelled."))
            return
        if principal is None:
            message = "The API key of the run is not valid any more."
            await journal.close("cancelled", Answer(fault="key_revoked", message=message))
            return
        resumes = run.fence - 1
        if resumes > self._runs.terms.resumes_max:
            message = f"The server stopped {resumes} times while this run was under way; it is not tried again."
            await journal.close("failed", Answer(fault="resumed_too_often", message=message))
            return
        try:
            job = _job_of(run.request)
        except msgspec.MsgspecError:
            message = "The server stopped while this run was under way, and its request was too large to be kept."
            if run.request:
                message = "The server stopped while this run was under way, and cannot read its request any more."
            await journal.close("failed", Answer(fault="not_resumable", message=message))
            return
        log.info("run %s is taken up again, the %d. time", run.id, resumes)
        await self._drive(job, principal, journal, entry_id(run.turn_id, run.fence))

    async def _drive(self, job: Job, principal: Principal, journal: StoredJournal, turn_id: str) -> None:
        """Run the turn to its end for nobody but its journal; wait for limits that refuse it."""
        clock = self._runs.clock
        until = clock.monotonic() + WAIT_S
        while True:
            turn = self._turns.resume(job, principal, journal, turn_id)
            try:
                async with aclosing(turn.events()) as events:
                    async for _ in events:
                        pass
            except Refused as fault:
                if journal.over:  # a round in its middle was refused, and the run has ended so
                    return
                if clock.monotonic() >= until or fault.retry_after_s is None:
                    raise
            else:
                return
            await asyncio.sleep(PAUSE_S)
            if journal.cancel_asked:
                await journal.close("cancelled", Answer(fault="run_cancelled", message="The run was cancelled."))
                return


async def _patiently(run: Run, work: Callable[[], Awaitable[T]]) -> T:
    """Do what the store must take before a run may go on, as often as that needs."""
    while True:
        try:
            return await work()
        except StoreFault as fault:
            log.warning("run %s waits for the store: %s", run.id, fault.detail or fault.message)
            await asyncio.sleep(PAUSE_S)

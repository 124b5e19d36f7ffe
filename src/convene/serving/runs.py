"""Agentic turns as runs: begun, looked at, read again by whoever comes back, cancelled (goals D4, D5).

    turn ──► begin(job) ──► StoredJournal ──► store            `journal.py`
    GET  ──► show, page ──► store
             read(after) ──► the journal's log, if the run lives here
                         └─► the store, looked at every half second, if it lives in another process or is over
    POST cancel ──► store.ask_cancel ──► here at once, elsewhere within a second (`watch`)

Taking up what the dead have left is `resume.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, Busy, Conflict, NotFound, StoreFault
from convene.events import TextDelta
from convene.moments import SECOND_US
from convene.serving.base_runs import Answer, RunEnded, RunState
from convene.serving.journal import StoredJournal, shown_of
from convene.serving.sessions import stored_id
from convene.store.base_runs import Run
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from convene.clock import Clock
    from convene.serving.base import Principal
    from convene.serving.base_agentic import Job
    from convene.serving.base_runs import Piece
    from convene.serving.base_sessions import Memory
    from convene.serving.journal import RunEnd
    from convene.store.base_runs import Runs, Step

log = logging.getLogger("convene.runs")

WATCH_S: Final = 0.5
"""How often the store is asked which runs held here are to be ended, while there are any ..."""
POLL_S: Final = 0.5
"""... and, by each reader, how a run of another process gets on."""
SWEEP_S: Final = 600.0
OWED_MAX: Final = 1_000
"""Ends that wait for a store that does not take them; each may have an answer of some MiB."""
READERS_MAX: Final = 32
"""Readers of one run at a time; each holds a place in the log, and a connection."""
_answer_of = msgspec.json.Decoder(Answer).decode


class _Talk(msgspec.Struct, frozen=True):
    """Of a job (`base_agentic.Job`) what readers are told."""

    conversation_id: str | None = None


_talk_of = msgspec.json.Decoder(_Talk).decode


class RunTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How runs are kept, from `[runs]`."""

    keep_us: int = 7 * 86_400 * SECOND_US
    """A run that is over is forgotten after."""
    request_bytes_max: int = 8_388_608
    """A larger request is not kept: its run ends with the process that holds it."""
    resumes_max: int = 3


class KeptRuns:
    """The runs of one server (`base_agentic.RunRoom`, `base_runs.RunDesk`). Belongs to one event loop."""

    def __init__(
        self,
        runs: Callable[[], Runs],
        clock: Clock,
        terms: RunTerms = RunTerms(),  # noqa: B008 -- frozen
        going_down: Callable[[], bool] = lambda: False,
        memory: Memory | None = None,
    ) -> None:
        """`runs` gives those of the store that is open now; `going_down` says whether this server stops.

        `memory` takes what is worth remembering of a run in its session.
        """
        self.live: dict[str, StoredJournal] = {}
        self.terms = terms
        self.clock = clock
        self._runs = runs
        self._going_down = going_down
        self._memory = memory
        self._owed: list[RunEnd] = []
        self._expected: dict[str, asyncio.Future[None]] = {}

    @property
    def store(self) -> Runs:
        """The runs of the store that is open now."""
        return self._runs()

    @property
    def going_down(self) -> bool:
        """Whether this server stops."""
        return self._going_down()

    def now_us(self) -> int:
        """Return the wall clock in Unix microseconds."""
        return int(self.clock.now() * SECOND_US)

    async def begin(self, job: Job) -> StoredJournal:
        """Begin a run (`base_agentic.RunRoom`)."""
        request = msgspec.json.encode(job)
        if len(request) > self.terms.request_bytes_max:
            log.info("the request of run %s is too large to be kept; it ends with this process", job.run_id)
            request = b""
        run = Run(
            id=job.run_id,
            owner=job.owner,
            key_id=job.key_id,
            session_id=stored_id(job.request.agentic.session_id or ""),
            request_id=job.request_id,
            turn_id=job.turn_id,
            model=job.request.model,
            request=request,
            created_us=job.created_us,
        )
        journal = StoredJournal(run, self.store, self.clock, self.terms.keep_us, room=self)
        await self.store.begin(run)
        self.live[run.id] = journal
        expected = self._expected.pop(run.id, None)
        if expected is not None and not expected.done():
            expected.set_result(None)
        return journal

    def expect(self, run_id: str) -> asyncio.Future[None]:
        """Return what is done once a run has begun; whoever gives up waiting cancels it."""
        expected = asyncio.get_running_loop().create_future()
        self._expected[run_id] = expected
        expected.add_done_callback(lambda _: self._expected.pop(run_id, None))
        return expected

    def take_up(self, run: Run, recorded: Iterable[Step]) -> StoredJournal:
        """Return the journal of a run that this process has claimed, with what there is of it."""
        journal = StoredJournal(run, self.store, self.clock, self.terms.keep_us, recorded, room=self)
        self.live[run.id] = journal
        return journal

    def owe(self, end: RunEnd) -> None:
        """Write an end as soon as the store takes it; of too many the oldest are left to the next start."""
        self._owed.append(end)
        if len(self._owed) > OWED_MAX:
            log.error("the end of run %s is given up; the run is taken up at the next start", self._owed[0].hold.run_id)
            del self._owed[0]

    def leave(self, journal: StoredJournal) -> None:
        """Let go of a run that is over here."""
        if self.live.get(journal.run_id) is journal:
            del self.live[journal.run_id]

    async def remember(self, run: Run, notes: Mapping[str, bytes]) -> None:
        """Keep notes in the run's session; never raises for a store that fails."""
        if self._memory is not None:
            try:
                await self._memory.remember(run.owner, run.session_id, notes)
            except StoreFault as fault:
                log.warning("session of run %s: notes are not kept: %s", run.id, fault.detail or fault.message)

    def close(self) -> None:
        """Let go of every run that goes on here: it is left to the next holder."""
        for journal in list(self.live.values()):
            journal.drop()

    async def page(self, who: Principal, limit: int, session_id: str | None, after: str) -> tuple[Sequence[Run], bool]:
        """Return a page of the caller's runs (`base_runs.RunDesk`)."""
        behind = None
        if after:
            last = await self.store.get(who.owner, after)
            if last is None:
                raise BadRequest("after is the id of the last one of the page before.", param="after")
            behind = (last.created_us, last.id)
        session = None if session_id is None else stored_id(session_id)
        found = await self.store.page(who.owner, limit + 1, session, behind)
        return found[:limit], len(found) > limit

    async def show(self, who: Principal, run_id: str) -> RunState:
        """Return a run as it is (`base_runs.RunDesk`)."""
        run = await self._own(who, run_id)
        return state_of(run, await self.store.steps(run.id))

    async def cancel(self, who: Principal, run_id: str) -> Run:
        """Ask for a run's end (`base_runs.RunDesk`)."""
        if not await self.store.ask_cancel(who.owner, run_id):
            raise _missing()
        journal = self.live.get(run_id)
        if journal is not None:
            journal.cancel()
        return await self._own(who, run_id)

    async def read(self, run: Run, after: int) -> AsyncGenerator[list[Piece]]:
        """Yield what is behind `after`, then what comes (`base_runs.RunDesk`)."""
        place = after
        while True:
            journal = self.live.get(run.id)
            if journal is None:
                async with aclosing(self._polled(run, place)) as pieces:
                    async for found in pieces:
                        place = max(place, *(seq for seq, _ in found))
                        yield found
                        if isinstance(found[-1][1], RunEnded):
                            return
                continue
            if journal.log.readers >= READERS_MAX:
                raise Busy(f"The run has {READERS_MAX} readers already.", retry_after_s=1.0)
            async with aclosing(journal.log.read(place)) as logged:
                async for found in logged:
                    place = max(place, *(seq for seq, _ in found))
                    yield found
                    if isinstance(found[-1][1], RunEnded):
                        return
            # this process has lost the run, or goes down: another holder goes on, and the store shows it
            await asyncio.sleep(POLL_S)

    async def _polled(self, run: Run, after: int) -> AsyncGenerator[list[Piece]]:
        """Yield what the store shows of a run until it is over, or lives here."""
        while run.id not in self.live:
            found = await self.store.get(run.owner, run.id)
            if found is None:
                raise _missing()
            over = found.status != "running"
            rows = await self.store.steps(run.id, 0 if over else after)
            pieces = pieces_of(rows, after)
            if over:
                pieces += ending_of(found, rows, after)
            if pieces:
                after = max(after, *(seq for seq, _ in pieces))
                yield pieces
            if over:
                return
            await asyncio.sleep(POLL_S)

    async def watch(self) -> None:
        """Look after the runs held here, until cancelled: end what is to be ended, write the ends that are owed."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.look()
            except StoreFault as fault:
                log.warning("runs could not be looked after: %s", fault.detail or fault.message)

    async def look(self) -> None:
        """Do once what `watch` does. Raises `StoreFault`."""
        while self._owed:
            try:
                await self._owed[0].write(self.store)
            except Conflict:
                log.warning("run %s is held by another process, which will end it", self._owed[0].hold.run_id)
            del self._owed[0]
        if self.live:
            for run_id in await self.store.asked_to_cancel():
                journal = self.live.get(run_id)
                if journal is not None:
                    journal.cancel()

    async def sweep(self) -> None:
        """Forget the runs whose time is up, every ten minutes, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                gone = await self.store.forget(self.now_us())
            except StoreFault as fault:
                log.warning("runs that have expired could not be removed: %s", fault.detail)
            else:
                if gone:
                    log.info("%d runs have expired", gone)

    async def _own(self, who: Principal, run_id: str) -> Run:
        run = await self.store.get(who.owner, run_id)
        if run is None:
            raise _missing()
        return run


def state_of(run: Run, rows: Sequence[Step]) -> RunState:
    """Return a run with its rows as its owner sees it."""
    ordered = sorted(rows, key=lambda row: row.number)
    used = Usage(sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows))
    return RunState(
        run=run,
        steps=tuple(shown_of(row).step for row in ordered),
        usage=used,
        cost_by_step=tuple((f"s{row.number}", row.cost_micros) for row in ordered if row.cost_micros),
        answer=_answer_of(run.outcome) if run.outcome else None,
        conversation_id=_conversation_of(run),
    )


def _conversation_of(run: Run) -> str | None:
    """Return what answers call the run's session; unknown of a request that was not kept."""
    try:
        return _talk_of(run.request).conversation_id if run.request else None
    except msgspec.MsgspecError:
        return None


def pieces_of(rows: Sequence[Step], after: int) -> list[Piece]:
    """Return what readers get of rows who have everything up to `after`: steps, and the text between them."""
    found: list[tuple[int, int, TextDelta | Step]] = []
    for row in rows:
        found += ((seq, 0, TextDelta(text)) for seq, text in shown_of(row).said if seq > after)
        if row.seq > after:
            found.append((row.seq, 1, row))
    found.sort(key=lambda one: one[:2])
    return [(0, one) if isinstance(one, TextDelta) else (seq, shown_of(one).step) for seq, _, one in found]


def ending_of(run: Run, rows: Sequence[Step], after: int) -> list[Piece]:
    """Return what readers get at the end of a run: what of its answer has not been in the steps, and how it ended."""
    last = max((row.seq for row in rows), default=0) + 1
    answer = _answer_of(run.outcome) if run.outcome else Answer()
    end: Piece = (last, RunEnded(run.status, answer.fault, answer.message))
    if after >= last:
        return [end]
    said = "".join(text for _, text in sorted(piece for row in rows for piece in shown_of(row).said))
    pieces: list[Piece] = []
    for event in answer.events():
        if isinstance(event, TextDelta) and not event.choice and event.text.startswith(said):
            event = TextDelta(event.text[len(said) :])  # noqa: PLW2901 -- without what the steps had
            if not event.text:
                continue
        pieces.append((0, event))
    return [*pieces, end]


def _missing() -> NotFound:
    return NotFound("You have no run with this id.", code="run_not_found")

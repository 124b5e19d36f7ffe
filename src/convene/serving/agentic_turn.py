"""A turn in which the server itself does something: reserved and settled like any other, run by `agent.py`.

Its usage is entered by the run as it comes, not from the events, so that what was used before the client left is
known whether or not anybody has read it. A run that is to go on without its client is read to its end by `drain.py`; of
one that ends with it, the round under way where the model's terms say `drain`, before the turn is settled.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.events import Finished, Fold, TextDelta
from convene.serving.agentic_run import Seat
from convene.serving.base_agentic import Job
from convene.serving.deferred import DEFERRED, NOTHING_USED, Impatience, Patience
from convene.serving.drain import Pump, UnreadRounds
from convene.serving.turn import Turn
from convene.serving.turn_size import prompt_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from convene.events import Event, PlainAnswer
    from convene.providers.base import Generation
    from convene.serving.admission import Lease
    from convene.serving.agent import Agent
    from convene.serving.base import ChatRequest, Principal
    from convene.serving.base_agentic import RunJournal
    from convene.serving.catalog import ChatDeployment
    from convene.serving.deferred import Deferrals
    from convene.serving.turn import Turns

SECOND_US: Final = 1_000_000


class AgenticTurn(Turn):
    """One accepted agentic request, or one that is taken up again."""

    __slots__ = ("_agent", "_defers", "_job", "_journal", "_patience", "_unread", "conversation_id", "run_id")

    def __init__(
        self,
        turns: Turns,
        request: ChatRequest,
        generation: Generation,
        principal: Principal,
        deployment: ChatDeployment,
        request_id: str,
        *,
        agent: Agent,
        resumed: tuple[Job, RunJournal] | None = None,
    ) -> None:
        """`resumed`: the job and the journal of a run that is taken up again; its entry in the ledger is a new one."""
        super().__init__(turns, request, generation, principal, deployment, request_id)
        self._agent = agent
        self._defers = agent.deferrals if resumed is None and agent.defers(request, deployment) else None
        self._patience = Patience(whole=False)
        job, journal = resumed or (None, None)
        self._job = job
        self._journal = journal
        self._unread = UnreadRounds() if deployment.terms.on_disconnect == "drain" and job is None else None
        self.run_id = turns.clock.stamped_id("run_") if job is None else job.run_id
        self.conversation_id = None if job is None else job.conversation_id

    async def events(self) -> AsyncGenerator[Event]:
        """Reserve, run, settle exactly once whatever happens on the way (invariants 5 and 6)."""
        outcome, lease = self.outcome, await self._reserve()
        reading = self._reading(lease)
        try:
            async with aclosing(reading.events()) as events:
                async for event in events:
                    self._note(event)
                    yield event
        except Exception as fault:  # whatever it is, the books say that it failed; raised on
            self._fail(fault)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome.status = "client_left"
            if self._agent.goes_on(self.request):
                reading.leave()
            raise
        finally:
            await reading.end()
            if outcome.status == "failed":
                await lease.written()
        if not reading.left:
            await lease.written()

    async def answer(self) -> Fold | PlainAnswer:
        """Run it for a caller that does not stream: the same events, gathered (invariant 3)."""
        self._patience = Patience(whole=True)
        gathered = Fold()
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta) and event is DEFERRED:
                    gathered.choices.clear()  # nothing before the sentence and nothing after it
                gathered.add(event)
        return gathered

    async def _source(self, lease: Lease) -> AsyncGenerator[Event]:
        job = self._job or await self._new_job()
        seat = Seat(
            deployment=self._deployment,
            lease=lease,
            outcome=self.outcome,
            reserved_bytes=prompt_bytes(self._generation),
            waits_until=self._waits_until(),
            unread=self._unread,
        )
        async with aclosing(self._agent.events(job, seat, self._journal)) as events:
            async for event in events:
                yield event

    async def _new_job(self) -> Job:
        request, who = self.request, self._principal
        self.conversation_id = await self._agent.converse(who.owner, request.agentic.session_id)
        return Job(
            run_id=self.run_id,
            turn_id=self.id,
            request_id=self.request_id,
            request=msgspec.structs.replace(request, generation=self._generation),
            owner=who.owner,
            key_id=who.key_id,
            created_us=int(self._turns.now() * SECOND_US),
            conversation_id=self.conversation_id,
            remembered=await self._agent.remembered(who.owner, request.agentic.session_id),
        )

    def _waits_until(self) -> float | None:
        """Return until when agents are waited for: not for ever where the turn can neither go on nor be asked again."""
        if self._defers is not None or self._job is not None or self.request.agentic.patient:
            return None
        waited_s = self._turns.monotonic() - self._began_at
        return asyncio.get_running_loop().time() + self._agent.settings.wait_s - waited_s

    def _reading(self, lease: Lease) -> _Reading:
        """Return how the run is read: by way of a pump where it may go on without its reader."""
        source = self._source(lease)

        def settle() -> None:
            self._settle_read(lease)

        if self._defers is None and not self._agent.goes_on(self.request):
            return _Reading(source, settle)
        pump = Pump(source)

        def adopt() -> None:
            if self._unread is not None:
                self._unread.close()
            self._turns.drains.adopt(pump.finish(self._note), lease.settle, self._agent.settings.seconds)

        impatience = None if self._defers is None else self._impatience(pump, self._defers)
        return _Reading(pump.events(), settle, pump, impatience, adopt)

    def _settle_read(self, lease: Lease) -> None:
        """Settle a turn whose run has ended, once the rounds that its client has left in their middle are read."""
        unread = self._unread
        if unread is not None:
            unread.close()
        if not unread:
            lease.settle()
            return

        def settle() -> None:
            unread.enter()
            lease.settle()

        self._turns.drains.adopt(unread.finish(), settle, self._deployment.terms.drain_s)

    def _impatience(self, pump: Pump, deferrals: Deferrals) -> Impatience:
        who, session_id = self._principal, self.request.agentic.session_id or ""

        async def note() -> None:
            await deferrals.note(who.owner, session_id, self.run_id)

        async def drop() -> None:
            await deferrals.drop(who.owner, session_id, self.run_id)

        settings = self._agent.settings
        waited_s = self._turns.monotonic() - self._began_at
        return Impatience(pump, self._patience, note, drop, settings.wait_s - waited_s, settings.whole_s - waited_s)

    def _note(self, event: Event) -> None:
        """Note when the first event came, and what it means for waiting; all else is entered by the run itself."""
        if self.outcome.first_event_ms is None:
            self.outcome.first_event_ms = (self._turns.monotonic() - self._began_at) * 1000
        self._patience.note(event)


class _Reading:
    """How one run is read, and what becomes of it when it is read no longer."""

    def __init__(
        self,
        source: AsyncGenerator[Event],
        settle: Callable[[], None],
        pump: Pump | None = None,
        impatience: Impatience | None = None,
        adopt: Callable[[], None] = lambda: None,
    ) -> None:
        """`adopt` lets the run come to its end without a reader, for its own sake and for the books."""
        self.left = False
        """It goes on by itself, and settles at its end."""
        self._source = source
        self._settle = settle
        self._pump = pump
        self._impatience = impatience
        self._adopt = adopt

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the run's events, and the whole of a deferred answer where its reader is not to wait for its end."""
        async with aclosing(self._source) as events:
            async for event in events:
                yield event
        if self._impatience is not None and await self._impatience.ended():
            self.leave()
            for event in (DEFERRED, Finished("stop"), NOTHING_USED):
                yield event

    def leave(self) -> None:
        """Let the run go on by itself, if it can."""
        if self._pump is not None and not self.left:
            self.left = True
            self._adopt()

    async def end(self) -> None:
        """Read no longer: whatever does not go on by itself is ended, and settled once it has entered what it used."""
        if self._impatience is not None:
            self._impatience.cancel()
        if self.left:
            return
        try:
            if self._pump is not None:
                await self._pump.stop()
        finally:
            self._settle()

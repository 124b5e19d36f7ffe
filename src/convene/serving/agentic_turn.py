"""A turn in which the server itself does something: reserved and settled like any other, run by `agent.py`.

Its usage is entered by the run as it comes, not from the events, so that what was used before the client left is
known whether or not anybody has read it. A run that is to go on without its client is read to its end by `drain.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.events import Fold
from convene.serving.agentic_run import Seat
from convene.serving.base_agentic import Job
from convene.serving.drain import Pump
from convene.serving.turn import Turn
from convene.serving.turn_size import prompt_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event, PlainAnswer
    from convene.providers.base import Generation
    from convene.serving.admission import Lease
    from convene.serving.agent import Agent
    from convene.serving.base import ChatRequest, Principal
    from convene.serving.base_agentic import RunJournal
    from convene.serving.catalog import ChatDeployment
    from convene.serving.turn import Turns

SECOND_US: Final = 1_000_000


class AgenticTurn(Turn):
    """One accepted agentic request, or one that is taken up again."""

    __slots__ = ("_agent", "_job", "_journal", "conversation_id", "run_id")

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
        job, journal = resumed or (None, None)
        self._job = job
        self._journal = journal
        self.run_id = turns.clock.stamped_id("run_") if job is None else job.run_id
        self.conversation_id = None if job is None else job.conversation_id

    async def events(self) -> AsyncGenerator[Event]:
        """Reserve, run, settle exactly once whatever happens on the way (invariants 5 and 6)."""
        outcome, lease, drained = self.outcome, await self._reserve(), False
        source = self._source(lease)
        pump = Pump(source) if self._agent.goes_on(self.request) else None
        try:
            async with aclosing(source if pump is None else pump.events()) as events:
                async for event in events:
                    self._note(event)
                    yield event
        except Exception as fault:  # whatever it is, the books say that it failed; raised on
            self._fail(fault)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome.status = "client_left"
            if pump is not None:
                self._go_on(pump, lease)
                drained = True
            raise
        finally:
            if not drained:
                if pump is not None:
                    pump.cancel()
                lease.settle()
            if outcome.status == "failed":
                await lease.written()
        await lease.written()

    async def answer(self) -> Fold | PlainAnswer:
        """Run it for a caller that does not stream: the same events, gathered (invariant 3)."""
        gathered = Fold()
        async with aclosing(self.events()) as events:
            async for event in events:
                gathered.add(event)
        return gathered

    async def _source(self, lease: Lease) -> AsyncGenerator[Event]:
        job = self._job or await self._new_job()
        seat = Seat(
            deployment=self._deployment,
            lease=lease,
            outcome=self.outcome,
            reserved_bytes=prompt_bytes(self._generation),
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

    def _go_on(self, pump: Pump, lease: Lease) -> None:
        """Let the run come to its end without its client, for the run's own sake and for the books."""
        self._turns.drains.adopt(pump.finish(self._note), lease.settle, self._agent.settings.seconds)

    def _note(self, event: Event) -> None:
        """Note when the first event came; all else is entered by the run itself."""
        del event
        if self.outcome.first_event_ms is None:
            self.outcome.first_event_ms = (self._turns.monotonic() - self._began_at) * 1000

"""One turn: check, reserve, run, settle. The use case behind a chat completion.

Everything a turn does is an event (`convene.events`); the caller folds them or frames them. Limits and the ledger
stand behind `admission`; a turn in which the server itself does something is `agentic_turn.py`'s. What happens when the
client leaves is the model's terms' to say (`terms.py`); an answer that is read to its end for nobody is `drain.py`'s.
No HTTP, no vendor.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from math import floor
from typing import TYPE_CHECKING, Final, Protocol

from convene.errors import ConveneError, NotFound
from convene.events import (
    Began,
    CallDelta,
    Finished,
    Fold,
    PlainAnswer,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolRan,
    UsageReported,
    fold,
)
from convene.serving.admission import Ask
from convene.serving.base import ChatRequest, Outcome, Principal
from convene.serving.checks import fit
from convene.serving.drain import Drains, Pump
from convene.serving.turn_size import prompt_bytes
from convene.usage import BYTES_PER_TOKEN, Usage, count_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from convene.clock import Clock
    from convene.events import Event
    from convene.providers.base import Generation
    from convene.serving.admission import Admission, Lease
    from convene.serving.base_agentic import Job, RunJournal
    from convene.serving.catalog import Catalog, ChatDeployment, Tally
    from convene.serving.deferred import PollTurn

TALLY_S: Final = 1.5
"""How long the tokens of a turn that was cut short may take to be counted; its entry is due within 2 s (goal B3)."""


class AgentDesk(Protocol):
    """Takes the agentic turns (`agent.py`)."""

    def wants(self, request: ChatRequest, deployment: ChatDeployment) -> bool:
        """Whether the server itself has something to do in this turn; asked for every request, so it is cheap."""
        ...

    def turn(
        self,
        turns: Turns,
        request: ChatRequest,
        generation: Generation,
        principal: Principal,
        deployment: ChatDeployment,
        request_id: str,
        resumed: tuple[Job, RunJournal] | None = None,
    ) -> Turn:
        """Return such a turn, accepted; `resumed`: one that is taken up again, with the journal of its first try."""
        ...

    def poll(self, ordinary: Turn, principal: Principal) -> PollTurn | None:
        """Return the turn that answers a request for outstanding work (DEFER-04), if this may be one."""
        ...


class Turns:
    """Starts turns; holds what all of them share."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock, agent: AgentDesk | None = None) -> None:
        """`agent` takes the turns in which the server itself does something; without one there are none."""
        self.agent = agent
        self.catalog = catalog
        self.admission = admission
        self.clock = clock
        self.drains = Drains()
        self.now = clock.now
        self.monotonic = clock.monotonic

    def start(self, request: ChatRequest, principal: Principal, request_id: str = "") -> Turn | PollTurn:
        """Accept a request. Raises `NotFound` for the model, `BadRequest` for what the model cannot do."""
        deployment = self.catalog.chat(request.model, principal)
        generation = fit(request.generation, deployment.chat.capabilities, request.model)
        agent = self.agent
        if agent is None:
            return Turn(self, request, generation, principal, deployment, request_id)
        if agent.wants(request, deployment):
            turn = agent.turn(self, request, generation, principal, deployment, request_id)
        else:
            turn = Turn(self, request, generation, principal, deployment, request_id)
        if request.agentic.session_id is None or request.agentic.patient:
            return turn
        return agent.poll(turn, principal) or turn

    def resume(self, job: Job, principal: Principal, journal: RunJournal, turn_id: str) -> Turn:
        """Return a turn that goes on with a run, under another id: its reservation and its entry are its own.

        Raises `NotFound` if the model is no more, or not for this caller.
        """
        if self.agent is None:
            raise NotFound("Runs cannot be taken up here.")
        deployment = self.catalog.chat(job.request.model, principal)
        turn = self.agent.turn(
            self, job.request, job.request.generation, principal, deployment, job.request_id, (job, journal)
        )
        turn.id = turn_id
        return turn


class Turn:
    """One accepted request. `events()` or `answer()` runs it, once."""

    __slots__ = (
        "_began_at",
        "_deployment",
        "_generation",
        "_principal",
        "_turns",
        "_written",
        "created",
        "id",
        "model",
        "outcome",
        "request",
        "request_id",
    )
    run_id = ""
    conversation_id: str | None = None

    def __init__(
        self,
        turns: Turns,
        request: ChatRequest,
        generation: Generation,
        principal: Principal,
        deployment: ChatDeployment,
        request_id: str,
    ) -> None:
        self._turns = turns
        self._generation = generation
        self._principal = principal
        self._deployment = deployment
        self._written: list[str] = []
        self._began_at = 0.0
        self.request = request
        self.request_id = request_id
        self.id = turns.clock.stamped_id("chatcmpl-")
        now = turns.now
        self.created = floor(now())
        self.model = request.model
        self.outcome = Outcome(deployment.card.id, deployment.chat.upstream)

    async def events(self) -> AsyncGenerator[Event]:
        """Reserve, run the model, settle exactly once whatever happens on the way (invariants 5 and 6)."""
        lease, drained = await self._reserve(), False
        source = self._deployment.chat.generate(self._generation)
        pump = Pump(source) if self._deployment.terms.on_disconnect == "drain" else None
        try:
            async with aclosing(source if pump is None else pump.events()) as events:
                async for event in events:
                    self._note(event)
                    yield event
        except Exception as fault:  # whatever it is, the books say that it failed; raised on
            self._fail(fault)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.outcome.status = "client_left"
            if pump is not None:
                self._drain(pump, lease)
                drained = True
            raise
        finally:
            if not drained:
                if pump is not None:
                    pump.cancel()
                self._settle(lease)
            if self.outcome.status == "failed":
                await lease.written()
        await lease.written()

    async def answer(self) -> Fold | PlainAnswer:
        """Run it for a caller that does not stream: the same events, gathered (invariant 3)."""
        whole = self._deployment.chat.whole
        if whole is None or self._deployment.terms.on_disconnect == "drain":
            gathered = Fold()
            async with aclosing(self.events()) as events:
                async for event in events:
                    gathered.add(event)
            return gathered
        outcome = self.outcome
        lease = await self._reserve()
        try:
            found = await whole(self._generation)
            monotonic = self._turns.monotonic
            outcome.first_event_ms = (monotonic() - self._began_at) * 1000
            answer: Fold | PlainAnswer
            if isinstance(found, PlainAnswer):
                answer = found
            else:
                answer = fold(found)
                for ran in answer.tools:
                    outcome.note_tool(ran)
            outcome.usage, outcome.finish = answer.usage, answer.finish
            if answer.upstream and answer.upstream != outcome.upstream:
                outcome.upstream = answer.upstream
        except Exception as fault:  # whatever it is, the books say that it failed; raised on
            self._fail(fault)
            raise
        except asyncio.CancelledError:
            outcome.status = "client_left"
            raise
        finally:
            self._settle(lease)
            if outcome.status == "failed":
                await lease.written()
        await lease.written()
        return answer

    def _reserve(self) -> Awaitable[Lease]:
        turns, deployment, generation = self._turns, self._deployment, self._generation
        monotonic = turns.monotonic
        self._began_at = monotonic()
        can = deployment.chat.capabilities
        outcome = self.outcome
        ask = Ask(  # in the order of its fields: see there
            self.id,
            self.request_id,
            self._principal,
            self.model,
            outcome.model,
            deployment.terms,
            self.request.agentic,
            generation.stream,
            prompt_bytes(generation),
            generation.sampling.max_tokens or can.output_tokens_max or can.context_window,
            generation.n,
        )
        return turns.admission.reserve(ask, outcome)

    def _fail(self, fault: Exception) -> None:
        self.outcome.finish = fault.code if isinstance(fault, ConveneError) else ConveneError.code
        self.outcome.status = "failed"

    def _settle(self, lease: Lease) -> None:
        """Settle by what is known; of a turn that was cut short, count or estimate what nobody has reported."""
        outcome, tally = self.outcome, self._deployment.tally
        if outcome.usage is None and (outcome.first_event_ms is not None or outcome.status == "client_left"):
            if tally is not None and outcome.status != "ok":
                self._turns.drains.adopt(self._count(tally), lambda: self._settle_counted(lease), TALLY_S)
                return
            outcome.usage = self._estimate()
        lease.settle()

    def _settle_counted(self, lease: Lease) -> None:
        if self.outcome.usage is None:
            self.outcome.usage = self._estimate()
        lease.settle()

    async def _count(self, tally: Tally) -> None:
        self.outcome.usage = await tally(self._generation, "".join(self._written))

    def _drain(self, pump: Pump, lease: Lease) -> None:
        """Let the answer run to its end for the books alone, as the model's terms want it."""
        work = pump.finish(self._note)
        self._turns.drains.adopt(work, lambda: self._settle_counted(lease), self._deployment.terms.drain_s)

    def _estimate(self) -> Usage:
        """Count what a turn that was cut short has used, by the stated estimate (CHAT-07, OAI-35)."""
        written = sum(count_bytes(text) for text in self._written)
        prompt = -(-prompt_bytes(self._generation) // BYTES_PER_TOKEN)
        return Usage(prompt, -(-written // BYTES_PER_TOKEN), estimated=True)

    def _note(self, event: Event) -> None:
        """Keep what the books need. Asked by exact class, the commonest first: this runs for every token."""
        outcome = self.outcome
        if outcome.first_event_ms is None:
            outcome.first_event_ms = (self._turns.monotonic() - self._began_at) * 1000
        kind = type(event)
        if kind in _WITH_TEXT:
            self._written.append(event.text)  # type: ignore[union-attr]  # the table's classes have it
        elif isinstance(event, UsageReported):
            outcome.usage = event.usage if outcome.usage is None else outcome.usage + event.usage
        elif isinstance(event, Finished):
            outcome.finish = event.reason
        elif isinstance(event, Began):
            outcome.upstream = event.upstream
        elif isinstance(event, CallDelta):
            self._written += (event.name or "", event.arguments)
        elif isinstance(event, ToolRan):
            outcome.note_tool(event)


_WITH_TEXT: Final = frozenset({TextDelta, ReasoningDelta, RefusalDelta})

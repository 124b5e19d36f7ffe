"""One turn: check, reserve, run, settle. The use case behind a chat completion.

Everything a turn does is an event (`convene.events`); the caller folds them or frames them. Limits and the ledger
stand behind `admission`, the agentic loop will stand between this module and the model. No HTTP, no vendor.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.errors import ConveneError
from convene.events import (
    Began,
    CallDelta,
    Finished,
    Fold,
    PlainAnswer,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    UsageReported,
    fold,
)
from convene.serving.base import ChatRequest, Outcome, Principal
from convene.serving.checks import fit
from convene.usage import BYTES_PER_TOKEN, Usage, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock
    from convene.events import Event
    from convene.providers.base import ChatModel, Generation
    from convene.serving.admission import Admission, Lease
    from convene.serving.catalog import Catalog


class Turns:
    """Starts turns; holds what all of them share."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock) -> None:
        self._catalog = catalog
        self.admission = admission
        self.clock = clock
        self.now = clock.now
        self.monotonic = clock.monotonic

    def start(self, request: ChatRequest, principal: Principal) -> Turn:
        """Accept a request. Raises `NotFound` for the model, `BadRequest` for what the model cannot do."""
        card, model = self._catalog.chat(request.model, principal)
        generation = fit(request.generation, model.capabilities, request.model)
        return Turn(self, request, generation, principal, card.id, model)


class Turn:
    """One accepted request. `events()` or `answer()` runs it, once."""

    __slots__ = (
        "_generation",
        "_model",
        "_principal",
        "_turns",
        "_written",
        "created",
        "id",
        "model",
        "outcome",
        "request",
    )

    def __init__(
        self,
        turns: Turns,
        request: ChatRequest,
        generation: Generation,
        principal: Principal,
        deployment: str,
        model: ChatModel,
    ) -> None:
        self._turns = turns
        self._generation = generation
        self._principal = principal
        self._model = model
        self.request = request
        self.id = turns.clock.new_id("chatcmpl-")
        self.created = int(turns.now())
        self.model = request.model
        self.outcome = Outcome(model=deployment, upstream=model.upstream)

    async def events(self) -> AsyncGenerator[Event]:
        """Reserve, run the model, settle exactly once whatever happens on the way (invariants 5 and 6)."""
        self._written: list[str] = []
        began_at, lease = await self._begin()
        try:
            async with aclosing(self._model.generate(self._generation)) as events:
                async for event in events:
                    self._note(event, began_at)
                    yield event
        except ConveneError as fault:
            self.outcome.finish = fault.code
            raise
        finally:
            self._settle(lease)

    async def answer(self) -> Fold | PlainAnswer:
        """Run it for a caller that does not stream: the same events, gathered (invariant 3)."""
        whole = self._model.whole
        if whole is None:
            gathered = Fold()
            async with aclosing(self.events()) as events:
                async for event in events:
                    gathered.add(event)
            return gathered
        outcome, turns = self.outcome, self._turns
        began_at = turns.monotonic()
        lease = await turns.admission.reserve(self._principal, outcome.model, self._generation)
        try:
            found = await whole(self._generation)
            answer = found if isinstance(found, PlainAnswer) else fold(found)
            outcome.first_event_ms = (turns.monotonic() - began_at) * 1000
            outcome.usage, outcome.finish = answer.usage, answer.finish
            outcome.upstream = answer.upstream or outcome.upstream
        except ConveneError as fault:
            outcome.finish = fault.code
            raise
        finally:
            lease.settle(outcome)
        return answer

    async def _begin(self) -> tuple[float, Lease]:
        turns = self._turns
        began_at = turns.monotonic()
        return began_at, await turns.admission.reserve(self._principal, self.outcome.model, self._generation)

    def _settle(self, lease: Lease) -> None:
        outcome = self.outcome
        if outcome.usage is None and outcome.first_event_ms is not None:
            outcome.usage = self._estimate()
        lease.settle(outcome)

    def _estimate(self) -> Usage:
        """Count what a turn that was cut short has used, by the stated estimate (CHAT-07, OAI-35)."""
        prompt = sum(estimate_tokens(message.text()) for message in self._generation.messages)
        written = sum(len(text.encode("utf-8", "replace")) for text in self._written)
        return Usage(prompt, -(-written // BYTES_PER_TOKEN), estimated=True)

    def _note(self, event: Event, began_at: float) -> None:
        """Keep what the books need. Asked by exact class, the commonest first: this runs for every token."""
        outcome = self.outcome
        if outcome.first_event_ms is None:
            outcome.first_event_ms = (self._turns.monotonic() - began_at) * 1000
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


_WITH_TEXT: Final = frozenset({TextDelta, ReasoningDelta, RefusalDelta})

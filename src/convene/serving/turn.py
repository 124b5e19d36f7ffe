"""One turn: check, reserve, run, settle. The use case behind a chat completion.

Everything a turn does is an event (`convene.events`); the caller folds them or frames them. Limits and the ledger
stand behind `admission`, the agentic loop will stand between this module and the model. No HTTP, no vendor.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from convene.errors import ConveneError
from convene.events import Began, CallDelta, Finished, ReasoningDelta, RefusalDelta, TextDelta, UsageReported
from convene.serving.base import ChatRequest, Outcome, Principal
from convene.serving.checks import fit
from convene.usage import BYTES_PER_TOKEN, Usage, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock
    from convene.events import Event
    from convene.providers.base import ChatModel, Generation
    from convene.serving.admission import Admission
    from convene.serving.catalog import Catalog


class Turns:
    """Starts turns; holds what all of them share."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock) -> None:
        self._catalog = catalog
        self.admission = admission
        self.clock = clock

    def start(self, request: ChatRequest, principal: Principal) -> Turn:
        """Accept a request. Raises `NotFound` for the model, `BadRequest` for what the model cannot do."""
        card, model = self._catalog.chat(request.model, principal)
        generation = fit(request.generation, model.capabilities, request.model)
        return Turn(self, request, generation, principal, card.id, model)


class Turn:
    """One accepted request. `events()` runs it, once."""

    __slots__ = (
        "_generation",
        "_model",
        "_principal",
        "_text_bytes",
        "_turns",
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
        self._text_bytes = 0
        self.request = request
        self.id = turns.clock.new_id("chatcmpl-")
        self.created = int(turns.clock.now())
        self.model = request.model
        self.outcome = Outcome(model=deployment, upstream=model.upstream)

    async def events(self) -> AsyncGenerator[Event]:
        """Reserve, run the model, settle exactly once whatever happens on the way (invariants 5 and 6)."""
        outcome = self.outcome
        clock = self._turns.clock
        began_at = clock.monotonic()
        lease = await self._turns.admission.reserve(self._principal, outcome.model, self._generation)
        try:
            async with aclosing(self._model.generate(self._generation)) as events:
                async for event in events:
                    if outcome.first_event_ms is None:
                        outcome.first_event_ms = (clock.monotonic() - began_at) * 1000
                    self._note(event)
                    yield event
        except ConveneError as fault:
            outcome.finish = fault.code
            raise
        finally:
            if outcome.usage is None and outcome.first_event_ms is not None:
                outcome.usage = self._estimate()
            lease.settle(outcome)

    def _estimate(self) -> Usage:
        """Count what a turn that was cut short has used, by the stated estimate (CHAT-07, OAI-35)."""
        prompt = sum(estimate_tokens(message.text()) for message in self._generation.messages)
        return Usage(prompt, -(-self._text_bytes // BYTES_PER_TOKEN), estimated=True)

    def _note(self, event: Event) -> None:
        outcome = self.outcome
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                self._text_bytes += len(event.text.encode())
            case CallDelta():
                self._text_bytes += len((event.name or "").encode()) + len(event.arguments.encode())
            case UsageReported():
                outcome.usage = event.usage if outcome.usage is None else outcome.usage + event.usage
            case Finished():
                outcome.finish = event.reason
            case Began():
                outcome.upstream = event.upstream
            case _:
                pass

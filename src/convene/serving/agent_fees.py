"""What asking a priced agent costs: a question is a request of its own in the books, beside the turn that asks it.

    open ──► reserved like any request: a limit or a budget may refuse ──► earned by an answer ──► settled, once

An answer costs the price of a request; a question without one costs nothing. The entry's id follows from the call, so
that a call which is repeated after a crash is entered once, whoever enters it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from convene.serving.admission import Ask
from convene.serving.base import Agentic, Outcome, Principal
from convene.serving.refusals import money_words
from convene.serving.terms import Terms
from convene.usage import Price, Usage

if TYPE_CHECKING:
    from convene.serving.admission import Admission, Lease

_NO_AGENTS: Final = Agentic()
ID_DIGITS: Final = 24


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a priced agent."""

    principal: Principal
    agent: str
    """What the operator calls it; the entry's model is `agent/NAME`."""
    price: Price
    call_key: str
    """The same when the call is repeated after a crash."""
    caller: str = ""


class Fee:
    """What one question holds until it is settled."""

    def __init__(self, lease: Lease, outcome: Outcome) -> None:
        self._lease = lease
        self._outcome = outcome
        outcome.status, outcome.finish = "failed", "agent_failed"  # until it has answered

    async def earn(self) -> str:
        """Note that the agent has answered, and return what that cost, in words; on the disk when this returns."""
        outcome = self._outcome
        outcome.status, outcome.finish, outcome.usage, outcome.agent_calls = "ok", "stop", Usage(), 1
        self._lease.settle()
        await self._lease.written()
        return money_words(outcome.cost_micros, outcome.currency)

    def drop(self) -> None:
        """End it: what was not earned costs nothing. Never blocks; after `earn` it does nothing."""
        self._lease.settle()


class AgentFees:
    """Opens fees. `admission` may be put in later, when the books are open."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission

    async def open(self, question: Question) -> Fee:
        """Reserve what a question will cost. Raises `Refused` for a limit or a budget, and `StoreFault`."""
        digest = hashlib.sha256(question.call_key.encode("utf-8", "surrogatepass")).hexdigest()
        entry_id, model = f"agent-{digest[:ID_DIGITS]}", f"agent/{question.agent}"
        outcome = Outcome(model=model, upstream=model)
        ask = Ask(
            id=entry_id,
            request_id=question.call_key,
            kind="agent",
            principal=question.principal,
            model_asked=model,
            model=model,
            terms=Terms(price=question.price),
            agentic=msgspec.structs.replace(_NO_AGENTS, agent_address=question.caller or None),
        )
        return Fee(await self.admission.reserve(ask, outcome), outcome)

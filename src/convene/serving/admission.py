"""Admission of a request: reserve before it runs, settle exactly once when it ends (invariant 6).

The seam between what a request does (`turn.py`, `embedding.py`) and what is kept of it (`books.py`). `Open` admits
everybody and keeps nothing, for tests and simulations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.serving.base import Agentic, Outcome, Principal
from convene.serving.terms import Terms
from convene.store.base_ledger import Kind

if TYPE_CHECKING:
    from convene.limits.limit import Refusal


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What a request is about to use, as far as can be known before.

    By name, please; `turn.py` gives the fields by their places, in two thirds of the time.
    """

    id: str
    """Of the turn: unique and made here; the entry's id in the ledger."""
    request_id: str
    principal: Principal
    model_asked: str
    model: str
    """The deployment's name."""
    terms: Terms
    agentic: Agentic
    stream: bool = False
    prompt_bytes: int = 0
    """UTF-8 bytes of everything the model reads."""
    output_max: int | None = None
    """Most tokens of one choice, by the request's own limit or the model's; None: nobody says."""
    choices: int = 1
    images: int = 0
    kind: Kind = "chat"


class Lease(Protocol):
    """What an admitted request holds until it is settled."""

    def expect(self, prompt_bytes: int, output_max: int | None) -> tuple[int, int]:
        """Return what a round with such a prompt may use, by the same estimate as a reservation: tokens, micro-units.

        `output_max` is the most tokens it may write; None: nobody says.
        """
        ...

    async def top_up(self, round_number: int, prompt_bytes: int, output_max: int | None) -> Refusal | None:
        """Reserve a further round of the model in the same lease; rounds are numbered upwards from 1.

        Returns the refusal of whichever limit refuses, and then nothing was charged. Raises `StoreFault`.
        """
        ...

    def settle(self) -> None:
        """Give back what was not used and book what was, by the outcome as it is now; the first call counts.

        Never blocks and cannot be cancelled. Fills `outcome.cost_micros` and brings `outcome.standing` up to date.
        """
        ...

    async def written(self) -> None:
        """Wait until what was settled is on the disk; returns at once if it is not settled yet.

        Never raises for a store that fails: that is logged.
        """
        ...


class Admission(Protocol):
    """Decides whether a request may run."""

    async def reserve(self, ask: Ask, outcome: Outcome) -> Lease:
        """Return the request's lease. `outcome` is filled while the request runs, `outcome.standing` here.

        Raises:
            RateLimited, OverBudget, Busy: it may not run now, and nothing is charged.
            BadRequest: it can never run under its limits.
            StoreFault: what it would cost cannot be written down.
        """
        ...


class OpenLease:
    """A lease on nothing."""

    def expect(self, prompt_bytes: int, output_max: int | None) -> tuple[int, int]:
        """Nothing is expected: nothing is counted."""
        del prompt_bytes, output_max
        return 0, 0

    async def top_up(self, round_number: int, prompt_bytes: int, output_max: int | None) -> Refusal | None:
        """Every further round may run."""
        del round_number, prompt_bytes, output_max
        return None

    def settle(self) -> None:
        """Nothing was reserved, so there is nothing to give back."""

    async def written(self) -> None:
        """Nothing is written."""


class Open:
    """Admits everybody."""

    async def reserve(self, ask: Ask, outcome: Outcome) -> Lease:
        """Return a lease on nothing."""
        del ask, outcome
        return OpenLease()

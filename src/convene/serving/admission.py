"""Admission of a turn: reserve before it runs, settle exactly once when it ends (invariant 6).

This is the seam for limits and the ledger. `Open` is what serves until they are there: it admits everybody and keeps
no books, and says so in its name. Called by `turn.py` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from convene.providers.base import Generation
    from convene.serving.base import Outcome, Principal


class Lease(Protocol):
    """What an admitted turn holds until it is settled."""

    def settle(self, outcome: Outcome) -> None:
        """Give back what was not used and book what was; never blocks, the first call counts."""
        ...


class Admission(Protocol):
    """Decides whether a turn may run."""

    async def reserve(self, principal: Principal, model: str, generation: Generation) -> Lease:
        """Return the turn's lease. Raises `RateLimited`, `OverBudget` or `Busy`, and then nothing is charged."""
        ...


class OpenLease:
    """A lease on nothing."""

    def settle(self, outcome: Outcome) -> None:
        """Nothing was reserved, so there is nothing to give back."""


class Open:
    """Admits everybody."""

    async def reserve(self, principal: Principal, model: str, generation: Generation) -> Lease:
        """Return a lease on nothing."""
        del principal, model, generation
        return OpenLease()

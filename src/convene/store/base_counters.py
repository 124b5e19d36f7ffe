"""The seam of counters: one atomic, all-or-nothing step over all limits of a request (LIMIT-01, reliability 1.1).

    reserve(lease, limits, estimate)  ->  Grant | Refusal   a refusal charges nothing, anywhere
    top_up(lease, round, amounts)     ->  Grant | Refusal   a further model round of an agentic turn, in the same lease
    settle(lease, actual)             ->  Grant | None      moves each counter by actual - reserved; None: no such lease
    expire()                                                settles leases whose holder died at what they reserved

Every implementation (memory, SQLite, Postgres, Redis) passes `tests/contract/test_counters.py` unchanged; the oracle is
the arithmetic in `limits/`. Counters are not the books: they are rebuilt from the ledger (`replay`) and audited against
it, so they need not survive a power cut.

The limits of one call have different counters. Every step lifts a rate's arrival time to the present before it moves
it, so a store may forget a counter whose time has passed. A lease whose time is up takes no slot any more and can be
neither renewed nor topped up; until `expire` ends it, it can still be settled. `Amounts.slots` is 0 or 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from convene.limits.limit import Past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.limits.limit import Amounts, Grant, Limit, Refusal

__all__ = ["Counters", "LocalCounters", "Past"]


class LocalCounters(Protocol):
    """Counters that answer at once, without waiting: in this process's memory or in a file of this host."""

    @property
    def outlives(self) -> bool:
        """Whether they outlive this process. Then they are moved after the books, for a kill may come in between."""
        ...

    def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """Charge every limit `amounts[limit.unit]`, or none. A limit that is charged nothing refuses nothing.

        A repeat with the id of a lease that exists returns the first answer; a refusal leaves no lease. `lease_us` is
        how long the lease lives unless renewed. Raises ValueError for a negative amount of what a limit counts, and
        `StoreFault`.
        """
        ...

    def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """Charge the lease's limits again (slots excepted) and let it live `lease_us` from now; a refusal does neither.

        Rounds are numbered upwards from 1. A repeat of the last round or an earlier one changes nothing and returns the
        present states. Raises `NotFound` if there is no such lease (settled, or its time is up), ValueError for a
        negative amount and `StoreFault`.
        """
        ...

    def settle(self, lease: str, actual: Sequence[int]) -> Grant | None:
        """End the lease: each counter moves by actual minus reserved, into debt if need be; slots are given back.

        `actual` has the places of `Amounts`; a plain tuple will do, which takes a third of the time to make.
        A budget moves only in the period that was charged last, and gives back at most what was charged in it.
        Idempotent: None when there is no such lease (any more), and then nothing changes. Raises ValueError for a
        negative amount and `StoreFault`.
        """
        ...

    def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """Let these leases live `lease_us` from now; unknown ones are ignored. Raises `StoreFault`."""
        ...

    def expire(self) -> tuple[str, ...]:
        """End the leases whose time is up at what they reserved, give back their slots, and return their ids."""
        ...

    def overdue(self) -> tuple[str, ...]:
        """Give back the slots of the leases whose time is up and return their ids; they can still be settled.

        For whoever asks the books what became of them, and ends each at that.
        """
        ...

    def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """Return the present states without charging anything: TAT (never before now), used, under way."""
        ...

    def replay(self, past: Sequence[Past]) -> None:
        """Charge what is left of what was used before, oldest first, refusing nothing; slots are left alone.

        All of the past goes into one call; others may be admitted meanwhile. Raises `StoreFault`.
        """
        ...


class Counters(Protocol):
    """Counters wherever they are. The calls are those of `LocalCounters`, with a wait."""

    @property
    def local(self) -> LocalCounters | None:
        """The same counters without a wait, where they are that near; else None."""
        ...

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`."""
        ...

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`."""
        ...

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        """See `LocalCounters.settle`."""
        ...

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`."""
        ...

    async def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`."""
        ...

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`."""
        ...

    async def fresh(self) -> bool:
        """Claim the rebuilding: True for exactly one caller after the counters were empty (new, or a new boot)."""
        ...

    async def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections; idempotent."""
        ...

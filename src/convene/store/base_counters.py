"""The seam of counters: one atomic, all-or-nothing step over all limits of a request (LIMIT-01, reliability 1.1).

    reserve(lease, limits, estimate)  ->  Grant | Refusal   a refusal charges nothing, anywhere
    top_up(lease, round, amounts)     ->  Grant | Refusal   a further model round of an agentic turn, in the same lease
    settle(lease, actual)             ->  Grant | None      moves each counter by actual - reserved; None: no such lease
    expire()                                                settles leases whose holder died at what they reserved

Every implementation (memory, SQLite, Postgres, Redis) passes `tests/contract/test_counters.py` unchanged; the oracle is
the arithmetic in `limits/`. Counters are not the books: they are rebuilt from the ledger (`replay`) and audited against
it, so they need not survive a power cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.limits.limit import Amounts, Grant, Limit, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Counters", "LocalCounters", "Past"]


class Past(msgspec.Struct, frozen=True):
    """What a request of the past has cost, for rebuilding counters.

    It was admitted `age_us` ago by the books' wall clock; a budget counts it in the period of that moment.
    """

    limits: tuple[Limit, ...]
    amounts: Amounts
    age_us: int


class LocalCounters(Protocol):
    """Counters that answer at once, without waiting: in this process's memory or in a file of this host."""

    def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """Charge every limit `amounts[limit.unit]`, or none. A repeat with the same lease id returns the first answer.

        `lease_us` is how long the lease lives unless renewed. Raises ValueError for a negative amount and `StoreFault`.
        """
        ...

    def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """Charge the lease's limits again (slots excepted) and prolong it. A repeat of a round charges nothing more.

        Raises `NotFound` if there is no such lease (settled or expired), `StoreFault`.
        """
        ...

    def settle(self, lease: str, actual: Amounts) -> Grant | None:
        """End the lease: each counter moves by actual minus reserved, into debt if need be; slots are given back.

        Idempotent: None when there is no such lease (any more), and then nothing changes. Raises `StoreFault`.
        """
        ...

    def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """Let these leases live `lease_us` from now; unknown ones are ignored. Raises `StoreFault`."""
        ...

    def expire(self) -> tuple[str, ...]:
        """End the leases whose time is up at what they reserved, give back their slots, and return their ids."""
        ...

    def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """Return the present states without charging anything. Raises `StoreFault`."""
        ...

    def replay(self, past: Sequence[Past]) -> None:
        """Charge what was used before, oldest first, refusing nothing. Raises `StoreFault`."""
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

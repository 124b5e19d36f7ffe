"""Counters that answer at once, with the face of counters that one has to wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from convene.store.base_counters import LocalCounters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.limits.limit import Amounts, Grant, Limit, Refusal
    from convene.store.base_counters import Past


class Near(LocalCounters, Protocol):
    """What `NearCounters` stands on."""

    def fresh(self) -> bool:
        """See `Counters.fresh`."""
        ...

    def close(self) -> None:
        """Let go of what is open; idempotent."""
        ...


class NearCounters:
    """`Counters` over counters of this process or host: nothing ever waits, so nothing is half done when cancelled."""

    def __init__(self, near: Near) -> None:
        self._near = near

    @property
    def local(self) -> LocalCounters:
        """The counters themselves, for callers who would rather not wait."""
        return self._near

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`."""
        return self._near.reserve(lease, limits, amounts, lease_us)

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`."""
        return self._near.top_up(lease, round_number, amounts, lease_us)

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        """See `LocalCounters.settle`."""
        return self._near.settle(lease, actual)

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`."""
        self._near.renew(leases, lease_us)

    async def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`."""
        return self._near.expire()

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`."""
        return self._near.levels(limits)

    async def fresh(self) -> bool:
        """See `Counters.fresh`."""
        return self._near.fresh()

    async def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`."""
        self._near.replay(past)

    async def aclose(self) -> None:
        """See `Counters.aclose`."""
        self._near.close()

"""How often something may be tried, counted by name in this process's memory: guessing passwords, making accounts.

One number a name, the theoretical arrival time of GCRA (reliability 1.1). Names that could start afresh are dropped, so
the memory is bounded; if all are busy, the one that is nearest to it is forgotten.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from convene.clock import Clock

NAMES_MAX: Final = 10_000
_V6_NETWORK: Final = 64
"""Whoever has one IPv6 address has a network of them."""


class Throttle:
    """`burst` tries at once, then one each `interval_s`."""

    def __init__(self, clock: Clock, interval_s: float, burst: int) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._slack_s = interval_s * (burst - 1)
        self._due: dict[str, float] = {}

    def take(self, name: str) -> float:
        """Count a try and return 0, or return how many seconds to wait, counting nothing."""
        now = self._clock.monotonic()
        due = max(self._due.get(name, now), now)
        if due - now > self._slack_s:
            return due - now - self._slack_s
        self._make_room(now)
        self._due[name] = due + self._interval_s
        return 0.0

    def give_back(self, name: str) -> None:
        """Take a counted try back: it was a good one."""
        due = self._due.get(name)
        if due is not None:
            self._due[name] = due - self._interval_s

    def _make_room(self, now: float) -> None:
        if len(self._due) < NAMES_MAX:
            return
        self._due = {name: due for name, due in self._due.items() if due > now}
        if len(self._due) >= NAMES_MAX:
            del self._due[min(self._due, key=self._due.__getitem__)]


def network_of(address: str) -> str:
    """Return what is throttled as one: an IPv4 address, the /64 network of an IPv6 one, else the text itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _V6_NETWORK), strict=False))
    return str(found)

"""What a store of counters has to be told when it is back: settlements it missed, and what was admitted without it.

Bounded: the oldest is forgotten first. A forgotten settlement leaves its lease to end at what it reserved; a forgotten
charge is a request that was not counted there. Both are counted in `forgotten`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from convene.limits.limit import Amounts, Grant, Limit, Past

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from convene.clock import Clock

MISSED_MOST: Final = 10_000


class Missed(msgspec.Struct, frozen=True):
    """A request that ended while the store was out."""

    lease: str = ""
    """To be settled there; empty if the store cannot know it."""
    actual: Amounts = Amounts()
    limits: tuple[Limit, ...] = ()
    """To be charged if there is no such lease: of a request that was admitted without the store, or that it lost."""
    since_s: float = 0.0
    """When it was admitted, by the monotonic clock."""
    until_s: float = math.inf
    """From when on the store may have ended the lease by itself, at what it reserved, so that nothing is charged."""


class Backlog:
    """A queue that is emptied in order."""

    def __init__(self, clock: Clock, most: int = MISSED_MOST) -> None:
        self._monotonic = clock.monotonic
        self._queue: dict[int, Missed] = {}
        self._most = most
        self._number = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, missed: Missed) -> None:
        """Put one more at the end."""
        if len(self._queue) >= self._most:
            del self._queue[next(iter(self._queue))]
            self.forgotten += 1
        self._number += 1
        self._queue[self._number] = missed

    def drop_charges(self) -> None:
        """Forget what the ledger knows as well: the store has just been rebuilt from it. Leases are still settled."""
        self._queue = {
            number: msgspec.structs.replace(missed, limits=()) for number, missed in self._queue.items() if missed.lease
        }

    async def deliver(
        self,
        settle: Callable[[str, Amounts], Awaitable[Grant | None]],
        charge: Callable[[list[Past]], Awaitable[None]],
    ) -> None:
        """Tell the store all of it: settlements one by one, then the charges together, oldest first.

        Together, because what has refilled since is taken off once: one by one, each would have it taken off again.

        Raises `StoreFault` if it is out again; what it may not have heard stays. Telling it twice does no harm, except
        for charges whose answer was lost: they are counted twice, to the safe side.
        """
        while self._queue:
            charges: dict[int, Missed] = {}
            for number, missed in list(self._queue.items()):
                settled = await settle(missed.lease, missed.actual) if missed.lease else None
                if settled is None and missed.limits and self._monotonic() < missed.until_s:
                    charges[number] = missed
                else:
                    self._queue.pop(number, None)  # it may have been pushed out meanwhile
            if charges:
                await charge(self._past(charges))
                for number in charges:
                    self._queue.pop(number, None)

    def _past(self, charges: Mapping[int, Missed]) -> list[Past]:
        now_s = self._monotonic()
        past = [Past(one.limits, one.actual, max(0, int((now_s - one.since_s) * 1e6))) for one in charges.values()]
        return sorted(past, key=lambda one: -one.age_us)

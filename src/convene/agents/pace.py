"""A pace: so many a minute, a few of them at once, the others spread out; who comes too early waits in turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE_S: Final = 60.0
AT_ONCE: Final = 6
"""A sixth of a minute's may come at once."""


class Pace:
    """Belongs to one event loop."""

    def __init__(self, per_minute: int, now: Callable[[], float]) -> None:
        """`now` gives seconds that only grow."""
        self._gap_s = MINUTE_S / per_minute
        self._ahead_s = self._gap_s * max(0, per_minute // AT_ONCE - 1)
        self._now = now
        self._next_at = float("-inf")

    async def wait(self) -> None:
        """Return when it is one's turn. Who leaves while waiting leaves his place unused."""
        now = self._now()
        mine = max(self._next_at, now - self._ahead_s)
        self._next_at = mine + self._gap_s
        if mine > now:
            await asyncio.sleep(mine - now)

"""What was shown and chosen, counted many at a time (PICK-08): one write for the searches of some seconds."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Counts
from typing import TYPE_CHECKING, Final

from convene.errors import StoreFault
from convene.store.base_market import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convene.clock import Clock
    from convene.store.base_market import Market

log = logging.getLogger("convene.registry")

FLUSH_S: Final = 10.0
AGENTS_MAX: Final = 20_000
"""So many agents may wait to be counted; what is shown beyond them while the store is away is not counted."""


class Counter:
    """Counts, and writes what it has counted."""

    def __init__(self, market: Callable[[], Market], clock: Clock) -> None:
        self._market = market
        self._clock = clock
        self._shown: Counts[str] = Counts()
        self._picked: Counts[str] = Counts()

    def shown(self, agents: Iterable[str]) -> None:
        """Count that these were shown in a search."""
        if len(self._shown) < AGENTS_MAX:
            self._shown.update(agents)

    def picked(self, agent: str) -> None:
        """Count that this one was chosen from a search."""
        if len(self._picked) < AGENTS_MAX:
            self._picked[agent] += 1

    async def flush(self) -> None:
        """Write what was counted; if that cannot be, it is written next time. Raises `StoreFault`."""
        shown, self._shown = self._shown, Counts()
        picked, self._picked = self._picked, Counts()
        if not shown and not picked:
            return
        at_us = int(self._clock.now() * 1_000_000)
        agents = dict.fromkeys((*shown, *picked))
        seen = [Seen(id=agent, at_us=at_us, shown=shown[agent], picked=picked[agent]) for agent in agents]
        try:
            await self._market().see(seen)
        except StoreFault:
            self._shown.update(shown)
            self._picked.update(picked)
            raise

    async def run(self) -> None:
        """Write every few seconds, for ever."""
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except StoreFault as fault:
                log.warning("what was shown of agents is not counted yet: %s", fault.detail or fault.message)

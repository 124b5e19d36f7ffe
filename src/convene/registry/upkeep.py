"""What time does to the marketplace: envelopes, challenges and files expire, removed agents are forgotten.

Called by `app_market.py`. How long a record counts as registered is said when it is made (`almanac.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from convene.errors import StoreFault
from convene.registry.attestation import STALE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.store.base_market import Market

log = logging.getLogger("convene.registry")

SWEEP_S: Final = 600.0
REMOVED_KEEP_US: Final = (STALE_S + 86_400) * 1_000_000
"""How long a removed agent is remembered: longer than any signed registration is accepted, so that none comes back."""


class Upkeep:
    """The sweep of one marketplace."""

    def __init__(self, market: Callable[[], Market], clock: Clock) -> None:
        """Ask for the market each time: the store is opened late."""
        self._market = market
        self._clock = clock

    async def once(self) -> int:
        """Forget what has expired, and return how many that was. Raises `StoreFault`."""
        now_us = int(self._clock.now() * 1_000_000)
        return await self._market().forget(now_us, now_us - REMOVED_KEEP_US)

    async def sweep(self) -> None:
        """Do it every ten minutes, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                gone = await self.once()
            except StoreFault as fault:
                log.warning("what has expired in the marketplace could not be removed: %s", fault.detail)
            else:
                if gone:
                    log.info("%d things of the marketplace have expired", gone)

"""The composition of the marketplace of this server, for `app.py`: what keeps it.

A part of the composition root. The store is opened after the parts are built, so it is asked for when it is needed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.registry.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.store.base import Store


class MarketParts:
    """Everything about the marketplace of one application."""

    def __init__(self, clock: Clock, store: Callable[[], Store]) -> None:
        self._upkeep = Upkeep(lambda: store().market, clock)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin the background work; returns at once."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._upkeep.sweep(), name="marketplace upkeep"))

    async def aclose(self) -> None:
        """End the background work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

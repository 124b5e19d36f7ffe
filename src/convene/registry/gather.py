"""Registrations that arrive at once, written in one transaction: what the disk costs is paid once for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from convene.errors import Busy, StoreFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.store.base_market import Market, Registration

TOGETHER: Final = 256
"""Most that one transaction takes: some 20 ms of SQLite's thread, which others wait for."""
WAITING_MAX: Final = 10_000
"""More than that is no use: an agent waits one second (REG-01)."""


class Gatherer:
    """Writes what has come while the last transaction was under way. No task lives while there is nothing to write."""

    def __init__(self, market: Callable[[], Market], now_us: Callable[[], int]) -> None:
        self._market = market
        self._now_us = now_us
        self._waiting: list[tuple[Registration, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def register(self, registrations: Sequence[Registration]) -> list[bool]:
        """Return of each whether it stands, once it is kept (`Market.register`). Raises `StoreFault` and `Busy`."""
        if len(self._waiting) + len(registrations) > WAITING_MAX:
            raise Busy("Too many agents register at this moment; try again in a second.", retry_after_s=1)
        loop = asyncio.get_running_loop()
        told = [loop.create_future() for _ in registrations]
        self._waiting += zip(registrations, told, strict=True)
        if self._writing is None:
            self._writing = loop.create_task(self._write(), name="registrations")
        return list(await asyncio.gather(*told))

    async def aclose(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
                try:
                    stand = await self._market().register([one for one, _ in now], self._now_us())
                except StoreFault as fault:
                    for _, told in now:
                        if not told.done():
                            told.set_exception(fault)
                else:
                    for (_, told), one in zip(now, stand, strict=True):
                        if not told.done():
                            told.set_result(one)
        finally:
            self._writing = None
            for _, told in self._waiting:  # only where this was cancelled
                told.cancel()
            self._waiting = []

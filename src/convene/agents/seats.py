"""Fairness between those who ask one agent: seats at its table, of which nobody gets more than his share.

    take ──► free, and the owner has less than his share ──► go
             else wait ──► a seat becomes free ──► the owner who was served longest ago comes next

Belongs to one event loop; the seats of other processes are not counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEATS: Final = 32
WAITING_MAX: Final = 1_000
"""Of one agent, over all owners."""


class FullError(Exception):
    """Too many wait for this agent already."""


class _Table:
    """The seats of one agent."""

    def __init__(self) -> None:
        self.taken = 0
        self.by_owner: dict[str, int] = {}
        self.queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Who waits, by owner; the owner who comes next is first."""

    @property
    def waiting(self) -> int:
        return sum(map(len, self.queues.values()))


class Seats:
    """The seats of all agents."""

    def __init__(self, seats: int = SEATS) -> None:
        """One agent is asked `seats` questions at the same time; one owner has at most half of them."""
        self._seats = max(1, seats)
        self._share = max(1, self._seats // 2)
        self._tables: dict[str, _Table] = {}

    @asynccontextmanager
    async def seat(self, agent: str, owner: str) -> AsyncIterator[None]:
        """Wait for a seat and hold it. Raises `FullError`."""
        table = self._tables.setdefault(agent, _Table())
        await self._take(table, owner)
        try:
            yield
        finally:
            self._leave(table, owner)
            if not table.taken and not table.queues:
                self._tables.pop(agent, None)

    async def _take(self, table: _Table, owner: str) -> None:
        if self._is_free(table, owner) and owner not in table.queues:
            self._sit(table, owner)
            return
        if table.waiting >= WAITING_MAX:
            raise FullError
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        table.queues.setdefault(owner, deque()).append(ready)
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self._leave(table, owner)  # the seat was given at the moment of leaving
            elif ready in (queue := table.queues.get(owner, deque())):
                queue.remove(ready)
                if not queue:
                    del table.queues[owner]
            raise

    def _is_free(self, table: _Table, owner: str) -> bool:
        return table.taken < self._seats and table.by_owner.get(owner, 0) < self._share

    @staticmethod
    def _sit(table: _Table, owner: str) -> None:
        table.taken += 1
        table.by_owner[owner] = table.by_owner.get(owner, 0) + 1

    def _leave(self, table: _Table, owner: str) -> None:
        table.taken -= 1
        table.by_owner[owner] -= 1
        if not table.by_owner[owner]:
            del table.by_owner[owner]
        for who in [*table.queues]:
            if self._is_free(table, who) and self._call(table, who):
                return

    def _call(self, table: _Table, owner: str) -> bool:
        """Give a seat to the next of an owner's who still waits; False: nobody does."""
        queue = table.queues.pop(owner)
        while queue:
            ready = queue.popleft()
            if not ready.done():
                self._sit(table, owner)
                ready.set_result(None)
                if queue:
                    table.queues[owner] = queue  # at the end: the others come first now
                return True
        return False

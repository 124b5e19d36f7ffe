"""The index kept as the store is: at start from the whole table, then by what is newer (`Market.newer`).

Any process of several has one and follows what the others write. The work is done in short pieces (`pace.py`), and a
search during the first pass finds what is there so far.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from convene.errors import StoreFault
from convene.registry.agent_index import AgentIndex
from convene.registry.base_names import bare
from convene.registry.base_search import ProtocolName
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convene.clock import Clock
    from convene.store.base_market import AgentRow, Market

log = logging.getLogger("convene.registry")

ROWS: Final = 256
POLL_S: Final = 1.0
"""So late at most other processes learn of an agent; the one that has written it is poked."""
TOLD_EVERY: Final = 10_000
DEFAULT_NAMES: Final = {bare(CHAT_PROTOCOL): ProtocolName(bare(CHAT_PROTOCOL), "AgentChatProtocol", "0.3.0")}


class Follower:
    """Holds the index."""

    def __init__(
        self, market: Callable[[], Market], clock: Clock, wants: Callable[[Iterable[str]], None] = lambda _: None
    ) -> None:
        """`wants` is told of agents whose text is new, so that they are embedded."""
        self._market = market
        self._clock = clock
        self._wants = wants
        self.index = self._empty()
        self.ready = False
        """Whether everything that was there at the start is in the index."""
        self._version = 0
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Say that something has changed here."""
        self._poked.set()

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            try:
                await self.catch_up()
                if self.index.is_stale:
                    await self.renew()
            except StoreFault as fault:
                log.warning("the index of agents cannot follow the store now: %s", fault.detail or fault.message)
            self._poked.clear()
            try:
                await asyncio.wait_for(self._poked.wait(), POLL_S)
            except TimeoutError:
                continue

    async def catch_up(self) -> int:
        """Take in all that is newer and return how many rows that was. Raises `StoreFault`."""
        self._version, count = await self._follow(self.index, self._version, self._wants)
        if not self.ready:
            self.ready = True
            if count:
                log.info("the index of agents is complete: %d agents", len(self.index))
        return count

    async def renew(self) -> None:
        """Make a new index in the place of one of which much is gone. Raises `StoreFault`."""
        log.info("the index of agents is made anew: %d agents at %d places", len(self.index), self.index.words.places)
        fresh = self._empty()
        wanted: list[str] = []
        version, _ = await self._follow(fresh, 0, wanted.extend)
        self.index, self._version = fresh, version
        self._wants(wanted)

    async def _follow(self, index: AgentIndex, version: int, wants: Callable[[Iterable[str]], None]) -> tuple[int, int]:
        """Take everything newer into an index; return the version reached and how many rows it was."""
        pace = Pace(self._clock.monotonic)
        count = 0
        while True:
            rows = await self._market().newer(version, ROWS)
            if not rows:
                return version, count
            await self._learn_names(index, rows)
            now_us = int(self._clock.now() * 1_000_000)
            fresh = []
            for row in rows:
                if index.apply(row, now_us) is not None:
                    fresh.append(row.id)
                await pace.breathe()
            wants(fresh)
            version = rows[-1].version
            count += len(rows)
            if count // TOLD_EVERY != (count - len(rows)) // TOLD_EVERY:
                log.info("the index of agents has taken in %d rows", count)

    async def _learn_names(self, index: AgentIndex, rows: Iterable[AgentRow]) -> None:
        """Look up the names of protocols that are new here."""
        unknown = {digest for row in rows for digest in row.protocols if bare(digest) not in index.names}
        for manifest in await self._market().manifests(sorted(unknown)) if unknown else ():
            digest = bare(manifest.digest)
            index.names[digest] = ProtocolName(digest, manifest.name, manifest.version)

    @staticmethod
    def _empty() -> AgentIndex:
        index = AgentIndex()
        index.names.update(DEFAULT_NAMES)
        return index

"""That an open store is alive: its row in `writers`, seen anew every few seconds, gone when it is closed.

Intents, claims and runs name their writer. One that is missing from the table, or was not seen for a while, is dead,
and what it had begun is somebody else's to end: that is how a kill -9 leaves nothing open for ever (goals B1, B5). Of
the processes of one machine, those that were killed are known at once (`lives.py`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self

from convene.store.base import StoreFault

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.store.lives import Lives
    from convene.store.sql import Database

log = logging.getLogger(__name__)

BEAT_S: Final = 3.0
"""How often a writer shows life."""
SLEPT_US: Final = 12_000_000
"""When one that has not been able to must have slept: its loop, or the machine."""
WAKE_S: Final = 4.0
"""How long others take to show life after that."""
DEAD_AFTER_US: Final = 30_000_000
"""When one that does not is taken for dead: ten missed beats, longer than any pause of a loop that is worth saving."""

_BEAT = (
    "INSERT INTO writers (id, seen_at_us) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET seen_at_us = excluded.seen_at_us"
)
_TIDY = "DELETE FROM writers WHERE seen_at_us < ?"


class Presence:
    """One writer's signs of life."""

    def __init__(self, database: Database, clock: Clock, lives: Lives | None = None) -> None:
        self.id: Final = clock.new_id("w-")
        self._database = database
        self._clock = clock
        self._lives = lives
        self._beating: asyncio.Task[None] | None = None
        self._seen_us = 0

    @classmethod
    async def start(cls, database: Database, clock: Clock, lives: Lives | None = None) -> Self:
        """Appear, forget those long dead, and show life from now on. Raises `StoreFault`.

        `lives` are the lock files of the database's writers on this machine.
        """
        presence = cls(database, clock, lives)
        try:
            await presence._appear()
        except BaseException:  # whatever it was, no lock is held for a writer that never was; it is raised on
            if lives is not None:
                lives.forget(presence.id)
            raise
        presence._beating = asyncio.create_task(presence._beat_on(), name="store presence")
        return presence

    async def _appear(self) -> None:
        if self._lives is not None:
            self._lives.hold(self.id)
            await self.bury()
        await self._database.write([(_TIDY, (self.now_us() - 100 * DEAD_AFTER_US,))])
        if self._lives is not None:
            self._lives.sweep({writer for (writer,) in await self._database.rows("SELECT id FROM writers")})
        await self.show()

    def now_us(self) -> int:
        """Return the wall clock in Unix microseconds."""
        return int(self._clock.now() * 1e6)

    async def show(self) -> None:
        """Show life now. Raises `StoreFault`."""
        now_us = self.now_us()
        await self._database.write([(_BEAT, (self.id, now_us))])
        self._seen_us = now_us

    async def bury(self) -> None:
        """Take those off the table whose process is surely gone: then everybody knows. Raises `StoreFault`."""
        if self._lives is None:
            return
        gone = [writer for writer in self._lives.known() if self._lives.is_dead(writer)]
        if gone:
            await self._database.write([("DELETE FROM writers WHERE id = ?", (writer,)) for writer in gone])
            for writer in gone:
                self._lives.forget(writer)

    async def wake(self, dead_after_us: int) -> None:
        """Let the others wake up too, if we have slept, before they are judged by what they have shown.

        After a closed laptop, a frozen machine or a clock set forward, everybody's last sign of life is old. Raises
        `StoreFault`.
        """
        if self.now_us() - self._seen_us > max(dead_after_us // 2, SLEPT_US):
            await self.show()
            await asyncio.sleep(WAKE_S)

    async def aclose(self) -> None:
        """Be gone, at once to everybody. Idempotent."""
        if self._beating is None:
            return
        self._beating.cancel()
        await asyncio.wait([self._beating])
        self._beating = None
        try:
            await self._database.write([("DELETE FROM writers WHERE id = ?", (self.id,))])
        except StoreFault as fault:  # then it is dead a little later, for want of beats
            log.warning("the store could not be told that this writer has closed: %s", fault.detail)
        if self._lives is not None:
            self._lives.forget(self.id)

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.show()
            except StoreFault as fault:
                log.warning("the store could not be shown that this writer lives: %s", fault.detail)

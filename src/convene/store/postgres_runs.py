"""The journal of runs in Postgres: group commit, one group at a time (goals D4, D5).

    begin, record, finish ──► queue ──► one transaction: holds locked and looked at, then all writes ──► callers go on

While a group is on its way the next one gathers, as in the ledger, so that many runs share one wait for the disk. A
group whose connection is lost may have been committed or not and is sent again: an insert of a run that is there is
left out, and steps and ends are the same written twice.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from convene.errors import StoreFault
from convene.store.postgres_pool import numbered
from convene.store.postgres_wire import clean, fault
from convene.store.sql_runs import END_RUN, INSERT_RUN, RUN_FIELDS, STUCK_S, UPSERT_STEP, SqlRuns, Work, closed, release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.postgres_pool import PostgresPool
    from convene.store.postgres_wire import Session
    from convene.store.presence import Presence

log = logging.getLogger(__name__)

GROUP_MAX: Final = 500
RETRY_FIRST_S: Final = 0.01
RETRY_MAX_S: Final = 0.5
_INSERT: Final = numbered(INSERT_RUN)
_UPSERT: Final = numbered(UPSERT_STEP)
_END: Final = numbered(END_RUN)
_ID_AT: Final = RUN_FIELDS.index("id")
_FENCE_AT: Final = RUN_FIELDS.index("fence")
_HOLDS: Final = "SELECT id, fence FROM runs WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE"


class PostgresRuns(SqlRuns):
    """The runs of one database. What writes starts with the first write."""

    def __init__(self, pool: PostgresPool, presence: Presence) -> None:
        super().__init__(pool, presence)
        self._pool = pool
        self._writing: asyncio.Task[None] | None = None

    @property
    def _idle(self) -> bool:
        return self._writing is None or self._writing.done()

    def _wake(self) -> None:
        if self._idle:
            self._writing = asyncio.get_running_loop().create_task(self._write_on(), name="journal of runs")

    async def _end(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    async def _write_on(self) -> None:
        """Write group after group until there is no more."""
        await asyncio.sleep(0)  # what comes in this turn of the loop goes into the first group
        while self._works:
            works, self._works = self._works[:GROUP_MAX], self._works[GROUP_MAX:]
            try:
                await self._write(works)
            except asyncio.CancelledError:
                release(works, closed())
                raise
            except Exception as error:  # a fault of ours: nobody waits for ever because of it
                log.exception("the journal of runs could not be written")
                release(works, fault(error))

    async def _write(self, works: Sequence[Work]) -> None:
        """Write a group, tried again for a while, and let its callers go on."""
        loop = asyncio.get_running_loop()
        until, pause_s = loop.time() + STUCK_S, RETRY_FIRST_S
        while True:
            try:
                async with self._pool.session() as session, session.transaction():
                    await self._send(session, works)
            except StoreFault as reason:
                if self._pool.wire.is_poison(reason.__cause__):
                    await self._divide(works, reason)
                    return
                if loop.time() >= until:
                    log.error("the journal of runs could not be written: %s", reason.detail)  # noqa: TRY400
                    release(works, reason)
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                release(works)
                return

    async def _divide(self, works: Sequence[Work], reason: StoreFault) -> None:
        """Write each by itself, so that one that cannot be written takes no other along."""
        if len(works) == 1:
            release(works, reason)
            return
        for work in works:
            await self._write([work])

    @staticmethod
    async def _send(session: Session, works: Sequence[Work]) -> None:
        held = sorted({work.hold.run_id for work in works if work.hold is not None})
        fences = dict(await session.fetch(_HOLDS, held)) if held else {}
        begun = [work.run for work in works if work.run is not None]
        if begun:
            await session.executemany(_INSERT, [_kept(row) for row in begun])
        steps: list[tuple[object, ...]] = []
        for work in works:
            if work.run is not None:
                fences.setdefault(work.run[_ID_AT], work.run[_FENCE_AT])
            if work.hold is None:
                continue
            work.lost = fences.get(work.hold.run_id) != work.hold.fence
            if work.lost or (work.end is not None and (await session.execute(_END, *work.end)).endswith(" 0")):
                continue
            steps += map(_kept, work.steps)
        if steps:
            await session.executemany(_UPSERT, steps)


def _kept(values: Sequence[object]) -> tuple[object, ...]:
    return tuple(clean(value) if isinstance(value, str) else value for value in values)

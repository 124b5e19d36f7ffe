"""The journal of runs in SQLite: group commit by the event loop, safe from kill -9 (goals D4, D5).

    begin, record, finish ──► queue ──► one transaction at the end of the loop's turn ──► their callers go on

As in the ledger (decision 0009) the transaction runs on the loop's thread, over a connection of its own: it takes some
40 us and 10 us a step, where handing each to a thread takes longer. It is not waited for the disk: after a power cut a
run may be found some steps back, and repeats them with the same idempotency keys, where a ledger would have lost money.
Checkpoints, which do wait for it, are made by a thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Final

from convene.store.sql_runs import END_RUN, INSERT_RUN, STUCK_S, UPSERT_STEP, SqlRuns, Work, release
from convene.store.sqlite_file import fault
from convene.store.sqlite_open import LOOP_S, opened
from convene.store.sqlite_sync import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.presence import Presence
    from convene.store.sqlite_file import SqliteFile

log = logging.getLogger(__name__)

CHECKPOINT_COMMITS: Final = 256
RETRY_FIRST_S: Final = 0.001
RETRY_MAX_S: Final = 0.1
_SETTINGS: Final = (
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 0",  # it would hold up the loop until the disk has it all
    "PRAGMA foreign_keys = ON",
)
_FENCE: Final = "SELECT fence FROM runs WHERE id = ?"


def _prepare(connection: sqlite3.Connection) -> None:
    for setting in _SETTINGS:
        connection.execute(setting)


class SqliteRuns(SqlRuns):
    """The runs of one SQLite file. Its connection opens with the first write."""

    def __init__(self, file: SqliteFile, presence: Presence) -> None:
        super().__init__(file, presence)
        self._file = file
        self._turn_to_come: asyncio.Handle | None = None
        self._connection: sqlite3.Connection | None = None
        self._stuck_since: float | None = None
        self._retry_s = RETRY_FIRST_S
        self._commits = 0
        self._checkpoint: asyncio.Future[None] | None = None

    @property
    def _idle(self) -> bool:
        return not self._works

    def _wake(self) -> None:
        if self._turn_to_come is None:
            self._turn_to_come = asyncio.get_running_loop().call_soon(self._turn)

    async def _end(self) -> None:
        if self._turn_to_come is not None:
            self._turn_to_come.cancel()
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
        if self._connection is not None:
            self._connection.close()

    def _turn(self) -> None:
        self._turn_to_come = None
        try:
            self._commit(self._works)
        except sqlite3.OperationalError as error:  # another process is writing, or the disk is full
            self._again(error)
        except Exception:  # noqa: BLE001 -- one that no column takes, whatever that raises; it is told its caller
            self._one_by_one()
        else:
            self._written(len(self._works))

    def _written(self, count: int) -> None:
        """Let those go on whose writes, the first of the queue, are done."""
        works, self._works = self._works[:count], self._works[count:]
        self._stuck_since, self._retry_s = None, RETRY_FIRST_S
        release(works)
        self._commits += 1
        if self._commits >= CHECKPOINT_COMMITS and (self._checkpoint is None or self._checkpoint.done()):
            self._commits = 0
            self._checkpoint = asyncio.get_running_loop().run_in_executor(None, checkpoint, self._file.path)

    def _again(self, error: sqlite3.Error) -> None:
        """Try again later; tell those who wait if it has lasted."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since >= STUCK_S:
            log.error("the journal of runs could not be written for %.0f s: %s", now - self._stuck_since, error)
            works, self._works = self._works, []
            self._stuck_since, self._retry_s = None, RETRY_FIRST_S
            release(works, fault(self._file.path, error))
            return
        self._turn_to_come = loop.call_later(self._retry_s, self._turn)
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _one_by_one(self) -> None:
        """Write each by itself, so that one that cannot be written takes no other along."""
        while self._works:
            try:
                self._commit(self._works[:1])
            except sqlite3.OperationalError as error:
                self._again(error)
                return
            except Exception as error:  # noqa: BLE001 -- as above; nobody waits for ever because of it
                release([self._works.pop(0)], fault(self._file.path, error))
            else:
                self._written(1)

    def _commit(self, works: Sequence[Work]) -> None:
        """Write all of it in one transaction, or nothing. Raises `sqlite3.Error`."""
        if self._connection is None:
            self._connection = opened(self._file.path, _prepare, LOOP_S)
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for work in works:
                self._write(self._connection, work)
            run("COMMIT")
        except BaseException:  # whatever it was, nothing half-done is kept; it is raised on
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    @staticmethod
    def _write(connection: sqlite3.Connection, work: Work) -> None:
        if work.run is not None:
            connection.execute(INSERT_RUN, work.run)
        if work.hold is None:
            return
        found = connection.execute(_FENCE, (work.hold.run_id,)).fetchone()
        work.lost = found is None or found[0] != work.hold.fence
        if work.lost or (work.end is not None and not connection.execute(END_RUN, work.end).rowcount):
            return
        if work.steps:
            connection.executemany(UPSERT_STEP, work.steps)

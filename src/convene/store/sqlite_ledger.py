"""The books in SQLite: group commit by the event loop, the disk waited for by a thread (goals B1, B2, B6).

    begin, finish ──► queue ──► one transaction at the end of the loop's turn ──► begun: their callers go on
                                   │                                                (safe from kill -9)
                                   └──► one fdatasync on a thread, for all before it ──► finished: theirs do
                                                                                    (safe from power loss)

The transaction runs on the loop's thread: it takes some 10 us and 1 us an entry, where handing each to a thread takes
longer than that. Entries go to the journal, and from there into the tables every `MOVE_S`, many at once
(`sqlite_journal.py`). If another process is writing, or the disk is full, the batch stays and is tried again by a
timer; after `STUCK_S` those that want to begin are refused, while what has ended stays until it is written or the
store is closed. Decision 0009 has the figures.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from convene.errors import StoreFault
from convene.store.ledger_rows import row_of
from convene.store.sql_ledger import SqlLedger
from convene.store.sqlite_file import SecondFile, fault
from convene.store.sqlite_journal import Journal, move_all
from convene.store.sqlite_sync import WalSync, fdatasync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.clock import Clock
    from convene.store.base_ledger import Entry, Intent
    from convene.store.presence import Presence
    from convene.store.sqlite_file import SqliteFile

log = logging.getLogger(__name__)

MOVE_S: Final = 0.02
"""How long an entry may lie in the journal ..."""
MOVE_ROWS: Final = 96
"""... and with how many others: a move of these holds the loop up for less than a millisecond."""
GAP_S: Final = 0.001
"""Between two commits while there is more to do: each costs some 40 us and its sync two changes of thread, shared by
all that came meanwhile. A request that comes alone does not wait for it."""
CHECKPOINT_COMMITS: Final = 256
QUEUE_MAX: Final = 10_000
"""Intents that may wait for a store that does not take them; each has a request behind it."""
STUCK_S: Final = 5.0
CLOSE_S: Final = 10.0
"""How long closing tries to write what is left."""
RETRY_FIRST_S: Final = 0.001
RETRY_MAX_S: Final = 0.1


class _Batch:
    """A row of intents: its number once it is written, and how many of its intents are open."""

    __slots__ = ("left", "number")

    def __init__(self) -> None:
        self.number = -1
        self.left = 0


class SqliteLedger(SqlLedger):
    """The books of one SQLite file. Its writing half starts with the first call of `begin` or `finish`."""

    def __init__(
        self, file: SqliteFile, presence: Presence, clock: Clock, sync: Callable[[int], None] = fdatasync
    ) -> None:
        """`sync` makes a descriptor's data safe from power loss; a test hands in one that it watches."""
        self._reading = SecondFile(file.path)
        super().__init__(self._reading, presence)
        self._file = file
        self._clock = clock
        self._sync_call = sync
        self._open = True
        """New work is taken."""
        self._closed = False
        """Nothing is tried again."""
        self._broken: StoreFault | None = None
        self._begun: list[Intent] = []
        self._begun_waiters: list[asyncio.Future[None]] = []
        self._rows: list[list[Any]] = []
        self._finished_waiters: list[asyncio.Future[None]] = []
        self._unsynced: list[asyncio.Future[None]] = []
        """Of finished entries that are committed; those in `_syncing` wait for the fdatasync under way."""
        self._syncing: list[asyncio.Future[None]] | None = []  # the folder is synced first
        self._batch = _Batch()
        self._batches: dict[str, _Batch] = {}
        """Of every open intent."""
        self._over: list[_Batch] = []
        self._turn_to_come: asyncio.Handle | None = None
        """A commit, at the end of this turn of the loop or by a timer."""
        self._slot: asyncio.TimerHandle | None = None
        """The next commit, where the last one was a moment ago."""
        self._commit_at = 0.0
        self._move_at = 0.0
        self._mover: asyncio.TimerHandle | None = None
        self._stuck_since: float | None = None
        self._retry_s = RETRY_FIRST_S
        self._commits = 0
        self._started = False

    def begin(self, intent: Intent) -> asyncio.Future[None]:
        """Write down an intent (`base_ledger.Ledger`)."""
        if self._turn_to_come is None and self._slot is None:
            self._ensure()
            self._plan()
        if len(self._begun) >= QUEUE_MAX:
            raise StoreFault("Too many requests wait for the books.", detail=f"{QUEUE_MAX} intents are not written")
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._begun.append(intent)
        self._begun_waiters.append(waiter)
        self._batches[intent.id] = self._batch
        self._batch.left += 1
        return waiter

    def finish(self, entry: Entry) -> asyncio.Future[None]:
        """Write down an entry and end its intent (`base_ledger.Ledger`).

        Its commit may wait for the next sync, as its caller does: fewer commits, and none that nobody waits for.
        """
        if self._turn_to_come is None and self._slot is None:
            self._ensure()
            if self._syncing is None:
                self._plan()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._rows.append(row_of(entry))
        self._finished_waiters.append(waiter)
        batch = self._batches.pop(entry.id, None)
        if batch is not None:
            batch.left -= 1
            if not batch.left and batch is not self._batch:  # to that one others may still be added
                self._over.append(batch)
        return waiter

    async def flush(self) -> None:
        """Wait until everything begun and finished so far is written (`base_ledger.Ledger`)."""
        if self._started or not self._open:
            await self._mark()

    async def settle(self) -> None:
        """Move what lies in the journal, ours and that of others, into the tables."""
        if self._started and self._open and self._journal.waiting:
            self._commit(move=True)  # if it cannot be done now, it is done by the other thread, which waits
        if await self._reading.rows("SELECT 1 FROM journal LIMIT 1"):
            await self._reading.transact(move_all)

    async def aclose(self) -> None:
        """Write what is left and let go of connection, descriptor and thread; idempotent."""
        if not self._open:
            return
        if not self._started:
            self._open = False
            await self._reading.aclose()
            return
        try:
            if self._broken is None:
                last = self._mark()
                self._open = False
                await asyncio.wait([last], timeout=CLOSE_S)
        finally:
            self._open, self._closed = False, True
            for handle in (self._turn_to_come, self._mover, self._slot):
                if handle is not None:
                    handle.cancel()
            self._turn_to_come = None
            self._commit(move=True)
            self._fail(StoreFault("The store was closed before this was written."))
            self._journal.close()
            self._sync.end()
        await asyncio.to_thread(self._sync.wait)
        await self._reading.aclose()

    def _mark(self) -> asyncio.Future[None]:
        """Return what is done when everything up to now is written and on the disk."""
        if self._turn_to_come is None:
            self._schedule()
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._finished_waiters.append(waiter)
        return waiter

    def _schedule(self) -> None:
        """Let a commit follow at the end of this turn. Raises `StoreFault` if none can."""
        self._ensure()
        self._turn_to_come = self._loop.call_soon(self._turn)

    def _plan(self) -> None:
        """Let a commit follow, at the end of this turn if the last one is long enough ago."""
        wait_s = self._commit_at + GAP_S - self._loop.time()
        if wait_s <= 0:
            if self._turn_to_come is None:
                self._turn_to_come = self._loop.call_soon(self._turn)
        elif self._slot is None:
            self._slot = self._loop.call_later(wait_s, self._slot_came)

    def _slot_came(self) -> None:
        self._slot = None
        if self._turn_to_come is None:  # else that commit is about to be, or must wait
            self._commit()

    def _ensure(self) -> None:
        """Raise `StoreFault` if nothing can be written any more; start what writes if it has not been started."""
        if self._broken is not None:
            raise self._broken
        if not self._open:
            raise StoreFault("The store is closed.")
        if not self._started:
            self._start()

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        first = int.from_bytes(self._clock.token(8), "big") >> 2
        try:
            journal = Journal(self._file.path, self._presence.id, first)
            try:
                self._sync = WalSync(self._file.path, self._loop, self._synced, self._sync_call)
            except BaseException:  # it is raised on; the next call starts anew
                journal.close()
                raise
            self._journal = journal
        except (sqlite3.Error, OSError) as error:
            raise fault(self._file.path, error) from error
        self._started = True

    def _turn(self) -> None:
        self._turn_to_come = None
        self._commit()

    def _commit(self, *, move: bool = False) -> None:
        """Write the queue in one transaction, and let those go on who wait for no more than that."""
        if self._broken is not None:
            self._fail(self._broken)
            return
        now = self._commit_at = self._loop.time()
        waiting = self._journal.waiting + len(self._rows)
        move = bool(waiting) and (move or waiting >= MOVE_ROWS or now >= self._move_at)
        if self._begun or move or self._rows:
            if self._begun:
                self._batch.number = self._journal.next
            ended = [batch.number for batch in self._over] if move else ()
            try:
                self._journal.commit(self._begun, self._rows, ended, move=move)
            except sqlite3.Error as error:
                self._stuck(error, now)
                return
            self._written(now, move=move)
        waiters, self._finished_waiters = self._finished_waiters, []
        self._unsynced += waiters
        if self._unsynced and self._syncing is None:
            self._request_sync()

    def _written(self, now: float, *, move: bool) -> None:
        """Take note of a commit."""
        self._commits += 1
        self._stuck_since, self._retry_s = None, RETRY_FIRST_S
        if move:
            self._over = []
        if self._begun:
            if not self._batch.left:
                self._over.append(self._batch)
            self._batch = _Batch()
            self._begun = []
            waiters, self._begun_waiters = self._begun_waiters, []
            _release(waiters)
        self._rows = []
        if move:
            self._move_at = now + MOVE_S
        elif self._mover is None and self._journal.waiting:
            self._mover = self._loop.call_at(self._move_at, self._move)

    def _move(self) -> None:
        """Empty the journal, unless that was done meanwhile because of the number of its entries."""
        self._mover = None
        if self._journal.waiting and self._loop.time() < self._move_at:
            self._mover = self._loop.call_at(self._move_at, self._move)
        elif self._journal.waiting:
            self._commit(move=True)

    def _stuck(self, error: sqlite3.Error, now: float) -> None:
        """Try again later; refuse those who want to begin if it has lasted."""
        if self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since >= STUCK_S:
            if self._begun:
                log.error("the books could not be written for %.0f s: %s", now - self._stuck_since, error)
            self._refuse_begun(fault(self._file.path, error))
        if self._turn_to_come is None and not self._closed:
            self._turn_to_come = self._loop.call_later(self._retry_s, self._turn)
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _refuse_begun(self, reason: StoreFault) -> None:
        for intent in self._begun:
            self._batches.pop(intent.id, None)
        self._batch.number = -1  # it will never have a row
        self._batch = _Batch()
        self._begun = []
        waiters, self._begun_waiters = self._begun_waiters, []
        _release(waiters, reason)

    def _request_sync(self) -> None:
        self._syncing, self._unsynced = self._unsynced, []
        checkpoint = self._commits >= CHECKPOINT_COMMITS
        if checkpoint:
            self._commits = 0
        self._sync.request(checkpoint=checkpoint)

    def _synced(self, error: OSError | None) -> None:
        """Let those go on whose entries are on the disk; called on the loop after each fdatasync."""
        waiters, self._syncing = self._syncing or [], None
        if error is not None:
            self._broken = fault(self._file.path, error)
            log.critical("the disk did not take the books; no request is served until a restart: %s", error)
            _release(waiters, self._broken)
            self._fail(self._broken)
            return
        _release(waiters)
        if self._unsynced:
            self._request_sync()
        elif self._finished_waiters and self._slot is None:
            self._plan()

    def _fail(self, reason: StoreFault) -> None:
        """Tell everybody who still waits."""
        if self._rows:
            log.error("%d entries were not written", len(self._rows))
        self._refuse_begun(reason)
        waiters = [*self._finished_waiters, *self._unsynced]
        self._finished_waiters, self._unsynced, self._rows = [], [], []
        _release(waiters, reason)


def _release(waiters: Sequence[asyncio.Future[None]], reason: StoreFault | None = None) -> None:
    """Let these go on, or fail them; who is gone was cancelled, and has lost nothing."""
    for waiter in waiters:
        if not waiter.done():
            if reason is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(reason)
                waiter.exception()  # whether anybody asks or not: the caller may be gone

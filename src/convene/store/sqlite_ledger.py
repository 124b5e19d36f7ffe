"""The books in SQLite: a log of each writer's own in front of the tables (goals B1, B2, B6; decision 0031).

    begin   ──► the log, at once                                                     safe from kill -9
    finish  ──► gathered for this turn of the loop ──► the log ──► fdatasync          safe from power loss
                                                         └──► the tables, many at once, every `MOVE_S`
                                                                └──► their WAL synced, a mark in the log, every `MARK_S`

An append to the log takes some 2 us and waits for nobody; it is on the loop's thread, as are the moves. Threads wait
for the disk: one for the log alone, since answers wait for it, one for all else. Whoever reads the books brings in
first what the logs of all writers have beyond the tables (`sqlite_logs.py`).

If another process keeps the tables locked, or they are on a full disk, entries gather here and in the log until they
can be moved; once `WAITING_MAX` have gathered, those that want to begin are refused. A log that cannot be written
refuses them at once, while what has ended stays until it can be written or the store is closed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar

from convene.errors import StoreFault
from convene.store.book_log import ENTRIES, INTENT, MARK, Place, mark_body, unpacked_intent
from convene.store.book_log_writer import BookLog
from convene.store.ledger_rows import packed_intent, packed_values, row_of
from convene.store.presence import DEAD_AFTER_US
from convene.store.sql_ledger import SqlLedger
from convene.store.sqlite_entries import Mover, insert, move_old_journal
from convene.store.sqlite_file import SecondFile, fault
from convene.store.sqlite_logs import Logs, log_folder
from convene.store.sqlite_sync import DiskThread, Wal, check_linked, checkpoint, fdatasync, sync_folder
from convene.store.waiters import Waiter, release

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.store.base_ledger import Entry, Intent
    from convene.store.book_log_writer import Slot
    from convene.store.presence import Presence
    from convene.store.sqlite_file import SqliteFile

log = logging.getLogger(__name__)

Found = TypeVar("Found")

MOVE_S: Final = 0.05
"""How long an entry may lie in the log alone ..."""
MOVE_ROWS: Final = 128
"""... and with how many others: a move of these holds the loop up for less than a millisecond."""
GAP_S: Final = 0.003
"""Between two syncs, while others are under way that may share the next one ..."""
SHARE: Final = 8
"""... but for one in so many that wait. Windows of two seconds at 32 callers took 82 us a request so and 95 with a sync
for each half of them; runs of six seconds showed no difference that the machine's own unrest would not hide."""
MARK_S: Final = 1.0
"""How long after a move the disk is asked to have it."""
CHECKPOINT_MOVES: Final = 16
"""A move writes some 40 pages to the WAL."""
WAITING_MAX: Final = 10_000
"""Entries that may wait for tables that do not take them, about 1 kB each."""
CLOSE_S: Final = 10.0
"""How long closing tries to write what is left."""
RETRY_FIRST_S: Final = 0.001
RETRY_MAX_S: Final = 0.1


class SqliteLedger(SqlLedger):
    """The books of one SQLite file. Its writing half starts with the first call of `begin` or `finish`."""

    def __init__(self, file: SqliteFile, presence: Presence, sync: Callable[[int], None] = fdatasync) -> None:
        """`sync` makes a descriptor's data safe from power loss; a test hands in one that it watches."""
        self._reading = SecondFile(file.path)
        super().__init__(self._reading, presence)
        self._path = file.path
        self._folder = log_folder(file.path)
        self._logs = Logs(file.path)
        self._sync_call = sync
        self._open = True
        """New work is taken."""
        self._closed = False
        """Nothing is tried again."""
        self._started = False
        self._broken: StoreFault | None = None
        self._begun: dict[str, bytes] = {}
        """What the log has of every intent whose entry it does not have."""
        self._rows: list[list[Any]] = []
        """Of entries that are not in the log yet."""
        self._waiters: list[Waiter] = []
        """Of these entries; those in `_syncing` wait for the fdatasync under way."""
        self._syncing: list[Waiter] | None = None
        self._waiting: list[list[Any]] = []
        """Of entries that are in the log and not in the tables."""
        self._logged_to = self._moved_to = self._marked_to = Place(0, 0)
        """Up to where the log has entries, the tables have them, and a mark says so."""
        self._marking = False
        self._old: tuple[Slot, Place] | None = None
        """The slot whose turn is over, and where its entries end, while the tables, on the disk, lack some of it."""
        self._spare: Slot | None = None
        self._write_handle: asyncio.Handle | None = None
        self._may_wait = False
        """The write that is planned waits for others, not for the end of a turn or of a pause."""
        self._written_at = 0.0
        self._move_handle: asyncio.TimerHandle | None = None
        self._mark_handle: asyncio.TimerHandle | None = None
        self._retry_s = self._move_retry_s = RETRY_FIRST_S
        self._moves = 0

    # Writing.

    def begin(self, intent: Intent) -> Waiter:
        """Write down an intent (`base_ledger.Ledger`); done when this returns."""
        self._ensure()
        if len(self._waiting) >= WAITING_MAX:
            raise StoreFault("The books cannot be written now.", detail=f"{len(self._waiting)} entries wait for them")
        body = packed_intent(intent)
        try:
            self._log.append(INTENT, body)
        except OSError as error:
            raise fault(self._log.current.path, error) from error
        self._begun[intent.id] = body
        return self._done

    def finish(self, entry: Entry) -> Waiter:
        """Write down an entry and end its intent (`base_ledger.Ledger`); its log may wait for the sync before."""
        self._ensure()
        waiter: Waiter = self._loop.create_future()
        self._rows.append(row_of(entry))
        self._waiters.append(waiter)
        if self._syncing is None and (self._write_handle is None or (self._may_wait and self._shared)):
            self._plan()
        return waiter

    def _last(self) -> Waiter:
        """Return what is done when everything up to now is on the disk. Raises `StoreFault`."""
        self._ensure()
        waiter: Waiter = self._loop.create_future()
        self._waiters.append(waiter)
        if self._write_handle is None and self._syncing is None:
            self._plan()
        return waiter

    async def flush(self) -> None:
        """Wait until everything begun and finished so far is written (`base_ledger.Ledger`)."""
        if self._started:
            await self._last()

    # Reading.

    async def settle(self) -> None:
        """Bring into the tables what the log has, ours and that of others."""
        if self._waiting and not self._closed:
            self._move()  # if it cannot be done now, it is done by the other thread, which waits
        mine = "" if self._waiting else self._presence.id
        await self._read(lambda connection: self._logs.bring_in(connection, mine))
        if await self._reading.rows("SELECT 1 FROM journal LIMIT 1"):
            await self._reading.transact(move_old_journal)

    async def orphans(self, dead_after_us: int) -> list[Intent]:
        """Return what dead writers left open (`base_ledger.Ledger`), and end their logs."""
        await self._presence.wake(dead_after_us)
        await self._end_dead(dead_after_us)
        return await super().orphans(dead_after_us)

    async def open_intents(self) -> list[Intent]:
        """Return all intents without an entry (`base_ledger.Ledger`)."""
        await self.settle()
        mine = [unpacked_intent(body) for body in self._begun.values()]
        in_logs = await self._read(lambda connection: self._logs.open_intents(connection, self._presence.id, mine))
        in_tables = await super().open_intents()  # last: who takes over a dead one's log brings them there
        found = {intent.id: intent for intent in (*in_tables, *in_logs)}
        return sorted(found.values(), key=lambda intent: (intent.at_us, intent.id))

    async def forget_before(self, at_us: int) -> int:
        """Delete old entries (`base_ledger.Ledger`), having ended the logs that might still have them."""
        await self._end_dead(DEAD_AFTER_US)
        return await super().forget_before(at_us)

    async def aclose(self) -> None:
        """Write what is left and let go of files and threads; idempotent."""
        if not self._open:
            return
        if not self._started:
            self._open = False
            await self._reading.aclose()
            return
        try:
            if self._broken is None:
                last = self._last()
                self._open = False
                await asyncio.wait([last], timeout=CLOSE_S)
        finally:
            self._open, self._closed = False, True
            for handle in (self._write_handle, self._move_handle, self._mark_handle):
                if handle is not None:
                    handle.cancel()
            self._fail(StoreFault("The store was closed before this was written."))
            if self._waiting:
                self._move()
            self._mover.close()
            self._syncs.end()
            self._upkeep.end()
        if self._waiting and self._broken is None:
            await self._move_last()
        await asyncio.to_thread(self._let_go)
        await self._reading.aclose()

    # Starting and ending.

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
        self._done: Waiter = self._loop.create_future()
        self._done.set_result(None)
        try:
            self._mover = Mover(self._path)
            try:
                self._wal = Wal(self._path, self._sync_call)
                try:
                    self._log = BookLog(self._folder, self._presence.id)
                except BaseException:  # it is raised on; no descriptor is left open
                    self._wal.close()
                    raise
            except BaseException:  # it is raised on; the next call starts anew
                self._mover.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise fault(self._path, error) from error
        self._logged_to = self._moved_to = self._marked_to = self._log.place
        self._syncs = DiskThread("convene-store-sync", self._loop)
        self._upkeep = DiskThread("convene-store-upkeep", self._loop)
        self._started = True
        self._syncing = []  # names first
        self._syncs.order(self._sync_names, self._synced)
        self._upkeep.order(self._log.make_second, self._second_made)

    def _sync_names(self) -> None:
        sync_folder(self._folder)
        sync_folder(self._path.parent)

    async def _move_last(self) -> None:
        """Bring what is left into the tables by the other thread, which waits for those who keep them locked."""
        rows = self._waiting
        try:
            await self._reading.transact(lambda connection: insert(connection, rows))
        except StoreFault as reason:
            log.warning("%d entries stay in their log, where the next reader finds them: %s", len(rows), reason.detail)
        else:
            self._waiting = []

    def _let_go(self) -> None:
        """End the threads and close the files; the log goes too if the tables, on the disk, have all of it. Blocks."""
        self._syncs.wait()
        self._upkeep.wait()
        needed = self._broken is not None or bool(self._begun or self._waiting)
        if not needed:
            try:
                self._wal.sync()
            except OSError as error:
                log.warning("the books stay in their log: %s", error)
                needed = True
        self._wal.close()
        for slot in self._log.slots:
            slot.close(remove=not needed)

    # The log.

    @property
    def _shared(self) -> bool:
        """Whether nearly all that are under way wait for the next sync."""
        waiting = len(self._rows)
        return waiting >= SHARE * (len(self._begun) - waiting)

    def _plan(self) -> None:
        """Let what has gathered be written: at the end of this turn of the loop, or later with those still to come."""
        wait_s = 0.0
        if not self._shared:
            wait_s = self._written_at + GAP_S - self._loop.time()
        if wait_s <= 0:
            if self._write_handle is not None:
                self._write_handle.cancel()
            self._may_wait = False
            self._write_handle = self._loop.call_soon(self._write)
        elif self._write_handle is None:
            self._may_wait = True
            self._write_handle = self._loop.call_later(wait_s, self._write)

    def _write(self) -> None:
        """Write what has gathered to the log, and have it synced."""
        self._write_handle = None
        if self._broken is not None:
            return
        self._written_at = self._loop.time()
        if self._rows:
            try:
                self._log.append(ENTRIES, packed_values(self._rows))
            except OSError as error:
                if self._retry_s >= RETRY_MAX_S:
                    log.error("%s cannot be written: %s", self._log.current.path, error)  # noqa: TRY400
                self._may_wait = False
                self._write_handle = self._loop.call_later(self._retry_s, self._write)
                self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
                return
            self._retry_s = RETRY_FIRST_S
            for row in self._rows:
                self._begun.pop(row[0], None)
            self._waiting += self._rows
            self._rows = []
            self._logged_to = self._log.place
        self._syncing, self._waiters = self._waiters, []
        self._syncs.order(self._sync_of(self._log.current), self._synced)
        if self._log.full and self._spare is not None:
            self._turn_over(self._spare)
        if len(self._waiting) >= MOVE_ROWS and self._move_retry_s == RETRY_FIRST_S:
            self._move()
        elif self._waiting and self._move_handle is None:
            self._move_handle = self._loop.call_later(MOVE_S, self._move)

    def _sync_of(self, slot: Slot) -> Callable[[], None]:
        def sync() -> None:
            self._sync_call(slot.file)
            check_linked(slot.file, slot.path)

        return sync

    def _synced(self, error: OSError | None) -> None:
        """Let those go on whose entries are on the disk; called on the loop after each sync."""
        waiters, self._syncing = self._syncing or [], None
        if error is not None:
            self._break(error)
            release(waiters, self._broken)
            return
        release(waiters)
        if self._waiters and self._write_handle is None:
            self._plan()

    def _turn_over(self, spare: Slot) -> None:
        """Go on in the other slot. The old one is spare once the tables, on the disk, have all that it has."""
        try:
            old = self._log.turn_to(spare, [(INTENT, body) for body in self._begun.values()])
        except OSError as error:
            log.warning("%s cannot be written: %s", spare.path, error)
        else:
            self._old, self._spare = (old, self._logged_to), None
            self._plan_mark()

    def _second_made(self, error: OSError | None) -> None:
        if error is None:
            self._spare = self._log.slots[1]
        else:
            log.warning("the log of the books cannot have a second file: %s", error)

    # The tables.

    def _move(self) -> None:
        """Bring what only the log has into the tables; if that cannot be done now, try again later."""
        if self._move_handle is not None:
            self._move_handle.cancel()
            self._move_handle = None
        if not self._waiting or self._broken is not None:
            return
        try:
            self._mover.move(self._waiting)
        except sqlite3.Error as error:
            if self._move_retry_s >= RETRY_MAX_S:
                log.warning("%d entries wait for the tables: %s", len(self._waiting), error)
            if not self._closed:
                self._move_handle = self._loop.call_later(self._move_retry_s, self._move)
                self._move_retry_s = min(2 * self._move_retry_s, RETRY_MAX_S)
            return
        self._move_retry_s = RETRY_FIRST_S
        self._waiting = []
        self._moved_to = self._logged_to
        self._moves += 1
        if self._moves % CHECKPOINT_MOVES == 0 and not self._closed:
            self._upkeep.order(lambda: checkpoint(self._path), lambda _: None)
        self._plan_mark()

    def _plan_mark(self) -> None:
        """Let a mark follow, at once if an old slot waits for nothing else: the current one must not outgrow it."""
        if self._marking or self._closed:
            return
        if self._old is not None and self._moved_to >= self._old[1]:
            self._order_mark()
        elif self._mark_handle is None:
            self._mark_handle = self._loop.call_later(MARK_S, self._order_mark)

    def _order_mark(self) -> None:
        if self._mark_handle is not None:
            self._mark_handle.cancel()
            self._mark_handle = None
        self._marking = True
        moved_to = self._moved_to
        self._upkeep.order(self._wal.sync, lambda error: self._mark(moved_to, error))

    def _mark(self, moved_to: Place, error: OSError | None) -> None:
        """Note in the log that readers need not bring in what lies before; the disk has it in the tables."""
        self._marking = False
        if error is not None:
            self._break(error)
        if self._broken is not None or self._closed:
            return
        if moved_to > self._marked_to:
            try:
                self._log.append(MARK, mark_body(moved_to))
            except OSError as failure:  # readers bring in some entries that the tables have already
                log.info("%s cannot be written: %s", self._log.current.path, failure)
            else:
                self._marked_to = moved_to
        if self._old is not None and moved_to >= self._old[1]:
            old, self._old = self._old[0], None
            self._upkeep.order(old.fill, lambda _: self._freed(old))
        if self._moved_to > self._marked_to or self._old is not None:
            self._plan_mark()

    def _freed(self, slot: Slot) -> None:
        self._spare = slot

    # Faults.

    def _break(self, error: OSError) -> None:
        """Take nothing more: the disk did not take what was written."""
        if self._broken is None:
            self._broken = fault(self._path, error)
            log.critical("the disk did not take the books; no request is served until a restart: %s", error)
        self._fail(self._broken)

    def _fail(self, reason: StoreFault) -> None:
        """Tell everybody who waits that it is not written."""
        if self._rows:
            log.error("%d entries were not written", len(self._rows))
        waiters, self._waiters, self._rows = self._waiters, [], []
        release(waiters, reason)

    async def _read(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        """Return what `work` finds over the connection that reads. Raises `StoreFault`."""
        try:
            return await self._reading.run(work)
        except OSError as error:
            raise fault(self._folder, error) from error

    async def _end_dead(self, dead_after_us: int) -> None:
        seen_us = self._presence.now_us() - dead_after_us
        await self._read(lambda connection: self._logs.end_dead(connection, self._presence.id, seen_us))

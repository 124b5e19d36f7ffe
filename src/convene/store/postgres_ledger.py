"""The books in Postgres: group commit, one statement and one round trip a transaction (goals B1, B6).

    begin, finish ──► queue ──► one group at a time, over a session of its own ──► committed ──► their callers go on

While a group is on its way, the next one gathers: so many callers share one wait for the disk. The statement inserts
entries that are not there yet, adds those and only those to the sums of their days, writes the group's intents as one
row and deletes rows whose intents have all ended. Everything in it has a name, so it may be sent again whatever became
of it: that is what happens when the connection is lost, whether before the commit or after. Locks are taken in one
order, entries by id, then sums by key, so that replicas never wait for each other in a circle.

If the database is away for `STUCK_S`, those that want to begin are refused; what has ended stays and is tried again
until it is written or the store is closed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from convene.errors import StoreFault
from convene.limits.limit import DAY_US
from convene.store.ledger_rows import ENTRY_FIELDS, FIGURES, MOST, entry_of, packed_intents, row_of, storable
from convene.store.migrations import BOOKS
from convene.store.postgres_wire import COMMAND_S, clean, end, fault
from convene.store.schema import Table
from convene.store.sql_ledger import SqlLedger
from convene.store.waiters import Waiter, release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.clock import Clock
    from convene.store.base_ledger import Entry, Intent
    from convene.store.postgres_pool import PostgresPool
    from convene.store.postgres_wire import Session
    from convene.store.presence import Presence

log = logging.getLogger(__name__)

GROUP_MAX: Final = 1_000
"""Entries a transaction: some 50 ms of a database's work."""
QUEUE_MAX: Final = 10_000
"""Intents that may wait for a database that is away; each has a request behind it."""
STUCK_S: Final = 5.0
CLOSE_S: Final = 10.0
"""How long closing tries to write what is left."""
RETRY_FIRST_S: Final = 0.01
RETRY_MAX_S: Final = 0.5

_TYPES: Final = {
    column.name: {"bool": "boolean", "int": "bigint"}.get(column.type, "text")
    for table in BOOKS
    if isinstance(table, Table) and table.name == "entries"
    for column in table.columns
}
_COLUMNS: Final = ", ".join(ENTRY_FIELDS)
_GIVEN: Final = ", ".join(f"{name} {_TYPES[name]}" for name in ENTRY_FIELDS)
_VALUES: Final = ", ".join(f"{name}::int" if _TYPES[name] == "boolean" else name for name in ENTRY_FIELDS)
_FIGURES: Final = ", ".join(FIGURES)
_SUMMED: Final = ", ".join(f"sum({name})" for name in FIGURES)
_ADDED: Final = ", ".join(f"{name} = day_sums.{name} + excluded.{name}" for name in ("requests", *FIGURES))
_WRITE: Final = f"""
    WITH given AS (
        SELECT * FROM ROWS FROM (json_to_recordset($1::json) AS ({_GIVEN})) WITH ORDINALITY
    ), fresh AS (
        INSERT INTO entries ({_COLUMNS}) SELECT {_VALUES} FROM given ORDER BY id, ordinality ON CONFLICT DO NOTHING
        RETURNING key_id, model, at_us / {DAY_US} AS day, user_id, team_id, {_FIGURES}
    ), summed AS (
        INSERT INTO day_sums (key_id, model, day, user_id, team_id, requests, {_FIGURES})
        SELECT key_id, model, day, user_id, team_id, count(*), {_SUMMED} FROM fresh
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (key_id, model, day, user_id, team_id) DO UPDATE SET {_ADDED}
    ), begun AS (
        INSERT INTO intents (number, writer, body) SELECT $2::bigint, $3::text, $4::bytea WHERE $4::bytea IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    DELETE FROM intents WHERE number = ANY($5::bigint[])
"""  # noqa: S608 -- constants
_NUL: Final = b"\\u0000"
_encode: Final = msgspec.json.Encoder().encode


class _Batch:
    """A row of intents: its number, and how many of its intents are open."""

    __slots__ = ("left", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.left = 0


class _Group:
    """What is written in one transaction, and who waits for it."""

    __slots__ = ("batch", "body", "entries", "gone", "intents", "waiters")

    def __init__(self, entries: list[tuple[Entry, Waiter]], batch: _Batch, gone: list[int]) -> None:
        self.entries = entries
        self.batch = batch
        self.gone = gone
        """Numbers of rows of intents that are to be deleted."""
        self.body = _packed([entry for entry, _ in entries])
        self.intents: bytes | None = None
        self.waiters: list[Waiter] = []
        """Of the intents."""


class PostgresLedger(SqlLedger):
    """The books of one database. Its writing half starts with the first call of `begin` or `finish`."""

    def __init__(self, pool: PostgresPool, presence: Presence, clock: Clock) -> None:
        super().__init__(pool, presence)
        self._wire = pool.wire
        self._session: Session | None = None
        self._open = True
        self._begun: list[tuple[Intent, Waiter]] = []
        self._finished: list[tuple[Entry, Waiter]] = []
        self._marks: list[Waiter] = []
        """Of callers who wait for all that was queued before."""
        self._batch = _Batch(int.from_bytes(clock.token(8), "big") >> 2)
        self._batches: dict[str, _Batch] = {}
        """Of every open intent."""
        self._wake = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._stuck_since: float | None = None

    def begin(self, intent: Intent) -> Waiter:
        """Write down an intent (`base_ledger.Ledger`)."""
        loop = self._start()
        if self._is_stuck(loop) or len(self._begun) >= QUEUE_MAX:
            raise StoreFault("The books cannot be written.", detail="Postgres has been away for too long")
        waiter = loop.create_future()
        self._begun.append((intent, waiter))
        self._batches[intent.id] = self._batch
        self._batch.left += 1
        self._wake.set()
        return waiter

    def finish(self, entry: Entry) -> Waiter:
        """Write down an entry and end its intent (`base_ledger.Ledger`)."""
        waiter = self._start().create_future()
        self._finished.append((entry, waiter))
        self._wake.set()
        return waiter

    async def flush(self) -> None:
        """Wait until everything begun and finished so far is written (`base_ledger.Ledger`)."""
        if not self._open:
            raise StoreFault("The store is closed.")
        if self._writing is not None:
            await self._mark()

    async def aclose(self) -> None:
        """Write what is left and let go of the session; idempotent."""
        if not self._open:
            return
        self._open = False
        writing = self._writing
        if writing is None:
            return
        try:
            await asyncio.wait([self._mark()], timeout=CLOSE_S)
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            if self._finished:
                log.error("%d entries were not written", len(self._finished))
            reason = StoreFault("The store was closed before this was written.")
            release([waiter for _, waiter in (*self._begun, *self._finished)], reason)
            release(self._marks, reason)
            if self._session is not None:
                await end(self._session)

    def _start(self) -> asyncio.AbstractEventLoop:
        if not self._open:
            raise StoreFault("The store is closed.")
        loop = asyncio.get_running_loop()
        if self._writing is None:
            self._writing = loop.create_task(self._write_on(), name="ledger")
        return loop

    def _mark(self) -> Waiter:
        waiter = asyncio.get_running_loop().create_future()
        self._marks.append(waiter)
        self._wake.set()
        return waiter

    async def _write_on(self) -> None:
        """Write group after group, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            marks, self._marks = self._marks, []
            before = len(self._finished)
            while self._begun or self._finished:
                # One turn more: those whom the last group has let go on come back now, and go with this one.
                await asyncio.sleep(0)
                group = self._take()
                try:
                    await self._write(group)
                except asyncio.CancelledError:
                    self._put_back(group)
                    raise
                before -= len(group.entries)
                if before <= 0:
                    release(marks)
            release(marks)

    def _take(self) -> _Group:
        """Make a group of the queue: all intents, and as many entries as one transaction may have."""
        batch = self._batch
        begun, self._begun = self._begun, []
        entries, self._finished = self._finished[:GROUP_MAX], self._finished[GROUP_MAX:]
        self._batch = _Batch(batch.number + 1)
        gone: list[int] = []
        for entry, _ in entries:
            ended = self._batches.pop(entry.id, None)
            if ended is not None:
                ended.left -= 1
                if not ended.left and ended is not batch:
                    gone.append(ended.number)
        group = _Group(entries, batch, gone)
        group.waiters = [waiter for _, waiter in begun]
        if batch.left:  # else all of them end in this very transaction
            group.intents = packed_intents(intent for intent, _ in begun)
        return group

    def _put_back(self, group: _Group) -> None:
        """Let `aclose` count and tell what did not come to be written."""
        self._finished[:0] = group.entries
        self._marks += group.waiters

    async def _write(self, group: _Group) -> None:
        """Write a group, however often it takes, and let its callers go on."""
        loop = asyncio.get_running_loop()
        pause_s, patience_s = RETRY_FIRST_S, STUCK_S
        while (reason := await self._send(group, patience_s)) is not None:
            if self._wire.is_poison(reason.__cause__):
                await self._divide(group, reason)
                return
            if self._stuck_since is None:
                self._stuck_since = self._sent_at
                log.warning("the books could not be written, trying again: %s", reason.detail)
            if self._is_stuck(loop):
                self._refuse(group, reason)
            await asyncio.sleep(pause_s)
            pause_s, patience_s = min(2 * pause_s, RETRY_MAX_S), min(2 * patience_s, COMMAND_S)
        self._stuck_since = None
        release(group.waiters)
        release(waiter for _, waiter in group.entries)

    async def _send(self, group: _Group, patience_s: float) -> StoreFault | None:
        """Send a group once and return None, or what went wrong; then it may have been written or not."""
        self._sent_at = asyncio.get_running_loop().time()
        session, sound = self._session, False
        values = (group.body, group.batch.number, self._presence.id, group.intents, group.gone)
        try:
            async with asyncio.timeout(patience_s):
                if session is None or session.is_closed():
                    session = self._session = await self._wire.connect()
                await session.execute(_WRITE, *values)
            sound = True
        except StoreFault as reason:
            return reason
        except self._wire.failures as error:
            sound = self._wire.was_refused(error)
            found = fault(error)
            found.__cause__ = error
            return found
        finally:
            if session is not None and not sound:
                session.terminate()
        return None

    async def _divide(self, group: _Group, reason: StoreFault) -> None:
        """Write a group that holds an entry which Postgres refuses: in halves, until that one is alone and fails."""
        if len(group.entries) > 1:
            middle = len(group.entries) // 2
            first = _Group(group.entries[:middle], group.batch, [])
            first.intents, first.waiters = group.intents, group.waiters
            await self._write(first)
            await self._write(_Group(group.entries[middle:], group.batch, group.gone))
            return
        log.critical("an entry cannot be written and is lost: %s %s", group.body, reason.detail)
        release([waiter for _, waiter in group.entries], reason)
        rest = _Group([], group.batch, group.gone)
        rest.intents, rest.waiters = group.intents, group.waiters
        await self._write(rest)

    def _is_stuck(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._stuck_since is not None and loop.time() - self._stuck_since >= STUCK_S

    def _refuse(self, group: _Group, reason: StoreFault) -> None:
        """Let nobody wait for a beginning; what was perhaps written of it is deleted with what has ended."""
        if group.intents is not None:
            group.intents = None
            group.gone.append(group.batch.number)
            self._forget(group.batch)
        begun, self._begun = self._begun, []
        self._forget(self._batch)
        self._batch = _Batch(self._batch.number + 1)
        release(group.waiters, reason)
        release([waiter for _, waiter in begun], reason)
        group.waiters = []

    def _forget(self, batch: _Batch) -> None:
        self._batches = {name: one for name, one in self._batches.items() if one is not batch}


def _packed(entries: Sequence[Entry]) -> str:
    """Return entries as a JSON list of objects, in which everything can be kept by Postgres."""
    fitting = [entry if _fits(entry) else _mended(entry) for entry in entries]
    try:
        body = _encode(fitting)
    except (UnicodeError, OverflowError):
        body = _NUL
    if _NUL in body:
        body = _encode([_mended(entry) for entry in entries])
    return body.decode()


def _fits(entry: Entry) -> bool:
    """Whether the figures are within what sums can hold."""
    figures = (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens, entry.reasoning_tokens)
    others = (entry.images, entry.tool_calls, entry.agent_calls, entry.cost_micros)
    return max(figures) <= MOST and max(others) <= MOST and min(figures) >= 0 and min(others) >= 0


def _mended(entry: Entry) -> Entry:
    """Return an entry with everything replaced that no database, or not this one, can hold."""
    row: list[Any] = [clean(value) if isinstance(value, str) else value for value in row_of(entry)]
    return entry_of(storable(row))

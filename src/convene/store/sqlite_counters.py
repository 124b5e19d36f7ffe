"""Counters that the processes of one host share: one SQLite file, read, checked and written under its write lock.

Called on the event loop itself: a decision takes tens of microseconds, less than handing it to a thread would. The file
is WAL without fsync: it outlives kill -9, not a power cut, and needs not to, as counters are rebuilt from the ledger.
Its name has the boot id in it, for two reasons: the clock of rates counts from the boot, and a file that a power cut
may have torn is never opened again.

    cells    id, first, second    the state of each counter, small rows that lie together; id & 7 is the kind
             0: the earliest end of any lease (or earlier), and how often `sets` was cleaned
            -1: how many leases are over but not ended yet, and whether the rebuilding is still unclaimed
    names    id -> the counter's name; no id is used twice, so an id that somebody remembers is right or missing
    sets     the limits of requests, under a digest, so that a lease is a short row
    leases   lease -> its set, its end, whether it is over, and what it holds (`_Lease`)
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from hashlib import blake2b
from operator import sub
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from convene.errors import NotFound, StoreFault
from convene.limits import gcra
from convene.limits.gcra import Moment
from convene.limits.limit import DAY_US, Amounts, Grant, Limit, Refusal, Unit
from convene.limits.periods import Calendar, number_of
from convene.limits.steps import DAY, MONTH, RATE, SLOTS, charge, kind_of, settle, shown, steps_of
from convene.store.near_counters import NearCounters
from convene.store.sqlite_file import make_private
from convene.store.sqlite_open import is_busy, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from convene.clock import Clock
    from convene.limits.gcra import State
    from convene.store.base_counters import Past

T = TypeVar("T")

WAIT_S: Final = 0.05
"""How long a call waits for other processes' writes, which take tens of microseconds, before it fails (goal A8)."""

_SHAPE: Final = 1
"""Part of the file's name: another shape of the tables begins with an empty file."""
_FIRST_PAUSE_S: Final = 0.00005
_LONGEST_PAUSE_S: Final = 0.001
_NEVER_US: Final = 1 << 62
_PLANS_MOST: Final = 16_384
_SETS_MOST: Final = 4_096
"""So many sets this process adds before it removes those that no lease uses."""
_SWEPT: Final = 512
_MARGIN_US: Final = 2 * DAY_US
"""How long a budget's period must be over before it is forgotten: a wall clock that was ahead may be set back."""

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS cells (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, second INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS sets (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS leases (lease TEXT PRIMARY KEY, set_id INTEGER NOT NULL, ends_us INTEGER NOT NULL,"
        " over INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID"
    ),
    f"INSERT OR IGNORE INTO cells VALUES (0, {_NEVER_US}, 0), (-1, 0, 1), (-2, 8, 0)",  # noqa: S608 -- constants
)
_ADD_LEASE: Final = "INSERT OR IGNORE INTO leases VALUES (?, ?, ?, 0, ?)"
_TAKE_LEASE: Final = "DELETE FROM leases WHERE lease = ? RETURNING set_id, over, body"


class _Lease(msgspec.Struct, array_like=True, gc=False):
    """What a lease holds, as it is kept."""

    reserved: Sequence[int]
    now_us: int
    after: list[tuple[int, int]]
    """With `now_us`, the first answer: all states after it."""
    charged: Sequence[tuple[int, int]]
    """For each limit, if any is a budget: the period that was charged last, and the units charged in it."""
    round_number: int = 0


class _Plan:
    """A tuple of limits made ready: for the loops, and, once `ids` are known, for the file."""

    __slots__ = ("body", "budgets", "ids", "limits", "put", "put_end", "select", "set_id", "sets_cleaned", "steps")

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self.limits = limits
        self.steps = steps_of(limits)
        self.budgets = any(one.kind == "budget" for one in limits)
        self.body = msgspec.msgpack.encode(limits)
        self.set_id = int.from_bytes(blake2b(self.body, digest_size=8).digest(), "big", signed=True)
        self.sets_cleaned = -1
        self.ids: tuple[int, ...] = ()
        values = f"VALUES {'(?), ' * len(limits)}(0)"
        # CROSS JOIN keeps the order of the ids; IN or OR would build a temporary index, which takes longer.
        self.select = f"SELECT first, second FROM ({values}) AS v CROSS JOIN cells ON cells.id = v.column1"  # noqa: S608 -- constants
        self.put_end = f"REPLACE INTO cells VALUES {'(?, ?, ?), ' * len(limits)}(?, ?, ?)"  # noqa: S608 -- constants
        self.put = self.put_end.removesuffix(", (?, ?, ?)") if limits else "SELECT 1"


class LocalSqliteCounters:
    """`LocalCounters` over one file. For one thread; `SqliteCounters` has the other face of it."""

    outlives = True

    def __init__(
        self, connection: sqlite3.Connection, path: Path, clock: Clock, pause: Callable[[float], None]
    ) -> None:
        self._path = path
        self._pause = pause
        self._connection = connection
        cursor = connection.cursor()
        self._execute = cursor.execute
        self._execute_many = cursor.executemany
        self._cursor = cursor
        self._monotonic = clock.monotonic
        self._wall = clock.now
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Lease).decode
        self._plans: dict[int, _Plan] = {}
        self._plans_of_sets: dict[int, _Plan] = {}
        self._calendar = Calendar()
        self._sets_added = 0
        self._swept_id = 0

    @classmethod
    def open(cls, folder: Path, clock: Clock, boot_id: str, pause: Callable[[float], None] = time.sleep) -> Self:
        """Open the counters of this boot in `folder`, creating them, and remove those of earlier boots.

        Args:
            folder: where the store is; made, for its owner only, if it is not there.
            clock: its monotonic time must be the machine's, the same for all processes.
            boot_id: changes with every start of the machine, letters, digits and hyphens.
            pause: waits so many seconds, in place; asked only when another process is writing.

        Raises:
            StoreFault: the file cannot be made or used.
        """
        name = f"counters-{_SHAPE}-{boot_id}.db"
        path = folder / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in folder.glob("counters-*.db*"):
                if not old.name.startswith(name):
                    old.unlink(missing_ok=True)
            make_private(path)
            return cls(opened(path, _prepare, pause=pause), path, clock, pause)
        except (sqlite3.Error, OSError) as error:
            raise _fault(path, error) from error

    def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`."""
        if min(amounts) < 0:
            gcra.check(amounts)
        plan = self._plans.get(id(limits)) or self._plan(limits)
        return self._run(self._reserve, plan, lease, amounts, lease_us)

    def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`."""
        gcra.check(amounts)
        return self._run(self._top_up, lease, round_number, amounts._replace(slots=0), lease_us)

    def settle(self, lease: str, actual: Sequence[int]) -> Grant | None:
        """See `LocalCounters.settle`."""
        if min(actual) < 0:
            gcra.check(actual)
        return self._run(self._settle, lease, actual)

    def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`."""
        if leases:
            self._run(self._renew, leases, lease_us)

    def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`; also forgets some of the counters that mean nothing any more."""
        return self._run(self._expire)

    def overdue(self) -> tuple[str, ...]:
        """See `LocalCounters.overdue`; also forgets some of the counters that mean nothing any more."""
        return self._run(self._overdue)

    def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`."""
        return self._run(self._levels, self._plans.get(id(limits)) or self._plan(limits))

    def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`."""
        self._run(self._replay, past)

    def fresh(self) -> bool:
        """See `Counters.fresh`."""
        return self._run(self._claim)

    def close(self) -> None:
        """Close the file; idempotent. Later calls raise `StoreFault`."""
        self._connection.close()

    # The parts that run under the write lock.

    def _reserve(self, plan: _Plan, lease: str, amounts: Sequence[int], lease_us: int) -> Grant | Refusal:
        now_us, rows = self._read(plan)
        after = charge(plan.steps, rows, amounts, now_us, self._calendar.numbers(self._wall()))
        if after is None:
            return self._first_answer(lease) or self._refusal(plan, rows, amounts, now_us)
        charged = _charged(plan, after, amounts) if plan.budgets else ()
        ends_us = now_us + lease_us
        body = self._encode(_Lease(amounts, now_us, after, charged))
        self._execute(_ADD_LEASE, (lease, plan.set_id, ends_us, body))
        if self._cursor.rowcount == 0 and (answer := self._first_answer(lease)):
            return answer
        self._write(plan, after, rows, ends_us)
        return Grant(now_us, shown(plan.steps, after))

    def _top_up(self, lease: str, round_number: int, further: Amounts, lease_us: int) -> Grant | Refusal:
        row = self._execute("SELECT set_id, ends_us, over, body FROM leases WHERE lease = ?", (lease,)).fetchone()
        if row is None or row[2] or row[1] <= int(self._monotonic() * 1e6 + 0.5):
            raise NotFound("There is no such lease: it was settled, or its time is up.", detail=lease)
        plan, held = self._plan_of(row[0]), self._decode(row[3])
        if round_number <= held.round_number:
            return self._levels(plan)
        now_us, rows = self._read(plan)
        after = charge(plan.steps, rows, further, now_us, self._calendar.numbers(self._wall()))
        if after is None:
            return self._refusal(plan, rows, further, now_us)
        held.charged = [
            (period, units + (earlier if period == last else 0))
            for (period, units), (last, earlier) in zip(_charged(plan, after, further), held.charged, strict=False)
        ]
        held.reserved = [one + other for one, other in zip(held.reserved, further, strict=True)]
        held.round_number = round_number
        ends_us = now_us + lease_us
        update = "UPDATE leases SET ends_us = ?, body = ? WHERE lease = ?"
        self._execute(update, (ends_us, self._encode(held), lease))
        self._write(plan, after, rows, ends_us)
        return Grant(now_us, shown(plan.steps, after))

    def _settle(self, lease: str, actual: Sequence[int]) -> Grant | None:
        row = self._execute(_TAKE_LEASE, (lease,)).fetchone()
        if row is None:
            return None
        set_id, over, body = row
        plan, held = self._plans_of_sets.get(set_id) or self._plan_of(set_id), self._decode(body)
        if over:
            self._execute("UPDATE cells SET first = first - 1 WHERE id = -1")
        now_us, rows = self._read(plan)
        difference = list(map(sub, actual, held.reserved))
        difference[Unit.SLOTS] = 0 if over else -held.reserved[Unit.SLOTS]
        numbers = self._calendar.numbers(self._wall())
        after = settle(plan.steps, rows, difference, now_us, numbers, held.charged or held.after)
        self._write(plan, after, rows, _NEVER_US)
        return Grant(now_us, shown(plan.steps, after))

    def _renew(self, leases: Sequence[str], lease_us: int) -> None:
        now_us = int(self._monotonic() * 1e6 + 0.5)
        ends_us = now_us + lease_us
        update = "UPDATE leases SET ends_us = ? WHERE lease = ? AND NOT over AND ends_us > ?"
        self._execute_many(update, [(ends_us, lease, now_us) for lease in leases])
        self._execute("UPDATE cells SET first = min(first, ?) WHERE id = 0", (ends_us,))

    def _overdue(self) -> tuple[str, ...]:
        now_us = int(self._monotonic() * 1e6 + 0.5)
        self._sweep(now_us)
        [earliest_us, _], [over, _] = self._execute(
            "SELECT first, second FROM cells WHERE id IN (0, -1) ORDER BY id DESC"
        ).fetchall()
        if earliest_us <= now_us:
            over += self._retire(now_us)
        found = self._execute("SELECT lease FROM leases WHERE over").fetchall() if over else []
        return tuple(lease for (lease,) in found)

    def _expire(self) -> tuple[str, ...]:
        if not self._overdue():
            return ()
        ended = self._execute("DELETE FROM leases WHERE over RETURNING lease").fetchall()
        self._execute("UPDATE cells SET first = 0 WHERE id = -1")
        return tuple(lease for (lease,) in ended)

    def _levels(self, plan: _Plan) -> Grant:
        now_us, rows = self._read(plan)
        moment = Moment(now_us, int(self._wall() * 1e6))
        lifted = [gcra.lift(limit, row, moment) for limit, row in zip(plan.limits, rows, strict=False)]
        return Grant(now_us, gcra.shown(plan.limits, lifted))

    def _replay(self, past: Sequence[Past]) -> None:
        moment = Moment(int(self._monotonic() * 1e6 + 0.5), int(self._wall() * 1e6))
        for limit, remainder in gcra.remains(past, moment.wall_us).values():
            cell = self._cell(limit)
            row = self._execute("SELECT first, second FROM cells WHERE id = ?", (cell,)).fetchone()
            state = gcra.add(limit, gcra.lift(limit, row, moment), remainder)
            self._execute("REPLACE INTO cells VALUES (?, ?, ?)", (cell, *state))

    def _claim(self) -> bool:
        self._execute("UPDATE cells SET second = 0 WHERE id = -1 AND second = 1")
        return self._cursor.rowcount == 1

    # What they share.

    def _run(self, work: Callable[..., T], *args: object) -> T:
        """Return `work(*args)` under the write lock: all of it is kept, or, if it raises, nothing."""
        try:
            self._begin()
            try:
                result = work(*args)
                self._execute("COMMIT")
            except BaseException:  # whatever it was, nothing half-done is kept; it is raised on
                if self._connection.in_transaction:
                    self._connection.rollback()
                raise
        except sqlite3.Error as error:
            raise _fault(self._path, error) from error
        return result

    def _begin(self) -> None:
        """Take the write lock: at once as a rule; else try again after short pauses, for `WAIT_S` at most."""
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        else:
            return
        give_up_s, waited_s, pause_s = self._monotonic() + WAIT_S, 0.0, _FIRST_PAUSE_S
        while True:
            self._pause(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                self._execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                # Pauses are counted too: a clock that stands still, as a test's may, must not make this endless.
                if not is_busy(error) or waited_s >= WAIT_S or self._monotonic() >= give_up_s:
                    raise
            else:
                return

    def _read(self, plan: _Plan) -> tuple[int, list[State]]:
        """Return the time and the cells, one for each limit and number 0; slots without the leases that are over."""
        now_us = int(self._monotonic() * 1e6 + 0.5)
        rows: list[State] = self._execute(plan.select, plan.ids).fetchall() if plan.ids else []
        if len(rows) <= len(plan.steps) or rows[-1][1] != plan.sets_cleaned:
            rows = self._resolve(plan)
        if rows[-1][0] <= now_us:
            self._retire(now_us)
            rows = self._execute(plan.select, plan.ids).fetchall()
        return now_us, rows

    def _write(self, plan: _Plan, states: list[State], rows: list[State], ends_us: int) -> None:
        """Write cells back, and an end of a lease that is earlier than all others."""
        values: list[int] = []
        for cell, (first, second) in zip(plan.ids, states, strict=True):
            values += (cell, first, second)
        if ends_us < rows[-1][0]:
            values += (0, ends_us, rows[-1][1])
            self._execute(plan.put_end, values)
        else:
            self._execute(plan.put, values)

    def _refusal(self, plan: _Plan, rows: list[State], amounts: Sequence[int], now_us: int) -> Refusal:
        moment = Moment(now_us, int(self._wall() * 1e6))
        lifted = [gcra.lift(limit, row, moment) for limit, row in zip(plan.limits, rows, strict=False)]
        refusal = gcra.refuse(plan.limits, lifted, moment, amounts)
        assert refusal is not None, "the loop and the arithmetic disagree"  # noqa: S101 - two writings of one rule
        return refusal

    def _first_answer(self, lease: str) -> Grant | None:
        row = self._execute("SELECT set_id, body FROM leases WHERE lease = ?", (lease,)).fetchone()
        if row is None:
            return None
        set_id, body = row
        held = self._decode(body)
        return Grant(held.now_us, shown(self._plan_of(set_id).steps, held.after))

    def _retire(self, now_us: int) -> int:
        """Give back the slots of leases whose time is up, and return how many these are; `expire` ends them."""
        over = self._execute(
            "UPDATE leases SET over = 1 WHERE ends_us <= ? AND NOT over RETURNING set_id, body", (now_us,)
        ).fetchall()
        for set_id, body in over:
            plan, held = self._plan_of(set_id), self._decode(body)
            back = [
                (held.reserved[step[1]], limit.counter)
                for limit, step in zip(plan.limits, plan.steps, strict=True)
                if step[0] == SLOTS
            ]
            update = "UPDATE cells SET first = first - ? WHERE id = (SELECT id FROM names WHERE name = ?)"
            self._execute_many(update, back)
        earliest = f"SELECT coalesce(min(ends_us), {_NEVER_US}) FROM leases WHERE NOT over"  # noqa: S608 -- constants
        self._execute(f"UPDATE cells SET first = ({earliest}) WHERE id = 0")  # noqa: S608 -- constants
        self._execute("UPDATE cells SET first = first + ? WHERE id = -1", (len(over),))
        return len(over)

    def _resolve(self, plan: _Plan) -> list[State]:
        """Find or make the cells of a plan and keep its set, then read them."""
        plan.ids = tuple(self._cell(limit) for limit in plan.limits)
        self._execute("INSERT OR IGNORE INTO sets VALUES (?, ?)", (plan.set_id, plan.body))
        self._sets_added += self._cursor.rowcount
        rows: list[State] = self._execute(plan.select, plan.ids).fetchall()
        plan.sets_cleaned = rows[-1][1]
        return rows

    def _cell(self, limit: Limit) -> int:
        """Find or make the cell of a limit."""
        row: tuple[int] | None = self._execute("SELECT id FROM names WHERE name = ?", (limit.counter,)).fetchone()
        if row is None:
            [next_id] = self._execute("UPDATE cells SET first = first + 8 WHERE id = -2 RETURNING first").fetchone()
            row = (next_id + kind_of(limit),)
            self._execute("INSERT INTO names VALUES (?, ?)", (*row, limit.counter))
        self._execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?)", (*row, *gcra.unused(limit)))
        return row[0]

    def _sweep(self, now_us: int) -> None:
        """Forget the counters that mean nothing any more among the next few, and sets that no lease uses."""
        [last] = self._execute(
            "SELECT max(id) FROM (SELECT id FROM cells WHERE id > ? ORDER BY id LIMIT ?)", (self._swept_id, _SWEPT)
        ).fetchone()
        old_us = int(self._wall() * 1e6) - _MARGIN_US
        gone = self._execute(
            "DELETE FROM cells WHERE id > ? AND id <= ? AND (id & 7 = ? AND first < ? OR id & 7 = ? AND first = 0"
            " OR id & 7 = ? AND first < ? OR id & 7 = ? AND first < ?) RETURNING id",
            (
                *(self._swept_id, last or 0, RATE, now_us, SLOTS),
                *(DAY, number_of("day", old_us), MONTH, number_of("month", old_us)),
            ),
        ).fetchall()
        self._execute_many("DELETE FROM names WHERE id = ?", gone)
        self._swept_id = last or 0
        if self._sets_added > _SETS_MOST:
            self._execute("DELETE FROM sets WHERE id NOT IN (SELECT set_id FROM leases)")
            self._execute("UPDATE cells SET second = second + 1 WHERE id = 0")
            self._sets_added = 0

    def _plan(self, limits: tuple[Limit, ...]) -> _Plan:
        """Make limits ready and remember them by identity, which the plan keeps from being used again."""
        if len(self._plans) >= _PLANS_MOST:
            self._plans.clear()
            self._plans_of_sets.clear()
        plan = self._plans[id(limits)] = _Plan(limits)
        self._plans_of_sets[plan.set_id] = plan
        return plan

    def _plan_of(self, set_id: int) -> _Plan:
        """Return the plan of a lease's set, which another process may have written."""
        plan = self._plans_of_sets.get(set_id)
        if plan is None:
            [body] = self._execute("SELECT body FROM sets WHERE id = ?", (set_id,)).fetchone()
            plan = self._plan(msgspec.msgpack.decode(body, type=tuple[Limit, ...]))
        return plan


class SqliteCounters(NearCounters):
    """`Counters` that the processes of one host share."""

    @classmethod
    def open(cls, folder: Path, clock: Clock, boot_id: str) -> Self:
        """See `LocalSqliteCounters.open`."""
        return cls(LocalSqliteCounters.open(folder, clock, boot_id))


def _prepare(connection: sqlite3.Connection) -> None:
    # A commit writes whole pages into the log, so small ones are cheaper.
    connection.execute("PRAGMA page_size = 1024")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA wal_autocheckpoint = 1000")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _charged(plan: _Plan, after: list[State], amounts: Sequence[int]) -> list[State]:
    """Return the period charged and the units charged in it, for each limit; of a rate or slots they mean nothing."""
    return [(state[0], amounts[step[1]]) for step, state in zip(plan.steps, after, strict=True)]


def _fault(path: Path, error: Exception) -> StoreFault:
    return StoreFault("The counters of limits cannot be used now.", detail=f"{path}: {type(error).__name__}: {error}")

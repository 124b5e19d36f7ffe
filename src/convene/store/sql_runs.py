"""Runs in the tables `runs` and `run_steps`, of SQLite or Postgres: reading them, taking them over, forgetting them.

What is written all the time (`begin`, `record`, `finish`) is `sqlite_runs.py`'s and `postgres_runs.py`'s, in groups;
here is what they share: the statements, and rows as values.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import StoreFault
from convene.store import waiters
from convene.store.base_runs import Run, Step, lost_hold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.store.base_runs import Hold, Lately, RunStatus
    from convene.store.presence import Presence
    from convene.store.sql import Database, Row
    from convene.store.waiters import Waiter

QUEUE_MAX: Final = 10_000
"""Writes that may wait for a store that does not take them; each has a turn behind it."""
STUCK_S: Final = 5.0
"""How long a write is tried again before its caller is told, and closing waits for what is left."""
RUN_FIELDS: Final = Run.__struct_fields__
STEP_FIELDS: Final = Step.__struct_fields__
_RUN: Final = ", ".join(RUN_FIELDS)
_STEP: Final = ", ".join(STEP_FIELDS)
INSERT_RUN: Final = (
    f"INSERT INTO runs ({_RUN}, holder) VALUES ({', '.join('?' * (len(RUN_FIELDS) + 1))}) "  # noqa: S608 -- constants, here and below
    "ON CONFLICT (id) DO NOTHING"
)
_CHANGED: Final = ", ".join(f"{name} = excluded.{name}" for name in STEP_FIELDS if name not in {"run_id", "number"})
UPSERT_STEP: Final = (
    f"INSERT INTO run_steps ({_STEP}) VALUES ({', '.join('?' * len(STEP_FIELDS))}) "  # noqa: S608
    f"ON CONFLICT (run_id, number) DO UPDATE SET {_CHANGED}"
)
END_RUN: Final = (
    "UPDATE runs SET status = ?, outcome = ?, finished_us = ?, expires_us = ? WHERE id = ? AND status = 'running'"
)
_GET: Final = f"SELECT {_RUN} FROM runs WHERE owner = ? AND id = ?"  # noqa: S608
_STEPS: Final = f"SELECT {_STEP} FROM run_steps WHERE run_id = ? AND seq > ? ORDER BY seq, number"  # noqa: S608
_BY_TURNS: Final = f"SELECT {_RUN} FROM runs WHERE turn_id IN "  # noqa: S608
_PAGE: Final = f"SELECT {_RUN} FROM runs WHERE owner = ?"  # noqa: S608
_CHANGED_US: Final = "COALESCE(finished_us, created_us)"
_IF_RUNNING: Final = "CASE WHEN status = 'running' THEN 1 ELSE cancel_asked END"
_CANCEL: Final = f"UPDATE runs SET cancel_asked = {_IF_RUNNING} WHERE owner = ? AND id = ?"  # noqa: S608
_CANCELLED: Final = "SELECT id FROM runs WHERE status = 'running' AND cancel_asked = 1 AND holder = ?"
_ORPHANS: Final = (
    "SELECT id, fence FROM runs WHERE status = 'running' AND holder <> ? "
    "AND holder NOT IN (SELECT id FROM writers WHERE seen_at_us >= ?) ORDER BY created_us, id LIMIT ?"
)
_UNDER_WAY: Final = "id = ? AND fence = ? AND status = 'running'"
_TAKE: Final = f"UPDATE runs SET fence = fence + 1, holder = ? WHERE {_UNDER_WAY} RETURNING {_RUN}"  # noqa: S608
_OVER: Final = "status <> 'running' AND "
_FORGET_STEPS: Final = "DELETE FROM run_steps WHERE run_id IN (SELECT id FROM runs WHERE "
_FORGET: Final = "DELETE FROM runs WHERE "
_TURNS_MAX: Final = 500


class Work:
    """One write: a run that begins, steps, or an end; `hold` is whose right it is, None for a new run."""

    __slots__ = ("end", "hold", "lost", "run", "steps", "waiter")

    def __init__(
        self,
        waiter: Waiter,
        hold: Hold | None,
        *,
        run: tuple[object, ...] | None = None,
        steps: Iterable[Step] = (),
        end: tuple[object, ...] | None = None,
    ) -> None:
        self.waiter = waiter
        self.hold = hold
        self.run = run
        """Values of `INSERT_RUN`."""
        self.steps = [msgspec.structs.astuple(step) for step in steps]
        """Values of `UPSERT_STEP`, for each step."""
        self.end = end
        """Values of `END_RUN`."""
        self.lost = False


class SqlRuns:
    """The runs of one database. A subclass writes what is in `_works`, in order, many in one transaction."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence
        self._works: list[Work] = []
        self._open = True

    def begin(self, run: Run) -> Waiter:
        """Write a new run down (`base_runs.Runs`)."""
        waiter = self._waiter()
        self._queue(Work(waiter, None, run=(*_values(run), self._presence.id)))
        return waiter

    def record(self, hold: Hold, steps: Sequence[Step]) -> Waiter:
        """Write steps down (`base_runs.Runs`)."""
        waiter = self._waiter()
        self._queue(Work(waiter, hold, steps=steps))
        return waiter

    def finish(
        self, hold: Hold, status: RunStatus, outcome: bytes, at_us: int, expires_us: int, steps: Sequence[Step] = ()
    ) -> Waiter:
        """End a run (`base_runs.Runs`)."""
        waiter = self._waiter()
        self._queue(Work(waiter, hold, steps=steps, end=(status, outcome, at_us, expires_us, hold.run_id)))
        return waiter

    async def claim(self, dead_after_us: int, limit: int) -> list[Run]:
        """Take over runs of dead holders (`base_runs.Runs`)."""
        await self._presence.wake(dead_after_us)
        await self._presence.bury()
        seen_us = self._presence.now_us() - dead_after_us
        me = self._presence.id
        taken: list[Run] = []
        for run_id, fence in await self._database.rows(_ORPHANS, (me, seen_us, limit)):
            taken += map(_run, await self._database.rows(_TAKE, (me, run_id, fence)))
        return taken

    async def get(self, owner: str, run_id: str) -> Run | None:
        """Return the owner's run (`base_runs.Runs`)."""
        await self.flush()
        return next(map(_run, await self._database.rows(_GET, (owner, run_id))), None)

    async def steps(self, run_id: str, after_seq: int = 0) -> list[Step]:
        """Return a run's steps (`base_runs.Runs`)."""
        await self.flush()
        return [_step(row) for row in await self._database.rows(_STEPS, (run_id, after_seq))]

    async def by_turns(self, turn_ids: Sequence[str]) -> list[Run]:
        """Return the runs behind these answers (`base_runs.Runs`)."""
        await self.flush()
        found: list[Run] = []
        for at in range(0, len(turn_ids), _TURNS_MAX):
            some = turn_ids[at : at + _TURNS_MAX]
            found += map(_run, await self._database.rows(f"{_BY_TURNS}({', '.join('?' * len(some))})", some))
        return found

    async def page(
        self, owner: str, limit: int, session_id: str | None = None, after: tuple[int, str] | None = None
    ) -> list[Run]:
        """Return the owner's runs, newest first (`base_runs.Runs`)."""
        await self.flush()
        statement, values = _PAGE, [owner]
        if session_id is not None:
            statement += " AND session_id = ?"
            values.append(session_id)
        behind = () if after is None else after
        if behind:
            statement += " AND (created_us, id) < (?, ?)"
        statement += " ORDER BY created_us DESC, id DESC LIMIT ?"
        return [_run(row) for row in await self._database.rows(statement, (*values, *behind, limit))]

    async def latest(self, which: Lately, limit: int, after: tuple[int, str] | None = None) -> tuple[list[Run], int]:
        """Return what changed last (`base_runs.Runs`)."""
        await self.flush()
        # Not LIKE: SQLite's pays no heed to capitals.
        clause = f"owner = ? AND substr(session_id, 1, {len(which.prefix)}) = ? AND {_CHANGED_US} >= ?"
        values: list[object] = [which.owner, which.prefix, which.since_us]
        for column, value in (("session_id", which.session_id), ("status", which.status)):
            if value:
                clause += f" AND {column} = ?"
                values.append(value)
        [(count,)] = await self._database.rows(f"SELECT COUNT(*) FROM runs WHERE {clause}", tuple(values))  # noqa: S608
        if after is not None:
            clause += f" AND ({_CHANGED_US}, id) < (?, ?)"
            values += after
        statement = f"SELECT {_RUN} FROM runs WHERE {clause} ORDER BY {_CHANGED_US} DESC, id DESC LIMIT ?"  # noqa: S608
        return [_run(row) for row in await self._database.rows(statement, (*values, limit))], int(str(count))

    async def ask_cancel(self, owner: str, run_id: str) -> bool:
        """Ask for a run's end (`base_runs.Runs`)."""
        await self.flush()
        return bool((await self._database.write([(_CANCEL, (owner, run_id))]))[0])

    async def asked_to_cancel(self) -> set[str]:
        """Return which runs held here are to be ended (`base_runs.Runs`)."""
        return {run_id for (run_id,) in await self._database.rows(_CANCELLED, (self._presence.id,))}

    async def forget(self, now_us: int, owner: str | None = None, session_id: str | None = None) -> int:
        """Delete runs that are over (`base_runs.Runs`)."""
        await self.flush()
        values: tuple[object, ...]
        if session_id is None:
            which, values = f"{_OVER}expires_us <= ?", (now_us,)
        else:
            which, values = f"{_OVER}owner = ? AND session_id = ?", (owner, session_id)
        return (await self._database.write([(f"{_FORGET_STEPS}{which})", values), (_FORGET + which, values)]))[1]

    async def flush(self) -> None:
        """Wait until everything begun, recorded and finished so far is written, or has failed."""
        if not self._idle:
            mark = self._waiter()  # one that no caller can cancel
            self._queue(Work(mark, None))
            await asyncio.wait([mark])

    async def aclose(self) -> None:
        """Write what is left and let go of what writes; idempotent."""
        if not self._open:
            return
        await asyncio.wait([asyncio.ensure_future(self.flush())], timeout=STUCK_S)
        self._open = False
        await self._end()
        works, self._works = self._works, []
        release(works, closed())

    @property
    def _idle(self) -> bool:
        """Whether nothing is on its way."""
        raise NotImplementedError

    def _wake(self) -> None:
        """See to it that `_works` are written soon."""
        raise NotImplementedError

    async def _end(self) -> None:
        """Write no more, and tell those whose write was under way."""
        raise NotImplementedError

    def _queue(self, work: Work) -> None:
        """Write this soon, in order. Raises `StoreFault` if nothing can be written any more."""
        if not self._open:
            raise closed()
        if len(self._works) >= QUEUE_MAX:
            raise StoreFault("Too many runs wait for the store.", detail=f"{QUEUE_MAX} writes are not done")
        self._works.append(work)
        self._wake()

    @staticmethod
    def _waiter() -> Waiter:
        return asyncio.get_running_loop().create_future()


def release(works: Iterable[Work], reason: Exception | None = None) -> None:
    """Let those go on who wait for these, or fail them; whose hold is lost is told so in any case."""
    for work in works:
        fault = lost_hold(work.hold) if reason is None and work.lost and work.hold is not None else reason
        waiters.release((work.waiter,), fault)


def closed() -> StoreFault:
    """Return what is said of a store that is closed."""
    return StoreFault("The store is closed.")


def _values(run: Run) -> tuple[object, ...]:
    values = list(msgspec.structs.astuple(run))
    values[_CANCEL_AT] = int(run.cancel_asked)
    return tuple(values)


def _run(row: Row) -> Run:
    fields = dict(zip(RUN_FIELDS, row, strict=True))
    fields["cancel_asked"] = bool(fields["cancel_asked"])
    return Run(**fields)


def _step(row: Row) -> Step:
    return Step(**dict(zip(STEP_FIELDS, row, strict=True)))


_CANCEL_AT: Final = RUN_FIELDS.index("cancel_asked")

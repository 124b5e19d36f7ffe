"""One Postgres database by URL: sessions to share, the statements of `sql.Database`, and the shape of its tables.

    rows, write ──► an idle session, else a new one, at most `size` ──► Postgres

A session whose call was cancelled, or went wrong half-way, is dropped and never used again: nothing that is still on
its way can reach the next caller. Tables are made and changed in one transaction under an advisory lock (OPS-32); any
number of replicas may start at once. A shape that a newer Convene has made is refused and left as it is. The way back
from a step is a copy that the operator has made before: `pg_dump`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from convene.store.base import StoreFault
from convene.store.migrations import steps_for
from convene.store.postgres_wire import Wire, clean, end, fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from convene.store.migrations import Step
    from convene.store.postgres_wire import Session
    from convene.store.schema import Dialect
    from convene.store.sql import Change, Row

SIZE: Final = 4
"""Sessions to share. Postgres allows 100 by default, for all replicas together; the ledger has one of its own."""
WAIT_S: Final = 5.0
"""How long a caller waits for a session to come free."""
MIGRATE_S: Final = 3600.0
"""How long one statement of a migration may take: an index on a large table has its time."""

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('convene ' || current_schema(), 0))"
_PATIENCE: Final = ("SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = '60s'")
_HOLES: Final = re.compile(r"'(?:[^']|'')*'|\?")


class PostgresPool:
    """One database and the sessions that share the work. Implements `sql.Database`."""

    def __init__(self, wire: Wire, size: int = SIZE) -> None:
        self.wire = wire
        self._idle: list[Session] = []
        self._free = asyncio.Semaphore(size)
        self._open = True

    @classmethod
    async def open(
        cls, url: str, *, size: int = SIZE, steps: Sequence[Step] | None = None, durable: bool = True
    ) -> Self:
        """Connect and bring the tables up to date; `durable` as of `Wire`.

        Raises:
            StoreFault: the driver is missing, the server is, it does not let us in, or a newer Convene was here.
        """
        wire = Wire(url, durable=durable)
        session = await wire.connect(MIGRATE_S)
        try:
            await _migrate(session, steps_for("postgres") if steps is None else steps)
            await end(session)
        except wire.failures as error:
            raise fault(error) from error
        finally:
            session.terminate()  # a cancelled start too must leave no connection behind
        return cls(wire, size)

    @property
    def dialect(self) -> Dialect:
        """Postgres'."""
        return "postgres"

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Lend a session. What fails inside is raised as `StoreFault`, whatever the driver calls it."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError as error:
            raise StoreFault("The database is busy.", detail=f"no session came free within {WAIT_S:.0f} s") from error
        session: Session | None = None
        sound = False
        try:
            session = await self._take()
            yield session
            sound = True
        except self.wire.failures as error:
            sound = self.wire.was_refused(error)
            raise fault(error) from error
        finally:
            if session is not None:
                self._give_back(session, sound=sound)
            self._free.release()

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement (`sql.Database`). A look-up whose connection is lost is asked once more."""
        try:
            return await self._ask(statement, values)
        except StoreFault as error:
            if not (statement.startswith("SELECT") and self.wire.is_lost(error.__cause__)):
                raise
        return await self._ask(statement, values)

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """Do all changes in one transaction and return how many rows each has touched (`sql.Database`).

        If the connection is lost while it is being committed, `StoreFault` leaves open whether it was.
        """
        async with self.session() as session, session.transaction():
            done = [await session.execute(numbered(sql), *map(_kept, values)) for sql, values in changes]
        return [int(tag.rpartition(" ")[2]) for tag in done]

    async def aclose(self) -> None:
        """End the idle sessions; those that are lent end when they come back. Idempotent."""
        self._open = False
        while self._idle:
            await end(self._idle.pop())

    async def _ask(self, statement: str, values: Sequence[object]) -> list[Row]:
        async with self.session() as session:
            found = await session.fetch(numbered(statement), *map(_kept, values))
        return [tuple(row) for row in found]

    async def _take(self) -> Session:
        """Return an idle session that is alive, the last used first, or a new one."""
        if not self._open:
            raise StoreFault("The store is closed.")
        while self._idle:
            session = self._idle.pop()
            if not session.is_closed():
                return session
        return await self.wire.connect()

    def _give_back(self, session: Session, *, sound: bool) -> None:
        if sound and self._open and not session.is_closed() and not session.is_in_transaction():
            self._idle.append(session)
        else:
            session.terminate()


@lru_cache(maxsize=512)
def numbered(statement: str) -> str:
    """Return a statement with `$1, $2 ...` for its `?` holes; a `?` inside a quoted literal is none."""
    place = 0

    def hole(found: re.Match[str]) -> str:
        nonlocal place
        if found[0] != "?":
            return found[0]
        place += 1
        return f"${place}"

    return _HOLES.sub(hole, statement)


def _kept(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


async def shape_of(session: Session) -> int:
    """Return which shape the tables have: 0 for none, `len(CHANGES)` for the present one. Changes nothing."""
    # Not to_regclass(): it answers from a cache that a wait for an advisory lock does not refresh.
    [[known]] = await session.fetch(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'shape' AND relnamespace = current_schema()::regnamespace)"
    )
    return int((await session.fetch("SELECT number FROM shape"))[0][0]) if known else 0


async def _migrate(session: Session, steps: Sequence[Step]) -> None:
    """Apply the missing steps, all or none, while nobody else does. Raises `StoreFault` for a newer shape."""
    if await shape_of(session) == len(steps):
        return
    async with session.transaction():
        for setting in _PATIENCE:
            await session.execute(setting)
        await session.fetch(_LOCK)
        done = await shape_of(session)
        if done > len(steps):
            raise StoreFault(
                "The database was changed by a newer Convene.",
                detail=f"its shape is number {done}, this Convene knows up to {len(steps)}; "
                "use the newer version, or restore the copy that pg_dump made before",
            )
        if done == 0:
            await session.execute("CREATE TABLE shape (number BIGINT NOT NULL)")
            await session.execute("INSERT INTO shape (number) VALUES (0)")
        for step in steps[done:]:
            for statement in step:
                await session.execute(statement)
        await session.execute("UPDATE shape SET number = $1", len(steps))


async def examine(url: str) -> tuple[int, int]:
    """Return which shape a database has (0: none, `len(CHANGES)`: the present one) and how many keys; changes nothing.

    Raises:
        StoreFault: it cannot be read.
    """
    pool = PostgresPool(Wire(url), size=1)
    try:
        async with pool.session() as session:
            done = await shape_of(session)
            [[keys]] = await session.fetch("SELECT count(*) FROM keys") if done else [[0]]
    finally:
        await pool.aclose()
    return done, int(keys)

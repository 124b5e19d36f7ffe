"""All that is remembered, in one Postgres database: the parts put together over one `PostgresPool`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.clock import Clock, SystemClock
from convene.store.postgres_ledger import PostgresLedger
from convene.store.postgres_pool import PostgresPool
from convene.store.postgres_runs import PostgresRuns
from convene.store.presence import Presence
from convene.store.sql_store import SqlStore

if TYPE_CHECKING:
    from convene.store.lives import Lives


class PostgresStore(SqlStore):
    """The store of one process, or of any number of replicas on any number of hosts."""

    def __init__(self, pool: PostgresPool, presence: Presence, clock: Clock) -> None:
        super().__init__(pool, presence)
        self._pool = pool
        self._presence = presence
        self._ledger = PostgresLedger(pool, presence, clock)
        self._runs = PostgresRuns(pool, presence)

    @classmethod
    async def open(cls, url: str, clock: Clock | None = None, lives: Lives | None = None) -> Self:
        """Connect to `postgresql://user:password@host/database` and bring its tables up to date.

        Further settings of the session may follow as a query, `?sslmode=verify-full` or `?search_path=convene`. `lives`
        are the lock files of this machine's writers; without them a kill is told only by silence.

        Raises:
            StoreFault: the driver is missing, the database cannot be reached, or a newer Convene was here.
        """
        clock = clock or SystemClock()
        pool = await PostgresPool.open(url)
        try:
            presence = await Presence.start(pool, clock, lives)
        except BaseException:  # a cancelled start too must leave no connection behind; nothing is swallowed
            await pool.aclose()
            raise
        return cls(pool, presence, clock)

    @property
    def database(self) -> PostgresPool:
        """The database itself, for further parts that are written over `sql.Database`."""
        return self._pool

    @property
    def ledger(self) -> PostgresLedger:
        """The books."""
        return self._ledger

    @property
    def runs(self) -> PostgresRuns:
        """The journal of agentic turns."""
        return self._runs

    async def aclose(self) -> None:
        """Write what is left of the books, show that nobody is here any more, and end the sessions."""
        await self._ledger.aclose()
        await self._runs.aclose()
        await self._presence.aclose()
        await self._pool.aclose()

"""All that is remembered, in one Postgres database: the parts put together over one `PostgresPool`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.clock import Clock, SystemClock
from convene.store.postgres_ledger import PostgresLedger
from convene.store.postgres_pool import PostgresPool
from convene.store.postgres_runs import PostgresRuns
from convene.store.presence import Presence
from convene.store.sql_accounts import SqlAccounts
from convene.store.sql_answers import SqlAnswers
from convene.store.sql_keys import SqlKeys
from convene.store.sql_market import SqlMarket
from convene.store.sql_sessions import SqlSessions
from convene.store.sql_vectors import SqlVectors

if TYPE_CHECKING:
    from convene.store.lives import Lives


class PostgresStore:
    """The store of one process, or of any number of replicas on any number of hosts."""

    def __init__(self, pool: PostgresPool, presence: Presence, clock: Clock) -> None:
        self._pool = pool
        self._presence = presence
        self._keys = SqlKeys(pool)
        self._answers = SqlAnswers(pool, presence)
        self._accounts = SqlAccounts(pool)
        self._ledger = PostgresLedger(pool, presence, clock)
        self._runs = PostgresRuns(pool, presence)
        self._sessions = SqlSessions(pool)
        self._market = SqlMarket(pool)
        self._vectors = SqlVectors(pool)

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
    def keys(self) -> SqlKeys:
        """The API keys."""
        return self._keys

    @property
    def accounts(self) -> SqlAccounts:
        """Users, teams, links, browser sessions."""
        return self._accounts

    @property
    def answers(self) -> SqlAnswers:
        """The kept answers of idempotent requests."""
        return self._answers

    @property
    def ledger(self) -> PostgresLedger:
        """The books."""
        return self._ledger

    @property
    def runs(self) -> PostgresRuns:
        """The journal of agentic turns."""
        return self._runs

    @property
    def sessions(self) -> SqlSessions:
        """What is remembered between the requests of a conversation."""
        return self._sessions

    @property
    def market(self) -> SqlMarket:
        """The agents that have registered or were listed."""
        return self._market

    @property
    def vectors(self) -> SqlVectors:
        """What listings mean."""
        return self._vectors

    async def aclose(self) -> None:
        """Write what is left of the books, show that nobody is here any more, and end the sessions."""
        await self._ledger.aclose()
        await self._runs.aclose()
        await self._presence.aclose()
        await self._pool.aclose()

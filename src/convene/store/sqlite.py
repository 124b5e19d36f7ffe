"""All that is remembered, in one SQLite file: the parts put together over one `SqliteFile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.clock import Clock, SystemClock
from convene.store.lives import Lives
from convene.store.presence import Presence
from convene.store.sql_accounts import SqlAccounts
from convene.store.sql_answers import SqlAnswers
from convene.store.sql_keys import SqlKeys
from convene.store.sql_market import SqlMarket
from convene.store.sql_sessions import SqlSessions
from convene.store.sql_vectors import SqlVectors
from convene.store.sqlite_file import SqliteFile
from convene.store.sqlite_ledger import SqliteLedger
from convene.store.sqlite_open import START_S
from convene.store.sqlite_runs import SqliteRuns

if TYPE_CHECKING:
    from pathlib import Path


class SqliteStore:
    """The store of one process or of several on one host."""

    def __init__(self, file: SqliteFile, presence: Presence) -> None:
        self._file = file
        self._presence = presence
        self._keys = SqlKeys(file)
        self._answers = SqlAnswers(file, presence)
        self._accounts = SqlAccounts(file)
        self._ledger = SqliteLedger(file, presence)
        self._runs = SqliteRuns(file, presence)
        self._sessions = SqlSessions(file)
        self._market = SqlMarket(file)
        self._vectors = SqlVectors(file)

    @classmethod
    async def open(cls, path: Path, clock: Clock | None = None) -> Self:
        """Open or create the file; `clock` is the machine's unless another is given. Raises `StoreFault`."""
        clock = clock or SystemClock()
        file = await SqliteFile.open(path)
        try:
            async with file.patient(START_S):
                presence = await Presence.start(file, clock, Lives(path))
        except BaseException:  # a cancelled start too must end file and thread; nothing is swallowed
            await file.aclose()
            raise
        return cls(file, presence)

    @property
    def database(self) -> SqliteFile:
        """The file itself, for further parts that are written over `sql.Database`."""
        return self._file

    @property
    def keys(self) -> SqlKeys:
        """The API keys."""
        return self._keys

    @property
    def answers(self) -> SqlAnswers:
        """The kept answers of idempotent requests."""
        return self._answers

    @property
    def accounts(self) -> SqlAccounts:
        """The users, teams, links and browser sessions."""
        return self._accounts

    @property
    def ledger(self) -> SqliteLedger:
        """The books."""
        return self._ledger

    @property
    def runs(self) -> SqliteRuns:
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
        """Write what is left of the books, close the file and end the threads."""
        await self._ledger.aclose()
        await self._runs.aclose()
        await self._presence.aclose()
        await self._file.aclose()

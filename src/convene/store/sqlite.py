"""All that is remembered, in one SQLite file: the parts put together over one `SqliteFile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from convene.clock import Clock, SystemClock
from convene.store.lives import Lives
from convene.store.presence import Presence
from convene.store.sql_store import SqlStore
from convene.store.sqlite_file import SqliteFile
from convene.store.sqlite_ledger import SqliteLedger
from convene.store.sqlite_open import START_S
from convene.store.sqlite_runs import SqliteRuns

if TYPE_CHECKING:
    from pathlib import Path


class SqliteStore(SqlStore):
    """The store of one process or of several on one host."""

    def __init__(self, file: SqliteFile, presence: Presence) -> None:
        super().__init__(file, presence)
        self._file = file
        self._presence = presence
        self._ledger = SqliteLedger(file, presence)
        self._runs = SqliteRuns(file, presence)

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
    def ledger(self) -> SqliteLedger:
        """The books."""
        return self._ledger

    @property
    def runs(self) -> SqliteRuns:
        """The journal of agentic turns."""
        return self._runs

    async def aclose(self) -> None:
        """Write what is left of the books, close the file and end the threads."""
        await self._ledger.aclose()
        await self._runs.aclose()
        await self._presence.aclose()
        await self._file.aclose()

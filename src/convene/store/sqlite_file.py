"""One SQLite file, the default store (OPS-31): stdlib `sqlite3` on one thread of its own.

    event loop ── run(work) ──► one thread, one connection, WAL, synchronous=FULL ──► FILE, FILE-wal, FILE-shm

Every statement runs on that thread in the order of the calls, so a read sees all earlier writes of this process; a
write is on the disk when its call returns. Several processes may share one file. Here: threads, transactions and
migrations; what is kept in the tables is said by the classes over `sql.Database`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from convene.store.base import StoreFault
from convene.store.migrations import STEPS, Step
from convene.store.sqlite_open import busy_s, is_busy, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from convene.store.schema import Dialect
    from convene.store.sql import Change, Row

T = TypeVar("T")

_BUSY_S = 5.0
"""How long a statement waits for another process's write (they take milliseconds) before it fails."""


class SqliteFile:
    """One database file and the thread that alone touches it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._open = True

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return "sqlite"

    @classmethod
    async def open(cls, path: Path, steps: Sequence[Step] = STEPS) -> Self:
        """Open `path`, creating it (mode 0600, its folder 0700) and bringing it up to date.

        Raises:
            StoreFault: it cannot be opened, others kept it locked for `START_S`, or a newer Convene has changed its
                shape.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="convene-store")
        try:
            connecting = thread.submit(_connect, path, steps)
            connection = await asyncio.wrap_future(connecting)
        except BaseException as error:  # a cancelled start too must end file and thread; nothing is swallowed
            thread.submit(_close_late, connecting)
            thread.shutdown(wait=False)
            if isinstance(error, (sqlite3.Error, OSError)):
                raise fault(path, error) from error
            raise
        return cls(path, connection, thread)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`, run on the file's thread outside a transaction. Raises `StoreFault`."""
        if not self._open:
            raise StoreFault("The store is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)
        except sqlite3.Error as error:
            raise fault(self.path, error) from error

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`, run inside one transaction: all of it is kept, or, if it raises, nothing."""

        def inside(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                return work(connection)

        return await self.run(inside)

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement (`sql.Database`)."""
        return await self.run(lambda connection: connection.execute(statement, values).fetchall())

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """Do all changes in one transaction and return how many rows each has touched (`sql.Database`)."""
        return await self.transact(lambda connection: [connection.execute(*change).rowcount for change in changes])

    @contextlib.asynccontextmanager
    async def patient(self, seconds: float) -> AsyncIterator[None]:
        """Let statements wait so long for other writers meanwhile, as a start may. Raises `StoreFault`."""
        await self.run(lambda connection: busy_s(connection, seconds))
        try:
            yield
        finally:
            if self._open:
                await self.run(lambda connection: busy_s(connection, _BUSY_S))

    async def aclose(self) -> None:
        """Let everything that was begun finish, close the file and end the thread; idempotent."""
        if self._open:
            self._open = False
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            self._thread.shutdown(wait=True)


class SecondFile:
    """The same database over a thread of its own: what takes long there keeps nobody waiting here (`sql.Database`).

    Opened by the first call. Every call raises `StoreFault` if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opening: asyncio.Task[SqliteFile] | None = None
        self._open = True

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return "sqlite"

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement (`sql.Database`)."""
        return await (await self._file()).rows(statement, values)

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """Do all changes in one transaction (`sql.Database`)."""
        return await (await self._file()).write(changes)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`, run outside a transaction (`SqliteFile.run`)."""
        return await (await self._file()).run(work)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`, run inside one transaction (`SqliteFile.transact`)."""
        return await (await self._file()).transact(work)

    async def aclose(self) -> None:
        """Close the file and end its thread; idempotent."""
        self._open = False
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait([opening])
            if opening.exception() is None:
                await opening.result().aclose()

    async def _file(self) -> SqliteFile:
        if not self._open:
            raise StoreFault("The store is closed.")
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.create_task(SqliteFile.open(self._path), name="store opening")
        return await asyncio.shield(self._opening)  # a caller who leaves does not take the others along


def examine(path: Path) -> tuple[int, int]:
    """Return which shape an existing file has (`len(STEPS)` = the present one) and how many keys; changes nothing.

    Raises:
        StoreFault: it cannot be read.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            [done] = connection.execute("PRAGMA user_version").fetchone()
            [keys] = connection.execute("SELECT count(*) FROM keys").fetchone() if done else (0,)
    except sqlite3.Error as error:
        raise fault(path, error) from error
    return done, keys


def _connect(path: Path, steps: Sequence[Step]) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private(path)

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        [done] = connection.execute("PRAGMA user_version").fetchone()
        if done != len(steps):  # else nothing needs the write lock, which somebody may be holding
            _migrate(connection, path, steps)

    connection = opened(path, prepare)
    busy_s(connection, _BUSY_S)
    return connection


def make_private(path: Path) -> None:
    """Make an empty file for its owner only, if there is none: SQLite gives FILE-wal and FILE-shm the mode of FILE.

    One that exists is never opened: closing a descriptor of a database drops every lock that this process has on it
    (POSIX), and then the next process to close the file takes itself for the last and deletes the WAL under us.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _close_late(connecting: Future[sqlite3.Connection]) -> None:
    """Close what was opened for a caller who is gone; runs on the file's thread, after `_connect`."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


def _migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> None:
    """Apply the missing steps in one transaction under the write lock, having copied a file that has data (OPS-32)."""
    with _transaction(connection):
        [done] = connection.execute("PRAGMA user_version").fetchone()
        if done > len(steps):
            raise sqlite3.DatabaseError(
                f"its shape is number {done}, this Convene knows up to {len(steps)}; "
                f"use the newer version, or go back to the copy {path.name}.v{len(steps)}.bak"
            )
        if 0 < done < len(steps):
            _copy(path, path.with_name(f"{path.name}.v{done}.bak"))
        for step in steps[done:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(steps)}")


def _copy(path: Path, target: Path) -> None:
    """Write a copy of the database, readable by its owner only, while the caller holds the write lock.

    Over a connection of its own: SQLite's backup waits for ever on a source that is inside its own write transaction.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:  # whatever it was, nothing half-done is kept; it is raised on
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def fault(path: Path, error: Exception) -> StoreFault:
    """Return what a failure of this file is to everybody else."""
    detail = f"{path}: {type(error).__name__}: {error}"
    if is_busy(error):
        return StoreFault("Another process keeps the store locked; if one is frozen, end it.", detail=detail)
    return StoreFault("The store cannot be used; `convene doctor` says why.", detail=detail)

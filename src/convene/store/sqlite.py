"""The store in one SQLite file, the default (OPS-31): stdlib `sqlite3` on one thread of its own.

    event loop ── run(work) ──► one thread, one connection, WAL, synchronous=FULL ──► FILE, FILE-wal, FILE-shm

Every statement runs on that thread in the order of the calls, so a read sees all earlier writes of this process; a
write is on the disk when its call returns. Several processes may share one file. `SqliteFile` knows threads,
transactions and migrations, `SqliteKeys` the key table. Sessions, ledger and runs are further classes over the same
`SqliteFile`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from convene.errors import Conflict
from convene.limits.allowance import Allowance
from convene.store.base import KeyRecord, StoreFault
from convene.store.migrations import STEPS, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

T = TypeVar("T")
Row = tuple[
    *tuple[str, str, str, str, bytes, str, float, float | None, float | None, str | None, str],
    *tuple[str, str, str | None, str | None],
]

_BUSY_S = 5.0
"""How long a statement waits for another process's write (they take milliseconds) before it fails."""
_COLUMNS = (
    "id, name, owner, plan, digest, last4, created_at, expires_at, revoked_at, models, scopes, "
    "user_id, team_id, limits, model_limits"
)


class SqliteFile:
    """One database file and the thread that alone touches it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread
        self._open = True
        self._writes = 0

    @classmethod
    async def open(cls, path: Path, steps: Sequence[Step] = STEPS) -> Self:
        """Open `path`, creating it (mode 0600, its folder 0700) and bringing it up to date.

        Raises:
            StoreFault: it cannot be opened, or a newer Convene has changed its shape.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="convene-store")
        try:
            connecting = thread.submit(_connect, path, steps)
            connection = await asyncio.wrap_future(connecting)
        except BaseException as error:  # a cancelled start too must end file and thread; nothing is swallowed
            thread.submit(_close_late, connecting)
            thread.shutdown(wait=False)
            if isinstance(error, (sqlite3.Error, OSError)):
                raise _fault(path, error) from error
            raise
        return cls(path, connection, thread)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`, run on the file's thread outside a transaction. Raises `StoreFault`."""
        if not self._open:
            raise StoreFault("The store is closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)
        except sqlite3.Error as error:
            raise _fault(self.path, error) from error

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return `work(connection)`, run inside one transaction: all of it is kept, or, if it raises, nothing."""

        def transact(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                result = work(connection)
            self._writes += 1
            return result

        return await self.read(transact)

    async def version(self) -> int:
        """Return a number that grows with every change: `data_version` counts the others' commits, not our own."""

        def look(connection: sqlite3.Connection) -> int:
            [version] = connection.execute("PRAGMA data_version").fetchone()
            return int(version) + self._writes

        return await self.read(look)

    async def aclose(self) -> None:
        """Let everything that was begun finish, close the file and end the thread; idempotent."""
        if self._open:
            self._open = False
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            self._thread.shutdown(wait=True)


class SqliteKeys:
    """API keys in the table `keys`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def add(self, record: KeyRecord) -> None:
        """Keep a new key. Raises `Conflict` if the id is taken."""
        row = _row_of(record)

        def insert(connection: sqlite3.Connection) -> bool:
            holes = ", ".join("?" * len(row))
            done = connection.execute(f"INSERT OR IGNORE INTO keys ({_COLUMNS}) VALUES ({holes})", row)  # noqa: S608 -- constants
            return done.rowcount == 1

        if not await self._file.write(insert):
            raise Conflict(f"There is already a key with the id {record.id}.")

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return the key with this id, or None."""

        def select(connection: sqlite3.Connection) -> Row | None:
            row: Row | None = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()  # noqa: S608 -- constants
            return row

        row = await self._file.read(select)
        return _record_of(row) if row else None

    async def list_all(self) -> tuple[KeyRecord, ...]:
        """Return all keys, oldest first."""

        def select(connection: sqlite3.Connection) -> list[Row]:
            return connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id").fetchall()  # noqa: S608 -- constants

        return tuple(_record_of(row) for row in await self._file.read(select))

    async def revoke(self, key_id: str, at: float) -> bool:
        """Mark the key revoked; the first time stays."""
        statement = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?"
        return await self._file.write(lambda connection: connection.execute(statement, (at, key_id)).rowcount == 1)

    async def replace_secret(self, key_id: str, digest: bytes, last4: str) -> bool:
        """Give the key another secret, unless it is revoked."""
        statement = "UPDATE keys SET digest = ?, last4 = ? WHERE id = ? AND revoked_at IS NULL"
        values = (digest, last4, key_id)
        return await self._file.write(lambda connection: connection.execute(statement, values).rowcount == 1)

    async def version(self) -> int:
        """Return a number that grows whenever anybody has changed the file."""
        return await self._file.version()


class SqliteStore:
    """All that is remembered, in one file."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._keys = SqliteKeys(file)

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create the file. Raises `StoreFault`."""
        return cls(await SqliteFile.open(path))

    @property
    def keys(self) -> SqliteKeys:
        """The API keys."""
        return self._keys

    async def aclose(self) -> None:
        """Close the file and end its thread."""
        await self._file.aclose()


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
        raise _fault(path, error) from error
    return done, keys


def _connect(path: Path, steps: Sequence[Step]) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives FILE-wal and FILE-shm the mode of FILE, so it is made first and by us.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path, steps)
    except BaseException:  # an interrupt too must not leave the file open; nothing is swallowed
        connection.close()
        raise
    return connection


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


def _fault(path: Path, error: Exception) -> StoreFault:
    return StoreFault(
        "The key store cannot be used; `convene doctor` says why.", detail=f"{path}: {type(error).__name__}: {error}"
    )


def _row_of(record: KeyRecord) -> Row:
    models = None if record.models is None else _json(record.models)
    who = (record.id, record.name, record.owner, record.plan)
    when = (record.created_at, record.expires_at, record.revoked_at)
    limits = None if record.limits is None else _json(record.limits)
    model_limits = _json(record.model_limits) if record.model_limits else None
    mine = (record.user_id, record.team_id, limits, model_limits)
    return (*who, record.digest, record.last4, *when, models, _json(record.scopes), *mine)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _record_of(row: Row) -> KeyRecord:
    key_id, name, owner, plan, digest, last4, created_at, expires_at, revoked_at, models, scopes, *mine = row
    user_id, team_id, limits, model_limits = mine
    return KeyRecord(
        id=key_id,
        name=name,
        owner=owner,
        plan=plan,
        digest=digest,
        last4=last4,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        models=None if models is None else msgspec.json.decode(models, type=tuple[str, ...]),
        scopes=msgspec.json.decode(scopes, type=tuple[str, ...]),
        user_id=user_id or "",
        team_id=team_id or "",
        limits=None if limits is None else msgspec.json.decode(limits, type=Allowance),
        model_limits={} if model_limits is None else msgspec.json.decode(model_limits, type=dict[str, Allowance]),
    )

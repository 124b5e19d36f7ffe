"""What the ledger writes to SQLite: one transaction a batch, over a connection of its own.

    commit(move=False)   intents ──► one row of `intents`     entries ──► one row of `journal`     (10 us + 1 us a row)
    commit(move=True)    the journal's entries and the batch's ──► `entries` and `day_sums`         (9 us a row of many)

Both are equally safe; the first is cheap now, the second is cheap in bulk. Not here: when which is done, who waits for
it (`sqlite_ledger.py`), and the disk (`sqlite_sync.py`): `synchronous` is NORMAL, so that a commit waits for no disk.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from convene.limits.limit import DAY_US
from convene.store.ledger_rows import (
    ENTRY_FIELDS,
    FIGURES,
    FIGURES_OF_ROW,
    mended,
    packed_intents,
    packed_rows,
    unpacked_rows,
)
from convene.store.sqlite_open import LOOP_S, opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from convene.store.base_ledger import Intent

Rows = list[list[Any]]

_SETTINGS: Final = (
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 0",  # `sqlite_sync.py` does it, on a thread
    "PRAGMA cache_size = -16000",  # KiB: the inner pages of the indexes of some ten million entries
    "PRAGMA secure_delete = OFF",  # what is deleted here lives on in `entries`
)
_UNFIT: Final = (UnicodeError, OverflowError, TypeError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
"""What a value raises that its column does not take."""
_FIGURES: Final = ", ".join(FIGURES)
_SUMMED: Final = ", ".join(f"sum({name})" for name in FIGURES)
_INTENTS: Final = "INSERT INTO intents (number, writer, body) VALUES (?, ?, ?)"
_JOURNAL: Final = "INSERT INTO journal (number, body) VALUES (?, ?)"
_ENTRIES: Final = (
    f"INSERT INTO entries ({', '.join(ENTRY_FIELDS)}) VALUES ({', '.join('?' * len(ENTRY_FIELDS))}) "  # noqa: S608 -- constants, here and below
    "ON CONFLICT DO NOTHING"
)
_SUMMED_BY: Final = f"INSERT INTO day_sums (key_id, model, day, user_id, team_id, requests, {_FIGURES}) "
_ADDED: Final = (
    "ON CONFLICT (key_id, model, day, user_id, team_id) DO UPDATE SET requests = requests + excluded.requests, "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in FIGURES)
)
_SUMS: Final = (
    f"{_SUMMED_BY} SELECT key_id, model, at_us / {DAY_US}, user_id, team_id, count(*), {_SUMMED} "  # noqa: S608
    f"FROM entries WHERE rowid > ? GROUP BY 1, 2, 3, 4, 5 {_ADDED}"
)
_SUM: Final = f"{_SUMMED_BY} VALUES (?, ?, ?, ?, ?, ?{', ?' * len(FIGURES)}) {_ADDED}"
_WHOSE: Final = tuple(ENTRY_FIELDS.index(name) for name in ("key_id", "model", "at_us", "user_id", "team_id"))
_MOVED: Final = "DELETE FROM journal WHERE number BETWEEN ? AND ?"


class Journal:
    """The ledger's connection. Used by one thread, the one that made it; every call may raise `sqlite3.Error`."""

    def __init__(self, path: Path, writer: str, first: int) -> None:
        """Open; `first` is the number of the first row, far from every other writer's, as numbers are never reused."""
        self._writer = writer
        self._next = first
        self._first = first
        """Of the rows in `journal` that are not moved yet, or the next one."""
        self._waiting: Rows = []
        """What is in those rows."""
        self._connection = opened(path, _prepare, LOOP_S)

    @property
    def next(self) -> int:
        """The number that the next row of intents will have."""
        return self._next

    @property
    def waiting(self) -> int:
        """How many entries lie in the journal and are not moved yet."""
        return len(self._waiting)

    def commit(self, intents: Sequence[Intent], rows: Rows, ended: Sequence[int], *, move: bool) -> None:
        """Write it all, or nothing.

        `ended` are rows of intents all of which have ended; they are deleted when entries are moved.
        """
        run = self._connection.execute
        number, journal = self._next, self._next + 1
        run("BEGIN IMMEDIATE")
        try:
            if intents:
                run(_INTENTS, (number, self._writer, packed_intents(intents)))
            if move:
                self._move(self._waiting + rows if self._waiting else rows, ended)
            elif rows:
                run(_JOURNAL, (journal, _packed(rows)))
            run("COMMIT")
        except BaseException:  # whatever it was, nothing half-done is kept; it is raised on
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise
        self._next += 2
        if move:
            self._first = self._next
            self._waiting = []
        else:
            self._waiting += rows

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _move(self, rows: Rows, ended: Sequence[int]) -> None:
        _insert(self._connection, rows)
        if self._waiting:
            self._connection.execute(_MOVED, (self._first, self._next))
        if ended:
            self._connection.executemany("DELETE FROM intents WHERE number = ?", [(number,) for number in ended])


def _prepare(connection: sqlite3.Connection) -> None:
    for setting in _SETTINGS:
        connection.execute(setting)
    # From its first read on a connection of WAL holds a shared lock on the database, so that no other process can be
    # the last one to close it and take the WAL away.
    connection.execute("SELECT count(*) FROM journal").fetchone()


def move_all(connection: sqlite3.Connection) -> None:
    """Move everybody's journal, inside a transaction of the caller.

    That is what a killed writer left, or a living one has not moved yet; it may move the same again, to no effect.
    """
    for number, body in connection.execute("SELECT number, body FROM journal ORDER BY number").fetchall():
        _insert(connection, unpacked_rows(body))
        connection.execute(_MOVED, (number, number))


def _insert(connection: sqlite3.Connection, rows: Rows) -> None:
    """Insert rows and add those that were not there before to the sums of their days."""
    [top] = connection.execute("SELECT coalesce(max(rowid), 0) FROM entries").fetchone()
    before = connection.total_changes
    try:
        connection.executemany(_ENTRIES, rows)
        as_they_are = True
    except _UNFIT:  # those before the one at fault are in; their second time has no effect
        connection.executemany(_ENTRIES, [mended(row) for row in rows])
        as_they_are = False
    if as_they_are and connection.total_changes - before == len(rows):
        connection.executemany(_SUM, _sums(rows))  # all are new: adding up here takes half of what SQL takes
    else:
        connection.execute(_SUMS, (top,))


def _sums(rows: Rows) -> list[tuple[Any, ...]]:
    """Return the rows of `day_sums` that these entries come to."""
    key_at, model_at, time_at, user_at, team_at = _WHOSE
    groups: dict[tuple[Any, ...], list[list[int]]] = {}
    for row in rows:
        group = row[key_at], row[model_at], row[time_at] // DAY_US, row[user_at], row[team_at]
        found = groups.get(group)
        if found is None:
            groups[group] = [row[FIGURES_OF_ROW]]
        else:
            found.append(row[FIGURES_OF_ROW])
    return [(*group, len(figures), *map(sum, zip(*figures, strict=True))) for group, figures in groups.items()]


def _packed(rows: Rows) -> bytes:
    try:
        return packed_rows(rows)
    except _UNFIT:
        return packed_rows([mended(row) for row in rows])

"""How entries come into the tables of SQLite: many at once, each once, their days added up in the same transaction.

The event loop moves what its log has (`sqlite_ledger.py`) over a connection of its own: some 6 us a row of many, where
a row by itself takes 48. `synchronous` is NORMAL, so that a move waits for no disk; until the disk has it, so has the
log. Whoever reads the books brings in what other writers' logs have, by the same statements (`sqlite_logs.py`).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from convene.limits.limit import DAY_US
from convene.store.ledger_rows import (
    ENTRY_FIELDS,
    FIGURES,
    FIGURES_OF_ROW,
    UNFIT,
    mended,
    unpacked_rows,
)
from convene.store.sqlite_open import LOOP_S, opened

if TYPE_CHECKING:
    from pathlib import Path

Rows = list[list[Any]]

_SETTINGS: Final = (
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 0",  # `sqlite_sync.py` does it, on a thread
    "PRAGMA cache_size = -16000",  # KiB: the inner pages of the indexes of some ten million entries
    "PRAGMA secure_delete = OFF",  # what is deleted here lives on in `entries`
)
_UNFIT: Final = (*UNFIT, sqlite3.IntegrityError, sqlite3.ProgrammingError)
"""What a value raises that its column does not take."""
_FIGURES: Final = ", ".join(FIGURES)
_SUMMED: Final = ", ".join(f"sum({name})" for name in FIGURES)
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


class Mover:
    """The connection of the loop. Used by the thread that made it; every call may raise `sqlite3.Error`."""

    def __init__(self, path: Path) -> None:
        self._connection = opened(path, _prepare, LOOP_S)

    def move(self, rows: Rows) -> None:
        """Bring rows into the tables, all or none."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            insert(self._connection, rows)
            run("COMMIT")
        except BaseException:  # whatever it was, nothing half-done is kept; it is raised on
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    for setting in _SETTINGS:
        connection.execute(setting)
    # From its first read on a connection of WAL holds a shared lock on the database, so that no other process can be
    # the last one to close it and take the WAL away.
    connection.execute("SELECT count(*) FROM writers").fetchone()


def move_old_journal(connection: sqlite3.Connection) -> None:
    """Bring in what an older Convene, which kept its log in a table, has left there; in a transaction of the caller."""
    for number, body in connection.execute("SELECT number, body FROM journal ORDER BY number").fetchall():
        insert(connection, unpacked_rows(body))
        connection.execute("DELETE FROM journal WHERE number = ?", (number,))


def insert(connection: sqlite3.Connection, rows: Rows) -> None:
    """Insert rows and add those that were not there before to the sums of their days; in a caller's transaction."""
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

"""The logs of all writers of one SQLite file: read by whoever reads the books, ended for those that were killed.

Their files lie beside the database, in FILE-log (`book_log.py`). A reader brings what a log has beyond its last mark
into the tables; its writer may bring in the same again, to no effect, and the sums count only what is new. What a dead
writer has begun and not ended becomes rows of `intents`, where orphans are looked for, and then its log goes; it stays
as long as a process holds it, since one that was only frozen would go on writing to a file that nobody finds.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from convene.store.book_log import SLOTS, left_by, writers
from convene.store.book_log_writer import is_let_go
from convene.store.ledger_rows import packed_intents, unpacked_intents
from convene.store.sqlite_entries import insert

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from convene.store.base_ledger import Intent
    from convene.store.book_log import Left, Place

PAGE: Final = 500
_INTENT: Final = "INSERT INTO intents (writer, body) VALUES (?, ?)"


def log_folder(path: Path) -> Path:
    """Return where the logs of a database's writers lie."""
    return path.with_name(f"{path.name}-log")


class Logs:
    """The logs of one database's writers as one reader knows them. For one thread; calls may raise `sqlite3.Error`."""

    def __init__(self, path: Path) -> None:
        self._folder = log_folder(path)
        self._seen: dict[str, dict[str, Place]] = {}

    def bring_in(self, connection: sqlite3.Connection, but: str = "") -> None:
        """Bring into the tables what is new in all logs but that of one writer. Raises OSError."""
        others = [writer for writer in writers(self._folder) if writer != but]
        found = {writer: left_by(self._folder, writer, self._seen.get(writer, {})) for writer in others}
        rows = [row for left in found.values() for row in left.rows]
        if rows:
            connection.execute("BEGIN IMMEDIATE")
            try:
                insert(connection, rows)
            except BaseException:  # whatever it was, nothing half-done is kept; it is raised on
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        self._seen = {writer: left.ends for writer, left in found.items()}

    def open_intents(self, connection: sqlite3.Connection, but: str, further: Sequence[Intent]) -> list[Intent]:
        """Return the intents in all logs but one, and of these further ones, that have no entry. Raises OSError."""
        found = [left_by(self._folder, writer) for writer in writers(self._folder) if writer != but]
        return without_ended(connection, [*further, *(intent for left in found for intent in left.open)])

    def end_dead(self, connection: sqlite3.Connection, mine: str, seen_us: int) -> None:
        """Take over the logs of those that have not been seen since. Raises OSError."""
        for writer in writers(self._folder):
            if writer != mine and not _is_seen(connection, writer, seen_us):
                self._end(connection, writer, seen_us)

    def _end(self, connection: sqlite3.Connection, writer: str, seen_us: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not _is_seen(connection, writer, seen_us):
                take_over(connection, writer, left_by(self._folder, writer))
        except BaseException:  # as above
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")  # on the disk: this connection's `synchronous` is FULL
        files = [self._folder / f"{writer}.{slot}" for slot in SLOTS]
        if all(is_let_go(file) for file in files) and not _is_seen(connection, writer, seen_us):
            for file in files:
                with contextlib.suppress(OSError):
                    file.unlink()


def take_over(connection: sqlite3.Connection, writer: str, left: Left) -> None:
    """Bring what a log has into the tables, its open intents too; in a transaction of the caller."""
    if left.rows:
        insert(connection, left.rows)
    there = connection.execute("SELECT body FROM intents WHERE writer = ?", (writer,)).fetchall()
    known = {intent.id for (body,) in there for intent in unpacked_intents(body)}
    fresh = [one for one in left.open if one.id not in known]  # whoever looks for orphans sees which have ended
    if fresh:
        connection.execute(_INTENT, (writer, packed_intents(fresh)))


def without_ended(connection: sqlite3.Connection, intents: Sequence[Intent]) -> list[Intent]:
    """Return those of the intents that have no entry in the tables."""
    ended: set[str] = set()
    for start in range(0, len(intents), PAGE):
        ids = [intent.id for intent in intents[start : start + PAGE]]
        statement = f"SELECT id FROM entries WHERE id IN ({', '.join('?' * len(ids))})"  # noqa: S608 -- no values
        ended.update(found for (found,) in connection.execute(statement, ids))
    return [intent for intent in intents if intent.id not in ended]


def _is_seen(connection: sqlite3.Connection, writer: str, seen_us: int) -> bool:
    found = connection.execute("SELECT 1 FROM writers WHERE id = ? AND seen_at_us >= ?", (writer, seen_us))
    return found.fetchone() is not None

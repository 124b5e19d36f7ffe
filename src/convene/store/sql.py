"""The inner seam of the stores that speak SQL: look-ups and changes written once, for SQLite and for Postgres.

    await database.rows("SELECT name FROM keys WHERE id = ?", (key_id,))
    await database.write([("UPDATE keys SET name = ? WHERE id = ?", (name, key_id)), REVISE])

Statements have `?` holes, no text of their own that holds a `?`, and only what both databases know: `ON CONFLICT`,
`RETURNING`, `coalesce`, never a function of one of them. Truth values are 0 and 1. `SqliteFile` and the Postgres pool
are the implementations; the ledger's writers go around this seam, for speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.schema import Dialect

Row = tuple[Any, ...]
Change = tuple[str, "Sequence[object]"]
"""A statement and the values of its holes."""

_REVISE = (
    "INSERT INTO revisions (name, number) VALUES ('access', 1) "
    "ON CONFLICT (name) DO UPDATE SET number = revisions.number + 1"
)
REVISE: Final[Change] = (_REVISE, ())
"""Belongs into every transaction that changes who may do what (keys, accounts): `Keys.version()` grows by it."""


class Database(Protocol):
    """One database. Every call raises `StoreFault` if it cannot be used."""

    @property
    def dialect(self) -> Dialect:
        """Which SQL it speaks, for the few statements that differ."""
        ...

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return the rows of one statement, which may be a change with RETURNING; then it is kept when this returns."""
        ...

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """Do all of it in one transaction, or nothing, and return how many rows each has touched; it is on the disk."""
        ...


async def revision(database: Database) -> int:
    """Return how often `REVISE` was done, by anybody. Raises `StoreFault`."""
    rows = await database.rows("SELECT number FROM revisions WHERE name = 'access'")
    return int(rows[0][0]) if rows else 0

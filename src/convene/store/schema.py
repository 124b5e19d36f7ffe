"""Tables as data, and their statements in each dialect: one definition for SQLite and Postgres.

A step of `migrations.py` is a tuple of operations. Pure; nothing here connects to anything.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Dialect = Literal["sqlite", "postgres"]
Type = Literal["text", "int", "real", "blob", "bool"]

_TYPES: Final[dict[Dialect, dict[Type, str]]] = {
    "sqlite": {"text": "TEXT", "int": "INTEGER", "real": "REAL", "blob": "BLOB", "bool": "INTEGER"},
    "postgres": {"text": "TEXT", "int": "BIGINT", "real": "DOUBLE PRECISION", "blob": "BYTEA", "bool": "BIGINT"},
}
"""A truth value is 0 or 1 in both, so that rows are the same values whatever the database."""


class Column(msgspec.Struct, frozen=True):
    """One column. `default` is an SQL literal; a column that is added later needs one unless it may be NULL."""

    name: str
    type: Type
    null: bool = False
    default: str | None = None

    def sql(self, dialect: Dialect) -> str:
        """Return the column's definition."""
        default = "" if self.default is None else f" DEFAULT {self.default}"
        return f"{self.name} {_TYPES[dialect][self.type]}{'' if self.null else ' NOT NULL'}{default}"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Create a table."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    without_rowid: bool = False
    """SQLite only: keep the rows in the primary key's tree (short rows that are found by it alone)."""

    def statements(self, dialect: Dialect) -> tuple[str, ...]:
        """Return the statement that makes it. A single integer key is SQLite's rowid and Postgres' identity."""
        lines = [column.sql(dialect) for column in self.columns]
        lines.append(f"PRIMARY KEY ({', '.join(self.primary_key)})")
        options = "" if dialect == "postgres" else " STRICT, WITHOUT ROWID" if self.without_rowid else " STRICT"
        return (f"CREATE TABLE {self.name} ({', '.join(lines)}){options}",)


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Create an index."""

    name: str
    table: str
    columns: tuple[str, ...]
    unique: bool = False
    where: str = ""

    def statements(self, dialect: Dialect) -> tuple[str, ...]:
        """Return the statement that makes it."""
        del dialect
        where = f" WHERE {self.where}" if self.where else ""
        unique = "UNIQUE " if self.unique else ""
        return (f"CREATE {unique}INDEX {self.name} ON {self.table} ({', '.join(self.columns)}){where}",)


class AddColumn(msgspec.Struct, frozen=True):
    """Add a column to a table that exists."""

    table: str
    column: Column

    def statements(self, dialect: Dialect) -> tuple[str, ...]:
        """Return the statement that adds it."""
        return (f"ALTER TABLE {self.table} ADD COLUMN {self.column.sql(dialect)}",)


Operation = Table | Index | AddColumn

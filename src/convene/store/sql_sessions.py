"""Sessions in the tables `sessions` and `session_notes`, of SQLite or Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.store.base_sessions import Note, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.store.sql import Change, Database, Row

_FIELDS: Final = SessionRecord.__struct_fields__
_COLUMNS: Final = ", ".join(_FIELDS)
_TOUCH: Final = (
    f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, 0) "  # noqa: S608 -- constants, here and below
    f"ON CONFLICT (owner, id) DO UPDATE SET used_us = excluded.used_us RETURNING {_COLUMNS}"
)
_GET: Final = f"SELECT {_COLUMNS} FROM sessions WHERE owner = ? AND id = ?"  # noqa: S608
_PAGE: Final = f"SELECT {_COLUMNS} FROM sessions WHERE owner = ?"  # noqa: S608
_ORDER: Final = " ORDER BY used_us DESC, id DESC LIMIT ?"
_PUT: Final = (
    "INSERT INTO session_notes (owner, session_id, name, body, at_us) "
    "SELECT owner, id, ?, ?, ? FROM sessions WHERE owner = ? AND id = ? "
    "ON CONFLICT (owner, session_id, name) DO UPDATE SET body = excluded.body, at_us = excluded.at_us"
)
_SHED: Final = (
    "DELETE FROM session_notes WHERE owner = ? AND session_id = ? AND name IN (SELECT name FROM ("
    "SELECT name, sum(length(body)) OVER (ORDER BY at_us DESC, name DESC ROWS UNBOUNDED PRECEDING) AS total "
    "FROM session_notes WHERE owner = ? AND session_id = ?) AS sized WHERE total > ?)"
)
_MEASURE: Final = (
    "UPDATE sessions SET size = (SELECT CAST(coalesce(sum(length(body)), 0) AS BIGINT) FROM session_notes "
    "WHERE session_notes.owner = sessions.owner AND session_notes.session_id = sessions.id) WHERE owner = ? AND id = ?"
)
_NOTES: Final = "SELECT name, body, at_us FROM session_notes WHERE owner = ? AND session_id = ?"
_TAKE: Final = "DELETE FROM session_notes WHERE owner = ? AND session_id = ? AND name = ?"
_EMPTY: Final = "DELETE FROM session_notes WHERE owner = ? AND session_id = ?"
_DELETE: Final = "DELETE FROM sessions WHERE owner = ? AND id = ?"
_FORGET_NOTES: Final = (
    "DELETE FROM session_notes WHERE EXISTS (SELECT 1 FROM sessions WHERE sessions.owner = session_notes.owner "
    "AND sessions.id = session_notes.session_id AND sessions.used_us < ?)"
)
_FORGET: Final = "DELETE FROM sessions WHERE used_us < ?"


class SqlSessions:
    """Sessions in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def touch(self, owner: str, session_id: str, conversation_id: str, now_us: int) -> SessionRecord:
        """Return the session, used now (`base_sessions.Sessions`). Raises `StoreFault`."""
        [row] = await self._database.rows(_TOUCH, (owner, session_id, conversation_id, now_us, now_us))
        return _record(row)

    async def get(self, owner: str, session_id: str) -> SessionRecord | None:
        """Return the owner's session (`base_sessions.Sessions`). Raises `StoreFault`."""
        return next(map(_record, await self._database.rows(_GET, (owner, session_id))), None)

    async def page(self, owner: str, limit: int, after: tuple[int, str] | None = None) -> list[SessionRecord]:
        """Return the owner's sessions, last used first (`base_sessions.Sessions`). Raises `StoreFault`."""
        behind, values = ("", ()) if after is None else (" AND (used_us, id) < (?, ?)", after)
        return [_record(row) for row in await self._database.rows(_PAGE + behind + _ORDER, (owner, *values, limit))]

    async def put(self, owner: str, session_id: str, notes: Mapping[str, bytes], now_us: int, size_max: int) -> None:
        """Write notes (`base_sessions.Sessions`). Raises `StoreFault`."""
        whose = owner, session_id
        changes: list[Change] = [(_PUT, (name, body, now_us, *whose)) for name, body in notes.items()]
        await self._database.write([*changes, (_SHED, (*whose, *whose, size_max)), (_MEASURE, whose)])

    async def notes(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> list[Note]:
        """Return the session's notes, oldest first (`base_sessions.Sessions`). Raises `StoreFault`."""
        if names is not None and not names:
            return []
        among = "" if names is None else f" AND name IN ({', '.join('?' * len(names))})"
        rows = await self._database.rows(f"{_NOTES}{among} ORDER BY at_us, name", (owner, session_id, *(names or ())))
        return [Note(name=name, body=bytes(body), at_us=at_us) for name, body, at_us in rows]

    async def take(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        """Delete notes (`base_sessions.Sessions`). Raises `StoreFault`."""
        changes: list[Change] = [(_TAKE, (owner, session_id, name)) for name in names]
        await self._database.write([*changes, (_MEASURE, (owner, session_id))])

    async def delete(self, owner: str, session_id: str) -> bool:
        """Delete a session (`base_sessions.Sessions`). Raises `StoreFault`."""
        whose = owner, session_id
        return bool((await self._database.write([(_EMPTY, whose), (_DELETE, whose)]))[1])

    async def forget(self, used_before_us: int) -> int:
        """Delete sessions that nobody uses any more (`base_sessions.Sessions`). Raises `StoreFault`."""
        changes: list[Change] = [(_FORGET_NOTES, (used_before_us,)), (_FORGET, (used_before_us,))]
        return (await self._database.write(changes))[1]


def _record(row: Row) -> SessionRecord:
    return SessionRecord(**dict(zip(_FIELDS, row, strict=True)))

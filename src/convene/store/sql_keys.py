"""API keys in the table `keys`, of SQLite or Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.errors import Conflict
from convene.limits.allowance import Allowance
from convene.store.base import KeyRecord
from convene.store.sql import REVISE, revision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base import KeyChange
    from convene.store.sql import Database, Row

_COLUMNS = (
    "id, name, owner, plan, digest, last4, created_at, expires_at, revoked_at, models, scopes, "
    "user_id, team_id, limits, model_limits"
)
_JSON = ("models", "limits")
"""Columns of those that a change may name which hold JSON."""
_HOLES = ", ".join("?" * len(_COLUMNS.split(", ")))
_ADD = f"INSERT INTO keys ({_COLUMNS}) VALUES ({_HOLES}) ON CONFLICT DO NOTHING"  # noqa: S608 -- constants
_GET = f"SELECT {_COLUMNS} FROM keys WHERE id = ?"  # noqa: S608 -- constants
_LIST = f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id"  # noqa: S608 -- constants
_REVOKE = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?"
_ALONE = "DELETE FROM keys WHERE id = ? AND EXISTS (SELECT 1 FROM keys AS others WHERE others.id <> ?)"
_REPLACE = "UPDATE keys SET digest = ?, last4 = ? WHERE id = ? AND revoked_at IS NULL"


class SqlKeys:
    """API keys in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, record: KeyRecord) -> None:
        """Keep a new key. Raises `Conflict` if the id is taken."""
        if not await self._change(_ADD, *_row_of(record)):
            raise Conflict(f"There is already a key with the id {record.id}.")

    async def add_first(self, record: KeyRecord) -> bool:
        """Keep a key if there is none yet.

        The revision comes first: it is the one row that Postgres, too, lets only one of these transactions have at a
        time, so the last statement sees the key of whoever was before.
        """
        alone = (_ALONE, (record.id, record.id))
        _revised, added, dropped = await self._database.write([REVISE, (_ADD, _row_of(record)), alone])
        return added == 1 and not dropped

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return the key with this id, or None."""
        rows = await self._database.rows(_GET, (key_id,))
        return _record_of(rows[0]) if rows else None

    async def list_all(self) -> tuple[KeyRecord, ...]:
        """Return all keys, oldest first."""
        return tuple(_record_of(row) for row in await self._database.rows(_LIST))

    async def list_of(self, user_id: str, team_ids: Sequence[str] = ()) -> tuple[KeyRecord, ...]:
        """Return the keys of a user and of these teams, oldest first."""
        holes = ", ".join("?" * len(team_ids)) or "NULL"
        rows = await self._database.rows(
            f"SELECT {_COLUMNS} FROM keys WHERE (user_id = ? AND user_id <> '') OR team_id IN ({holes}) "  # noqa: S608 -- constants
            "ORDER BY created_at, id",
            (user_id, *team_ids),
        )
        return tuple(_record_of(row) for row in rows)

    async def change(self, key_id: str, change: KeyChange) -> KeyRecord | None:
        """Change a key."""
        said = {name: new for name in change.__struct_fields__ if (new := getattr(change, name)) is not msgspec.UNSET}
        columns = ", ".join(f"{name} = ?" for name in said) or "id = id"
        values = [_json(new) if name in _JSON and new is not None else new for name, new in said.items()]
        statement = f"UPDATE keys SET {columns} WHERE id = ?"  # noqa: S608 -- names of our own fields
        return await self.get(key_id) if await self._change(statement, *values, key_id) else None

    async def revoke(self, key_id: str, at: float) -> bool:
        """Mark the key revoked; the first time stays."""
        return await self._change(_REVOKE, at, key_id)

    async def replace_secret(self, key_id: str, digest: bytes, last4: str) -> bool:
        """Give the key another secret, unless it is revoked."""
        return await self._change(_REPLACE, digest, last4, key_id)

    async def version(self) -> int:
        """Return a number that grows whenever anybody has changed keys or accounts."""
        return await revision(self._database)

    async def _change(self, statement: str, *values: object) -> bool:
        changed, _revised = await self._database.write([(statement, values), REVISE])
        return changed == 1


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

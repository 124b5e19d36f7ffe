"""Kept vectors in the table `agent_vectors`, of SQLite or Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.store.base_vectors import USED_STEP_US

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.store.sql import Database

KEYS_MAX: Final = 200
_KEEP: Final = (
    "INSERT INTO agent_vectors (id, vector, used_us) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET vector = excluded.vector, used_us = excluded.used_us"
)
_USE: Final = "UPDATE agent_vectors SET used_us = ? WHERE id = ?"
_FORGET: Final = "DELETE FROM agent_vectors WHERE used_us < ?"


class SqlVectors:
    """The vectors of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, keys: Sequence[str], now_us: int) -> dict[str, bytes]:
        """Return vectors (`base_vectors.Vectors`). Raises `StoreFault`."""
        found: dict[str, bytes] = {}
        idle: list[str] = []
        for at in range(0, len(keys), KEYS_MAX):
            some = keys[at : at + KEYS_MAX]
            holes = ", ".join("?" * len(some))
            statement = f"SELECT id, vector, used_us FROM agent_vectors WHERE id IN ({holes})"  # noqa: S608 -- holes
            for key, vector, used_us in await self._database.rows(statement, some):
                found[key] = bytes(vector)
                if used_us < now_us - USED_STEP_US:
                    idle.append(key)
        if idle:
            await self._database.write([(_USE, (now_us, key)) for key in idle])
        return found

    async def keep(self, vectors: Mapping[str, bytes], now_us: int) -> None:
        """Keep vectors (`base_vectors.Vectors`). Raises `StoreFault`."""
        if vectors:
            await self._database.write([(_KEEP, (key, vector, now_us)) for key, vector in vectors.items()])

    async def forget(self, unused_since_us: int) -> int:
        """Delete unused vectors (`base_vectors.Vectors`). Raises `StoreFault`."""
        return (await self._database.write([(_FORGET, (unused_since_us,))]))[0]

"""Counters in Postgres at a time of ours: the same functions, but for the two that read the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from convene.store.postgres_counters import PostgresCounters
from convene.store.postgres_pool import PostgresPool

if TYPE_CHECKING:
    from collections.abc import Sequence


class Hands(Protocol):
    """Where the time stands."""

    now_us: int
    wall_us: int


_FUNCTION = "CREATE OR REPLACE FUNCTION counters_{} RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$ BEGIN {} END $$"
_REPLACED = (
    _FUNCTION.format("now_us()", "RETURN split_part(current_setting('convene.hands'), ' ', 1)::bigint;"),
    _FUNCTION.format(
        "wall_us(a_now_us BIGINT)", "RETURN split_part(current_setting('convene.hands'), ' ', 2)::bigint;"
    ),
)


class _MovedPool(PostgresPool):
    """Tells every session the time before it is asked."""

    hands: Hands

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Ask at the time of the hands."""
        async with self.session() as session:
            await session.execute(f"SET convene.hands = '{self.hands.now_us} {self.hands.wall_us}'")
            return list(await session.fetch(statement, *values))


async def empty(counters: PostgresCounters) -> None:
    """Forget everything: much faster than a schema for each of a hundred tests."""
    await counters._pool.rows("TRUNCATE counters, limit_sets, leases, slots, counters_claimed")


class MovedPostgresCounters(PostgresCounters):
    """Counters of a database of one test's own."""

    _pool: _MovedPool

    @classmethod
    async def open_at(cls, url: str, hands: Hands) -> Self:
        """Open them and replace the clock."""
        pool = await _MovedPool.open(url, durable=False)
        pool.hands = hands
        for statement in _REPLACED:
            await pool.rows(statement)
        return cls(pool)

    async def _ask(self, statement: str, *values: object) -> list[Any]:
        return await self._pool.rows(statement, values)

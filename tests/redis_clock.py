"""A Redis whose time a test moves: the scripts read it from a key instead of asking the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from convene.store.redis_counters import RedisCounters

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.store.redis_connection import Reply, Word
    from convene.store.redis_counters import Script
    from servers import RedisSpace

KEPT_CLOCK: Final = """
local moments = redis.call('HMGET', KEYS[2] .. '-clock', 'now', 'wall')
local now, wall, spare_ms = tonumber(moments[1]), tonumber(moments[2]), 3600000
"""
"""Kept long: while the test's time stands still, the server's goes on."""


class Movable(Protocol):
    """A clock in whole microseconds."""

    now_us: int
    wall_us: int


class MovedRedisCounters(RedisCounters):
    """`RedisCounters` whose server has the time of a clock of ours. Each call tells it first."""

    def __init__(self, space: RedisSpace, clock: Clock, moved: Movable) -> None:
        # The moved clock is not waited with: a busy machine makes no fault of it.
        super().__init__(space.url, clock, tag=space.tag, wait_s=10.0, server_clock=KEPT_CLOCK)
        self._moved = moved

    async def _run(self, script: Script, *words: Word) -> Reply:
        clock = f"{self._keys[1]}-clock"
        await self._line.ask(("HSET", clock, "now", self._moved.now_us, "wall", self._moved.wall_us))
        return await super()._run(script, *words)

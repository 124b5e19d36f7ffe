"""Limits: one decision over six limits, and its settlement: in memory, in a file, in a Redis (issue 3, A5).

A request of a key with four limits (requests and tokens a minute, requests a day, slots), of a team with tokens a
minute and of a user with a monthly budget. Each call is timed by itself and the time of reading the clock taken off;
the best of some rounds counts, as whatever else the machine does only adds. A refusal is explained in full; no bar.
The Redis is a private one on loopback, on whatever core; its own count says how many commands a call takes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, NamedTuple

import redis
import uvloop

from parts import GATEWAY_CORE, HERE, missing, result, say

sys.path.insert(0, str(HERE.parent / "tests"))

from convene.clock import SystemClock
from convene.limits.allowance import Allowance, limits_of
from convene.limits.limit import Amounts, Grant, Limit, Refusal
from convene.store.memory_counters import LocalMemoryCounters
from convene.store.redis_counters import RedisCounters
from convene.store.sqlite_counters import LocalSqliteCounters
from servers import own_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.store.base_counters import LocalCounters

MEMORY_US: Final = 3.0
SQLITE_US: Final = 30.0
REDIS_US: Final = 120.0
ROUNDS: Final = 6
CALLS: Final = 3_000
UNDER_WAY: Final = 64
"""So many requests are under way at a time."""
LEASE_US: Final = 60_000_000
RESERVED: Final = Amounts(requests=1, tokens=700, input_tokens=300, output_tokens=400, micros=900, slots=1)
ACTUAL: Final = Amounts(requests=1, tokens=512, input_tokens=290, output_tokens=222, micros=640)

_PLENTY: Final = 1_000_000_000


class Times(NamedTuple):
    """How long each call of a round took, in microseconds, sorted."""

    reserve: list[float]
    settle: list[float]
    refuse: list[float]


def six_limits(key: str, requests_per_minute: int) -> tuple[Limit, ...]:
    """Return the six limits of a request."""
    own = Allowance(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=999_999_937,
        requests_per_day=_PLENTY,
        concurrent_requests=_PLENTY,
    )
    team = limits_of(Allowance(tokens_per_minute=_PLENTY), "team", "t1")
    return limits_of(own, "key", key) + team + limits_of(Allowance(budget_per_month=10**15), "user", "u1")


def times_of(counters: LocalCounters, number: int) -> Times:
    """Play one round, with keys of its own."""
    free, spent = six_limits(f"k{number}", _PLENTY), six_limits(f"spent{number}", 1)
    idle_us = _idle_us()
    found = Times([], [], [])
    names = [f"turn_{number:02x}{place:022x}" for place in range(CALLS)]
    for place, name in enumerate(names):
        began_ns = perf_counter_ns()
        answer = counters.reserve(name, free, RESERVED, LEASE_US)
        found.reserve.append((perf_counter_ns() - began_ns) / 1000 - idle_us)
        assert isinstance(answer, Grant)
        if place >= UNDER_WAY:
            began_ns = perf_counter_ns()
            counters.settle(names[place - UNDER_WAY], ACTUAL)
            found.settle.append((perf_counter_ns() - began_ns) / 1000 - idle_us)
    counters.reserve("first", spent, RESERVED, LEASE_US)
    counters.settle("first", RESERVED._replace(requests=1_000))
    for _ in range(CALLS // 10):
        began_ns = perf_counter_ns()
        answer = counters.reserve("refused", spent, RESERVED, LEASE_US)
        found.refuse.append((perf_counter_ns() - began_ns) / 1000 - idle_us)
        assert isinstance(answer, Refusal)
    for spans in found:
        spans.sort()
    return found


def _idle_us() -> float:
    """Return how long it takes to time nothing."""
    spans = []
    for _ in range(10_000):
        began_ns = perf_counter_ns()
        spans.append(perf_counter_ns() - began_ns)
    return sorted(spans)[len(spans) // 2] / 1000


def _quantile(spans: list[float], share: float) -> float:
    return spans[int(len(spans) * share)]


def _rounds(counters: LocalCounters) -> list[Times]:
    return [times_of(counters, number) for number in range(ROUNDS)]


async def redis_times_of(counters: RedisCounters, number: int) -> Times:
    """Play one round over the network; the time of reading the clock is nothing beside it."""
    free, spent = six_limits(f"k{number}", _PLENTY), six_limits(f"spent{number}", 1)
    found = Times([], [], [])
    names = [f"turn_{number:02x}{place:022x}" for place in range(CALLS)]
    for place, name in enumerate(names):
        began_ns = perf_counter_ns()
        answer = await counters.reserve(name, free, RESERVED, LEASE_US)
        found.reserve.append((perf_counter_ns() - began_ns) / 1000)
        assert isinstance(answer, Grant)
        if place >= UNDER_WAY:
            began_ns = perf_counter_ns()
            await counters.settle(names[place - UNDER_WAY], ACTUAL)
            found.settle.append((perf_counter_ns() - began_ns) / 1000)
    await counters.reserve("first", spent, RESERVED, LEASE_US)
    await counters.settle("first", RESERVED._replace(requests=1_000))
    for _ in range(CALLS // 10):
        began_ns = perf_counter_ns()
        answer = await counters.reserve("refused", spent, RESERVED, LEASE_US)
        found.refuse.append((perf_counter_ns() - began_ns) / 1000)
        assert isinstance(answer, Refusal)
    for spans in found:
        spans.sort()
    return found


async def _redis_rounds(url: str) -> list[Times]:
    async with contextlib.aclosing(RedisCounters(url, SystemClock(), wait_s=5.0)) as counters:
        return [await redis_times_of(counters, number) for number in range(ROUNDS)]


def _redis() -> bool:
    """Time a private Redis and count its commands."""
    if missing(["redis-server"]):
        say("     Redis: redis-server is not installed")
        return True
    with own_redis() as server:
        rounds = uvloop.run(_redis_rounds(server.url))
        with contextlib.closing(redis.Redis.from_url(server.url)) as client:
            stats = client.info("commandstats")
    asked = sum(len(spans) for one in rounds for spans in one) + 2 * len(rounds)
    calls = stats["cmdstat_evalsha"]["calls"] / asked
    return result("commands a call, Redis", calls, 1.0, unit="", most=True) and _judge("Redis", rounds, REDIS_US)


def _judge(where: str, rounds: list[Times], bar_us: float) -> bool:
    holds = True
    for call in ("reserve", "settle", "refuse"):
        p50, p99 = (min(_quantile(getattr(one, call), share) for one in rounds) for share in (0.5, 0.99))
        name = f"{call}, six limits, {where}"
        if call == "refuse":
            say(f"     {name:<44} {p50:>10.3f} us p50     p99={p99:.1f} us")
        else:
            holds = result(name, p50, bar_us, unit="us p50", most=True, p99=f"{p99:.1f} us") and holds
    return holds


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {GATEWAY_CORE % (os.cpu_count() or 1)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure() -> bool:
    """Print the figures of all stores; return whether the bars hold."""
    with _on_one_core(), tempfile.TemporaryDirectory() as folder:
        memory = _judge("memory", _rounds(LocalMemoryCounters(SystemClock())), MEMORY_US)
        file = LocalSqliteCounters.open(Path(folder), SystemClock(), "bench")
        sqlite = _judge("SQLite", _rounds(file), SQLITE_US)
        file.close()
    return _redis() and memory and sqlite

"""The books in SQLite: durable rows a second and their latency beside bare SQLite, and the CPU of a request.

Yardstick: the same rows into the same table, 32 to a transaction, `executemany` and COMMIT under `synchronous=FULL` in
a bare thread, with nobody waiting for anything. Rounds of both take turns, so that a slow disk slows both.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import uvloop

from parts import HERE, result, say

sys.path.insert(0, str(HERE.parent / "tests"))

from convene.store.base_ledger import Entry, Filter, Intent, Whose
from convene.store.ledger_rows import ENTRY_FIELDS, row_of
from convene.store.sqlite import SqliteStore
from ledger_samples import START_US, ended, intent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.store.base_ledger import Ledger

CALLERS: Final = 32
TURN: Final = 8
"""Requests that begin, and requests that end, in one turn of the loop under load."""
ROUNDS, ROUND_S, ROUND_ROWS = 4, 1.5, 4000
RATIO_BAR, P99_MS_BAR, CPU_US_BAR = 0.5, 25.0, 12.0
KEYS: Final = 4

Pair = tuple[Intent, Entry]


class Load(NamedTuple):
    """What 32 callers came to."""

    rows_s: float
    p99_ms: float


def pairs() -> Iterator[Pair]:
    """Yield requests a millisecond apart, ids ordered by time, of a few keys."""
    chance = random.Random(1)  # noqa: S311 -- no secret
    for number in itertools.count():
        at_us = START_US + number * 1000
        key = f"{chance.randrange(KEYS):012x}"
        begun = intent(
            id=f"chatcmpl-{at_us:016x}{chance.getrandbits(32):08x}",
            request_id=f"req_{at_us:016x}{chance.getrandbits(32):08x}",
            at_us=at_us,
            key_id=key,
            owner=key,
            user_id=f"user-{key}",
        )
        yield begun, ended(begun, duration_us=1000, ttft_us=500)


def measure() -> bool:
    """Print the figures; return whether all bars hold."""
    with tempfile.TemporaryDirectory(prefix="convene-bench-") as folder:
        return uvloop.run(_measure(Path(folder)))


async def _measure(folder: Path) -> bool:
    store = await SqliteStore.open(folder / "books.db")
    bare = await SqliteStore.open(folder / "bare.db")  # makes the same tables
    await bare.aclose()
    source = pairs()
    cpus = [await _cpu(store, list(itertools.islice(source, ROUND_ROWS))) for _ in range(2 * ROUNDS)]
    yardstick: list[float] = []
    both: list[Load] = []
    ends: list[Load] = []
    for _ in range(ROUNDS):
        yardstick.append(await asyncio.to_thread(_bare, folder / "bare.db", source))
        ends.append(await load(store.ledger, source, begin=False))
        both.append(await load(store.ledger, source, begin=True))
    total = (await store.ledger.total(Whose("all"))).requests
    counted = (await store.ledger.report(Filter(whose=Whose("all"), session_id=""), (), 1))[0].sums.requests
    await store.aclose()
    say(f"     bare group commit: {statistics.median(yardstick):.0f} rows/s; {total} entries, as many in the sums")
    assert total == counted
    checks = [
        compare_rows("finish, 32 callers, of bare group commit", ends, yardstick),
        compare_rows("begin and finish, 32 callers, of the same", both, yardstick),
        compare_tail("finish p99, 32 callers", ends),
        compare_tail("begin and finish p99, 32 callers", both),
        result(
            "CPU of begin and finish, 8 a turn",
            min(one for one, _ in cpus),
            CPU_US_BAR,
            unit="us",
            most=True,
            median=round(statistics.median(one for one, _ in cpus), 1),
            with_the_disk=round(min(whole for _, whole in cpus), 1),
        ),
    ]
    return all(checks)


def compare_rows(name: str, loads: list[Load], yardstick: list[float]) -> bool:
    """Print the rows a second as a share of the yardstick's; return whether the bar holds."""
    ratio = statistics.median(one.rows_s / bare for one, bare in zip(loads, yardstick, strict=True))
    return result(name, ratio, RATIO_BAR, unit="x", rows_s=round(statistics.median(one.rows_s for one in loads)))


def compare_tail(name: str, loads: list[Load]) -> bool:
    """Print the 99th percentile of the latency; return whether the bar holds."""
    return result(name, statistics.median(one.p99_ms for one in loads), P99_MS_BAR, unit="ms", most=True)


async def _cpu(store: SqliteStore, some: list[Pair]) -> tuple[float, float]:
    """Return the CPU of a request in microseconds, of the loop's thread and of all: 8 begin and 8 end in each turn."""
    ledger = store.ledger
    waiting: list[asyncio.Future[None]] = []
    start, start_all = time.thread_time(), time.process_time()
    for first in range(0, len(some), TURN):
        turn = some[first : first + TURN]
        begun = [ledger.begin(one) for one, _ in turn]
        waiting += (ledger.finish(one) for _, one in some[max(first - TURN, 0) : first])
        for one in begun:
            await one
    waiting += (ledger.finish(one) for _, one in some[-TURN:])
    for one in waiting:
        await one
    scale = 1e6 / len(some)
    return (time.thread_time() - start) * scale, (time.process_time() - start_all) * scale


async def load(ledger: Ledger, source: Iterator[Pair], *, begin: bool) -> Load:
    """Let 32 callers write for a while, each one after the other."""
    took: list[float] = []
    stop = time.perf_counter() + ROUND_S

    async def caller() -> None:
        while (start := time.perf_counter()) < stop:
            one, entry = next(source)
            if begin:
                await ledger.begin(one)
            await ledger.finish(entry)
            took.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return Load(len(took) / (time.perf_counter() - start), statistics.quantiles(took, n=100)[98] * 1e3)


def _bare(path: Path, source: Iterator[Pair]) -> float:
    """Return rows a second of SQLite alone."""
    insert = f"INSERT INTO entries ({', '.join(ENTRY_FIELDS)}) VALUES ({', '.join('?' * len(ENTRY_FIELDS))})"  # noqa: S608 -- constants
    rates: list[float] = []

    def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            start, written = time.perf_counter(), 0
            while time.perf_counter() < start + ROUND_S:
                rows = [row_of(entry) for _, entry in itertools.islice(source, CALLERS)]
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(insert, rows)
                connection.execute("COMMIT")
                written += len(rows)
            rates.append(written / (time.perf_counter() - start))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return rates[0]

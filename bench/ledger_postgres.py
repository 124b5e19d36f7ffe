"""The books in Postgres: durable rows a second of 32 callers beside bare COPY of the same rows, and their latency.

Yardstick: the same rows into the same table with its indexes, 32 to a COPY and a commit, with nobody waiting for
anything and no sums kept. Rounds of both take turns, so that a slow disk slows both.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import uvloop

from ledger import CALLERS, ROUND_S, ROUNDS, Load, compare_rows, compare_tail, load, pairs
from parts import HERE, say

sys.path.insert(0, str(HERE.parent / "tests"))

from convene.store.ledger_rows import ENTRY_FIELDS, row_of
from convene.store.postgres import PostgresStore
from servers import STANDARD_POSTGRES, own_schema, postgres_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger import Pair


def measure() -> bool:
    """Print the figures; return whether all bars hold, or True if there is no Postgres to ask."""
    named = os.environ.get("CONVENE_TEST_POSTGRES_URL")
    url = next((one for one in ([named] if named else STANDARD_POSTGRES) if postgres_answers(one)), None)
    if url is None:
        say("     no Postgres: set CONVENE_TEST_POSTGRES_URL")
        return True
    with own_schema(url) as ours, own_schema(url) as bare:
        return uvloop.run(_measure(ours, bare))


async def _measure(ours: str, bare: str) -> bool:
    store, other = await PostgresStore.open(ours), await PostgresStore.open(bare)
    source = pairs()
    yardstick: list[float] = []
    ends: list[Load] = []
    both: list[Load] = []
    for _ in range(ROUNDS):
        yardstick.append(await _copy(other, source))
        ends.append(await load(store.ledger, source, begin=False))
        both.append(await load(store.ledger, source, begin=True))
    await asyncio.gather(store.aclose(), other.aclose())
    rows_s = statistics.median(one.rows_s for one in both)
    say(f"     bare COPY: {statistics.median(yardstick):.0f} rows/s; begin and finish, two commits a row: {rows_s:.0f}")
    checks = [
        compare_rows("Postgres, finish, 32 callers, of bare COPY", ends, yardstick),
        compare_tail("Postgres, finish p99, 32 callers", ends),
        compare_tail("Postgres, begin and finish p99", both),
    ]
    return all(checks)


async def _copy(store: PostgresStore, source: Iterator[Pair]) -> float:
    """Return rows a second of COPY alone."""
    written, start = 0, time.perf_counter()
    async with store.database.session() as session:
        while time.perf_counter() < start + ROUND_S:
            rows = [row_of(entry) for _, entry in itertools.islice(source, CALLERS)]
            await session.copy_records_to_table("entries", records=rows, columns=ENTRY_FIELDS)
            written += len(rows)
    return written / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(not measure())

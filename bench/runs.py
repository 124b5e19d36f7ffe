"""The journal of runs: what a step costs a turn that waits for it, and how many steps a second many turns get.

A step is written twice, before its effect and after it; as in a turn, its end and the beginning of the next one are
called together and awaited together. Kill-safe, so each wait is for a commit. The bars are goal D5's.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from parts import HERE, result, say

sys.path.insert(0, str(HERE.parent / "tests"))

from convene.store.base_runs import Hold, Run, Step
from convene.store.postgres import PostgresStore
from convene.store.sqlite import SqliteStore
from servers import STANDARD_POSTGRES, own_schema, postgres_answers

if TYPE_CHECKING:
    from convene.store.base_runs import Runs

P50_MS_BAR, STEPS_S_BAR = 1.0, 3_000.0
SEQUENTIAL, TURNS, STEPS = 2_000, 200, 10
OUTPUT: Final = b"x" * 2_000
"""About what a search gives."""


def measure() -> bool:
    """Print the figures; return whether all bars hold. Postgres is measured where there is one to ask."""
    held = uvloop.run(_sqlite())
    named = os.environ.get("CONVENE_TEST_POSTGRES_URL")
    url = next((one for one in ([named] if named else STANDARD_POSTGRES) if postgres_answers(one)), None)
    if url is None:
        say("     no Postgres: set CONVENE_TEST_POSTGRES_URL")
        return held
    with own_schema(url) as empty:
        uvloop.run(_postgres(empty))
    return held


async def _sqlite() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "bench.db")
        held = await _bars("SQLite", store.runs)
        await store.aclose()
    return held


async def _postgres(url: str) -> None:
    store = await PostgresStore.open(url)
    await _bars("Postgres", store.runs, barred=False)
    await store.aclose()


async def _bars(name: str, runs: Runs, *, barred: bool = True) -> bool:
    waits = await _one(runs, f"run_{name}", SEQUENTIAL)
    p50, p99 = statistics.median(waits), sorted(waits)[int(len(waits) * 0.99)]
    began = time.perf_counter()
    cpu = time.process_time()
    await asyncio.gather(*(_one(runs, f"run_{name}_{number}", STEPS) for number in range(TURNS)))
    rate = TURNS * STEPS / (time.perf_counter() - began)
    cost = (time.process_time() - cpu) / (TURNS * STEPS) * 1e6
    say(f"     {name}: p50 {p50:.3f} ms, p99 {p99:.3f} ms a step, alone")
    say(f"     {name}: {rate:.0f} steps/s of {TURNS} turns, {cost:.0f} us of processor time each")
    if not barred:
        return True
    first = result(f"{name}: wait for a step, p50", p50, P50_MS_BAR, unit="ms", most=True)
    return result(f"{name}: steps a second, {TURNS} turns", rate, STEPS_S_BAR, unit="/s") and first


async def _one(runs: Runs, run_id: str, steps: int) -> list[float]:
    """Walk one run through its steps and return what each has waited, in ms."""
    hold = Hold(run_id, 1)
    await runs.begin(Run(id=run_id, owner="o", key_id="k", turn_id=run_id, model="m", request=b"{}", created_us=1))
    waits: list[float] = []
    done: list[Step] = []
    for number in range(1, steps + 1):
        began = time.perf_counter()
        new = Step(run_id=run_id, number=number, seq=2 * number, kind="tool", name="web_search", status="running")
        writes = [runs.record(hold, done)] if done else []
        writes.append(runs.record(hold, [new]))
        for write in writes:
            await write
        waits.append((time.perf_counter() - began) * 1000)
        done = [
            Step(
                run_id=run_id,
                number=number,
                seq=2 * number + 1,
                kind="tool",
                name="web_search",
                status="done",
                output=OUTPUT,
            )
        ]
    await runs.finish(hold, "done", b"{}", 1, 1, done)
    return waits

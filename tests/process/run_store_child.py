"""A process that writes runs and their steps and says on its output what was acknowledged, until it is killed.

python tests/process/run_store_child.py PATH-OR-URL FOLDER FIRST
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from convene.store.base_runs import Hold, Run, Step
from convene.store.lives import Lives
from convene.store.postgres import PostgresStore
from convene.store.sqlite import SqliteStore

CALLERS: Final = 8
STEPS: Final = 6


async def open_store(where: str, folder: Path) -> PostgresStore | SqliteStore:
    """Open a database by URL, its lock files in `folder`, or a file by its path."""
    if "://" in where:
        return await PostgresStore.open(where, lives=Lives(folder / "postgres", "this start of this machine"))
    return await SqliteStore.open(Path(where))


def say(line: str) -> None:
    """Acknowledge; a write of so few bytes to a pipe is never cut."""
    os.write(1, f"{line}\n".encode())


async def work(where: str, folder: Path, first: int) -> None:
    """Write without an end."""
    store = await open_store(where, folder)
    numbers = iter(range(first, first + 1_000_000))

    async def caller() -> None:
        for number in numbers:
            run_id = f"run_{number}"
            await store.runs.begin(
                Run(
                    id=run_id,
                    owner="ann",
                    key_id="k",
                    turn_id=f"t{number}",
                    model="m",
                    request=b"{}",
                    created_us=number,
                )
            )
            say(f"b {run_id} 0")
            for step in range(1, STEPS + 1):
                row = Step(
                    run_id=run_id, number=step, seq=step, kind="tool", name="n", status="done", output=b"%d" % step
                )
                await store.runs.record(Hold(run_id, 1), [row])
                say(f"s {run_id} {step}")
            await store.runs.finish(Hold(run_id, 1), "done", b"answer", number, number)
            say(f"f {run_id} 0")

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))

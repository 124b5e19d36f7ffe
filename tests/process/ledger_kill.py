"""The books under kill -9 (goal B1): a child acknowledges ids over a pipe, is killed, and its books are compared.

    python tests/process/ledger_kill.py --kills 200 --seed 1 PATH

After each kill: every acknowledged entry is there, once; every acknowledged intent is an entry or an orphan; the sums
are those of the entries. Orphans are settled as the server does. Prints one JSON line; exit code 1 if anything is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from convene.clock import SystemClock
from convene.store.base_ledger import Entry, Filter
from convene.store.sqlite import SqliteStore
from ledger_samples import ALL, START_US, ended, entry, intent, summed

ROUND_US: Final = 1_000_000
"""Entries of one kill are admitted in a second of their own, so that each is compared by itself."""
CALLERS: Final = 16
LATER_S: Final = 3600.0


class Later(SystemClock):
    """An hour later, when every killed writer is known to be dead."""

    __slots__ = ()

    def now(self) -> float:
        """Return the wall clock of an hour from now."""
        return time.time() + LATER_S


class Report(msgspec.Struct):
    """What the kills came to."""

    kills: int = 0
    begun: int = 0
    """Acknowledged intents."""
    finished: int = 0
    """Acknowledged entries."""
    orphans: int = 0
    unacknowledged: int = 0
    """Entries that are there although the kill came before their acknowledgement; that is allowed."""
    lost: list[str] = []
    wrong: list[str] = []


class Acknowledged(NamedTuple):
    """What a child had been promised when it was killed."""

    begun: set[int]
    finished: set[int]


async def work(path: Path, pipe: int, seed: int, first: int) -> None:
    """Begin and finish without an end, and say over the pipe what was acknowledged."""
    store = await SqliteStore.open(path)
    chance = random.Random(seed)  # noqa: S311 -- repeatable as far as a race can be
    numbers = iter(range(first, first + ROUND_US // 1000))

    async def caller() -> None:
        for number in numbers:
            begun = intent(number, session_id=f"s{number % 3}", key_id=f"key-{number % 5}")
            if chance.random() < 0.95:
                await store.ledger.begin(begun)
                os.write(pipe, f"b{number}\n".encode())
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.05:
                continue  # a request that is under way when the kill comes
            finishing = [store.ledger.finish(ended(begun)) for _ in range(1 + (chance.random() < 0.05))]
            await asyncio.gather(*finishing)
            os.write(pipe, f"f{number}\n".encode())
            if chance.random() < 0.02:
                await store.ledger.total(ALL)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    await asyncio.Event().wait()  # everything is written; the kill comes later


def kill_one(path: Path, chance: random.Random, first: int) -> Acknowledged:
    """Fork a child, kill it some time after its first acknowledgement, and return what it had been promised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException):
            asyncio.run(work(path, writing, chance.randrange(1 << 30), first))
        os._exit(1)
    os.close(writing)
    heard = os.read(reading, 1)
    time.sleep(chance.choice([0.0, 0.01, 0.05, 0.3]) * chance.random())
    os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        lines = (heard + pipe.read()).decode().splitlines()
    _, status = os.waitpid(child, 0)
    if os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError("the child ended by itself")
    # A write of so few bytes to a pipe is never cut.
    return Acknowledged({int(one[1:]) for one in lines if one[0] == "b"}, {int(o[1:]) for o in lines if o[0] == "f"})


async def compare(path: Path, promised: Acknowledged, first: int, report: Report) -> list[Entry]:
    """Compare the books with what was promised, settle the orphans, and return the entries of this kill."""
    store = await SqliteStore.open(path, Later())
    ledger = store.ledger
    since_us = START_US + first * 1000
    which = Filter(whose=ALL, since_us=since_us, until_us=since_us + ROUND_US)
    found = [one async for one in ledger.entries(which)]
    ids = {one.id for one in found}
    orphans = await ledger.orphans(30_000_000)
    report.lost += sorted(entry(n).id for n in promised.finished if entry(n).id not in ids)
    known = ids | {one.id for one in orphans}
    report.lost += sorted(intent(n).id for n in promised.begun if intent(n).id not in known)
    if len(ids) != len(found):
        report.wrong.append(f"{len(found) - len(ids)} entries twice")
    if ids & {one.id for one in orphans}:
        report.wrong.append("an orphan has an entry")
    report.orphans += len(orphans)
    report.unacknowledged += len(ids - {entry(n).id for n in promised.finished})
    settled = [ended(one, status="unknown") for one in orphans]
    await asyncio.gather(*(ledger.finish(one) for one in settled))
    if await ledger.orphans(30_000_000) or await ledger.open_intents():
        report.wrong.append("something is open after all orphans were settled")
    await store.aclose()
    return found + settled


async def final(path: Path, kept: dict[str, Entry], report: Report) -> None:
    """Compare everything once more: nothing of an early kill was lost in a later one."""
    store = await SqliteStore.open(path, Later())
    found = [one async for one in store.ledger.entries(Filter(whose=ALL))]
    if {one.id: one for one in found} != kept or len(found) != len(kept):
        report.wrong.append("the entries of all kills are not those that were seen after each")
    if await store.ledger.total(ALL) != summed(found):
        report.wrong.append("the sums are not those of the entries")
    [check] = await store.database.rows("PRAGMA integrity_check")
    if check != ("ok",):
        report.wrong.append(f"integrity: {check[0]}")
    await store.aclose()


def run(path: Path, kills: int, seed: int) -> Report:
    """Kill so many children, one after the other, on one file."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable as far as a race can be
    report, kept = Report(), dict[str, Entry]()
    for number in range(kills):
        first = number * ROUND_US // 1000
        promised = kill_one(path, chance, first)
        kept |= {one.id: one for one in asyncio.run(compare(path, promised, first, report))}
        report.kills += 1
        report.begun += len(promised.begun)
        report.finished += len(promised.finished)
    asyncio.run(final(path, kept, report))
    return report


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("path", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    report = run(wanted.path, wanted.kills, wanted.seed)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 1 if report.lost or report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

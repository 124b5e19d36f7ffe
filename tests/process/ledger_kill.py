"""The books under kill -9 (goal B1): a child acknowledges ids over a pipe, is killed, and its books are compared.

    python tests/process/ledger_kill.py --kills 200 --seed 1 PATH
    python tests/process/ledger_kill.py --kills 200 --seed 1 postgresql://user@host/an-empty-database

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
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from convene.clock import SystemClock
from convene.store.base_ledger import Entry, Filter
from convene.store.postgres import PostgresStore
from convene.store.sqlite import SqliteStore
from ledger_samples import ALL, START_US, ended, entry, intent, summed

if TYPE_CHECKING:
    from convene.clock import Clock

ROUND: Final = 4_000
"""Requests that one child may make; a millisecond apart, so that those of each kill are compared by themselves."""
CALLERS: Final = 16
CHILDREN_MAX: Final = 2
LATER_S: Final = 3600.0
CHILD: Final = f"convene-kill-{os.getpid()}"
"""What a child's sessions with Postgres are called: the server ends what they had begun, and that is waited for."""
GONE_S: Final = 60.0


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


async def open_books(where: str, clock: Clock | None = None) -> PostgresStore | SqliteStore:
    """Open a database by URL, or a file by its path."""
    return await (PostgresStore.open(where, clock) if "://" in where else SqliteStore.open(Path(where), clock))


async def children_gone(store: PostgresStore | SqliteStore) -> None:
    """Wait until nothing of a killed child runs in the server any more; a file has no server."""
    if isinstance(store, PostgresStore):
        async with asyncio.timeout(GONE_S):
            for _ in range(int(GONE_S * 200)):
                if not await store.database.rows("SELECT 1 FROM pg_stat_activity WHERE application_name = ?", (CHILD,)):
                    return
                await asyncio.sleep(0.005)


async def work(where: str, pipe: int, seed: int, first: int) -> None:
    """Begin and finish without an end, and say over the pipe what was acknowledged."""
    store = await open_books(
        f"{where}{'&' if '?' in where else '?'}application_name={CHILD}" if "://" in where else where
    )
    chance = random.Random(seed)  # noqa: S311 -- repeatable as far as a race can be
    numbers = iter(range(first, first + ROUND))

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


class Child:
    """A forked process that writes the books, and the pipe on which it says what was acknowledged."""

    def __init__(self, where: str, seed: int, first: int) -> None:
        self._pipe, writing = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._pipe)
            with contextlib.suppress(BaseException):
                asyncio.run(work(where, writing, seed, first))
            os._exit(1)
        os.close(writing)
        self._heard = b""

    def wait_for(self, count: int) -> None:
        """Wait for so many acknowledgements."""
        while self._heard.count(b"\n") < count:
            heard = os.read(self._pipe, 4096)
            if not heard:
                raise RuntimeError("the child ended by itself")
            self._heard += heard

    def kill(self) -> Acknowledged:
        """Kill it and return what it had been promised."""
        os.kill(self._process, signal.SIGKILL)
        with os.fdopen(self._pipe, "rb") as pipe:
            lines = (self._heard + pipe.read()).decode().splitlines()
        _, status = os.waitpid(self._process, 0)
        if os.WTERMSIG(status) != signal.SIGKILL:
            raise RuntimeError("the child ended by itself")
        # A write of so few bytes to a pipe is never cut.
        begun = {int(line[1:]) for line in lines if line[0] == "b"}
        return Acknowledged(begun, {int(line[1:]) for line in lines if line[0] == "f"})


def kill_some(where: str, chance: random.Random, first: int, children: int) -> Acknowledged:
    """Let several write one database, kill each after some of its acknowledgements, and return all promises."""
    running = [Child(where, chance.randrange(1 << 30), first + place * ROUND) for place in range(children)]
    begun: set[int] = set()
    finished: set[int] = set()
    for child in running:
        child.wait_for(1)
    for child in running:
        # Counted, not timed: on a slow disk as on a fast one some have finished much and some nothing.
        child.wait_for(chance.randint(1, chance.choice([1, 50, 200, ROUND // 2])))
        promised = child.kill()
        begun |= promised.begun
        finished |= promised.finished
    return Acknowledged(begun, finished)


async def compare(where: str, promised: Acknowledged, first: int, report: Report) -> list[Entry]:
    """Compare the books with what was promised, settle the orphans, and return the entries of this kill."""
    store = await open_books(where, Later())
    await children_gone(store)
    ledger = store.ledger
    since_us = START_US + first * 1000
    which = Filter(whose=ALL, since_us=since_us, until_us=since_us + CHILDREN_MAX * ROUND * 1000)
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


async def final(where: str, kept: dict[str, Entry], report: Report) -> None:
    """Compare everything once more: nothing of an early kill was lost in a later one."""
    store = await open_books(where, Later())
    found = [one async for one in store.ledger.entries(Filter(whose=ALL))]
    if {one.id: one for one in found} != kept or len(found) != len(kept):
        report.wrong.append("the entries of all kills are not those that were seen after each")
    if await store.ledger.total(ALL) != summed(found):
        report.wrong.append("the sums are not those of the entries")
    if isinstance(store, SqliteStore):
        [check] = await store.database.rows("PRAGMA integrity_check")
        if check != ("ok",):
            report.wrong.append(f"integrity: {check[0]}")
    await store.aclose()


def run(where: str, kills: int, seed: int) -> Report:
    """Kill so many children on one database."""
    chance = random.Random(seed)  # noqa: S311 -- repeatable as far as a race can be
    report, kept = Report(), dict[str, Entry]()
    first = 0
    while report.kills < kills:
        children = chance.choice([1, 1, CHILDREN_MAX])
        promised = kill_some(where, chance, first, children)
        kept |= {one.id: one for one in asyncio.run(compare(where, promised, first, report))}
        first += CHILDREN_MAX * ROUND
        report.kills += children
        report.begun += len(promised.begun)
        report.finished += len(promised.finished)
    asyncio.run(final(where, kept, report))
    return report


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("where")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    report = run(wanted.where, wanted.kills, wanted.seed)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 1 if report.lost or report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Several processes hammer the same counters, some are killed with -9, and a checker replays what they were told.

    python tests/process/limit_race.py [--url sqlite] [--processes 8] [--attempts 1000000] [--kill-every 5000]

`make soak` runs it so: 0 units above the bound of any limit, and at least 99.5 % of every tight bound used (A1, A2).
A URL is `sqlite` (a file in a folder of its own) or that of a Postgres or Redis; its counters must be empty.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from convene.clock import SystemClock
from convene.errors import StoreFault
from convene.limits.limit import MINUTE_US, Grant
from convene.store.postgres_counters import PostgresCounters
from convene.store.redis_counters import RedisCounters
from convene.store.sqlite_counters import SqliteCounters
from process.limit_race_check import (
    HELD,
    LEASE_US,
    RECORD,
    TIGHT,
    Attempt,
    Figures,
    Log,
    Race,
    What,
    attempts,
    check,
    read_log,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.store.base_counters import Counters

USED_LEAST: Final = 0.995
LOOK_S: Final = 0.01
EXPIRE_EVERY: Final = 10
"""In looks at the lanes."""
PATIENT_S: Final = 10.0


async def open_counters(url: str) -> Counters:
    """Open the counters of a URL; `sqlite:FOLDER` for a file, `#TAG` behind that of a Redis for its hash tag."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return SqliteCounters.open(Path(rest), SystemClock(), "race")
    if scheme in ("postgres", "postgresql"):
        return await PostgresCounters.open(url)
    if scheme in ("redis", "rediss", "unix"):
        address, _, tag = url.partition("#")
        # Patient, as a call that was given up may have been done: what it charged is known, what it gave back is not.
        return RedisCounters(address, SystemClock(), tag=tag or "convene-race", wait_s=PATIENT_S)
    raise SystemExit(f"no counters are known for {scheme}:")


class Worker:
    """One process of the race."""

    def __init__(self, counters: Counters, name: str, drawn: Iterator[Attempt], log: int) -> None:
        self._counters = counters
        self._name = name
        self._drawn = drawn
        self._log = log
        self._held: deque[tuple[int, Attempt]] = deque()

    async def run(self, count: int) -> None:
        """Try so many times, then settle what is held."""
        for number in range(count):
            await self._try(number, next(self._drawn))
            if len(self._held) > HELD:
                await self._settle(*self._held.popleft())
        while self._held:
            await self._settle(*self._held.popleft())

    async def _try(self, number: int, attempt: Attempt) -> None:
        lease, near = f"{self._name}-{number}", self._counters.local
        try:
            if near is not None:
                answer = near.reserve(lease, attempt.limits, attempt.cost, LEASE_US)
            else:
                answer = await self._counters.reserve(lease, attempt.limits, attempt.cost, LEASE_US)
        except StoreFault:
            self._say(What.FAULT, number, 0)
            return
        granted = isinstance(answer, Grant)
        self._say(What.GRANTED if granted else What.REFUSED, number, answer.now_us)
        if granted and not attempt.forgotten:
            self._held.append((number, attempt))

    async def _settle(self, number: int, attempt: Attempt) -> None:
        lease, near = f"{self._name}-{number}", self._counters.local
        while True:
            with contextlib.suppress(StoreFault):  # the lock was held too long; nothing has happened
                if near is not None:
                    answer = near.settle(lease, attempt.actual)
                else:
                    answer = await self._counters.settle(lease, attempt.actual)
                break
        self._say(What.GONE if answer is None else What.SETTLED, number, answer.now_us if answer else 0)

    def _say(self, what: What, number: int, at_us: int) -> None:
        """Write at once: the kernel keeps what a process wrote before it was killed."""
        os.write(self._log, RECORD.pack(what, number, at_us))


async def work(url: str, name: str, drawn: Iterator[Attempt], count: int, path: Path, *, doomed: bool) -> None:
    """Be one worker; if doomed, one that does not end before it is killed, or whoever would kill it is gone."""
    parent = os.getppid()
    counters = await open_counters(url)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        await Worker(counters, name, drawn, log).run(count)
        while doomed and os.getppid() == parent:  # noqa: ASYNC110 - another process
            await asyncio.sleep(LOOK_S)
    finally:
        os.close(log)
        await counters.aclose()


class _Lane:
    """A process of the race and, after it was killed, its successors, which do what it had left to do."""

    def __init__(self, url: str, race: Race, number: int, folder: Path) -> None:
        self._url = url
        self._race = race
        self._number = number
        self._folder = folder
        self._left = race.attempts // race.processes
        self._source = random.Random(race.attempts + number)  # noqa: S311 - repeatable on purpose
        self.logs: list[Log] = []
        self._start()

    def _start(self) -> None:
        self._name = f"w{self._number}.{len(self.logs)}"
        self._path = self._folder / f"{self._name}.log"
        self._killed_from = self._race.kill_every // 2 + self._source.randrange(self._race.kill_every)
        # Each attempt is at least one record: what is left is enough to get there, however fast it goes.
        self._doomed = self._killed_from <= self._left
        command = [sys.executable, __file__, "--worker", self._name, "--url", self._url, "--log", str(self._path)]
        command += ["--attempts", str(self._left), "--rate", str(self._race.rate)]
        command += ["--window", str(self._race.window_us), *(["--doomed"] if self._doomed else [])]
        self._process = subprocess.Popen(command)  # noqa: S603 - ourselves

    def kill_if_due(self) -> None:
        """Kill it with -9 once it has said enough, and start a successor; by progress, as machines differ in speed."""
        if not self._doomed or not self._path.exists() or self._path.stat().st_size < self._killed_from * RECORD.size:
            return
        self._process.kill()
        self._process.wait()
        self.read(killed=True)
        self._left -= sum(record.what in (What.GRANTED, What.REFUSED, What.FAULT) for record in self.logs[-1].records)
        self._start()

    def ended(self) -> bool:
        """Whether it has done everything. Raises `RuntimeError` if it failed."""
        code = self._process.poll()
        if code:
            raise RuntimeError(f"{self._name} ended with {code}")
        return code is not None

    def stop(self) -> None:
        """End it, if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def read(self, *, killed: bool) -> None:
        """Read the log of the present process."""
        self.logs.append(read_log(self._path, self._name, self._name, killed=killed))


async def run(url: str, size: Race, folder: Path) -> Figures:
    """Run a race to its end and check it. `folder` is for the logs; `url` as of the program, opened by each process."""
    counters = await open_counters(url)
    gone: set[str] = set()
    lanes = [_Lane(url, size, number, folder) for number in range(size.processes)]
    looks = 0
    try:
        while not all(lane.ended() for lane in lanes):
            await asyncio.sleep(LOOK_S)
            looks += 1
            for lane in lanes:
                lane.kill_if_due()
            if looks % EXPIRE_EVERY == 0:
                with contextlib.suppress(StoreFault):  # the lock was held too long; the next call will do it
                    gone.update(await counters.expire())
        for lane in lanes:
            lane.read(killed=False)
        await asyncio.sleep(LEASE_US / 1e6)
        gone.update(await counters.expire())
    finally:
        for lane in lanes:
            lane.stop()
        await counters.aclose()
    return check([log for lane in lanes for log in lane.logs], size.rate, gone, size.window_us)


def verdict(figures: Figures) -> list[str]:
    """Return what is wrong, empty if nothing is."""
    wrong = [f"{units} units over the bound of {counter}" for counter, units in figures.excess.items() if units]
    wrong += [f"only {share:.4f} of {who} used" for who, share in figures.used.items() if share < USED_LEAST]
    wrong += [f"{who} was never used" for who in TIGHT if who not in figures.used]
    return wrong


def main(arguments: list[str]) -> int:
    """Run the program; 1 if a bound was not held or not used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="sqlite")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--attempts", type=int, default=1_000_000, help="of all processes together")
    parser.add_argument("--kill-every", type=int, default=5_000, metavar="RECORDS", help="of a process, on average")
    parser.add_argument("--rate", type=int, default=300_000, help="tokens a minute of the tightest limit")
    parser.add_argument("--window", type=int, default=MINUTE_US, help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--log", default="", help=argparse.SUPPRESS)
    parser.add_argument("--doomed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        drawn = attempts(options.worker, options.rate, options.window)
        path = Path(options.log)
        asyncio.run(work(options.url, options.worker, drawn, options.attempts, path, doomed=options.doomed))
        return 0
    size = Race(options.processes, options.attempts, options.kill_every, options.rate)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{folder}/data" if options.url == "sqlite" else options.url
        began_s = time.monotonic()
        figures = asyncio.run(run(url, size, Path(folder)))
        took_s = time.monotonic() - began_s
    lines = [
        f"{figures.attempts} attempts of {size.processes} processes in {took_s:.0f} s, {figures.kills} killed",
        f"{figures.granted} granted, {figures.refused} refused, {figures.faults} faults",
        f"{sum(figures.excess.values())} units over the bounds of {len(figures.excess)} counters",
        "used of the tight bounds: " + ", ".join(f"{who} {share:.4%}" for who, share in sorted(figures.used.items())),
        *(f"WRONG: {line}" for line in verdict(figures)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if verdict(figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

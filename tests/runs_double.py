"""A store of runs for tests of what stands above it: in memory, with faults and deaths on demand.

Not here: what every store must do (`tests/contract/test_runs.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from convene.errors import Conflict, StoreFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.store.base_runs import Hold, Lately, Run, RunStatus, Step


class RunsDouble:
    """Runs in dictionaries; `broken` makes every call fail, `dead` are the runs whose holder died."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.rows: dict[tuple[str, int], Step] = {}
        self.written: list[Step] = []
        """Every row ever written, in order."""
        self.broken = False
        self.left: int | None = None
        """Writes until the process is killed: from then on nothing is written, and nobody who waits goes on."""
        self.dead: set[str] = set()

    def kill(self) -> None:
        """Let whoever holds runs be dead; what comes after is another process's."""
        self.left = None
        self.dead = {run.id for run in self.runs.values() if run.status == "running"}

    def begin(self, run: Run) -> Awaitable[None]:
        return self._later(lambda: self.runs.__setitem__(run.id, run))

    def record(self, hold: Hold, steps: Sequence[Step]) -> Awaitable[None]:
        def write() -> None:
            self._held(hold)
            for step in steps:
                self.rows[step.run_id, step.number] = step
                self.written.append(step)

        return self._later(write)

    def finish(
        self, hold: Hold, status: RunStatus, outcome: bytes, at_us: int, expires_us: int, steps: Sequence[Step] = ()
    ) -> Awaitable[None]:
        def write() -> None:
            run = self._held(hold)
            if run.status != "running":
                return
            for step in steps:
                self.rows[step.run_id, step.number] = step
            self.runs[run.id] = msgspec.structs.replace(
                run, status=status, outcome=outcome, finished_us=at_us, expires_us=expires_us
            )

        return self._later(write)

    async def claim(self, dead_after_us: int, limit: int) -> list[Run]:
        del dead_after_us
        self._check()
        found = [self.runs[run_id] for run_id in sorted(self.dead)][:limit]
        for run in found:
            self.dead.discard(run.id)
            self.runs[run.id] = msgspec.structs.replace(run, fence=run.fence + 1)
        return [self.runs[run.id] for run in found]

    async def get(self, owner: str, run_id: str) -> Run | None:
        self._check()
        run = self.runs.get(run_id)
        return run if run is not None and run.owner == owner else None

    async def steps(self, run_id: str, after_seq: int = 0) -> list[Step]:
        self._check()
        found = [row for row in self.rows.values() if row.run_id == run_id and row.seq > after_seq]
        return sorted(found, key=lambda row: row.seq)

    async def by_turns(self, turn_ids: Sequence[str]) -> list[Run]:
        self._check()
        return [run for run in self.runs.values() if run.turn_id in turn_ids]

    async def page(
        self, owner: str, limit: int, session_id: str | None = None, after: tuple[int, str] | None = None
    ) -> list[Run]:
        self._check()
        found = [run for run in self.runs.values() if run.owner == owner and session_id in (None, run.session_id)]
        found.sort(key=lambda run: (run.created_us, run.id), reverse=True)
        return [run for run in found if after is None or (run.created_us, run.id) < after][:limit]

    async def latest(self, which: Lately, limit: int, after: tuple[int, str] | None = None) -> tuple[list[Run], int]:
        del which, limit, after
        raise NotImplementedError  # what uses it is tested with real stores

    async def ask_cancel(self, owner: str, run_id: str) -> bool:
        run = await self.get(owner, run_id)
        if run is not None:
            self.runs[run_id] = msgspec.structs.replace(run, cancel_asked=True)
        return run is not None

    async def asked_to_cancel(self) -> set[str]:
        self._check()
        return {run.id for run in self.runs.values() if run.cancel_asked and run.status == "running"}

    async def forget(self, now_us: int, owner: str | None = None, session_id: str | None = None) -> int:
        self._check()
        gone = [
            run
            for run in self.runs.values()
            if run.status != "running"
            and (run.expires_us <= now_us if session_id is None else (run.owner, run.session_id) == (owner, session_id))
        ]
        for run in gone:
            del self.runs[run.id]
        return len(gone)

    def _held(self, hold: Hold) -> Run:
        run = self.runs[hold.run_id]
        if run.fence != hold.fence:
            raise Conflict("Another process goes on with the run.", code="run_lost")
        return run

    def _check(self) -> None:
        if self.broken:
            raise StoreFault("The store cannot be used.", detail="broken by the test")

    async def _done(self, fault: Exception | None) -> None:
        if fault is not None:
            raise fault

    def _later(self, write: Callable[[], None]) -> Awaitable[None]:
        """Do it now, in the order of the calls, as a store does; what came of it is known when it is awaited."""
        fault: Exception | None = None
        if self.left is not None:
            if self.left <= 0:
                return asyncio.get_running_loop().create_future()
            self.left -= 1
        try:
            self._check()
            write()
        except (Conflict, StoreFault) as raised:
            fault = raised
        return self._done(fault)

"""Runs in dictionaries: gone at exit, so that none has ever lost its holder."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from convene.store.base_runs import is_after, lost_hold
from convene.store.memory_part import MemoryPart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from convene.store.base_runs import Hold, Lately, Run, RunStatus, Step


class MemoryRuns(MemoryPart):
    """The runs of this process."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._steps: dict[str, dict[int, Step]] = {}

    def begin(self, run: Run) -> Awaitable[None]:
        """Keep a new run (`base_runs.Runs`)."""
        self._check_open()
        if run.id not in self._runs:
            self._runs[run.id] = run
            self._steps[run.id] = {}
        return _after(None)

    def record(self, hold: Hold, steps: Sequence[Step]) -> Awaitable[None]:
        """Keep steps (`base_runs.Runs`)."""
        self._check_open()
        if self._held(hold) is None:
            return _after(lost_hold(hold))
        self._steps[hold.run_id].update((step.number, step) for step in steps)
        return _after(None)

    def finish(
        self, hold: Hold, status: RunStatus, outcome: bytes, at_us: int, expires_us: int, steps: Sequence[Step] = ()
    ) -> Awaitable[None]:
        """End a run (`base_runs.Runs`)."""
        self._check_open()
        run = self._held(hold)
        if run is None:
            return _after(lost_hold(hold))
        if run.status == "running":
            self._steps[run.id].update((step.number, step) for step in steps)
            self._runs[run.id] = msgspec.structs.replace(
                run, status=status, outcome=outcome, finished_us=at_us, expires_us=expires_us
            )
        return _after(None)

    async def claim(self, dead_after_us: int, limit: int) -> list[Run]:
        """Return nothing: whoever holds these runs is this process."""
        del dead_after_us, limit
        self._check_open()
        return []

    async def get(self, owner: str, run_id: str) -> Run | None:
        """Return the owner's run (`base_runs.Runs`)."""
        self._check_open()
        run = self._runs.get(run_id)
        return None if run is None or run.owner != owner else run

    async def steps(self, run_id: str, after_seq: int = 0) -> list[Step]:
        """Return a run's steps (`base_runs.Runs`)."""
        self._check_open()
        found = [step for step in self._steps.get(run_id, {}).values() if step.seq > after_seq]
        return sorted(found, key=lambda step: (step.seq, step.number))

    async def by_turns(self, turn_ids: Sequence[str]) -> list[Run]:
        """Return the runs behind these answers (`base_runs.Runs`)."""
        self._check_open()
        return [run for run in self._runs.values() if run.turn_id in turn_ids]

    async def page(
        self, owner: str, limit: int, session_id: str | None = None, after: tuple[int, str] | None = None
    ) -> list[Run]:
        """Return the owner's runs, newest first (`base_runs.Runs`)."""
        self._check_open()
        mine = [
            run
            for run in self._runs.values()
            if run.owner == owner and session_id in {None, run.session_id} and is_after(run.created_us, run.id, after)
        ]
        return sorted(mine, key=lambda run: (run.created_us, run.id), reverse=True)[:limit]

    async def latest(self, which: Lately, limit: int, after: tuple[int, str] | None = None) -> tuple[list[Run], int]:
        """Return what changed last (`base_runs.Runs`)."""
        self._check_open()
        mine = [
            run
            for run in self._runs.values()
            if run.owner == which.owner
            and run.session_id.startswith(which.prefix)
            and which.session_id in {"", run.session_id}
            and which.status in {None, run.status}
            and run.changed_us >= which.since_us
        ]
        behind = [run for run in mine if is_after(run.changed_us, run.id, after)]
        return sorted(behind, key=lambda run: (run.changed_us, run.id), reverse=True)[:limit], len(mine)

    async def ask_cancel(self, owner: str, run_id: str) -> bool:
        """Ask for a run's end (`base_runs.Runs`)."""
        run = await self.get(owner, run_id)
        if run is None:
            return False
        if run.status == "running":
            self._runs[run_id] = msgspec.structs.replace(run, cancel_asked=True)
        return True

    async def asked_to_cancel(self) -> set[str]:
        """Return which runs are to be ended (`base_runs.Runs`)."""
        self._check_open()
        return {run.id for run in self._runs.values() if run.cancel_asked and run.status == "running"}

    async def forget(self, now_us: int, owner: str | None = None, session_id: str | None = None) -> int:
        """Forget runs that are over (`base_runs.Runs`)."""
        self._check_open()
        over = [run for run in self._runs.values() if run.status != "running"]
        if session_id is None:
            gone = [run for run in over if run.expires_us <= now_us]
        else:
            gone = [run for run in over if (run.owner, run.session_id) == (owner, session_id)]
        for run in gone:
            del self._runs[run.id], self._steps[run.id]
        return len(gone)

    def close(self) -> None:
        """Forget everything."""
        super().close()
        self._runs.clear()
        self._steps.clear()

    def _held(self, hold: Hold) -> Run | None:
        run = self._runs.get(hold.run_id)
        return run if run is not None and run.fence == hold.fence else None


def _after(fault: Exception | None) -> asyncio.Future[None]:
    """Return what is done already, well or not."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if fault is None:
        done.set_result(None)
    else:
        done.set_exception(fault)
        done.exception()  # whether anybody asks or not
    return done

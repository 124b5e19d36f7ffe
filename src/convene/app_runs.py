"""The composition of runs and sessions: what keeps them, what takes up the dead's, their endpoints, for `app.py`.

A part of the composition root. The store is opened after the parts are built, so it is asked for when it is needed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from convene.api.runs import RunPages
from convene.api.sessions import SessionPages
from convene.serving.resume import Resumption
from convene.serving.runs import KeptRuns, RunTerms
from convene.serving.sessions import Conversations, SessionTerms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.api.stream import Streams
    from convene.clock import Clock
    from convene.config import Config
    from convene.serving.base import Principal
    from convene.serving.resume import Turns
    from convene.store.base import Store

DAY_US = 86_400_000_000


class RunParts:
    """Everything about runs and sessions of one application."""

    def __init__(
        self, config: Config, clock: Clock, store: Callable[[], Store], going_down: Callable[[], bool]
    ) -> None:
        self._config = config
        self._store = store
        run_terms = RunTerms(
            keep_us=round(config.runs.keep_days * DAY_US),
            request_bytes_max=config.runs.request_bytes_max,
            resumes_max=config.runs.resumes_max,
        )
        session_terms = SessionTerms(
            keep_us=round(config.sessions.keep_days * DAY_US), bytes_max=config.sessions.bytes_max
        )
        self.sessions = Conversations(lambda: store().sessions, lambda: store().runs, clock, session_terms)
        self.runs = KeptRuns(lambda: store().runs, clock, run_terms, going_down, self.sessions)
        self.resumption: Resumption | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def resume_with(
        self,
        turns: Turns,
        holder: Callable[[str], Awaitable[Principal | None]],
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> Resumption:
        """Take up runs of the dead with these turns; `holder` and `ready` as in `Resumption`."""
        self.resumption = Resumption(self.runs, turns, lambda: self._store().ledger, holder, ready)
        return self.resumption

    def start(self) -> None:
        """Begin the background work; returns at once."""
        loop = asyncio.get_running_loop()
        self._tasks += (
            loop.create_task(self.runs.watch(), name="runs"),
            loop.create_task(self.runs.sweep(), name="expired runs"),
            loop.create_task(self.sessions.sweep(), name="expired sessions"),
        )
        if self.resumption is not None:
            self._tasks.append(loop.create_task(self.resumption.watch(), name="runs of the dead"))

    async def aclose(self) -> None:
        """End the background work; runs that go on are left to the next holder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self.resumption is not None:
            await self.resumption.aclose()
        self.runs.close()

    def endpoints(self, streams: Streams) -> dict[str, Any]:
        """Return the endpoints by their names in `api.table.Endpoints`."""
        runs = RunPages(self.runs, streams, self._config.currency)
        sessions = SessionPages(self.sessions)
        return {
            "list_runs": runs.list_mine,
            "show_run": runs.show,
            "cancel_run": runs.cancel,
            "list_sessions": sessions.list_mine,
            "show_session": sessions.show,
            "delete_session": sessions.delete,
        }

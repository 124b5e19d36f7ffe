"""Convene on a loop whose clock is slow, for `instructions.py`: run under valgrind, it does by the clock what it would.

    python bench/slowed.py bare|whole      the environment is that of `convene serve`

At SIGUSR1 the file `slowed` in the data folder says anew how many times slower the clock is.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from convene.app_serve import serve
from convene.config import load_here
from convene.serving.admission import Open
from convene.store import sqlite_ledger, sqlite_sync

if TYPE_CHECKING:
    import asyncio

SLOWED_FIRST = 60.0
SYNC_S = 0.0005
"""What a disk takes to make a commit safe, before it is slowed down."""


class SlowLoop(uvloop.Loop):
    """All timers of the program hang on it."""

    slowed, since, before = SLOWED_FIRST, 0.0, 0.0

    def slow_down(self, times: float) -> None:
        """Be so many times slower from now on."""
        self.before, self.since, self.slowed = self.time(), super().time(), times

    def time(self) -> float:
        """Return the slow time in seconds."""
        return self.before + (super().time() - self.since) / self.slowed

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]  # noqa: ANN401
        """Call after `delay` slow seconds."""
        return super().call_later(delay * self.slowed, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]  # noqa: ANN401
        """Call at the slow time `when`."""
        return self.call_later(max(0.0, when - self.time()), callback, *args, context=context)


def main(mode: str) -> int:
    """Serve."""
    loops: list[SlowLoop] = []

    def new_loop() -> SlowLoop:
        loops.append(SlowLoop())
        return loops[-1]

    def sync(descriptor: int) -> None:
        sqlite_sync.fdatasync(descriptor)
        time.sleep(SYNC_S * loops[0].slowed)

    def on_pace(_number: int, _frame: object) -> None:
        loops[0].slow_down(float(Path(os.environ["CONVENE_DATA_DIR"], "slowed").read_text()))

    signal.signal(signal.SIGUSR1, on_pace)
    uvloop.new_event_loop = new_loop
    sqlite_ledger.SqliteLedger.__init__.__defaults__ = (sync,)
    return serve(load_here({}), Open() if mode == "bare" else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

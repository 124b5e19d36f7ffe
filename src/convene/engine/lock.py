"""A lock on a file, held by one process at a time; the kernel lets go of it when its holder dies. Called by `cache`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LOOK_AGAIN_S = 0.1
"""Polled, because a blocking wait cannot be cancelled."""


@contextlib.asynccontextmanager
async def hold_lock(path: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock for the length of the block; `on_wait` is called once if somebody else holds it.

    The file stays: removing it would let two processes hold locks on two files of one name.
    """
    with path.open("a+b") as file:
        waiting = False
        while not _try_lock(file):
            if not waiting:
                on_wait()
                waiting = True
            await asyncio.sleep(LOOK_AGAIN_S)
        # Closing the file lets go of the lock.
        yield


if sys.platform == "win32":  # pragma: no cover - the tests run on POSIX
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

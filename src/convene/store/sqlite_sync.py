"""What waits for the disk, on threads, so that the event loop need not: syncs, and SQLite's checkpoints.

A commit under `synchronous=NORMAL` has written the WAL and not waited for the disk. An fdatasync of the WAL after it
gives what FULL gives, one for all commits before it. On the descriptor of that file:

- SQLite's locks are POSIX locks on the database and on `-shm`. Closing any descriptor of a file drops all locks that
  the process has on it, so those two must never be opened here; on `-wal` SQLite takes no lock, and opening and closing
  it harms nothing.
- The WAL that was opened stays the WAL: it is deleted only by the last connection that closes, or by leaving WAL mode,
  both under an exclusive lock that nobody gets while the ledger's connection is open. A checkpoint starts it over in
  place. If somebody deletes it by hand, its link count is 0, and that is an error.
- A checkpoint syncs the WAL before it copies and the database before the WAL may be written over; what was synced here
  is therefore on the disk ever after, in one file or the other.
- A failed fdatasync is never tried again: the kernel may have dropped what it could not write, and would then succeed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

RESTART_FRAMES: Final = 2000
"""From this length (8 MiB) on a checkpoint makes writers wait until the WAL can be started over, some milliseconds."""
READERS_S: Final = 0.02
"""How long it waits for readers of the old state then; else the next one tries."""
fdatasync: Final[Callable[[int], None]] = getattr(os, "fdatasync", os.fsync)  # macOS has only the other


class DiskThread:
    """A thread that does what waits for the disk, one after the other, and tells the loop how each has ended."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._orders: SimpleQueue[tuple[Callable[[], None], Callable[[OSError | None], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def order(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Do `work`, which may raise OSError; then `done` is called on the loop."""
        self._orders.put((work, done))

    def end(self) -> None:
        """End after what was ordered. `wait` then waits."""
        self._orders.put(None)

    def wait(self) -> None:
        """Wait for the end; blocks."""
        self._thread.join()

    def _run(self) -> None:
        for work, done in iter(self._orders.get, None):
            error: OSError | None = None
            try:
                work()
            except OSError as failure:
                error = failure
            with contextlib.suppress(RuntimeError):  # the loop was closed without closing the store
                self._loop.call_soon_threadsafe(done, error)


class Wal:
    """The WAL of a database that is open."""

    def __init__(self, path: Path, sync: Callable[[int], None]) -> None:
        """Open it. Raises OSError."""
        self._name = f"{path}-wal"
        self._sync = sync
        self._file = os.open(self._name, os.O_RDWR | os.O_CLOEXEC)

    def sync(self) -> None:
        """Bring all that was committed to the disk. Blocks. Raises OSError, also if somebody has deleted it."""
        self._sync(self._file)
        check_linked(self._file, self._name)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)


def check_linked(file: int, name: object) -> None:
    """Raise OSError if the open file has no name any more: what is written to it is lost with the process."""
    if os.fstat(file).st_nlink == 0:
        raise OSError(f"{name} was deleted while it was in use")


def sync_folder(path: Path) -> None:
    """Make the names in a folder safe; a file is not safe before its name is. Blocks. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def checkpoint(path: Path) -> None:
    """Copy what the WAL has into the database while others write; start it over once it is long. Blocks."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=READERS_S, isolation_level=None)) as connection:
            [_, frames, _] = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames >= RESTART_FRAMES:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    except sqlite3.Error as error:  # the WAL is as good; it grows until the next one
        log.warning("%s: no checkpoint was made: %s", path, error)

"""The ledger's thread for the disk: it waits for `fdatasync` so that the event loop need not, and makes checkpoints.

A commit under `synchronous=NORMAL` has written the WAL and not waited for the disk. An fdatasync of the WAL after it
gives what FULL gives (goal B2), one for all commits before it. On the descriptor of that file:

- SQLite's locks are POSIX locks on the database and on `-shm`. Closing any descriptor of a file drops all locks that
  the process has on it, so those two must never be opened here; on `-wal` SQLite takes no lock, and opening and closing
  it harms nothing.
- The WAL that was opened stays the WAL: it is deleted only by the last connection that closes, or by leaving WAL mode,
  both under an exclusive lock that nobody gets while the ledger's connection is open. A checkpoint starts it over in
  place. If somebody deletes it by hand, its link count is 0, and that is an error.
- A checkpoint syncs the WAL before it copies and the database before the WAL may be written over; what was synced here
  is therefore on the disk ever after, in one file or the other.
- The WAL is filled with zeros up to the size at which it is started over, once, under the write lock: an fdatasync of a
  file that grows waits for the file system's journal (3.8 ms at p99 here), one of a file that does not for the data
  alone (0.13 ms). SQLite reads a WAL up to the last frame that fits its header, so what lies behind is nothing.
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
WAL_BYTES: Final = RESTART_FRAMES * (4096 + 24) + 32
FILL_S: Final = 1.0
_ZEROS: Final = bytes(1 << 18)
fdatasync: Final[Callable[[int], None]] = getattr(os, "fdatasync", os.fsync)  # macOS has only the other


class WalSync:
    """One thread; `done(error)` is called on the loop after each `request`, in their order."""

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[OSError | None], None],
        sync: Callable[[int], None] = fdatasync,
    ) -> None:
        """Open the WAL of an open database. Raises OSError."""
        self._path = path
        self._loop = loop
        self._done = done
        self._sync = sync
        self._orders: SimpleQueue[bool | None] = SimpleQueue()
        self._wal = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="convene-store-sync", daemon=True)
        self._thread.start()

    def request(self, *, checkpoint: bool) -> None:
        """Sync, and afterwards make a checkpoint or not."""
        self._orders.put(checkpoint)

    def end(self) -> None:
        """End after what was requested. `wait` then waits."""
        self._orders.put(None)

    def wait(self) -> None:
        """Wait for the end; blocks."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._fill()
            self._report(self._sync_folder)
            for wanted in iter(self._orders.get, None):
                self._report(self._sync_wal)
                if wanted:
                    checkpoint(self._path)
        finally:
            os.close(self._wal)

    def _report(self, work: Callable[[], None]) -> None:
        error: OSError | None = None
        try:
            work()
        except OSError as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop was closed without closing the store
            self._loop.call_soon_threadsafe(self._done, error)

    def _sync_wal(self) -> None:
        if os.fstat(self._wal).st_nlink == 0:
            raise OSError(f"{self._path}-wal was deleted while it was in use")
        self._sync(self._wal)

    def _fill(self) -> None:
        """Give the WAL the size it will have anyway, while nobody can write to it; without it, all works as well.

        In pieces, each under the lock for less than a millisecond, as every writer waits meanwhile.
        """
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=FILL_S, isolation_level=None)) as connection:
                left = WAL_BYTES
                while left > 0:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        size = os.fstat(self._wal).st_size
                        left = WAL_BYTES - size if size else 0
                        if left > 0:
                            os.pwrite(self._wal, _ZEROS[:left], size)
                    finally:
                        connection.execute("ROLLBACK")
        except (sqlite3.Error, OSError) as error:
            log.info("%s-wal grows as it goes: %s", self._path, error)

    def _sync_folder(self) -> None:
        """A file is not safe before its name is."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
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

"""Which processes of this machine live: each holds a lock on a file of its own, and the kernel lets go when it dies.

    FILE-writers/w-1a2b....lock     locked: its process lives        can be locked: it was killed

So a restart after a kill need not wait until a writer has been silent for long enough (goal D4). The locks are
`flock`'s, on files that nobody else opens: they have nothing to do with SQLite's. Where the folder is
on a file system without it, nobody is ever told dead here, and silence decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_SUFFIX: Final = ".lock"


class Lives:
    """The lock files beside one database."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(f"{database.name}-writers")
        self._held: dict[str, int] = {}

    def hold(self, writer: str) -> None:
        """Show that `writer` lives as long as this process does; call it before the writer is known to anybody."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path(writer), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("%s cannot be made, so that a kill is told only by silence: %s", self._path(writer), error)
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # a file system without locks: a file that anybody can lock would say that we are dead
            log.warning("%s cannot be locked, so that a kill is told only by silence: %s", self._path(writer), error)
            self._drop(writer, file)
        else:
            self._held[writer] = file

    def is_dead(self, writer: str) -> bool:
        """Whether the writer's process is surely gone; False also where nobody knows."""
        if writer in self._held:
            return False
        try:
            file = os.open(self._path(writer), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def forget(self, writer: str) -> None:
        """Take away the file of a writer that is dead, or of our own that ends."""
        file = self._held.pop(writer, None)
        if file is None:
            with contextlib.suppress(OSError):
                self._path(writer).unlink()
        else:
            self._drop(writer, file)

    def known(self) -> list[str]:
        """Return the writers that have a file."""
        try:
            return [path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}")]
        except OSError:
            return []

    def _path(self, writer: str) -> Path:
        return self._folder / f"{writer}{_SUFFIX}"

    def _drop(self, writer: str, file: int) -> None:
        with contextlib.suppress(OSError):
            self._path(writer).unlink()
        os.close(file)

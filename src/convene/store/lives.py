"""Which processes of this machine live: each holds a lock on a file of its own, and the kernel lets go when it dies.

    FOLDER-writers/w-1a2b....lock     locked: its process lives        can be locked: it was killed

So a restart after a kill need not wait until a writer has been silent for long enough (goal D4). The locks are
`flock`'s, on files that nobody else opens: they have nothing to do with SQLite's. Nobody who lives is told dead: a file
is judged only once its maker, holding the lock, has written its mark, and where machines share a folder only by the
machine that made it, for locks may not reach from one to another. Where a file system has none, silence decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

log = logging.getLogger(__name__)

_SUFFIX: Final = ".lock"
_MARK_MAX: Final = 200


class Lives:
    """The lock files of one database's writers."""

    def __init__(self, beside: Path, machine: str = "") -> None:
        """They lie in a folder beside `beside`.

        `machine` tells this start of this machine from all others, where a database may have writers on several.
        """
        self._folder = beside.with_name(f"{beside.name}-writers")
        self._mark = f"{machine}\n".encode()
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
            os.write(file, self._mark)
        except OSError as error:  # a file system without locks, or a full one
            log.warning("%s cannot be locked, so that a kill is told only by silence: %s", self._path(writer), error)
            self._drop(writer, file)
        else:
            self._held[writer] = file

    def is_dead(self, writer: str) -> bool:
        """Whether the writer's process is surely gone; False also where nobody knows."""
        return writer not in self._held and self._is_free(writer, self._mark)

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

    def sweep(self, writers: Container[str]) -> None:
        """Take away the files of those who are none of these `writers` and hold no lock: there is no more to say."""
        for writer in self.known():
            if writer not in writers and writer not in self._held and self._is_free(writer):
                self.forget(writer)

    def _is_free(self, writer: str, mark: bytes | None = None) -> bool:
        """Whether nobody holds the lock, of a file with this mark if one is given."""
        try:
            file = os.open(self._path(writer), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if mark is not None and os.read(file, _MARK_MAX) != mark:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def _path(self, writer: str) -> Path:
        return self._folder / f"{writer}{_SUFFIX}"

    def _drop(self, writer: str, file: int) -> None:
        with contextlib.suppress(OSError):
            self._path(writer).unlink()
        os.close(file)

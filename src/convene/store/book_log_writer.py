"""Writing the log of the books (`book_log.py`): two files that take turns, held by a lock as long as the writer lives.

    current slot ── full ──► the other one: its header, the names, the intents that are open; then it is the current one
    old slot     ── all its entries in the tables and on the disk ──► spare, to be written over by the next turn

A file is filled with zeros before its first turn, since an fdatasync of a file that grows waits for the file system's
own journal (3.8 ms at p99, measured for decision 0009) and one of a file that does not for the data alone (0.13 ms).
The very first turn is short and not filled, so that nobody waits for the zeros.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final

from convene.store.book_log import HEADER_BYTES, NAMES, SLOTS, Place, Seeds, header, names_body

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

SLOT_BYTES: Final = 4 << 20
"""Some 7,000 requests. Two of these lie on the disk for each process that writes."""
_ZEROS: Final = bytes(1 << 18)


class Slot:
    """One file of a log."""

    def __init__(self, path: Path) -> None:
        """Make it, for its owner only. Raises OSError."""
        self.path = path
        self.filled = False
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            log.warning("%s cannot be locked, so that it stays when its writer was killed: %s", path, error)

    def fill(self) -> None:
        """Give it its size, on the disk, if it was not given; blocks. Without it all works as well."""
        if self.filled:
            return
        try:
            for at in range(0, SLOT_BYTES, len(_ZEROS)):
                os.pwrite(self.file, _ZEROS, at)
            os.fsync(self.file)
        except OSError as error:
            log.info("%s grows as it goes: %s", self.path, error)
        self.filled = True

    def close(self, *, remove: bool) -> None:
        """Let go of it; idempotent. `remove`: nobody needs what it has."""
        if self.file >= 0:
            if remove:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            os.close(self.file)
            self.file = -1


class BookLog:
    """One writer's log. Used by one thread; slots that are not the current one may be with another."""

    def __init__(self, folder: Path, writer: str) -> None:
        """Make the first slot. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stem = folder / writer
        self.current = Slot(self._path(SLOTS[0]))
        self.slots = [self.current]
        self._generation = 0
        try:
            self._begin(self.current, ())
        except BaseException:  # raised on; no file is left behind without a log in it
            self.current.close(remove=True)
            raise

    @property
    def place(self) -> Place:
        """Where the next frame will be."""
        return Place(self._generation, self._offset)

    @property
    def full(self) -> bool:
        """Whether it is time for the other slot."""
        return self._offset >= SLOT_BYTES or not self.current.filled

    def append(self, kind: int, body: bytes) -> None:
        """Write a frame: it survives kill -9. Raises OSError, and then it is as if it had never been tried."""
        frame = self._seeds.frame(kind, body)
        _write(self.current.file, frame, self._offset)
        self._offset += len(frame)

    def make_second(self) -> None:
        """Make the other slot, filled. Blocks; for any thread, once. Raises OSError."""
        slot = Slot(self._path(SLOTS[1]))
        self.slots.append(slot)
        slot.fill()

    def turn_to(self, slot: Slot, frames: Iterable[tuple[int, bytes]]) -> Slot:
        """Go on in `slot`, which takes over these frames, and return the old one. Raises OSError: nothing changed."""
        old = self.current
        self._begin(slot, frames)
        return old

    def _begin(self, slot: Slot, frames: Iterable[tuple[int, bytes]]) -> None:
        generation = self._generation + 1
        seeds = Seeds(generation)
        data = b"".join([seeds.frame(NAMES, names_body()), *(seeds.frame(*one) for one in frames)])
        _write(slot.file, data, HEADER_BYTES)
        _write(slot.file, header(generation), 0)  # last: only now is it a log
        self.current, self._generation, self._seeds = slot, generation, seeds
        self._offset = HEADER_BYTES + len(data)

    def _path(self, slot: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{slot}")


def is_let_go(path: Path) -> bool:
    """Whether nobody holds the file any more; False also where nobody knows."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _write(file: int, data: bytes, offset: int) -> None:
    written = os.pwrite(file, data, offset)
    if written != len(data):  # a disk that is full takes a part
        raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")

"""Metrics of several workers: each leaves its figures in a folder, and whichever is asked adds all of them up.

Files are named by the supervisor, the worker and its process. Those of a worker that died stay until the supervisor
does, because a counter must not fall; what it had under way is not counted any more. Figures of others are up to
`EVERY_S` old. Only a start with `--workers` uses this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from typing import TYPE_CHECKING, Final

import msgspec

from convene.api.metrics import Packed

if TYPE_CHECKING:
    from pathlib import Path

    from convene.api.metrics import Metrics

log = logging.getLogger("convene.metrics")

EVERY_S: Final = 1.0
_NAME: Final = re.compile(r"(\d+)-(\d+)-(\d+)\.metrics")


class Shelf:
    """The folder of one server's workers, seen by one of them."""

    def __init__(self, folder: Path, index: int) -> None:
        """`folder` is made when first written to; `index` is the worker's place."""
        self._folder = folder
        self._parent = os.getppid()
        self._own = f"{self._parent}-{index}-{os.getpid()}.metrics"

    async def keep(self, metrics: Metrics) -> None:
        """Put the figures there again and again until cancelled, and once more then."""
        try:
            while True:
                await asyncio.to_thread(self.put, metrics.pack())
                await asyncio.sleep(EVERY_S)
        finally:
            self.put(metrics.pack())

    async def others(self) -> list[Packed]:
        """Return the figures of the other workers, dead ones of this server included."""
        return await asyncio.to_thread(self.take)

    def put(self, packed: Packed) -> None:
        """Write the figures, whole or not at all. A disk that fails costs the others these figures, nothing more."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self._folder / f"{self._own}.part"
            part.write_bytes(msgspec.msgpack.encode(packed))
            part.replace(self._folder / self._own)
        except OSError as error:
            log.warning("metrics of this worker cannot be shared: %s", error)

    def take(self) -> list[Packed]:
        """Read the others' figures, and throw away those of servers that are gone."""
        found: list[Packed] = []
        for path in sorted(self._folder.glob("*.metrics")):
            name = _NAME.fullmatch(path.name)
            if name is None or path.name == self._own:
                continue
            if int(name[1]) != self._parent:
                if not _lives(int(name[1])):
                    path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(OSError, msgspec.MsgspecError):  # gone meanwhile, or of another version
                packed = msgspec.msgpack.decode(path.read_bytes(), type=Packed)
                if not _lives(int(name[3])):
                    packed.in_flight = packed.waiting = 0
                found.append(packed)
        return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it lives
        return True
    return True

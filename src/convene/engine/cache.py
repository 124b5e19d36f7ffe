"""One place in the cache folder: the right to change it, and the notes that say what lies there.

Called by `embedded`, `weights` and `files`. A file is only ever seen here whole and checked: it is made elsewhere on
the same disk and moved.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import msgspec

from convene.engine.base import FetchSettings, FetchStep, NoSpace, Progress
from convene.engine.lock import hold_lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class StoredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the cache folder. `source` is where it came from; `size` is in bytes."""

    name: str
    source: str
    sha256: str
    size: int
    licence: str = ""


class Cache:
    """The folder of model files, and what may be done to fill it.

    Args:
        folder: `models` in the cache folder.
        settings: where files may come from.
        free_bytes: how free space is measured.
    """

    def __init__(self, folder: Path, settings: FetchSettings, free_bytes: Callable[[Path], int]) -> None:
        self.folder = folder
        self.settings = settings
        self.free_bytes = free_bytes

    @contextlib.asynccontextmanager
    async def claim(self, slug: str, report: Progress) -> AsyncIterator[None]:
        """Hold the right to put one model into the folder, against other processes too.

        Raises:
            NoSpace: if the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NoSpace(
                "The cache folder cannot be made; configure another cache folder or its rights.", detail=repr(error)
            ) from error
        waiting = FetchStep(status="waiting for another process that fetches the same model")
        async with hold_lock(self.folder / f".{slug}.lock", lambda: report(waiting)):
            yield


def measure_free(folder: Path) -> int:
    """Give the bytes this user may still write on the folder's disk."""
    return shutil.disk_usage(folder).free


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)

"""Pictures on the disk, by their owner's shelf and the hash of their bytes, and the secret that links are signed with.

    FOLDER/SHELF/HASH.png     one file a picture, for its owner only; written beside and moved, so never half there
    FOLDER/secret             32 bytes, made once by whoever comes first

The same picture twice on a shelf is one file, whose time is the later one's. Several processes of one host, or of
several over a shared folder, may use it at the same time; each counts the bytes for itself and looks again at each
sweep, so the folder may exceed its limit by what the others have put there since. Whoever has most on the shelves
loses the oldest first: nobody who draws a lot takes away the pictures of somebody who does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import os
import re
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from convene.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")
NAME: Final = re.compile(r"[0-9a-f]{64}\.(?:png|jpeg|webp)")
SHELF: Final = re.compile(r"[0-9a-f]{32}")
SECRET_BYTES: Final = 32
BYTES_MAX: Final = 2_000_000_000
ROOM: Final = 0.9
"""Once the folder is full, it is emptied to this share of its limit, so that not each picture has to look at it."""


class PictureFiles:
    """One folder of pictures. Every call raises `StoreFault` if the folder cannot be used."""

    def __init__(self, folder: Path, clock: Clock, bytes_max: int = BYTES_MAX) -> None:
        """`bytes_max`: what all pictures together may take."""
        self._folder = folder
        self._clock = clock
        self._bytes_max = bytes_max
        self._held: int | None = None
        """Bytes in the folder as far as known; None: nobody has looked yet."""
        self._lock = threading.Lock()

    async def put(self, shelf: str, data: bytes, form: str) -> str:
        """Keep a picture on a shelf and return its name there."""
        if len(data) > self._bytes_max or not SHELF.fullmatch(shelf):
            raise StoreFault("This picture cannot be kept; ask for b64_json.", detail=f"{len(data)} bytes, {shelf!r}")
        return await self._off_loop(self._put, shelf, data, form)

    async def get(self, shelf: str, name: str) -> bytes | None:
        """Return a picture, or None if there is none of this name on the shelf (any more)."""
        return await self._off_loop(self._get, shelf, name) if _is_place(shelf, name) else None

    async def delete(self, shelf: str, name: str) -> bool:
        """Delete a picture and return whether it was there."""
        return await self._off_loop(self._delete, shelf, name) if _is_place(shelf, name) else False

    async def secret(self) -> bytes:
        """Return the secret of this folder, made if there is none. One that is too short is a fault, never used."""
        return await self._off_loop(self._secret)

    async def forget(self, before: float) -> int:
        """Delete what was kept before that (Unix seconds), and what is too much; return how many were too old."""
        return await self._off_loop(self._forget, before)

    async def _off_loop(self, work: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(work, *values, **named)
        except OSError as error:
            raise StoreFault(
                "Pictures cannot be kept now; ask for b64_json.", detail=f"{self._folder}: {error}"
            ) from error

    def _put(self, shelf: str, data: bytes, form: str) -> str:
        name = f"{hashlib.sha256(data).hexdigest()}.{form}"
        place = self._folder / shelf / name
        with self._lock:
            held = self._measure() if self._held is None else self._held
            if held + len(data) > self._bytes_max:
                held = self._shrink(int(self._bytes_max * ROOM) - len(data))
            self._held = held + len(data)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(place, data)
        now = self._clock.now()
        os.utime(place, (now, now))
        return name

    def _get(self, shelf: str, name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / shelf / name).read_bytes()
        return None

    def _delete(self, shelf: str, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / shelf / name).unlink()
            return True
        return False

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time, bytes and place of every picture, half-written ones too."""
        found = []
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        return found

    def _measure(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _shrink(self, target: int) -> int:
        """Delete until at most `target` bytes are left, and return how many are: from the fullest shelf its oldest."""
        shelves: dict[Path, list[tuple[float, int, Path]]] = defaultdict(list)
        for file in sorted(self._files(), reverse=True):
            shelves[file[2].parent].append(file)
        full = [(-sum(size for _, size, _ in files), shelf) for shelf, files in shelves.items()]
        heapq.heapify(full)
        left = -sum(size for size, _ in full)
        while left > target and full:
            held, shelf = heapq.heappop(full)
            _, size, path = shelves[shelf].pop()
            path.unlink(missing_ok=True)
            left -= size
            if shelves[shelf]:
                heapq.heappush(full, (held + size, shelf))
        return max(0, left)

    def _secret(self) -> bytes:
        place = self._folder / "secret"
        if not place.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._beside(place, self._clock.token(SECRET_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(fresh, place)  # of several that do this at once, one has made it
            fresh.unlink()
        found = place.read_bytes()
        if len(found) < SECRET_BYTES:
            raise OSError(f"{place} is damaged; delete it, and links that were given out end")
        return found

    def _forget(self, before: float) -> int:
        old = [path for time, _, path in self._files() if time < before]
        for path in old:
            path.unlink(missing_ok=True)
        with self._lock:
            self._held = self._measure()
            if self._held > self._bytes_max:
                self._held = self._shrink(int(self._bytes_max * ROOM))
        return len(old)

    def _write(self, place: Path, data: bytes) -> None:
        self._beside(place, data).replace(place)

    def _beside(self, place: Path, data: bytes) -> Path:
        """Write a file of another name in the same folder."""
        fresh = place.with_name(f".{self._clock.token(8).hex()}")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(data)
        return fresh


def _is_place(shelf: str, name: str) -> bool:
    return SHELF.fullmatch(shelf) is not None and NAME.fullmatch(name) is not None

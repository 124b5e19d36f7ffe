"""Pictures on the disk, by the hash of their bytes, and the secret that links to them are signed with.

    FOLDER/ab/abcdef....png     one file a picture, for its owner only; written beside and moved, so never half there
    FOLDER/secret               32 bytes, made once by whoever comes first

The same picture twice is one file, whose time is the later one's. Several processes of one host, or of several over a
shared folder, may use it at the same time. Nothing of whose it is is kept: who has a link may see the picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from convene.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")
NAME: Final = re.compile(r"[0-9a-f]{64}\.(?:png|jpeg|webp)")
SECRET_BYTES: Final = 32


class PictureFiles:
    """One folder of pictures. Every call raises `StoreFault` if the folder cannot be used."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    async def put(self, data: bytes, form: str) -> str:
        """Keep a picture and return its name."""
        return await self._off_loop(self._put, data, form)

    async def get(self, name: str) -> bytes | None:
        """Return a picture, or None if there is none of this name (any more)."""
        return await self._off_loop(self._get, name) if NAME.fullmatch(name) else None

    async def secret(self) -> bytes:
        """Return the secret of this folder, made if there is none. One that is too short is a fault, never used."""
        return await self._off_loop(self._secret)

    async def forget(self, before: float) -> int:
        """Delete what was kept before that (Unix seconds) and return how many."""
        return await self._off_loop(self._forget, before)

    async def _off_loop(self, work: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(work, *values, **named)
        except OSError as error:
            raise StoreFault("Pictures cannot be kept now.", detail=f"{self._folder}: {error}") from error

    def _place(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _put(self, data: bytes, form: str) -> str:
        name = f"{hashlib.sha256(data).hexdigest()}.{form}"
        place = self._place(name)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(place, data)
        now = self._clock.now()
        os.utime(place, (now, now))
        return name

    def _get(self, name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return self._place(name).read_bytes()
        return None

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
        gone = 0
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
        return gone

    def _write(self, place: Path, data: bytes) -> None:
        self._beside(place, data).replace(place)

    def _beside(self, place: Path, data: bytes) -> Path:
        """Write a file of another name in the same folder."""
        fresh = place.with_name(f".{self._clock.token(8).hex()}")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(data)
        return fresh

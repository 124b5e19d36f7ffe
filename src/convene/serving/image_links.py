"""Links to pictures: signed, and good for a stated time; who has one needs no key.

    shelve(picture) ──► kept by its hash ──► BASE/v1/images/files/NAME?expires=UNIX&signature=HEX
    fetch(name, expires, signature) ──► the picture, or `NotFound` for whatever is wrong with it

The signature is HMAC-SHA256 over name and expiry, with a key derived for this purpose alone. What a link led to is
deleted some time after the last link to it has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from typing import TYPE_CHECKING, Final, Protocol

from convene.errors import NotFound, StoreFault

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.serving.base_images import Picture

log = logging.getLogger("convene.images")

PATH: Final = "/v1/images/files/"
SWEEP_S: Final = 600.0
SLACK_S: Final = 3600.0
"""How much longer a picture is kept than any link to it is good for."""
_PURPOSE: Final = b"convene image link 1"


class Files(Protocol):
    """Where pictures are kept; see `store/picture_files.py`."""

    async def put(self, data: bytes, form: str) -> str:
        """Keep a picture and return its name. Raises `StoreFault`."""
        ...

    async def get(self, name: str) -> bytes | None:
        """Return a picture, or None. Raises `StoreFault`."""
        ...

    async def secret(self) -> bytes:
        """Return a secret that stays the same. Raises `StoreFault`."""
        ...

    async def forget(self, before: float) -> int:
        """Delete what was kept before that. Raises `StoreFault`."""
        ...


class ImageLinks:
    """The links of one server."""

    def __init__(self, files: Files, clock: Clock, base_url: str, keep_s: float) -> None:
        """`base_url`: how others reach this server, without a slash at the end. `keep_s`: how long a link is good."""
        self._files = files
        self._clock = clock
        self._base_url = base_url
        self._keep_s = keep_s
        self._key = b""

    async def shelve(self, picture: Picture) -> str:
        """Keep a picture and return a link to it. Raises `StoreFault`."""
        name = await self._files.put(picture.data, picture.format)
        expires = int(self._clock.now() + self._keep_s)
        return f"{self._base_url}{PATH}{name}?expires={expires}&signature={await self._sign(name, expires)}"

    async def fetch(self, name: str, expires: int, signature: str) -> tuple[bytes, str]:
        """Return a picture and its media type. Raises `NotFound` and `StoreFault`."""
        good = hmac.compare_digest((await self._sign(name, expires)).encode(), signature.lower().encode())
        data = await self._files.get(name) if good and expires >= self._clock.now() else None
        if data is None:
            raise NotFound("There is no such picture, or the link to it has ended.")
        return data, f"image/{name.rpartition('.')[2]}"

    async def sweep(self) -> None:
        """Delete pictures that no link leads to any more, every ten minutes, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._files.forget(self._clock.now() - self._keep_s - SLACK_S)
            except StoreFault as fault:
                log.warning("old pictures cannot be deleted: %s", fault.detail)

    async def _sign(self, name: str, expires: int) -> str:
        if not self._key:
            self._key = hmac.digest(await self._files.secret(), _PURPOSE, "sha256")
        return hmac.digest(self._key, f"{name}:{expires}".encode(), hashlib.sha256).hex()

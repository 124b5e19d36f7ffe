"""Links to pictures: signed, and good for a stated time; who has one needs no key. Only its owner may delete one.

    shelve(picture, owner) ──► kept by owner and hash ──► BASE/v1/images/files/SHELF-HASH.png?expires=UNIX&signature=HEX
    fetch(file, expires, signature) ──► the picture, or `NotFound` for whatever is wrong with it
    delete(file, owner)             ──► the same for a picture of somebody else as for one that is not there

The signature is HMAC-SHA256 over file and expiry, and the shelf one over the owner, each with a key derived for this
purpose alone: a link does not tell whose picture it is, only that two are of the same owner. What a link led to is
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
_LINK: Final = b"convene image link 1"
_SHELF: Final = b"convene image shelf 1"
_SHELF_CHARS: Final = 32


class Files(Protocol):
    """Where pictures are kept; see `store/picture_files.py`."""

    async def put(self, shelf: str, data: bytes, form: str) -> str:
        """Keep a picture on a shelf and return its name there. Raises `StoreFault`."""
        ...

    async def get(self, shelf: str, name: str) -> bytes | None:
        """Return a picture, or None. Raises `StoreFault`."""
        ...

    async def delete(self, shelf: str, name: str) -> bool:
        """Delete a picture and return whether it was there. Raises `StoreFault`."""
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
        """`base_url`: how others reach this server, without a slash at the end; it may change, old links stay good.

        `keep_s`: how long a link is good.
        """
        self._files = files
        self._clock = clock
        self.base_url = base_url
        self._keep_s = keep_s
        self._secret = b""

    async def shelve(self, picture: Picture, owner: str) -> str:
        """Keep a picture of an owner's and return a link to it. Raises `StoreFault`."""
        shelf = await self._shelf(owner)
        file = f"{shelf}-{await self._files.put(shelf, picture.data, picture.format)}"
        expires = int(self._clock.now() + self._keep_s)
        return f"{self.base_url}{PATH}{file}?expires={expires}&signature={await self._sign(file, expires)}"

    async def fetch(self, file: str, expires: int, signature: str) -> tuple[bytes, str]:
        """Return a picture and its media type. Raises `NotFound` and `StoreFault`."""
        good = hmac.compare_digest((await self._sign(file, expires)).encode(), signature.lower().encode())
        shelf, _, name = file.partition("-")
        data = await self._files.get(shelf, name) if good and expires >= self._clock.now() else None
        if data is None:
            raise NotFound("There is no such picture, or the link to it has ended.")
        return data, f"image/{name.rpartition('.')[2]}"

    async def delete(self, file: str, owner: str) -> None:
        """Delete a picture of an owner's: links to it end. Raises `NotFound` and `StoreFault`."""
        shelf, _, name = file.partition("-")
        is_theirs = hmac.compare_digest((await self._shelf(owner)).encode(), shelf.encode("utf-8", "replace"))
        if not (is_theirs and await self._files.delete(shelf, name)):
            raise NotFound("There is no such picture of yours.")

    async def sweep(self) -> None:
        """Delete pictures that no link leads to any more, every ten minutes, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._files.forget(self._clock.now() - self._keep_s - SLACK_S)
            except StoreFault as fault:
                log.warning("old pictures cannot be deleted: %s", fault.detail)

    async def _shelf(self, owner: str) -> str:
        """Return where the pictures of an owner are."""
        key = await self._key(_SHELF)
        return hmac.digest(key, owner.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:_SHELF_CHARS]

    async def _sign(self, file: str, expires: int) -> str:
        text = f"{file}:{expires}".encode("utf-8", "surrogatepass")
        return hmac.digest(await self._key(_LINK), text, hashlib.sha256).hex()

    async def _key(self, purpose: bytes) -> bytes:
        if not self._secret:
            self._secret = await self._files.secret()
        return hmac.digest(self._secret, purpose, "sha256")

"""Files that agents leave for each other, a picture for instance (STORE-01). Called by `api/assets.py`.

Made with a key, read by those its owner names: an agent by its attestation, an owner by a key.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from convene.errors import BadRequest, Busy, NotFound, TooLarge, Unauthorized
from convene.store.base_market import Asset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convene.clock import Clock
    from convene.registry.base_desks import Asker
    from convene.store.base_market import Market

BYTES_MAX: Final = 10 * 1024 * 1024
ASSETS_MAX: Final = 200
"""Of one owner."""
HOURS_MAX: Final = 24
READERS_MAX: Final = 100
NAME_MAX: Final = 200
HOUR_US: Final = 3_600_000_000
UUID_BYTES: Final = 16
_TYPE: Final = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)
ANYBODY: Final = "*"


class _New(msgspec.Struct):
    contents: str
    name: str = ""
    mime_type: str = "text/plain"
    lifetime_hours: int = HOURS_MAX


class _Contents(msgspec.Struct):
    contents: str
    mime_type: str = ""


class _Permission(msgspec.Struct):
    agent_address: str
    read: bool = True
    write: bool = False


Shape = TypeVar("Shape", _New, _Contents, _Permission)


class Assets:
    """An `AssetDesk`."""

    def __init__(self, market: Callable[[], Market], clock: Clock) -> None:
        self._market = market
        self._clock = clock

    async def keep(self, body: Mapping[str, object], asker: Asker) -> str:
        """Keep a file (`base_desks.AssetDesk`)."""
        if not asker.owner:
            raise Unauthorized("Send a key as Authorization: Bearer to leave a file.")
        new = _read(body, _New)
        if not 1 <= new.lifetime_hours <= HOURS_MAX:
            raise BadRequest(f"Invalid 'lifetime_hours': wanted 1 to {HOURS_MAX}.", param="lifetime_hours")
        asset = Asset(
            id=str(uuid.UUID(bytes=self._clock.token(UUID_BYTES), version=4)),
            owner=asker.owner,
            name=new.name[:NAME_MAX],
            media_type=_media_type(new.mime_type),
            contents=_contents(new.contents),
            expires_us=self._now_us() + new.lifetime_hours * HOUR_US,
        )
        if not await self._market().keep_asset(asset, ASSETS_MAX):
            raise Busy(f"One owner leaves at most {ASSETS_MAX} files; they go after {HOURS_MAX} hours at the latest.")
        return asset.id

    async def change(self, asset_id: str, body: Mapping[str, object], asker: Asker) -> None:
        """Write a file anew (`base_desks.AssetDesk`)."""
        asset = await self._market().asset(asset_id, self._now_us())
        if asset is None or not (_owns(asset, asker) or (asker.agent and asker.agent in asset.writers)):
            raise _missing()
        new = _read(body, _Contents)
        media_type = _media_type(new.mime_type) if new.mime_type else asset.media_type
        changed = msgspec.structs.replace(asset, contents=_contents(new.contents), media_type=media_type)
        await self._market().keep_asset(changed, ASSETS_MAX + 1)

    async def permit(self, asset_id: str, body: Mapping[str, object], asker: Asker) -> None:
        """Say who may read and write (`base_desks.AssetDesk`)."""
        asset = await self._market().asset(asset_id, self._now_us())
        if asset is None or not _owns(asset, asker):
            raise _missing()
        said = _read(body, _Permission)
        if len(said.agent_address) > NAME_MAX:
            raise BadRequest("Invalid 'agent_address': wanted an agent's address.", param="agent_address")
        readers = _with(asset.readers, said.agent_address, there=said.read)
        writers = _with(asset.writers, said.agent_address, there=said.write and said.agent_address != ANYBODY)
        if max(len(readers), len(writers)) > READERS_MAX:
            raise BadRequest(f"At most {READERS_MAX} agents may read a file.", param="agent_address")
        await self._market().keep_asset(
            msgspec.structs.replace(asset, readers=readers, writers=writers), ASSETS_MAX + 1
        )

    async def show(self, asset_id: str, asker: Asker) -> Asset:
        """Return a file to who may read it (`base_desks.AssetDesk`)."""
        asset = await self._market().asset(asset_id, self._now_us())
        if asset is None:
            raise _missing()
        named = asker.agent and asker.agent in {*asset.readers, *asset.writers}
        if not (_owns(asset, asker) or named or ANYBODY in asset.readers):
            raise _missing()
        return asset

    def _now_us(self) -> int:
        return int(self._clock.now() * 1_000_000)


def _read(body: Mapping[str, object], shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(body, shape)
    except (msgspec.ValidationError, RecursionError) as fault:
        raise BadRequest(f"Not what is kept of a file: {fault}.", code="invalid_asset") from None


def _contents(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("Invalid 'contents': wanted base64.", param="contents") from None
    if len(found) > BYTES_MAX:
        raise TooLarge(f"A file has at most {BYTES_MAX} bytes.")
    return found


def _media_type(text: str) -> str:
    if not _TYPE.fullmatch(text):
        raise BadRequest("Invalid 'mime_type': wanted a media type such as image/png.", param="mime_type")
    return text


def _owns(asset: Asset, asker: Asker) -> bool:
    return bool(asker.owner) and asset.owner == asker.owner


def _with(names: tuple[str, ...], name: str, *, there: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*(one for one in names if one != name), *((name,) if there else ()))))


def _missing() -> NotFound:
    return NotFound("There is no file of this id that you may read, or it has expired.", code="asset_not_found")

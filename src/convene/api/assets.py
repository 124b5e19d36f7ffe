"""The endpoints of files that agents leave for each other (STORE-01)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from convene.api.askers import read_body

if TYPE_CHECKING:
    from convene.api.askers import Askers
    from convene.api.call import Call
    from convene.registry.base_desks import AssetDesk

BODY_BYTES_MAX: Final = 15 * 1024 * 1024
"""Ten million bytes in base64, and their name."""


class AssetPages:
    """The endpoints."""

    def __init__(self, desk: AssetDesk, askers: Askers) -> None:
        self._desk = desk
        self._askers = askers

    async def keep(self, call: Call) -> None:
        """Keep a file."""
        asker = await self._askers.owner(call)
        await call.reply_json({"asset_id": await self._desk.keep(await read_body(call, BODY_BYTES_MAX), asker)}, 201)

    async def show(self, call: Call) -> None:
        """Give a file to who may read it."""
        asset = await self._desk.show(call.params["asset"], await self._askers.of(call))
        await call.reply_json(
            {
                "asset_id": asset.id,
                "name": asset.name,
                "mime_type": asset.media_type,
                "contents": base64.b64encode(asset.contents).decode(),
            }
        )

    async def change(self, call: Call) -> None:
        """Write a file anew."""
        asker = await self._askers.known(call)
        await self._desk.change(call.params["asset"], await read_body(call, BODY_BYTES_MAX), asker)
        await call.reply_json({"asset_id": call.params["asset"]})

    async def permit(self, call: Call) -> None:
        """Say who may read and write it."""
        asker = await self._askers.owner(call)
        await self._desk.permit(call.params["asset"], await read_body(call, BODY_BYTES_MAX), asker)
        await call.reply_json({"asset_id": call.params["asset"]})

"""`POST /v1/images/generations` and ASI:One's `POST /v1/image/generate`: one use case, one reply for both (API-04)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from convene.api.json_body import read_object, read_shape
from convene.api.query import Query
from convene.api.shapes_images import ImageAddress, ImageBody, ImageItem, ImageReply
from convene.serving.base import Outcome
from convene.serving.base_images import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call
    from convene.api.problems import Header
    from convene.serving.base_images import ImageDesk, ImageLinks, Picture

EXPIRES_MAX: Final = 1 << 40
KEPT: Final[tuple[Header, ...]] = (
    (b"cache-control", b"private, max-age=3600, immutable"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
)
"""A picture never changes, and is never taken for anything else."""
DEFAULT_MODEL: Final = "asi1-mini"
"""What ASI:One draws with when nothing is said (IMAGE-02)."""
KNOWN: Final = frozenset(ImageBody.__struct_fields__)


class ImageRequests:
    """One of the two endpoints."""

    def __init__(self, desk: ImageDesk, links: ImageLinks, now: Callable[[], float], per_second: int = 1) -> None:
        """`per_second`: in what `created` counts, 1 or 1000."""
        self._desk = desk
        self._links = links
        self._now = now
        self._per_second = per_second

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        given = read_object(await call.body())
        asked = read_shape(given, ImageBody)
        extra = {name: value for name, value in given.items() if name not in KNOWN}
        request = ImageRequest(
            model=asked.model or DEFAULT_MODEL,
            prompt=asked.prompt,
            size=asked.size or "auto",
            count=asked.n or 1,
            seed=asked.seed,
            output_format=asked.output_format,
            compression=asked.output_compression,
            background=asked.background or "auto",
            quality=asked.quality,
            style=asked.style,
            negative_prompt=asked.negative_prompt or "",
            user=asked.user,
            request_id=call.request_id,
            extra=extra,
        )
        call.outcome = Outcome()
        drawn = await self._desk.draw(request, call.caller, call.outcome)
        as_url = asked.response_format == "url"
        items, addresses = [], []
        for picture in drawn.pictures:
            text = base64.b64encode(picture.data).decode()
            link = await self._links.shelve(picture) if as_url else ""
            items.append(_item(picture, text, link))
            addresses.append(ImageAddress(link or f"data:{picture.media_type};base64,{text}"))
        first = drawn.pictures[0]
        await call.reply_json(
            ImageReply(
                int(self._now() * self._per_second),
                items,
                addresses,
                output_format=first.format,
                size=f"{first.width}x{first.height}",
            )
        )


def _item(picture: Picture, text: str, link: str) -> ImageItem:
    revised = picture.revised_prompt if picture.revised_prompt is not None else UNSET
    if link:
        return ImageItem(url=link, revised_prompt=revised)
    return ImageItem(b64_json=text, revised_prompt=revised)


class ImageFiles:
    """`GET /v1/images/files/{file}`: a picture by a signed link, without a key."""

    def __init__(self, links: ImageLinks) -> None:
        self._links = links

    async def __call__(self, call: Call) -> None:
        """Answer one request. Raises `NotFound`."""
        query = Query.of(call)
        expires = query.number("expires", 0, 0, EXPIRES_MAX)
        data, media_type = await self._links.fetch(call.params["file"], expires, query.text("signature", 128) or "")
        await call.reply(200, data, media_type.encode(), list(KEPT))

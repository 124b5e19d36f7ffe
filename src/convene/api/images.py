"""Requests for pictures, OpenAI's and ASI:One's: a body or a form to an `ImageRequest` (API-04).

`image_replies.py` answers them. Pictures come in as files of a form or, in JSON, as data URLs: an address elsewhere is
never fetched for a stranger.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec

from convene.api.form_body import Form, boundary_of, read_form
from convene.api.json_body import read_object, read_shape, read_texts
from convene.api.query import Query
from convene.api.shapes_images import ImageBody, ImageDeleted, ImageEditBody, ImageVariationBody
from convene.errors import BadRequest
from convene.serving.base_images import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.api.call import Call
    from convene.api.image_replies import ImageReplies
    from convene.api.problems import Header
    from convene.api.shapes_images import ImageFields
    from convene.serving.base_images import ImageLinks, ImageTask

EXPIRES_MAX: Final = 1 << 40
KEPT: Final[tuple[Header, ...]] = (
    (b"cache-control", b"private, max-age=3600, immutable"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
)
"""A picture never changes, and is never taken for anything else."""
DEFAULT_MODEL: Final = "asi1-mini"
USUAL_SIZE: Final = "1024x1024"
"""What ASI:One draws with, and how large, when nothing is said (IMAGE-02)."""
IN_PLACE_MAX: Final = 1 << 20
"""Larger bodies, which hold pictures, are read in a thread."""
BODIES: Final[dict[ImageTask, type[ImageBody | ImageEditBody | ImageVariationBody]]] = {
    "generate": ImageBody,
    "edit": ImageEditBody,
    "vary": ImageVariationBody,
}
FILES: Final = ("image", "image[]", "images", "images[]")
"""What fields with the pictures of a form are called."""


class Given(msgspec.Struct, frozen=True):
    """A request as it came: its fields, the names that are not ours, and its pictures."""

    fields: ImageBody | ImageEditBody | ImageVariationBody
    extra: dict[str, object]
    sources: tuple[bytes, ...] = ()
    mask: bytes | None = None


class ImageRequests:
    """One endpoint that has something drawn."""

    def __init__(self, replies: ImageReplies, task: ImageTask = "generate", *, milliseconds: bool = False) -> None:
        """`milliseconds`: what `created` counts, as ASI:One does."""
        self._replies = replies
        self._task: ImageTask = task
        self._milliseconds = milliseconds

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        boundary = None if self._task == "generate" else boundary_of(call.header(b"content-type") or "")
        body = await call.body()
        if len(body) <= IN_PLACE_MAX:
            given = read_given(body, boundary, self._task)
        else:
            given = await asyncio.to_thread(read_given, body, boundary, self._task)
        asked = given.fields
        request = ImageRequest(
            model=asked.model or DEFAULT_MODEL,
            prompt="" if isinstance(asked, ImageVariationBody) else asked.prompt,
            task=self._task,
            sources=given.sources,
            sources_param="images" if boundary is None else "image",
            mask=given.mask,
            size=asked.size,
            size_usual=USUAL_SIZE if self._milliseconds else "auto",
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
            stream=bool(asked.stream),
            as_link=asked.response_format == "url",
            extra=given.extra,
        )
        await self._replies.answer(call, request, milliseconds=self._milliseconds)


def read_given(body: bytes, boundary: bytes | None, task: ImageTask) -> Given:
    """Return what a body asks for: a form if there is a boundary, else JSON. Raises `BadRequest`."""
    if boundary is None:
        return read_json(read_object(body), task)
    return read_parts(read_form(body, boundary), task)


def read_json(found: dict[str, object], task: ImageTask) -> Given:
    """Return what a JSON body asks for. Raises `BadRequest`."""
    fields = read_shape(found, BODIES[task])
    extra = _unknown(found, fields)
    if isinstance(fields, ImageBody):
        return Given(fields, extra)
    sources = tuple(read_data_url(one.image_url, "images") for one in fields.images or ())
    mask = fields.mask if isinstance(fields, ImageEditBody) else None
    return Given(fields, extra, sources, None if mask is None else read_data_url(mask.image_url, "mask"))


def read_parts(form: Form, task: ImageTask) -> Given:
    """Return what a form asks for. Raises `BadRequest`."""
    texts = {name: text for name, text in form.texts.items() if text}
    for name in (*FILES, "mask"):
        if name in texts:
            raise BadRequest(f"'{name}' must be a file in a form.", param=name)
    fields = read_texts(texts, BODIES[task])
    sources, mask = [], None
    for file in form.files:
        if file.name in FILES:
            sources.append(file.data)
        elif file.name == "mask" and task == "edit" and mask is None:
            mask = file.data
        else:
            raise BadRequest(f"The file '{file.name[:40]}' has no place in this form.", param=file.name[:40])
    return Given(fields, _unknown(texts, fields), tuple(sources), mask)


def read_data_url(text: str, param: str) -> bytes:
    """Return the bytes of a data URL. Raises `BadRequest`."""
    head, comma, data = text.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise BadRequest(f"'{param}' must hold pictures as data URLs in base64; no address is fetched.", param=param)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"'{param}' holds a data URL that is not base64.", param=param) from None


def _unknown(found: Mapping[str, object], fields: ImageFields) -> dict[str, object]:
    """Return what is not named here, for hosts that may know it."""
    known = fields.__struct_fields__
    return {name: value for name, value in found.items() if name not in known}


class ImageFiles:
    """`/v1/images/files/{file}`: a picture by a signed link, without a key; and its end, for its owner."""

    def __init__(self, links: ImageLinks) -> None:
        self._links = links

    async def delete(self, call: Call) -> None:
        """Delete a picture of the caller's. Raises `NotFound`."""
        file = call.params["file"]
        await self._links.delete(file, call.caller.owner)
        await call.reply_json(ImageDeleted(id=file))

    async def show(self, call: Call) -> None:
        """Answer with a picture. Raises `NotFound`."""
        query = Query.of(call)
        expires = query.number("expires", 0, 0, EXPIRES_MAX)
        data, media_type = await self._links.fetch(call.params["file"], expires, query.text("signature", 128) or "")
        await call.reply(200, data, media_type.encode(), list(KEPT))

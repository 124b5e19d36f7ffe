"""What was drawn as answers: one body in the shapes of OpenAI and ASI:One, or OpenAI's stream of events (DEC-13).

    whole    {"created", "data": [...], "images": [...], "status", "message", ...}
    stream   : progress 3/20                                 a comment: readers of frames see nothing of it
             event: image_generation.completed               one a picture, when it is finished
             data: {"type": ..., "b64_json": ..., ...}

Base64 of a large picture takes tens of milliseconds, so bodies are made in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import UNSET

from convene.api.problems import detail_of
from convene.api.shapes_images import ImageAddress, ImageItem, ImageReply, PictureEvent, PictureFault
from convene.api.sse import encode_line
from convene.api.stream_end import Ending
from convene.serving.base import Outcome
from convene.serving.base_images import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.api.call import Call
    from convene.api.stream import Streams
    from convene.errors import ConveneError
    from convene.serving.base_images import ImageDesk, ImageRequest

log = logging.getLogger("convene.images")
Shapes = Literal["both", "openai", "asi1"]
_encode = msgspec.json.Encoder().encode


class ImageReplies:
    """Has pictures drawn and answers with them."""

    def __init__(
        self,
        desk: ImageDesk,
        streams: Streams,
        now: Callable[[], float],
        shapes: Shapes = "both",
    ) -> None:
        """`shapes`: whose shape whole answers have."""
        self._desk = desk
        self._streams = streams
        self._now = now
        self._shapes: Shapes = shapes

    async def answer(self, call: Call, request: ImageRequest, *, milliseconds: bool) -> None:
        """Answer one request; `created` of a whole answer counts seconds unless told. Raises as `ImageDesk.draw`."""
        if request.stream:
            await self._stream(call, request)
            return
        drawn = await self._desk.draw(request, call.caller, _outcome_of(call))
        await call.reply(200, await asyncio.to_thread(self._whole, drawn.pictures, milliseconds=milliseconds))

    def _whole(self, pictures: Sequence[Picture], *, milliseconds: bool) -> bytes:
        first, links = pictures[0], [one.link for one in pictures if one.link]
        reply = ImageReply(
            created=int(self._now() * (1000 if milliseconds else 1)),
            output_format=first.format,
            size=f"{first.width}x{first.height}",
        )
        texts = [] if links else [_base64(one) for one in pictures]
        if self._shapes != "asi1":
            items = [ImageItem(url=link) for link in links] or [ImageItem(b64_json=text) for text in texts]
            for item, one in zip(items, pictures, strict=True):
                item.revised_prompt = UNSET if one.revised_prompt is None else one.revised_prompt
            reply.data = items
        if self._shapes != "openai":
            reply.status, reply.message = 1, "Success"
            urls = links or [f"data:{one.media_type};base64,{text}" for one, text in zip(pictures, texts, strict=True)]
            reply.images = [ImageAddress(url) for url in urls]
        return _encode(reply)

    async def _stream(self, call: Call, request: ImageRequest) -> None:
        stream = self._streams.open(call)
        kind = "image_edit" if request.task != "generate" else "image_generation"
        async with Ending(stream, call, _failure, log):
            async with aclosing(self._desk.events(request, call.caller, _outcome_of(call))) as events:
                async for event in events:
                    if isinstance(event, Picture):
                        await stream.write([await asyncio.to_thread(self._frame, event, request, kind)])
                    else:
                        await stream.write([b": progress %d/%d\n\n" % (event.done, event.total)])
            await stream.finish([])

    def _frame(self, one: Picture, request: ImageRequest, kind: str) -> bytes:
        event = PictureEvent(
            type=f"{kind}.completed",
            created_at=int(self._now()),
            size=f"{one.width}x{one.height}",
            quality=request.quality or "auto",
            background=request.background,
            output_format=one.format,
            b64_json=UNSET if one.link else _base64(one),
            url=one.link or UNSET,
            revised_prompt=UNSET if one.revised_prompt is None else one.revised_prompt,
        )
        return b"event: %s.completed\ndata: %s\n\n" % (kind.encode(), encode_line(event))


def _failure(fault: ConveneError) -> list[bytes]:
    return [b"event: error\ndata: %s\n\n" % encode_line(PictureFault(error=detail_of(fault)))]


def _outcome_of(call: Call) -> Outcome:
    """Return where the books of this call are kept."""
    if call.outcome is None:
        call.outcome = Outcome()
    return call.outcome


def _base64(one: Picture) -> str:
    return base64.b64encode(one.data).decode()

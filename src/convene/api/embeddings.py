"""`POST /v1/embeddings`: text or token ids in, floats or base64 of little-endian float32 out (OAI-63)."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

from convene.api.json_body import read_object, read_shape
from convene.api.shapes import EmbeddingBody, EmbeddingItem, EmbeddingReply, EmbeddingUsage
from convene.errors import BadRequest
from convene.serving.base import EmbeddingRequest, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.api.call import Call
    from convene.serving.base import Embedder


class EmbeddingRequests:
    """The endpoint."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        asked = read_shape(read_object(await call.body()), EmbeddingBody)
        request = EmbeddingRequest(
            model=asked.model,
            inputs=read_inputs(asked.input),
            dimensions=asked.dimensions,
            request_id=call.request_id,
        )
        call.outcome = Outcome()
        found = await self._embedder.embed(request, call.caller, call.outcome)
        packed = asked.encoding_format == "base64"
        items = [
            EmbeddingItem(index, pack(vector) if packed else list(vector)) for index, vector in enumerate(found.vectors)
        ]
        used = found.usage.prompt_tokens
        await call.reply_json(EmbeddingReply(items, asked.model, EmbeddingUsage(used, used)))


def read_inputs(given: str | list[str | int | list[int]]) -> Sequence[str | Sequence[int]]:
    """Return one entry an input: a text or a list of token ids. Raises `BadRequest` for a mixture."""
    if isinstance(given, str):
        return [given]
    texts = [entry for entry in given if isinstance(entry, str)]
    if len(texts) == len(given):
        return texts
    ids = [entry for entry in given if isinstance(entry, int)]
    if len(ids) == len(given):
        return [ids]
    lists = [entry for entry in given if isinstance(entry, list)]
    if len(lists) == len(given):
        return lists
    raise BadRequest("'input' must be a text, texts, token ids or lists of token ids, not a mixture.", param="input")


def pack(vector: Sequence[float]) -> str:
    """Return base64 of little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

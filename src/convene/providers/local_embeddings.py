"""Vectors from the embedded engine: an `EmbeddingModel` on the child that serves all-MiniLM-L6-v2.

Decisions, each to be like sentence-transformers, which people compare with (engine.md 8):

    longer texts     cut to 256 tokens, [CLS] and [SEP] included (the engine could take 512)
    empty text       sent as one space: [CLS] and [SEP] alone
    token ids        this model's own ids; [CLS] and [SEP] are put around them where missing, as the engine does not
    dimensions       the first ones, scaled to length 1 again; all-MiniLM was not trained for it, so quality drops
    usage            tokens after cutting, [CLS] and [SEP] included

Not here: processes (`engine/`), requests and their faults (`local_child`), base64 (`api/`).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import msgspec

from convene.errors import BadRequest, Malformed
from convene.providers.base import Embeddings
from convene.providers.local_child import ChildSettings, LocalChild
from convene.providers.local_line import WaitingLine
from convene.providers.tool_choice import normalise_vector
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from convene.clock import Clock
    from convene.engine.base import LocalEngine
    from convene.http.base import Client

CLS, SEP = 101, 102
TOKENS_MAX = 256
LENGTH = 384
"""Numbers in a vector of all-MiniLM-L6-v2."""

CHARS_PER_TOKEN = 3

Input = str | list[int]


class LocalEmbeddingsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the embedded embedding model is used.

    Attributes:
        upstream: its name in the books.
        batch_inputs: texts in one request to the child; a request cannot be cancelled while it computes, and 32 short
            ones take a fraction of a second.
        batch_chars: likewise, about three to a token; 2,000 tokens take about half a second on two cores.
        batches_at_once: requests to the child at a time; each already fills its slots.
        waiting_max: callers that may wait; any more are `Busy`.
        waits: time-outs towards the child.
    """

    upstream: str = "embedded"
    batch_inputs: int = 32
    batch_chars: int = 6000
    batches_at_once: int = 2
    waiting_max: int = 256
    waits: ChildSettings = ChildSettings(first_byte_s=60.0)


class WireVector(msgspec.Struct, frozen=True):
    """One vector of the child's reply."""

    embedding: list[float]
    index: int


class WireUsage(msgspec.Struct, frozen=True):
    """The child's count."""

    prompt_tokens: int = 0


class WireVectors(msgspec.Struct, frozen=True):
    """The reply of `/v1/embeddings`."""

    data: list[WireVector]
    usage: WireUsage = WireUsage()


class Tokenized(msgspec.Struct, frozen=True):
    """The reply of `/tokenize`."""

    tokens: list[int]


class LocalEmbeddings:
    """all-MiniLM-L6-v2 on the embedded engine, as an `EmbeddingModel`."""

    def __init__(self, engine: LocalEngine, client: Client, settings: LocalEmbeddingsSettings, clock: Clock) -> None:
        """Serve `engine`'s model; it is started and closed by whoever made it."""
        self._engine = engine
        self._settings = settings
        self._child = LocalChild(engine, client, settings.waits)
        self._line = WaitingLine(settings.batches_at_once, settings.waiting_max, clock)

    @property
    def upstream(self) -> str:
        """Its name in the books."""
        return self._settings.upstream

    def ready(self) -> str | None:
        """Return None if it can serve now, else why not."""
        return self._child.ready()

    async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
        """Return one vector of length 1 an input, in their order. Raises `BadRequest`, `Busy` or `UpstreamFault`."""
        if dimensions is not None and not 1 <= dimensions <= LENGTH:
            raise BadRequest(f"`dimensions` must be 1 to {LENGTH} for this model.", param="dimensions")
        prepared = [await self._prepare(one) for one in inputs]
        vectors: list[tuple[float, ...]] = []
        usage = Usage()
        for batch in self._cut(prepared):
            async with self._line.place():
                reply = await self._child.call("/v1/embeddings", {"input": batch}, WireVectors)
            found = sorted(reply.data, key=lambda one: one.index)
            if len(found) != len(batch):
                raise Malformed(
                    "The embedded model gave no valid reply.", detail=f"{len(found)} of {len(batch)} vectors"
                )
            vectors.extend(_shorten(one.embedding, dimensions) for one in found)
            usage += Usage(prompt_tokens=reply.usage.prompt_tokens)
        return Embeddings(tuple(vectors), usage, self._engine.name)

    async def _prepare(self, given: str | Sequence[int]) -> Input:
        """Return the input as the child takes it: a text that surely fits, or at most 256 token ids."""
        if isinstance(given, str):
            # A token covers at least one character of the decomposed text, so only a longer text needs counting.
            if len(given) + 2 <= TOKENS_MAX and len(unicodedata.normalize("NFD", given)) + 2 <= TOKENS_MAX:
                return given or " "
            body = {"content": given, "add_special": True}
            tokens = (await self._child.call("/tokenize", body, Tokenized)).tokens
            return tokens if len(tokens) <= TOKENS_MAX else [*tokens[: TOKENS_MAX - 1], SEP]
        ids = list(given)
        if ids[:1] == [CLS]:
            ids = ids[1:]
        if ids[-1:] == [SEP]:
            ids = ids[:-1]
        return [CLS, *ids[: TOKENS_MAX - 2], SEP]

    def _cut(self, prepared: Sequence[Input]) -> Iterator[list[Input]]:
        batch: list[Input] = []
        chars = 0
        for one in prepared:
            size = len(one) if isinstance(one, str) else CHARS_PER_TOKEN * len(one)
            if batch and (len(batch) >= self._settings.batch_inputs or chars + size > self._settings.batch_chars):
                yield batch
                batch, chars = [], 0
            batch.append(one)
            chars += size
        if batch:
            yield batch


def _shorten(vector: list[float], dimensions: int | None) -> tuple[float, ...]:
    if dimensions is None or dimensions == len(vector):
        return tuple(vector)
    return tuple(normalise_vector(vector[:dimensions]))

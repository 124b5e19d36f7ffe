"""Embedding replies of OpenAI-compatible hosts: bytes in, vectors out. Pure. Called by `openai.py`.

Floats are asked for; base64 of little-endian float32 is read too, as some hosts send nothing else (OAI-63).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import TYPE_CHECKING

import msgspec

from convene.errors import Malformed
from convene.providers.base import Embeddings
from convene.providers.openai_faults import Blamed, Verdict, judge_error_frame
from convene.usage import Usage, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence


class WireVector(msgspec.Struct, gc=False):
    """One vector of a reply."""

    embedding: list[float] | str | None = None
    index: int | None = None


class WireVectorUsage(msgspec.Struct, gc=False):
    """Tokens read."""

    prompt_tokens: int | None = None
    total_tokens: int | None = None


class WireVectors(msgspec.Struct, gc=False):
    """An embeddings reply, or an error in the place of one."""

    data: list[WireVector] | None = None
    model: str | None = None
    usage: WireVectorUsage | None = None
    error: object = None


_VECTORS = msgspec.json.Decoder(WireVectors)


def read_embeddings(body: bytes, inputs: Sequence[str | Sequence[int]], blamed: Blamed) -> Embeddings | Verdict:
    """Return the vectors in the order of `inputs`, or the verdict that the reply has none that fit."""
    try:
        found = _VECTORS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _malformed(f"not an embeddings reply: {error}", blamed)
    if found.error:
        return judge_error_frame(found.error, blamed, begun=False)
    wires = found.data or []
    if len(wires) != len(inputs):
        return _malformed(f"{len(wires)} vectors for {len(inputs)} inputs", blamed)
    ordered: dict[int, tuple[float, ...]] = {}
    for position, wire in enumerate(wires):
        vector = _read_vector(wire.embedding)
        if vector is None:
            return _malformed("a vector is missing or unreadable", blamed)
        ordered[position if wire.index is None else wire.index] = vector
    if sorted(ordered) != list(range(len(inputs))) or len({len(vector) for vector in ordered.values()}) > 1:
        return _malformed("vectors of different lengths or with wrong indexes", blamed)
    vectors = tuple(ordered[index] for index in range(len(inputs)))
    return Embeddings(vectors, _count_usage(found.usage, inputs), found.model or blamed.model)


def _read_vector(found: list[float] | str | None) -> tuple[float, ...] | None:
    if isinstance(found, str):
        try:
            raw = base64.b64decode(found, validate=True)
        except binascii.Error:
            return None
        if len(raw) % 4:
            return None
        vector = struct.unpack(f"<{len(raw) // 4}f", raw)
        return vector if vector and all(map(math.isfinite, vector)) else None
    return tuple(found) if found else None


def _count_usage(found: WireVectorUsage | None, inputs: Sequence[str | Sequence[int]]) -> Usage:
    prompt = (found.prompt_tokens or found.total_tokens) if found else None
    if prompt:
        return Usage(max(0, prompt))
    counts = (estimate_tokens(text) if isinstance(text, str) else len(text) for text in inputs)
    return Usage(sum(counts), estimated=True)


def _malformed(what: str, blamed: Blamed) -> Verdict:
    message = f"The upstream '{blamed.upstream}' gave no embeddings; try again."
    return Verdict(Malformed(message, detail=blamed.detail(what)), "end", blame=True)

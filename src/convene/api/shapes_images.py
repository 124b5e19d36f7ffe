"""The wire shapes of pictures: OpenAI's request and ASI:One's, and one reply that both read (IMAGE-07, IMAGE-08)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Prompt = Annotated[str, Meta(max_length=32_000)]
Short = Annotated[str, Meta(max_length=256)]


class ImageBody(msgspec.Struct):
    """The body of `POST /v1/images/generations` and `POST /v1/image/generate`."""

    prompt: Prompt
    model: Short | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    size: Annotated[str, Meta(max_length=40)] | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    seed: Annotated[int, Meta(ge=0, le=4_294_967_295)] | None = None
    background: Literal["auto", "transparent", "opaque"] | None = None
    quality: Short | None = None
    style: Short | None = None
    negative_prompt: Prompt | None = None
    user: Short | None = None
    stream: Literal[False] | None = None


class ImageAddress(msgspec.Struct):
    """A picture as ASI:One gives it: a data URL."""

    url: str


class ImageItem(msgspec.Struct, omit_defaults=True):
    """A picture as OpenAI gives it."""

    b64_json: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET


class ImageReply(msgspec.Struct):
    """Pictures in both shapes at once (DEC-13). `created` is in seconds, or in milliseconds at ASI:One's path."""

    created: int
    data: list[ImageItem]
    images: list[ImageAddress]
    status: int = 1
    message: str = "Success"
    output_format: str | UnsetType = UNSET
    size: str | UnsetType = UNSET

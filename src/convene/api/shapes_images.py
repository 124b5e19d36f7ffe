"""The wire shapes of pictures: OpenAI's request and ASI:One's, and one reply that both read (IMAGE-07, IMAGE-08)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from convene.api.shapes import ErrorDetail

Prompt = Annotated[str, Meta(max_length=32_000)]
Short = Annotated[str, Meta(max_length=256)]


class ImageFields(msgspec.Struct, kw_only=True):
    """What every request for pictures may have."""

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
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None


class ImageBody(ImageFields, kw_only=True):
    """The body of `POST /v1/images/generations` and `POST /v1/image/generate`."""

    prompt: Prompt


class ImageSource(msgspec.Struct):
    """A picture in a JSON body, as a data URL."""

    image_url: str


class ImageEditBody(ImageFields, kw_only=True):
    """The body of `POST /v1/images/edits`. In a form the pictures are files: `image`, several `image[]`, and `mask`."""

    prompt: Prompt
    images: list[ImageSource] | None = None
    mask: ImageSource | None = None


class ImageVariationBody(ImageFields, kw_only=True):
    """The body of `POST /v1/images/variations`. In a form the picture is the file `image`."""

    images: list[ImageSource] | None = None


class ImageAddress(msgspec.Struct):
    """A picture as ASI:One gives it: a data URL, or a link where links were asked for."""

    url: str


class ImageItem(msgspec.Struct, omit_defaults=True):
    """A picture as OpenAI gives it."""

    b64_json: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET


class ImageReply(msgspec.Struct, kw_only=True):
    """Pictures in both shapes at once (DEC-13), unless the operator drops one.

    `data` is OpenAI's; `status`, `message` and `images` are ASI:One's. `created` is in seconds, or in milliseconds at
    ASI:One's path.
    """

    created: int
    data: list[ImageItem] | UnsetType = UNSET
    images: list[ImageAddress] | UnsetType = UNSET
    status: int | UnsetType = UNSET
    message: str | UnsetType = UNSET
    output_format: str | UnsetType = UNSET
    size: str | UnsetType = UNSET


class ImageDeleted(msgspec.Struct, kw_only=True):
    """A picture that is no more: links to it end."""

    id: str
    object: Literal["image"] = "image"
    deleted: Literal[True] = True


class NoTokenDetails(msgspec.Struct):
    """Of which kind the tokens were: there were none."""

    image_tokens: int = 0
    text_tokens: int = 0


class NoTokens(msgspec.Struct):
    """The usage of a picture, whole as OpenAI's clients want it: here pictures are counted and billed, not tokens."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: NoTokenDetails = msgspec.field(default_factory=NoTokenDetails)


class PictureEvent(msgspec.Struct, kw_only=True):
    """A finished picture in a stream."""

    type: str
    created_at: int
    size: str
    quality: str
    background: str
    output_format: str
    b64_json: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET
    usage: NoTokens = msgspec.field(default_factory=NoTokens)


class PictureFault(msgspec.Struct, kw_only=True):
    """What a stream of pictures ends with when it cannot go on."""

    error: ErrorDetail
    type: Literal["error"] = "error"

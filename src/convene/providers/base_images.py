"""The seam of image generation: what `serving/` knows of whoever makes pictures.

    ImageModel.generate(ImageAsk) ──► ImageProgress* ImageMade* ... one ImageMade a picture

One dialect is one class, one model on one upstream an instance. A picture arrives as bytes of a known format, opened
and measured by `serving/`, never as an address of somebody else's: what a host answers with a URL is fetched by the
provider from that same host. `app_images.py` picks the classes; nobody else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ImageFormat = Literal["png", "jpeg", "webp"]
ImageTask = Literal["generate", "edit", "vary"]


class ImageCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployed model can make; published in `/v1/models`. Sizes are `(width, height)` in pixels."""

    sizes: tuple[tuple[int, int], ...] | None = None
    """The only sizes it makes; None: any within `side_max`, in steps of `side_step`."""
    default_size: tuple[int, int] = (1024, 1024)
    """What `auto` means."""
    side_max: int = 2048
    side_step: int = 8
    count_max: int = 4
    """Pictures of one request."""
    tasks: frozenset[ImageTask] = frozenset({"generate"})
    sources_max: int = 1
    """Pictures that one request may change; one is varied."""
    seed: bool = True
    transparent: bool = False
    progress: bool = False
    """It tells how far it is."""
    scripted: bool = False
    """It makes test pictures by rule, and draws for those who ask for it by name if any other model draws."""


class SourceImage(msgspec.Struct, frozen=True):
    """A picture that a caller has sent."""

    data: bytes
    media_type: str


class ImageAsk(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an image model: everything it needs, and nothing of who asked."""

    prompt: str
    task: ImageTask = "generate"
    count: int = 1
    size: tuple[int, int]
    """Width and height in pixels, checked against the capabilities."""
    seed: int | None = None
    background: Literal["auto", "transparent", "opaque"] = "auto"
    quality: str | None = None
    style: str | None = None
    negative_prompt: str = ""
    images: tuple[SourceImage, ...] = ()
    """What is to be changed or varied."""
    mask: SourceImage | None = None
    """As large as the first of the pictures; where it is transparent, is drawn anew."""
    user: str | None = None
    extra: dict[str, object] = {}
    """Unknown request fields, for hosts that may want them; never logged, never interpreted."""


class ImageProgress(msgspec.Struct, frozen=True):
    """How far the work is: `done` of `total` steps over all pictures."""

    done: int
    total: int


class ImageMade(msgspec.Struct, frozen=True, kw_only=True):
    """One picture: the bytes of a PNG, JPEG or WebP file, as the model gave them."""

    index: int
    data: bytes
    seed: int | None = None
    revised_prompt: str | None = None


ImageEvent = ImageProgress | ImageMade


class ImageModel(Protocol):
    """One model on one upstream."""

    @property
    def capabilities(self) -> ImageCapabilities:
        """What it can make."""
        ...

    @property
    def upstream(self) -> str:
        """The configured upstream's name."""
        ...

    def ready(self) -> str | None:
        """Return None if it can serve now, else why not, in words for an operator. Never calls the model."""
        ...

    def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        """Make the pictures. Closing the generator ends the work within a second, where the upstream can end it.

        Raises `BadRequest` for what the model cannot do or refuses to draw, and `UpstreamFault` for the rest.
        """
        ...

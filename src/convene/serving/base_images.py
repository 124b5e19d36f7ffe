"""The face of pictures: what `api/` and tools know of the use case behind them (`images.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from convene.providers.base_images import ImageFormat, ImageProgress, ImageTask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from convene.serving.base import Outcome, Principal

__all__ = [
    "Drawn",
    "ImageAbilities",
    "ImageDesk",
    "ImageFormat",
    "ImageLinks",
    "ImageProgress",
    "ImageRequest",
    "ImageTask",
    "Picture",
]


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures as asked for, HTTP taken off."""

    model: str
    prompt: str = ""
    """Empty only where a picture is varied."""
    task: ImageTask = "generate"
    sources: tuple[bytes, ...] = ()
    """The files of pictures that are to be changed or varied."""
    sources_param: Literal["image", "images"] = "image"
    """What the field with them is called, for faults."""
    mask: bytes | None = None
    size: str | None = "auto"
    """`WIDTHxHEIGHT`, `auto` or empty; None: nothing was said, so `size_usual` where the model makes it."""
    size_usual: str = "auto"
    count: int = 1
    seed: int | None = None
    output_format: ImageFormat | None = None
    """None: as the model gives them."""
    compression: int | None = None
    """Quality of JPEG and WebP, from 0 to 100; None: what looks well."""
    background: Literal["auto", "transparent", "opaque"] = "auto"
    quality: str | None = None
    style: str | None = None
    negative_prompt: str = ""
    user: str | None = None
    request_id: str = ""
    stream: bool = False
    """Each picture leaves when it is finished."""
    as_link: bool = False
    """Each picture is kept, and leaves as a link to it."""
    extra: dict[str, object] = {}


class ImageAbilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an image model makes, as clients are told (`/v1/models`). Sizes are `WIDTHxHEIGHT` in pixels."""

    tasks: tuple[ImageTask, ...]
    sizes: tuple[str, ...]
    """What may be asked for, beside `auto`."""
    default_size: str
    """What `auto` means."""
    formats: tuple[ImageFormat, ...]
    count_max: int
    sources_max: int
    """Pictures that one edit may take."""
    seed: bool
    transparent: bool
    progress: bool
    scripted: bool


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One finished picture."""

    data: bytes
    format: ImageFormat
    width: int
    height: int
    seed: int | None = None
    revised_prompt: str | None = None
    link: str = ""
    """To the picture, where one was asked for."""

    @property
    def media_type(self) -> str:
        """As HTTP calls it."""
        return f"image/{self.format}"


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request."""

    pictures: tuple[Picture, ...]
    model: str


class ImageLinks(Protocol):
    """Links to pictures, good for a stated time (`image_links.py`)."""

    async def shelve(self, picture: Picture, owner: str) -> str:
        """Keep a picture of an owner's and return a link to it. Raises `StoreFault`."""
        ...

    async def fetch(self, file: str, expires: int, signature: str) -> tuple[bytes, str]:
        """Return a picture and its media type. Raises `NotFound` and `StoreFault`."""
        ...

    async def delete(self, file: str, owner: str) -> None:
        """Delete a picture of an owner's. Raises `NotFound`, also for somebody else's, and `StoreFault`."""
        ...


class ImageDesk(Protocol):
    """Answers requests for pictures."""

    async def draw(
        self,
        request: ImageRequest,
        principal: Principal,
        outcome: Outcome,
        progress: Callable[[ImageProgress], None] = ...,
    ) -> Drawn:
        """Return the pictures, filling `outcome`. Raises `NotFound`, `BadRequest`, `Refused` or `UpstreamFault`."""
        ...

    def events(
        self, request: ImageRequest, principal: Principal, outcome: Outcome
    ) -> AsyncGenerator[ImageProgress | Picture]:
        """Yield the same as it comes. Raises as `draw`; closing the generator ends the work."""
        ...

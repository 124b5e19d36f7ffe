"""Pictures as files: opened, measured, converted, and told where they come from. Pure; blocks, so call it in a thread.

Only PNG, JPEG and WebP are opened, and none of more pixels than any model here makes: a small file can hold an
enormous picture. What a picture says of its origin is the model, the seed and a hash of the prompt, never the prompt:
whatever a host has written into it (web UIs write the whole prompt) is left out, but for the colours' profile.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from typing import TYPE_CHECKING, Final, NamedTuple

from PIL import Image, PngImagePlugin

from convene.providers.base_images import SourceImage
from convene.serving.base_images import Picture
from convene.serving.picture_strip import Broken, describe, strip

if TYPE_CHECKING:
    from convene.providers.base_images import ImageFormat, ImageMade

PIXELS_MAX: Final = 4096 * 4096
FORMATS: Final[tuple[ImageFormat, ...]] = ("png", "jpeg", "webp")
QUALITY: Final = 92
"""Of JPEG and WebP, from 0 to 100, where nothing else is asked for."""
_EXIF_DESCRIPTION: Final = 0x010E
_EXIF_ORIENTATION: Final = 0x0112
_PLAIN: Final = ("RGB", "RGBA", "L")
_DEEP: Final = 257
"""From 16 bits of grey to 8; Pillow cuts off what is above 255."""


class Unfit(ValueError):
    """Something that is no picture of a known form, or too large a one."""


def finish(made: ImageMade, prompt: str, model: str, wanted: ImageFormat | None, quality: int | None = None) -> Picture:
    """Return a picture in the form that is wanted (None: as it came), with its origin inside. Raises `Unfit`.

    What comes in the form that is wanted stays as it was drawn, pixel for pixel, unless a `quality` is asked for; that
    also saves most of the time (a PNG of 1024x1024 takes a tenth).
    """
    try:
        with Image.open(io.BytesIO(made.data), formats=FORMATS) as found:
            if found.width * found.height > PIXELS_MAX:
                raise Unfit(f"{found.width}x{found.height} are too many pixels")
            form = wanted or _format_of(found)
            found.load()
            data = _finished(made, found, form, _origin(made, prompt, model), quality)
            width, height = found.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        if isinstance(fault, Unfit):
            raise
        raise Unfit(str(fault)) from fault
    return Picture(
        data=data, format=form, width=width, height=height, seed=made.seed, revised_prompt=made.revised_prompt
    )


def _finished(made: ImageMade, found: Image.Image, form: ImageFormat, origin: str, quality: int | None) -> bytes:
    """Return the file of a picture that has been opened whole, coded anew only where it must be."""
    as_it_is = form == _format_of(found) and (quality is None or form == "png") and _is_plain(found)
    if as_it_is and found.getexif().get(_EXIF_ORIENTATION, 1) == 1:
        with contextlib.suppress(Broken):
            return describe(made.data, form, origin, found.size, alpha=found.mode == "RGBA")
    return _encode(_plain(found), form, origin, QUALITY if quality is None else quality)


class Seen(NamedTuple):
    """A picture that a caller has sent, with its real type."""

    image: SourceImage
    size: tuple[int, int]
    transparent: bool
    """Whether it can be seen through anywhere."""


def look(data: bytes) -> Seen:
    """Return what a caller has sent as a picture, without what its file tells beside it. Raises `Unfit`.

    No pixel is decoded: of a file of 30 MB it takes some 20 ms.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as found:
            if found.width * found.height > PIXELS_MAX:
                raise Unfit(f"{found.width}x{found.height} are too many pixels")
            form, turned = _format_of(found), found.getexif().get(_EXIF_ORIENTATION, 1)
            bare = strip(data, form, turned if isinstance(turned, int) else 1)
            return Seen(SourceImage(bare, f"image/{form}"), found.size, found.has_transparency_data)
    except Broken as fault:
        raise Unfit(str(fault)) from fault
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        if isinstance(fault, Unfit):
            raise
        raise Unfit("it is no PNG, JPEG or WebP") from fault


def _format_of(found: Image.Image) -> ImageFormat:
    for form in FORMATS:
        if form == (found.format or "").lower():
            return form
    raise Unfit(f"a picture of the form {found.format}")


def _plain(found: Image.Image) -> Image.Image:
    """Return the picture in colours that every form can be written from, without what else its file has held."""
    profile = found.info.get("icc_profile")
    if found.mode.startswith("I"):
        plain = found.point(lambda value: value / _DEEP).convert("L")
    elif _is_plain(found):
        plain = found.copy()
    else:
        if found.mode == "CMYK":
            profile = None  # it is one of inks
        plain = found.convert("RGBA" if found.has_transparency_data else "RGB")
    plain.info = {} if profile is None else {"icc_profile": profile}
    return plain


def _is_plain(found: Image.Image) -> bool:
    """Whether every form can be written from it as it is."""
    return found.mode in _PLAIN and not ("transparency" in found.info and found.mode != "RGBA")


def _origin(made: ImageMade, prompt: str, model: str) -> str:
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
    seed = "" if made.seed is None else f"; seed {made.seed}"
    return f"made by {model}{seed}; prompt sha256:{digest}"


def _encode(plain: Image.Image, form: ImageFormat, origin: str, quality: int) -> bytes:
    out = io.BytesIO()
    if form == "png":
        told = PngImagePlugin.PngInfo()
        told.add_text("Description", origin)
        plain.save(out, "PNG", pnginfo=told)
        return out.getvalue()
    exif = Image.Exif()
    exif[_EXIF_DESCRIPTION] = origin
    if form == "jpeg" and plain.mode == "RGBA":
        plain = _on_white(plain)
    plain.save(out, form.upper(), quality=quality, exif=exif)
    return out.getvalue()


def _on_white(plain: Image.Image) -> Image.Image:
    """Return a picture without transparency: what was seen through is white, not whatever colour was below."""
    white = Image.new("RGBA", plain.size, "white")
    white.info = plain.info
    white.alpha_composite(plain)
    return white.convert("RGB")

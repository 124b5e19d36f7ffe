"""Pictures as files: opened, measured, converted, and told where they come from. Pure; blocks, so call it in a thread.

Only PNG, JPEG and WebP are opened, and none of more pixels than any model here makes: a small file can hold an
enormous picture. What a picture says of its origin is the model, the seed and a hash of the prompt, never the prompt.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Final

from PIL import Image, PngImagePlugin

from convene.serving.base_images import Picture

if TYPE_CHECKING:
    from convene.providers.base_images import ImageFormat, ImageMade

PIXELS_MAX: Final = 4096 * 4096
FORMATS: Final[tuple[ImageFormat, ...]] = ("png", "jpeg", "webp")
_QUALITY: Final = 92
_EXIF_DESCRIPTION: Final = 0x010E


class Unfit(ValueError):
    """Something that is no picture of a known form, or too large a one."""


def finish(made: ImageMade, prompt: str, model: str, wanted: ImageFormat | None) -> Picture:
    """Return a picture in the form that is wanted (None: as it came), with its origin inside. Raises `Unfit`."""
    try:
        with Image.open(io.BytesIO(made.data), formats=FORMATS) as found:
            if found.width * found.height > PIXELS_MAX:
                raise Unfit(f"{found.width}x{found.height} are too many pixels")
            form = wanted or _format_of(found)
            found.load()
            data = _encode(found, form, _origin(made, prompt, model))
            width, height = found.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        if isinstance(fault, Unfit):
            raise
        raise Unfit(str(fault)) from fault
    return Picture(
        data=data, format=form, width=width, height=height, seed=made.seed, revised_prompt=made.revised_prompt
    )


def _format_of(found: Image.Image) -> ImageFormat:
    for form in FORMATS:
        if form == (found.format or "").lower():
            return form
    raise Unfit(f"a picture of the form {found.format}")


def _origin(made: ImageMade, prompt: str, model: str) -> str:
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
    seed = "" if made.seed is None else f"; seed {made.seed}"
    return f"made by {model}{seed}; prompt sha256:{digest}"


def _encode(found: Image.Image, form: ImageFormat, origin: str) -> bytes:
    out = io.BytesIO()
    if form == "png":
        told = PngImagePlugin.PngInfo()
        told.add_text("Description", origin)
        found.save(out, "PNG", pnginfo=told)
        return out.getvalue()
    exif = Image.Exif()
    exif[_EXIF_DESCRIPTION] = origin
    flat = found if found.mode == "RGB" or (form == "webp" and found.mode == "RGBA") else found.convert("RGB")
    flat.save(out, form.upper(), quality=_QUALITY, exif=exif)
    return out.getvalue()

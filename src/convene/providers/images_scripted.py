"""Test pictures by rule, not by a model: deterministic, slow or failing on demand. No weights, no network.

They ship with the product, for trying a client, a limit or a tool without cost, and are off unless an operator names
one in `[images.NAME]`. No picture of theirs is to be taken for a drawing of its prompt: each says on its face that it
is a test picture. Here: the model and what its scripts do. `app_images.py` makes it; while another model of the server
draws, `serving/catalog.py` gives it only to those who ask for it by name.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec
from PIL import Image, ImageColor, ImageDraw, ImageFont

from convene.errors import BadRequest, Unavailable
from convene.providers.base_images import ImageCapabilities, ImageMade, ImageProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock
    from convene.providers.base_images import ImageAsk, ImageEvent, SourceImage

Script = Literal["draw", "fail-before", "fail-after", "flaky", "refuse"]
"""What it does: draw; fail at once; fail in the middle of the last picture; fail every other request; refuse."""
SCRIPTS: Final[tuple[Script, ...]] = get_args(Script)
FACE: Final = "TEST PICTURE"
SEED_BYTES: Final = 4
SEED_MOD: Final = 1 << 32
SOURCES_MAX: Final = 16
_TILES: Final = 8
"""Tiles of a side."""
_LINE_CHARS: Final = 40
_LINES_MAX: Final = 6
_VEIL: Final = 96
"""How much of 255 the tiles cover of a picture that is changed."""


class ScriptedImagesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How it behaves. `step_s` is the time of each of the `steps` of one picture."""

    upstream: str = "scripted"
    script: Script = "draw"
    steps: int = 4
    step_s: float = 0.0
    side_max: int = 2048
    count_max: int = 4


class ScriptedImages:
    """An `ImageModel` that follows a script. The same prompt, seed and size give the same picture, byte for byte."""

    def __init__(self, settings: ScriptedImagesSettings, clock: Clock) -> None:
        self.capabilities = ImageCapabilities(
            side_max=settings.side_max,
            default_size=(min(1024, settings.side_max),) * 2,
            count_max=settings.count_max,
            tasks=frozenset({"generate", "edit", "vary"}),
            sources_max=SOURCES_MAX,
            transparent=True,
            progress=True,
            scripted=True,
        )
        self.upstream = settings.upstream
        self._settings = settings
        self._clock = clock
        self._calls = 0

    def ready(self) -> str | None:
        """Return None: a script always stands ready."""
        return None

    async def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        """Make the pictures (`base_images.ImageModel`); where its script fails, after the steps that it says."""
        settings = self._settings
        self._calls += 1
        if settings.script == "refuse":
            raise BadRequest("This prompt is refused, as the script says.", code="content_policy_violation")
        if settings.script == "fail-before" or (settings.script == "flaky" and self._calls % 2):
            raise self._fault("before its first step")
        seed = int.from_bytes(self._clock.token(SEED_BYTES), "big") if ask.seed is None else ask.seed
        total = settings.steps * ask.count
        for index in range(ask.count):
            for step in range(settings.steps):
                await asyncio.sleep(settings.step_s)
                if settings.script == "fail-after" and index == ask.count - 1 and step == settings.steps // 2:
                    raise self._fault("in the middle of its last picture")
                yield ImageProgress(index * settings.steps + step + 1, total)
            own = (seed + index) % SEED_MOD
            yield ImageMade(index=index, data=await asyncio.to_thread(draw, ask, own), seed=own)

    def _fault(self, when: str) -> Unavailable:
        message = f"The model '{self.upstream}' failed {when}, as its script says."
        return Unavailable(message, detail=f"scripted: {self._settings.script}")


def draw(ask: ImageAsk, seed: int) -> bytes:
    """Return a PNG that follows from the request and the seed alone, and says what it is. Blocks for milliseconds."""
    digest = hashlib.sha256(f"{ask.task}\0{ask.prompt}\0{seed}".encode("utf-8", "surrogatepass")).digest()
    picture = _opened(ask.images[0], ask.size) if ask.images else Image.new("RGBA", ask.size, _ground(ask))
    tiles = Image.new("RGBA", (_TILES, _TILES))
    for at in range(_TILES * _TILES):
        mark = digest[at % len(digest)] ^ (at * 37 & 0xFF)
        if mark & 1:
            tiles.putpixel((at % _TILES, at // _TILES), (*_colour(mark), _VEIL if ask.images else 255))
    picture.alpha_composite(tiles.resize(ask.size, Image.Resampling.NEAREST))
    _label(picture, [FACE, "drawn by a script", f"seed {seed}", *_wrapped(ask.prompt)])
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _ground(ask: ImageAsk) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if ask.background == "transparent" else (236, 236, 230, 255)


def _colour(mark: int) -> tuple[int, ...]:
    return ImageColor.getrgb(f"hsl({mark * 360 // 256}, 45%, 62%)")


def _opened(source: SourceImage, size: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source.data)) as found:
            return found.convert("RGBA").resize(size)
    except (OSError, ValueError, SyntaxError) as fault:
        raise BadRequest("'image' cannot be read.", param="image", detail=str(fault)) from fault


def _wrapped(prompt: str) -> list[str]:
    """Return the beginning of a prompt as lines; the fixed font has Latin letters only."""
    words = " ".join(prompt.split()).encode("latin-1", "replace").decode("latin-1")
    return [words[at : at + _LINE_CHARS] for at in range(0, len(words), _LINE_CHARS)][:_LINES_MAX]


def _label(picture: Image.Image, lines: list[str]) -> None:
    """Write lines on a white field in the middle, as large as fits; by a font that is the same on every machine."""
    font = ImageFont.load_default_imagefont()
    text = "\n".join(lines)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (int(side) for side in pen.multiline_textbbox((0, 0), text, font=font))
    small = Image.new("L", (right - left + 8, bottom - top + 8), 255)
    ImageDraw.Draw(small).multiline_text((4 - left, 4 - top), text, fill=0, font=font, align="center")
    scale = min(picture.width * 3 / 4 / small.width, picture.height * 3 / 4 / small.height)
    size = (max(1, int(small.width * scale)), max(1, int(small.height * scale)))
    shown = small.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    picture.paste(shown.convert("RGBA"), ((picture.width - size[0]) // 2, (picture.height - size[1]) // 2))

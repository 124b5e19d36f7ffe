"""Pictures as files: opened, measured, converted, and what is none refused."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import pytest
from PIL import Image

from convene.providers.base_images import ImageMade
from convene.serving.picture import PIXELS_MAX, Unfit, finish


def drawn(form: str, mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 128 if mode in {"L", "P"} else (10, 20, 30, 40)[: len(mode)]).save(out, form)
    return out.getvalue()


def made(data: bytes, seed: int | None = 7) -> ImageMade:
    return ImageMade(index=0, data=data, seed=seed, revised_prompt="better")


def reopened(data: bytes) -> Image.Image:
    found = Image.open(io.BytesIO(data))
    found.load()
    return found


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_without_a_wish_a_picture_stays_in_the_form_it_came_in(form: str) -> None:
    picture = finish(made(drawn(form)), "a fox", "m", None)
    assert (picture.format, picture.width, picture.height) == (form, 8, 6)
    assert (picture.seed, picture.revised_prompt) == (7, "better")
    assert (reopened(picture.data).format or "").lower() == form
    assert picture.media_type == f"image/{form}"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("wanted", ["png", "jpeg", "webp"])
def test_every_kind_of_colour_becomes_every_form(mode: str, wanted: str) -> None:
    picture = finish(made(drawn("png", mode)), "a fox", "m", wanted)  # type: ignore[arg-type]  # one of the three
    assert reopened(picture.data).size == (8, 6)
    assert picture.format == wanted


def test_transparency_is_kept_where_the_form_has_it() -> None:
    for wanted in ("png", "webp"):
        assert reopened(finish(made(drawn("png", "RGBA")), "p", "m", wanted).data).mode == "RGBA"


@pytest.mark.parametrize("wanted", ["png", "jpeg", "webp"])
def test_a_picture_says_where_it_is_from_and_never_the_prompt(wanted: str) -> None:
    data = finish(made(drawn("png")), "a secret wish", "sdxl", wanted).data  # type: ignore[arg-type]
    found = reopened(data)
    origin = str(found.info.get("Description") or found.getexif().get(0x010E))
    digest = hashlib.sha256(b"a secret wish").hexdigest()
    assert origin == f"made by sdxl; seed 7; prompt sha256:{digest}"
    assert b"secret wish" not in data


def test_without_a_seed_none_is_claimed() -> None:
    assert "seed" not in str(reopened(finish(made(drawn("png"), None), "p", "m", "png").data).info["Description"])


def bomb() -> bytes:
    """Return a small PNG file that says it is enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 60_000
    assert side * side > PIXELS_MAX
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        b"\x89PNG\r\n\x1a\n",
        drawn("png")[:50],
        drawn("gif"),
        drawn("bmp"),
        drawn("tiff"),
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bomb(),
    ],
)
def test_what_is_no_picture_of_a_known_form_or_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(Unfit):
        finish(made(data), "p", "m", "png")

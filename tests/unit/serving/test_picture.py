"""Pictures as files: opened, measured, converted, and what is none refused."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

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


def saved(mode: str, form: str, colour: object, **fields: object) -> bytes:
    """Return a small picture whose file has further things in it."""
    out = io.BytesIO()
    Image.new(mode, (4, 4), colour).save(out, form, **fields)  # type: ignore[arg-type]  # one that fits the mode
    return out.getvalue()


@pytest.mark.parametrize("wanted", ["png", "jpeg", "webp"])
def test_pictures_in_inks_and_in_deep_grey_become_every_form(wanted: str) -> None:
    for data in (saved("CMYK", "jpeg", (0, 255, 255, 0)), saved("I;16", "png", 32_896), saved("1", "png", 1)):
        assert reopened(finish(made(data), "p", "m", wanted).data).size == (4, 4)  # type: ignore[arg-type]


def test_deep_grey_stays_the_grey_it_was() -> None:
    grey = reopened(finish(made(saved("I;16", "png", 128 * 257)), "p", "m", "png").data)
    assert grey.convert("L").getpixel((0, 0)) == 128


@pytest.mark.parametrize(
    "data",
    [saved("RGBA", "png", (9, 9, 9, 0)), saved("P", "png", 0, transparency=0), saved("L", "png", 0, transparency=0)],
)
def test_what_was_seen_through_is_white_in_a_form_without_transparency(data: bytes) -> None:
    flat = reopened(finish(made(data), "p", "m", "jpeg").data)
    assert flat.mode == "RGB"
    assert min(flat.getpixel((2, 2))) > 250  # type: ignore[arg-type]  # three colours
    assert reopened(finish(made(data), "p", "m", "webp").data).convert("RGBA").getpixel((2, 2))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("wanted", ["png", "jpeg", "webp"])
def test_nothing_that_a_host_wrote_into_its_file_goes_on(wanted: str) -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("parameters", "a secret wish, Steps: 20")
    exif = Image.Exif()
    exif[0x010E] = "a secret wish"
    sources = (
        saved("RGB", "png", 0, pnginfo=told),
        saved("RGB", "jpeg", 0, comment=b"a secret wish", xmp=b"<x>a secret wish</x>", exif=exif),
        saved("RGB", "webp", 0, xmp=b"<x>a secret wish</x>", exif=exif),
    )
    for data in sources:
        assert b"secret" in data
        assert b"secret" not in finish(made(data), "p", "m", wanted).data  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_what_comes_in_the_form_that_is_wanted_stays_as_it_was_drawn(form: str) -> None:
    shades = bytes(at * at * 7 % 256 for at in range(64 * 64))
    out = io.BytesIO()
    Image.frombytes("L", (64, 64), shades).convert("RGB").save(out, form, quality=30)
    kept = reopened(finish(made(out.getvalue()), "p", "m", None).data)
    assert kept.tobytes() == reopened(out.getvalue()).tobytes()
    coded_anew = reopened(finish(made(out.getvalue()), "p", "m", form, 10).data)  # type: ignore[arg-type]
    assert (coded_anew.tobytes() == kept.tobytes()) is (form == "png")


def test_a_picture_that_its_file_turns_is_coded_anew_without_that() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = reopened(finish(made(saved("RGB", "jpeg", 0, exif=exif)), "p", "m", None).data)
    assert 0x0112 not in found.getexif()
    assert str(found.getexif()[0x010E]).startswith("made by m")


def test_the_quality_that_is_asked_for_is_in_the_file() -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "png")
    for wanted in ("jpeg", "webp"):
        small, large = (len(finish(made(out.getvalue()), "p", "m", wanted, level).data) for level in (5, 95))
        assert small < large / 2


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

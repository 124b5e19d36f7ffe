"""What a caller's picture tells beside the picture does not leave; how it looks stays as it is."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from convene.serving.picture import Unfit, look
from convene.serving.picture_strip import Broken, describe, strip

if TYPE_CHECKING:
    from convene.providers.base_images import ImageFormat

FORMS: tuple[ImageFormat, ...] = ("png", "jpeg", "webp")
SECRETS = (b"Ann's camera", b"SECRET COMMENT", b"SECRET XMP", b"SECRET PLACE")
GPS = 0x8825


def noisy(size: tuple[int, int] = (48, 32), mode: str = "RGB") -> Image.Image:
    shades = bytes((at * at * 7 + at // 5) % 256 for at in range(size[0] * size[1]))
    picture = Image.frombytes("L", size, shades).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(size))
    return picture


def telling(form: str, orientation: int | None = None, mode: str = "RGB", **more: Any) -> bytes:  # noqa: ANN401
    """Return a picture whose file says who, where and how, in every way its form has."""
    exif = Image.Exif()
    exif[0x010F] = "Ann's camera"
    exif.get_ifd(GPS)[0x001D] = "SECRET PLACE"
    if orientation is not None:
        exif[0x0112] = orientation
    told: dict[str, Any] = {"exif": exif, "icc_profile": profile()} | more
    if form == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "SECRET COMMENT")
        text.add_itxt("XML:com.adobe.xmp", "SECRET XMP", zip=False)
        told["pnginfo"] = text
    elif form == "jpeg":
        told |= {"comment": b"SECRET COMMENT", "xmp": b"SECRET XMP"}
    else:
        told |= {"xmp": b"SECRET XMP", "lossless": True}
    out = io.BytesIO()
    noisy(mode=mode).save(out, form, **told)
    return out.getvalue() + b"SECRET COMMENT"


@functools.cache  # the time of its making stands in it
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def opened(data: bytes) -> Image.Image:
    found = Image.open(io.BytesIO(data))
    found.load()
    return found


@pytest.mark.parametrize("form", FORMS)
def test_who_where_and_comments_go_and_the_pixels_and_their_colours_stay(form: ImageFormat) -> None:
    told = telling(form)
    assert b"SECRET PLACE" in told
    bare = look(told).image.data
    assert [secret for secret in SECRETS if secret in bare] == []
    before, after = opened(told), opened(bare)
    assert after.tobytes() == before.tobytes()
    assert after.info["icc_profile"] == before.info["icc_profile"] == profile()
    assert len(after.getexif()) == 0
    assert strip(bare, form, 1) == bare


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_stays_turned(form: ImageFormat, orientation: int) -> None:
    bare = look(telling(form, orientation)).image.data
    assert dict(opened(bare).getexif()) == ({} if orientation == 1 else {0x0112: orientation})
    assert [secret for secret in SECRETS if secret in bare] == []


@pytest.mark.parametrize("orientation", [0, 9, 255, 70_000])
def test_an_orientation_that_is_none_is_left_out(orientation: int) -> None:
    assert len(opened(strip(telling("png"), "png", orientation)).getexif()) == 0


@pytest.mark.parametrize("form", ["png", "webp"])
def test_what_can_be_seen_through_can_still_be(form: ImageFormat) -> None:
    told = telling(form, mode="RGBA")
    seen = look(told)
    assert seen.transparent
    assert opened(seen.image.data).tobytes() == opened(told).tobytes()


@pytest.mark.parametrize(
    "more", [{"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 100}, {"optimize": True}]
)
def test_every_kind_of_jpeg_is_followed_to_its_end(more: dict[str, Any]) -> None:
    told = telling("jpeg", **more)
    bare = look(told).image.data
    assert opened(bare).tobytes() == opened(told).tobytes()
    assert bare.endswith(b"\xff\xd9")
    assert b"SECRET" not in bare


def test_inks_keep_what_says_how_they_are_written() -> None:
    out = io.BytesIO()
    noisy().convert("CMYK").save(out, "jpeg")
    assert opened(look(out.getvalue()).image.data).tobytes() == opened(out.getvalue()).tobytes()


def test_a_jpeg_that_lost_its_end_is_taken_as_far_as_it_goes() -> None:
    whole = telling("jpeg").removesuffix(b"SECRET COMMENT")
    bare = look(whole[:-200]).image.data
    assert bare.startswith(b"\xff\xd8")
    assert bare.endswith(b"\xff\xd9")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_does_not_hold_together_is_refused(form: ImageFormat) -> None:
    told = telling(form)
    for cut in (20, 40, len(told) // 8):
        with pytest.raises(Unfit):
            look(told[:cut])


def test_a_film_is_refused() -> None:
    out = io.BytesIO()
    noisy().save(out, "webp", save_all=True, append_images=[noisy().rotate(180)], duration=100)
    with pytest.raises(Unfit, match="film"):
        look(out.getvalue())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("words", ["made by sdxl; seed 7", "odd", "x", "made by sdxl"])
def test_a_description_is_all_that_a_file_says_and_no_pixel_changes(form: ImageFormat, mode: str, words: str) -> None:
    if (form, mode) == ("jpeg", "RGBA"):
        return
    plain: dict[str, Any] = {"icc_profile": b""} if mode == "L" else {}
    told = telling(form, mode=mode, **plain)
    before = opened(told)
    data = describe(told, form, words, before.size, alpha=before.mode == "RGBA")
    after = opened(data)
    said = after.info.get("Description") or after.getexif().get(0x010E)
    assert str(said).strip() == words
    assert (after.mode, after.size, after.tobytes()) == (before.mode, before.size, before.tobytes())
    assert [secret for secret in SECRETS if secret in data] == []


def test_a_webp_that_said_nothing_says_what_is_put_into_it() -> None:
    for mode in ("RGB", "RGBA"):
        out = io.BytesIO()
        noisy(mode=mode).save(out, "webp", lossless=True)
        assert (b"VP8X" in out.getvalue()) is False
        found = opened(describe(out.getvalue(), "webp", "made by sdxl", (48, 32), alpha=mode == "RGBA"))
        assert found.getexif()[0x010E] == "made by sdxl"
        assert (found.mode, found.tobytes()) == (mode, opened(out.getvalue()).tobytes())


@given(data=st.data())
@pytest.mark.parametrize("form", FORMS)
def test_whatever_a_file_holds_it_is_followed_or_refused(form: ImageFormat, data: st.DataObject) -> None:
    whole = bytearray(telling(form))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(2, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(12, len(whole)))])
    try:
        bare = strip(cut, form, data.draw(st.integers(-1, 70_000)))
    except Broken:
        return
    assert len(bare) <= len(cut) + 64

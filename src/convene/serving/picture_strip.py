"""A picture without what its file tells beside the picture: place, camera, author, prompt, comments, previews. Pure.

    PNG    chunks that draw stay, texts, times, Exif and whatever is private go
    JPEG   segments that draw stay, of the applications' those of JFIF, Adobe and colour profiles
    WebP   chunks that draw and the colour profile stay, Exif and XMP go

Pixels stay as they are, byte for byte, so nothing is compressed twice. How the picture is held (Exif's orientation)
is part of how it looks, so a file that turns it gets an Exif of that alone. What stands behind the end of the picture
goes too. In the place of all that, one description may be put. `picture.py` calls this for whatever is handed on to a
host, and for what came from one in the form that is wanted; a file that cannot be followed is `Broken`.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from convene.providers.base_images import ImageFormat

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset(
    {
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"cHRM",
        b"gAMA",
        b"iCCP",
        b"sBIT",
        b"sRGB",
        b"cICP",
        b"bKGD",
        b"pHYs",
    }
)
_WEBP_KEPT: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"})
_VP8X_EXIF: Final = 0x08
_VP8X_XMP: Final = 0x04
_VP8X_ANIMATION: Final = 0x02
_VP8X_ALPHA: Final = 0x10
_DESCRIPTION: Final = 0x010E
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = 1
_TURNED_MAX: Final = 8
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers of JPEG without a length."""
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_COMMENT: Final = 0xFE
_APPLICATIONS: Final = range(0xE0, 0xF0)
_APPLICATIONS_KEPT: Final = ((0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe"))
_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class Broken(ValueError):
    """A file that does not hold together."""


class Said(NamedTuple):
    """What a file is to say beside its picture: how it is held (1: upright), and a description, in ASCII."""

    orientation: int
    description: bytes
    size: tuple[int, int]
    """Of the picture; WebP needs it for a file that says anything."""
    alpha: bool


def strip(data: bytes, form: ImageFormat, orientation: int) -> bytes:
    """Return the file of a picture and nothing else; `orientation` is its Exif's, 1 if it has none. Raises `Broken`."""
    turned = orientation if _UPRIGHT < orientation <= _TURNED_MAX else _UPRIGHT
    return _rewritten(data, form, Said(turned, b"", (0, 0), alpha=False))


def describe(data: bytes, form: ImageFormat, description: str, size: tuple[int, int], *, alpha: bool) -> bytes:
    """Return the file of an upright picture with a description (ASCII) and nothing else beside it. Raises `Broken`."""
    return _rewritten(data, form, Said(_UPRIGHT, description.encode("ascii", "replace"), size, alpha=alpha))


def _rewritten(data: bytes, form: ImageFormat, said: Said) -> bytes:
    try:
        return _STRIPPERS[form](data, said)
    except (struct.error, IndexError) as fault:
        raise Broken("it ends too early") from fault


def _exif(said: Said, *, described: bool) -> bytes:
    """Return a TIFF block with what is said (Exif 2.32, section 4.6); empty for nothing."""
    text = said.description.ljust(4) + b"\0" if described and said.description else b""
    turned = said.orientation != _UPRIGHT
    count = bool(text) + turned
    if not count:
        return b""
    block = struct.pack(">2sHIH", b"MM", 42, 8, count)
    if text:
        block += struct.pack(">HHII", _DESCRIPTION, 2, len(text), 8 + 2 + 12 * count + 4)
    if turned:
        block += struct.pack(">HHIHH", _ORIENTATION, 3, 1, said.orientation, 0)
    return block + struct.pack(">I", 0) + text


def _strip_png(data: bytes, said: Said) -> bytes:
    exif = _exif(said, described=False)
    out = [PNG_MAGIC]
    at = len(PNG_MAGIC)
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise Broken("a chunk is cut short")
        if kind == b"IDAT" and exif:
            out.append(_png_chunk(b"eXIf", exif))
            exif = b""
        if kind in _PNG_KEPT:
            out.append(data[at:end])
        if kind == b"IHDR" and said.description:
            out.append(_png_chunk(b"tEXt", b"Description\0" + said.description))
        if kind == b"IEND":
            return b"".join(out)
        at = end


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _strip_jpeg(data: bytes, said: Said) -> bytes:
    exif = _exif(said, described=True)
    out = [data[:2]]
    if exif:
        body = b"Exif\0\0" + exif
        out.append(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
    at = 2
    while at < len(data):
        if data[at] != 0xFF:  # noqa: PLR2004 -- what a marker begins with
            raise Broken("a segment is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # noqa: PLR2004 -- filling
            at += 1
            continue
        if marker == _EOI:
            break
        if marker in _ALONE:
            out.append(data[at : at + 2])
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if marker == _SOS:
            found = _AFTER_SCAN.search(data, end)
            end = len(data) if found is None else found.start()
        if _draws(marker, data[at + 4 : at + 18]):
            out.append(data[at:end])
        at = end
    return b"".join((*out, b"\xff\xd9"))


def _draws(marker: int, begin: bytes) -> bool:
    if marker in _APPLICATIONS:
        return any(marker == one and begin.startswith(name) for one, name in _APPLICATIONS_KEPT)
    return marker != _COMMENT


def _strip_webp(data: bytes, said: Said) -> bytes:
    exif = _exif(said, described=True)
    out, at, wide = [], 12, False
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        after = at + 8 + length + length % 2
        if at + 8 + length > len(data):
            raise Broken("a chunk is cut short")
        chunk = data[at : at + 8 + length] + b"\0" * (length % 2)
        if kind == b"VP8X":
            wide = True
            flags = chunk[8] & ~(_VP8X_EXIF | _VP8X_XMP) | (_VP8X_EXIF if exif else 0)
            if flags & _VP8X_ANIMATION:
                raise Broken("it is a film")
            chunk = chunk[:8] + bytes([flags]) + chunk[9:]
        if kind in _WEBP_KEPT:
            out.append(chunk)
        at = after
    if exif and not wide and said.description:
        sides = (side - 1 for side in said.size)
        flags = _VP8X_EXIF | (_VP8X_ALPHA if said.alpha else 0)
        head = struct.pack("<4sIB3x", b"VP8X", 10, flags) + b"".join(side.to_bytes(3, "little") for side in sides)
        out.insert(0, head)
        wide = True
    if exif and wide:
        if len(exif) % 2:
            exif += b"\0"
        out.append(struct.pack("<4sI", b"EXIF", len(exif)) + exif)
    body = b"WEBP" + b"".join(out)
    return b"RIFF" + struct.pack("<I", len(body)) + body


_STRIPPERS: Final = {"png": _strip_png, "jpeg": _strip_jpeg, "webp": _strip_webp}

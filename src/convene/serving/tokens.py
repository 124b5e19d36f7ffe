"""Secrets as text: random letters, a check against typos, a digest to be stored instead. Pure but for the clock's lots.

    convene_<id: 12>_<secret: 32><check: 6>     an API key (`keyring.py`)
    convene_link_<secret: 32><check: 6>         a one-time link
    convene_session_<secret: 32><check: 6>      a browser's session

The letters are base62; 32 of them have 190.5 random bits, so SHA-256 is a safe thing to keep (reliability 6.4). The
kinds cannot be taken for each other: a key's id has twelve letters. `logs.py` stars all of them by their shape.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from convene.clock import Clock

LETTERS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH: Final = 32
CHECK_LENGTH: Final = 6
_FORM: Final = re.compile(r"(convene_(link|session)_[0-9A-Za-z]{32})([0-9A-Za-z]{6})", re.ASCII)

Kind = Literal["link", "session"]


def form_token(kind: Kind, clock: Clock) -> str:
    """Return a new link or session text."""
    body = f"convene_{kind}_{random_text(SECRET_LENGTH, clock)}"
    return body + check_of(body)


def digest_of_token(kind: Kind, text: str) -> bytes | None:
    """Return what is stored of a link or session text, or None if it cannot be one. Asks nobody."""
    match = _FORM.fullmatch(text)
    if match is None or match[2] != kind or not hmac.compare_digest(check_of(match[1]), match[3]):
        return None
    return digest_of(text)


def digest_of(text: str) -> bytes:
    """Return SHA-256 of a text; a header may hold any, so what is not ASCII is no token, but no error either."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def check_of(body: str) -> str:
    """Return CRC32 in base62, most significant digit first, padded to six (62^6 > 2^32)."""
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECK_LENGTH):
        number, digit = divmod(number, len(LETTERS))
        digits.append(LETTERS[digit])
    return "".join(reversed(digits))


def random_text(length: int, clock: Clock) -> str:
    """Return `length` letters, each of the 62 equally likely: bytes of 248 and above are drawn again."""
    fair = 256 - 256 % len(LETTERS)
    letters = ""
    while len(letters) < length:
        letters += "".join(LETTERS[byte % len(LETTERS)] for byte in clock.token(length) if byte < fair)
    return letters[:length]

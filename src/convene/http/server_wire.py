"""The bytes of an HTTP/1.1 answer, and nothing that reads a socket or a clock: pure functions over bytes.

Here: status lines, response header blocks, request targets. Callers: `server_exchange.py` (answers of the application),
`server_protocol.py` (requests), `server_refusals.py` (answers of the server itself).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

BODYLESS: Final = frozenset({204, 304})
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES: Final = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
OK_LINE: Final = _STATUS_LINES[200]
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
# Names known to be lower-case tokens without a meaning for framing: one set look-up instead of a pattern per header.
_PLAIN: Final = frozenset(
    {
        b"content-type",
        b"x-request-id",
        b"cache-control",
        b"vary",
        b"server",
        b"retry-after",
        b"www-authenticate",
        b"allow",
        b"location",
        b"set-cookie",
        b"etag",
        b"x-session-id",
        b"openai-version",
        b"openai-processing-ms",
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-requests",
        b"x-ratelimit-reset-tokens",
        b"ratelimit",
        b"ratelimit-policy",
        b"x-content-type-options",
        b"content-security-policy",
        b"referrer-policy",
        b"x-frame-options",
        b"access-control-allow-origin",
        b"access-control-expose-headers",
    }
)


Fields = tuple[bytes, int | None, bool, bool]
"""A response's headers: the encoded lines, its `content-length`, whether it closes, whether it has its own `date`.

A plain tuple: this and the request target are read once per request, and a named tuple costs three times as much.
"""


def status_line(status: int) -> bytes:
    """Return `HTTP/1.1 <status> <phrase>` with CRLF. Raises `ValueError` unless 200 <= status <= 599."""
    line = _STATUS_LINES.get(status)
    if not 200 <= status <= 599:  # noqa: PLR2004 (RFC 9110 15: final status codes)
        raise ValueError(f"not a final HTTP status: {status!r}")
    return line if line is not None else b"HTTP/1.1 %d \r\n" % status


def encode_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Encode response headers.

    `transfer-encoding`, `keep-alive` and `connection` are the server's and dropped (RFC 9110 7.6.1). Raises
    `ValueError` for a name that is no token, for CR, LF or NUL in a value (response splitting), for a bad length.
    """
    lines: list[bytes] = []
    length: int | None = None
    close = dated = False
    for name, value in headers:
        if name not in _PLAIN:
            if name == b"content-length":
                length = _read_length(value, length)
                continue
            name = name.lower()  # noqa: PLW2901 - what ASGI asks of applications, made sure of
            if name in _FRAMING:
                if name == b"content-length":
                    length = _read_length(value, length)
                close = close or (name == b"connection" and value.strip().lower() == b"close")
                continue
            dated = dated or name == b"date"
            if _TOKEN.fullmatch(name) is None:
                raise ValueError(f"bad response header name {name!r}")
        lines.append(b": ".join((name, value)))
    lines.append(b"")
    block = b"\r\n".join(lines)
    ends = len(lines) - 1
    if block.count(b"\n") != ends or block.count(b"\r") != ends or block.count(b"\0"):
        raise ValueError("CR, LF or NUL in a response header")
    return block, length, close, dated


def _read_length(value: bytes, earlier: int | None) -> int:
    """Return the number in a response's `content-length`. Raises `ValueError` if bad or given twice differently."""
    if not value.isdigit() or (earlier is not None and earlier != int(value)):
        raise ValueError(f"bad response content-length {value!r}")
    return int(value)


def read_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return path, raw path and query of a request target in origin-form, absolute-form or `*` (RFC 9112 3.2).

    Raises `ValueError` for a fragment, another form, percent-escapes that are no UTF-8 or that hide a NUL: what a
    router sees must be the text that a store can keep (reliability 2.1, rule 7).
    """
    if target[:1] != b"/":
        target = _origin_form(target)
    raw_path, _, query = target.partition(b"?")
    if b"#" in target:
        raise ValueError("a request target has no fragment")
    decoded = unquote_to_bytes(raw_path)
    if b"\0" in decoded:
        raise ValueError("NUL in the path")
    return decoded.decode("utf-8"), raw_path, query


def _origin_form(target: bytes) -> bytes:
    """Reduce an absolute-form target to its path and query; `*` stays."""
    if target == b"*":
        return target
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in {b"http", b"https"}:
        raise ValueError("unknown form of request target")
    authority_ends = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    path = rest[authority_ends:]
    return path if path[:1] == b"/" else b"/" + path

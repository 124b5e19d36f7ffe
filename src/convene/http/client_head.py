"""The request head as bytes: pure.

Here: one function, `encode_head`, and the rules it checks. Not here: the body and its Content-Length, which the
connection appends. Called by `client` on the first request of each shape (the result is kept, so the checks cost
nothing later).
"""

from __future__ import annotations

import re
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 5.6.2."""
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""RFC 9110 5.5, without leading or trailing space being an error: no CR, LF, NUL or other control character."""
_TARGET: Final = re.compile(r"[!-~]+")

_OURS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def encode_head(
    method: str, target: str, host: str, headers: tuple[tuple[str, str], ...], extra: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """Return the head without its closing empty line. `extra` are fields of the client's own, sent after `headers`.

    Asks for an unencoded body unless `headers` name an `accept-encoding`: unpacking costs more than a fast network
    saves, and a compressing proxy in front of an upstream tends to hold event streams back.

    Raises `ValueError` for anything that could forge a second field or request (RFC 9112 11.1), for a field that only
    the client may set, and for a head above 64 KiB. The message never repeats a value: it may be a secret.
    """
    if _TOKEN.fullmatch(method) is None:
        raise ValueError("the method is not a token")
    if _TARGET.fullmatch(target) is None:
        raise ValueError("the request target has a character that is not allowed")
    lines = [f"{method} {target} HTTP/1.1\r\nhost: {_checked('host', host)}\r\n"]
    asks_coding = False
    for name, value in headers:
        lower = name.lower()
        if lower in _OURS:
            raise ValueError(f"the client itself sets the header {lower}")
        asks_coding = asks_coding or lower == "accept-encoding"
        lines.append(f"{name}: {_checked(name, value)}\r\n")
    if not asks_coding:
        lines.append("accept-encoding: identity\r\n")
    lines.extend(f"{name}: {_checked(name, value)}\r\n" for name, value in extra)
    head = "".join(lines).encode("latin-1")
    if len(head) > HEAD_BYTES_MAX:
        raise ValueError(f"the request head is larger than {HEAD_BYTES_MAX} bytes")
    return head


def _checked(name: str, value: str) -> str:
    if _TOKEN.fullmatch(name) is None:
        raise ValueError("a header name is not a token")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"the value of header {name.lower()} has a character that is not allowed")
    return value

"""Asking a configured search service over HTTP for JSON, and what its refusals mean. Shared by the engines with an API.

Not here: any service's parameters or shapes, and second tries.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import msgspec

from convene.http import base as http
from convene.tools.search_base import EngineFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.clock import Clock

REPLY_BYTES_MAX: Final = 1024 * 1024
ITEMS_MAX: Final = 100
"""More results of one reply are not looked at."""
KEY_PAUSE_S: Final = 300.0
"""A refused key is not better a second later, but an operator may mend it."""
QUOTA_PAUSE_S: Final = 3600.0

_OK: Final = 200
_REFUSED: Final = frozenset({401, 403})
_TOO_MANY: Final = 429
_QUOTA: Final = frozenset({402, 432, 433})
"""Tavily's words for a spent plan: https://docs.tavily.com/documentation/api-reference/endpoint/search."""


async def ask(client: http.Client, request: http.Request, clock: Clock) -> object:
    """Return the decoded JSON of a 200. Raises `EngineFailed` for everything else."""
    try:
        response = await client.send(request)
        try:
            body = b"" if response.status != _OK else await response.read(REPLY_BYTES_MAX)
        finally:
            response.close()
    except http.HttpError as error:
        raise EngineFailed(f"{type(error).__name__}: {error}") from error
    except ValueError as error:
        raise EngineFailed(f"the request cannot be sent: {error}") from error
    if response.status != _OK:
        raise judge(response.status, response.headers, clock)
    try:
        decoded: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed("its reply is not JSON") from error
    return decoded


def judge(status: int, headers: Mapping[str, str], clock: Clock) -> EngineFailed:
    """Return what a status other than 200 means."""
    asked_s = _retry_after(headers, clock)
    if status == _TOO_MANY:
        return EngineFailed("it says that it was asked too often (429)", pause_s=asked_s or 30.0)
    if status in _REFUSED:
        return EngineFailed(f"it refuses us ({status}): the key, or the format json?", pause_s=KEY_PAUSE_S)
    if status in _QUOTA:
        return EngineFailed(f"its quota is spent ({status})", pause_s=QUOTA_PAUSE_S)
    return EngineFailed(f"it answers {status}", pause_s=asked_s)


def _retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Return the seconds of Retry-After (RFC 9110 10.2.3), else of the spent one of Brave's X-RateLimit windows."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - clock.now())
        except (ValueError, OverflowError):
            return None
    left, resets = (headers.get(f"x-ratelimit-{name}", "").split(",") for name in ("remaining", "reset"))
    waits = [
        float(reset) for rest, reset in zip(left, resets, strict=False) if rest.strip() == "0" and _is_number(reset)
    ]
    return max(waits, default=None)


def _is_number(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.isdigit() and len(text) < 10  # noqa: PLR2004 -- seconds, not a flood of digits


def field(value: object, *names: str) -> object:
    """Return what is at the end of a path of object keys; None where something on it is missing or no object."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def items(value: object) -> list[dict[str, object]]:
    """Return the objects of a list, at most so many; nothing for anything else."""
    return [item for item in value[:ITEMS_MAX] if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """Return a text, and "" for anything else."""
    return value if isinstance(value, str) else ""

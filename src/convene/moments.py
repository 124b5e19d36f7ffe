"""Moments as people and clients write them: `7d` (ago), `2026-11-26`, `2026-11-26T19:30Z`, Unix seconds. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from convene.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND_US: Final = 1_000_000
LATEST_US: Final = 253_402_300_800 * SECOND_US
"""The year 10000: later is a slip, such as milliseconds given as seconds."""

_SPAN: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_SPAN_S: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNIX: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")


def moment_us(text: str, now_us: int, param: str) -> int:
    """Return a moment in Unix microseconds; a span such as `24h` counts back from `now_us`, days and times are UTC.

    Raises:
        BadRequest: it is no such moment; `param` is named.
    """
    text = text.strip()
    if (span_s := span_seconds(text)) is not None:
        return max(0, now_us - span_s * SECOND_US)
    if unix := _UNIX.fullmatch(text):
        found = int(unix[1]) * SECOND_US + int((unix[2] or "").ljust(6, "0"))
    else:
        found = _iso_us(text, param)
    if not 0 <= found < LATEST_US:
        raise _fault(text, param)
    return found


def span_seconds(text: str) -> int | None:
    """Return how long a span such as `24h` is, in seconds; None: it is none."""
    span = _SPAN.fullmatch(text)
    return int(span[1]) * _SPAN_S[span[2]] if span else None


def iso(at_us: int) -> str:
    """Return a moment as ISO 8601 text in UTC, whole seconds."""
    return datetime.fromtimestamp(at_us // SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _iso_us(text: str, param: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise _fault(text, param) from error
    return (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds


def _fault(text: str, param: str) -> BadRequest:
    message = f"'{text[:40]}' is no time for {param}: write 7d, 24h, 2026-11-26, 2026-11-26T19:30Z or Unix seconds."
    return BadRequest(message, param=param)

"""The head of an answer that an upstream has sent before, known again by its bytes.

A host answers with the same head each time, but for `date` and `content-length`. Once llhttp has read such a head and
the rules of `client_codec.py` have judged it, the same bytes mean the same: they are compared instead of read. Only a
whole answer of status 200 that came in one piece and whose length is given is learned or taken here; whatever is
different in any byte goes the usual way. The counterpart of `server_known.py`.

Pure. Called by `client_codec.py`; held to what the parser makes of the same bytes by
`tests/unit/http/test_client_known.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD_BYTES_MAX: Final = 8 * 1024
"""Larger heads are not kept: each connection keeps one."""
LESSONS: Final = 4
"""So many heads are learned on one connection; a host that sends another one each time is left alone after them."""
OK: Final = 200
_DIGITS_MAX: Final = 12
_DATE_BYTES: Final = 29
_GAPS: Final = re.compile(
    rb"\r\n(?:content-length:[ \t]*(?P<length>[0-9]{1,12})|date:[ \t]*(?P<date>[A-Za-z0-9:, ]{29}))(?=\r\n)",
    re.IGNORECASE,
)
_DATE: Final = re.compile(rb"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT").fullmatch
_UNFIT: Final = frozenset({"transfer-encoding", "content-encoding", "upgrade"})


class KnownAnswer:
    """One head. After `take` has given a body, `headers` are those of its answer."""

    __slots__ = ("_before", "_date", "_digits", "_gaps", "_headers", "keep_alive_s")

    def __init__(
        self, before: bytes, gaps: tuple[tuple[bool, bytes], ...], headers: dict[str, str], keep_alive_s: float | None
    ) -> None:
        """`gaps`: whether each is the date's, else the length's, and the bytes behind it."""
        self._before = before
        self._gaps = gaps
        self._headers = headers
        self._date = self._digits = b""
        self.keep_alive_s = keep_alive_s

    def take(self, data: bytes) -> bytes | None:
        """Return the body if `data` is this head and a body that fills it exactly, else None."""
        if not data.startswith(self._before):
            return None
        place, date, digits = len(self._before), self._date, b""
        for dates, behind in self._gaps:
            if dates:
                end = place + _DATE_BYTES
                value = data[place:end]
                if value != date and _DATE(value) is None:
                    return None
                date = value
            else:
                end = data.find(b"\r", place, place + _DIGITS_MAX + 1)
                digits = data[place:end]
                if end < 0 or not digits.isdigit():
                    return None
            if not data.startswith(behind, end):
                return None
            place = end + len(behind)
        body = data[place:]
        if int(digits) != len(body):
            return None
        self._date, self._digits = date, digits
        return body

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer that was taken last."""
        headers = self._headers.copy()
        headers["content-length"] = self._digits.decode("ascii")
        if "date" in headers:
            headers["date"] = self._date.decode("ascii")
        return headers


def learn(data: bytes, status: int, headers: Mapping[str, str], keep_alive_s: float | None) -> KnownAnswer | None:
    """Return the head of `data`, which was read as one whole answer; None if it is not to be kept."""
    head_ends = data.find(b"\r\n\r\n") + 4
    plain = status == OK and data.startswith(b"HTTP/1.1 200")  # not behind an interim answer
    if not plain or head_ends > HEAD_BYTES_MAX or not _UNFIT.isdisjoint(headers):
        return None
    found = list(_GAPS.finditer(data, 0, head_ends - 2))
    spans = [(gap.lastgroup == "date", *gap.span(gap.lastgroup or 0)) for gap in found]
    if [dates for dates, _, _ in spans].count(False) != 1 or len(spans) > 2:  # noqa: PLR2004 - one of each
        return None
    [length] = [data[start:end] for dates, start, end in spans if not dates]
    if int(length) != len(data) - head_ends or any(
        dates and _DATE(data[start:end]) is None for dates, start, end in spans
    ):
        return None
    ends = [start for _, start, _ in spans[1:]] + [head_ends]
    gaps = tuple((dates, data[end:until]) for (dates, _, end), until in zip(spans, ends, strict=True))
    if ("date" in headers) != any(dates for dates, _ in gaps):
        return None
    return KnownAnswer(data[: spans[0][1]], gaps, dict(headers), keep_alive_s)

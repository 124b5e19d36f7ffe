"""A message head known again by its bytes: the arithmetic under `server_known.py` and `client_known.py`. Pure.

A head has one gap, the digits of `content-length`, and perhaps a second, the value of `date`. How long a whole message
is says how long its body must be, so that what the head must look like is known before a byte of it is read: one
comparison says whether it does.
"""

from __future__ import annotations

import re
from typing import Final

HEAD_BYTES_MAX: Final = 8 * 1024
"""Larger heads are not kept: each connection keeps one."""
LESSONS: Final = 4
"""So many heads are learned on one connection; a peer that sends another one each time is left alone after them."""
_WRITTEN_MAX: Final = 8
"""Heads with their gaps filled that are kept; the commonest lengths come again and again."""
_DIGITS_MAX: Final = 12
_DATE_BYTES: Final = 29
_GAPS: Final = re.compile(
    rb"\r\n(?:content-length:[ \t]*(?P<length>[0-9]{1,12})|date:[ \t]*(?P<date>[A-Za-z0-9:, ]{29}))(?=\r\n)",
    re.IGNORECASE,
)
_DATE: Final = re.compile(rb"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT").fullmatch


class HeadForm:
    """What is the same in all heads of a kind, and where the rest stands."""

    __slots__ = ("_after", "_before", "_between", "_date", "_date_first", "_fixed_bytes", "_written", "dated")

    def __init__(self, before: bytes, between: bytes | None, after: bytes, *, date_first: bool) -> None:
        """`before`, `between` and `after` are the bytes around the gaps; `between` is None where only the length is."""
        self._before = before
        self._between = between
        self._after = after
        self._date_first = date_first
        self._date = b""
        self.dated = between is not None
        self._fixed_bytes = len(before) + len(after) + (0 if between is None else len(between) + _DATE_BYTES)
        self._written: dict[int, bytes] = {}

    @property
    def date(self) -> bytes:
        """The date of the head that was found last."""
        return self._date

    def find(self, data: bytes) -> bytes | None:
        """Return the head of `data` if it is one of these and its length fits the rest exactly, else None."""
        head = self._written.get(len(data))
        if head is not None and data.startswith(head):
            return head
        return self._write(data)

    def _write(self, data: bytes) -> bytes | None:
        """Work out what the head of a message as long as `data` looks like, and whether it does."""
        rest = len(data) - self._fixed_bytes
        digits = next(
            (b"%d" % (rest - n) for n in range(1, min(rest, _DIGITS_MAX) + 1) if len(str(rest - n)) == n), None
        )
        if digits is None:
            return None
        between = self._between
        if between is None:
            head = self._before + digits + self._after
        else:
            start = len(self._before) + (0 if self._date_first else len(digits) + len(between))
            date = data[start : start + _DATE_BYTES]
            if date != self._date:
                if _DATE(date) is None:
                    return None
                self._date = date
                self._written.clear()
            first, second = (date, digits) if self._date_first else (digits, date)
            head = b"".join((self._before, first, between, second, self._after))
        if not data.startswith(head):
            return None
        if len(self._written) >= _WRITTEN_MAX:
            self._written.clear()
        self._written[len(data)] = head
        return head


def form_of(data: bytes) -> HeadForm | None:
    """Return the form of the head of `data`, a whole message; None if it has none that could be known again."""
    head_ends = data.find(b"\r\n\r\n") + 4
    found = [(gap.lastgroup, *gap.span(gap.lastgroup or 0)) for gap in _GAPS.finditer(data, 0, head_ends - 2)]
    kinds = [kind for kind, _, _ in found]
    if head_ends > HEAD_BYTES_MAX or sorted(map(str, kinds)) not in (["length"], ["date", "length"]):
        return None
    between = data[found[0][2] : found[1][1]] if len(found) > 1 else None
    form = HeadForm(data[: found[0][1]], between, data[found[-1][2] : head_ends], date_first=kinds[0] == "date")
    return form if form.find(data) is not None else None

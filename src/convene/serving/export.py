"""Entries of the books as lines of text, for spreadsheets and for programs. Pure; whoever calls picks the entries.

    async for line in csv_lines(ledger.entries(which)): ...      a head, then one line an entry (RFC 4180)
    async for line in json_lines(ledger.entries(which)): ...     one JSON object a line, all fields

Every line has its end, CRLF and LF. The fields are those of `Entry`, in its order; times are Unix microseconds.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import astuple

from convene.store.base_ledger import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HEAD: Final = Entry.__struct_fields__
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula at the beginning of a text that somebody else has chosen (OWASP)."""


async def csv_lines(entries: AsyncIterator[Entry]) -> AsyncIterator[str]:
    """Yield a head line and a line for each entry; truth values are 0 and 1, what is missing is empty.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    yield _line(HEAD)
    async for entry in entries:
        yield _line(tuple(_cell(value) for value in astuple(entry)))


async def json_lines(entries: AsyncIterator[Entry]) -> AsyncIterator[str]:
    """Yield each entry as a JSON object on a line of its own."""
    encoder = msgspec.json.Encoder()
    async for entry in entries:
        yield encoder.encode(entry).decode() + "\n"


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _line(cells: tuple[object, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()

"""Entries and intents as rows and as bytes, and the time a report asks for as whole days and rests. Pure.

A row has an entry's fields in their order, truth values as 0 and 1. Bytes carry the names of their fields, so that
what an older Convene left behind is still read after a field was added.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, get_type_hints

import msgspec
from msgspec.structs import astuple

from convene.limits.limit import DAY_US, Amounts
from convene.store.base_ledger import Entry, Intent, Sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kept = TypeVar("Kept", Entry, Intent)

ENTRY_FIELDS: Final = Entry.__struct_fields__
INTENT_FIELDS: Final = Intent.__struct_fields__
SUM_FIELDS: Final = Sums.__struct_fields__
FIGURES: Final = SUM_FIELDS[1:]
"""What is summed beside the number of requests; each is a field of an entry."""
HOUR_US: Final = DAY_US // 24

_NUMBERS: Final = (int, bool, int | None)
_STREAM: Final = ENTRY_FIELDS.index("stream")
_ESTIMATED: Final = ENTRY_FIELDS.index("estimated")
_TTFT: Final = ENTRY_FIELDS.index("ttft_us")
_TEXTS: Final = frozenset(place for place, kind in enumerate(get_type_hints(Entry).values()) if kind not in _NUMBERS)
_RESERVED: Final = INTENT_FIELDS.index("reserved")
FIGURES_OF_ROW: Final = slice(ENTRY_FIELDS.index(FIGURES[0]), ENTRY_FIELDS.index(FIGURES[-1]) + 1)
_LARGEST: Final = (1 << 63) - 1
MOST: Final = 10**15
"""The largest figure of an entry: sums of thousands of them fit. A host that reports more is not to be believed."""
UNFIT: Final = (UnicodeError, OverflowError, TypeError)
"""What a value raises that has no bytes."""
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[list[str], list[list[Any]]])
_PAIR: Final = b"\x92"
"""MessagePack for: a list of two things follows, here the names and the rows."""
_INTENT_HEAD: Final = _PAIR + _encoder.encode(INTENT_FIELDS)


def row_of(entry: Entry) -> list[Any]:
    """Return an entry's row."""
    row = list(astuple(entry))
    try:
        row[_STREAM] = +row[_STREAM]  # +True is 1: databases bind plain numbers several times faster than truth values
        row[_ESTIMATED] = +row[_ESTIMATED]
        total = sum(row[FIGURES_OF_ROW])
    except TypeError:
        row = mended(row)
        total = sum(row[FIGURES_OF_ROW])
    if not -MOST <= total <= MOST:  # they have one sign: nobody reports less than nothing
        row[FIGURES_OF_ROW] = [max(-MOST, min(figure, MOST)) for figure in row[FIGURES_OF_ROW]]
    return row


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry of a row."""
    values = dict(zip(ENTRY_FIELDS, row, strict=True))
    values["stream"] = bool(values["stream"])
    values["estimated"] = bool(values["estimated"])
    return Entry(**values)


def sums_of(row: Sequence[Any]) -> Sums:
    """Return the sums of a row of figures."""
    return Sums(**dict(zip(SUM_FIELDS, row, strict=True)))


def unpacked_rows(body: bytes) -> list[list[Any]]:
    """Return the rows in the bytes, which an older Convene has written; each is one that a database can hold."""
    names, rows = _decoder.decode(body)
    if tuple(names) != ENTRY_FIELDS:
        rows = [row_of(_named(Entry, names, row)) for row in rows]
    return [mended(row) for row in rows]


def packed_values(rows: list[list[Any]]) -> bytes:
    """Return the values of rows of entries as bytes, without names; what no database holds is mended."""
    try:
        return _encoder.encode(rows)
    except UNFIT:
        return _encoder.encode([mended(row) for row in rows])


def packed_intent(intent: Intent) -> bytes:
    """Return one intent's values as bytes, without names; what no database holds is mended as in `storable`."""
    row = astuple(intent)
    try:
        return _encoder.encode(row)
    except (UnicodeError, OverflowError):
        return _encoder.encode(storable(row))


def intent_of(names: Sequence[str], row: list[Any]) -> Intent:
    """Return the intent whose fields with these names have these values."""
    place = names.index("reserved")
    row[place] = Amounts(*row[place])
    return _named(Intent, names, row)


def rows_of(names: Sequence[str], rows: list[list[Any]]) -> list[list[Any]]:
    """Return rows of fields with these names as rows of entries."""
    if tuple(names) == ENTRY_FIELDS:
        return rows
    return [row_of(_named(Entry, names, row)) for row in rows]


def packed_intents(intents: Iterable[Intent]) -> bytes:
    """Return intents as bytes; what no database holds is mended as in `storable`."""
    rows = [astuple(intent) for intent in intents]
    try:
        return _INTENT_HEAD + _encoder.encode(rows)
    except (UnicodeError, OverflowError):
        return _INTENT_HEAD + _encoder.encode([storable(row) for row in rows])


def unpacked_intents(body: bytes) -> list[Intent]:
    """Return the intents in the bytes."""
    names, rows = _decoder.decode(body)
    place = names.index("reserved") if "reserved" in names else _RESERVED
    for row in rows:
        row[place] = Amounts(*row[place])
    return [_named(Intent, names, row) for row in rows]


def storable(row: Iterable[Any]) -> list[Any]:
    """Return the row with what no database holds mended: half a surrogate pair, a number of more than 63 bits.

    Such values are refused long before; a row that could not be kept would hold up all that come after it.
    """
    return [
        value.encode("utf-8", "replace").decode()
        if isinstance(value, str)
        else max(-_LARGEST, min(value, _LARGEST))
        if isinstance(value, int)
        else value
        for value in row
    ]


def mended(row: Sequence[Any]) -> list[Any]:
    """Return an entry's row as one that a database takes whatever is in it: a fault elsewhere must not stop the books.

    Beyond `storable`, what should be a text is made one, and what should be a number and is none becomes 0.
    """
    return storable(
        value if value is None and place == _TTFT else str(value) if place in _TEXTS else _number(value)
        for place, value in enumerate(row)
    )


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) and isfinite(value) else 0


def _named(kind: type[Kept], names: Sequence[str], row: Sequence[Any]) -> Kept:
    values = dict(zip(names, row, strict=True))
    for name in ("stream", "estimated"):
        if name in values:
            values[name] = bool(values[name])
    return kind(**{name: value for name, value in values.items() if name in kind.__struct_fields__})


class Spans(NamedTuple):
    """A stretch of time as whole days of UTC, whose sums are kept, and what is left over at its ends."""

    days: tuple[int | None, int | None]
    """From the first day (inclusive) to the last (exclusive); None leaves a side open."""
    rests: tuple[tuple[int, int], ...]
    """Microseconds, from (inclusive) and until (exclusive)."""


def spans(since_us: int | None, until_us: int | None) -> Spans:
    """Divide the time from `since_us` (inclusive) to `until_us` (exclusive)."""
    first = None if since_us is None else -(-since_us // DAY_US)
    last = None if until_us is None else until_us // DAY_US
    if since_us is not None and until_us is not None and first is not None and last is not None and first > last:
        return Spans((0, 0), ((since_us, until_us),))
    rests: list[tuple[int, int]] = []
    if since_us is not None and first is not None and since_us % DAY_US:
        rests.append((since_us, first * DAY_US))
    if until_us is not None and last is not None and until_us % DAY_US:
        rests.append((last * DAY_US, until_us))
    return Spans((first, last), tuple(rests))

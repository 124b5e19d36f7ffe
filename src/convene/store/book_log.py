"""The log of the books: what one writer has begun and ended, in files of its own until the tables have it.

    FOLDER/w-1a2b....0   header | frame | frame | ...        FOLDER/w-1a2b....1   the other slot; they take turns
    header               magic, check, generation: grows by one with each turn
    frame                length, check over generation, kind and body, kind, body (MessagePack)

A frame that was cut off by a kill, and what an earlier turn has left behind it, fail the check, so that a log ends
where its last whole frame does. Frames by kind: the names of the fields (the first of each turn), one intent, rows of
entries, and a mark: all entries before that place, those of earlier turns too, are in the tables and on the disk.
Field names are told once a turn, so that what an older Convene left is still read after a field was added.

Here: frames, and reading a file that another process may be writing. Writing is `book_log_writer.py`'s.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

import msgspec

from convene.store.ledger_rows import ENTRY_FIELDS, INTENT_FIELDS, intent_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from convene.store.base_ledger import Intent

NAMES, INTENT, ENTRIES, MARK = range(1, 5)
SLOTS: Final = ("0", "1")
_MAGIC: Final = b"CVBL"
_HEADER: Final = Struct("<4sIQ")
_FRAME: Final = Struct("<IIB")
_SEED: Final = Struct("<QB")
_STEP: Final = 1 << 18
"""Bytes that are read at once."""
_encode: Final = msgspec.msgpack.Encoder().encode
_names: Final = msgspec.msgpack.Decoder(tuple[list[str], list[str]])
_row: Final = msgspec.msgpack.Decoder(list[Any])
_rows: Final = msgspec.msgpack.Decoder(list[list[Any]])
_place: Final = msgspec.msgpack.Decoder(tuple[int, int])
HEADER_BYTES: Final = _HEADER.size


class Place(NamedTuple):
    """A place in a log; later ones compare greater."""

    generation: int
    offset: int


class Seeds:
    """What the checks of one turn begin with."""

    def __init__(self, generation: int) -> None:
        self.of: Final = tuple(crc32(_SEED.pack(generation, kind)) for kind in range(MARK + 1))

    def frame(self, kind: int, body: bytes) -> bytes:
        """Return a frame."""
        return _FRAME.pack(len(body), crc32(body, self.of[kind]), kind) + body


def header(generation: int) -> bytes:
    """Return the first bytes of a turn."""
    return _HEADER.pack(_MAGIC, crc32(_SEED.pack(generation, 0)), generation)


def names_body() -> bytes:
    """Return the names that rows of this version have."""
    return _encode((INTENT_FIELDS, ENTRY_FIELDS))


def mark_body(place: Place) -> bytes:
    """Return the body of a mark."""
    return _encode(place)


def unpacked_intent(body: bytes) -> Intent:
    """Return the intent of a frame of this version."""
    return intent_of(INTENT_FIELDS, _row.decode(body))


class Scan(NamedTuple):
    """What was found in one slot behind a place."""

    end: Place
    """Where its last whole frame ends."""
    intents: list[Intent]
    entries: list[tuple[Place, list[list[Any]]]]
    """Rows, and where the frame that has them begins."""
    marks: list[Place]


def scan(path: Path, after: Place | None = None, *, intents: bool = True) -> Scan | None:
    """Return what a slot has, or of the same turn what it has behind `after`; None if there is no log in it.

    Without `intents` these are passed over, which takes a fifth of the time.

    Raises OSError for a file that cannot be read; one that is not there has no log.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        head = os.pread(file, HEADER_BYTES, 0)
        if len(head) < HEADER_BYTES:
            return None
        magic, check, generation = _HEADER.unpack(head)
        if magic != _MAGIC or check != crc32(_SEED.pack(generation, 0)):
            return None
        known = after is not None and after.generation == generation
        start = after.offset if after is not None and known else HEADER_BYTES
        return _read(file, generation, start, intents=intents)
    finally:
        os.close(file)


def _read(file: int, generation: int, start: int, *, intents: bool) -> Scan:
    found = Scan(Place(generation, start), [], [], [])
    end, names = start, (list(INTENT_FIELDS), list(ENTRY_FIELDS))
    if start > HEADER_BYTES:  # the names stand before
        first = next(_frames(file, generation, HEADER_BYTES), None)
        names = names if first is None else _names.decode(first[2])
    for offset, kind, body in _frames(file, generation, start):
        if kind == NAMES:
            names = _names.decode(body)
        elif kind == INTENT:
            if intents:
                found.intents.append(intent_of(names[0], _row.decode(body)))
        elif kind == ENTRIES:
            found.entries.append((Place(generation, offset), rows_of(names[1], _rows.decode(body))))
        else:
            found.marks.append(Place(*_place.decode(body)))
        end = offset + _FRAME.size + len(body)
    return found._replace(end=Place(generation, end))


def _frames(file: int, generation: int, start: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield place, kind and body of each whole frame from `start` on."""
    seeds = Seeds(generation).of
    data, at = b"", 0
    """What was read and not yet taken, and where in it the next frame begins."""
    while True:
        while len(data) - at >= _FRAME.size:
            length, check, kind = _FRAME.unpack_from(data, at)
            if not NAMES <= kind <= MARK:
                return
            body_at = at + _FRAME.size
            if body_at + length > len(data):
                break
            body = data[body_at : body_at + length]
            if crc32(body, seeds[kind]) != check:
                return
            yield start + at, kind, body
            at = body_at + length
        start, data, at = start + at, data[at:], 0
        more = os.pread(file, _STEP, start + len(data))
        if not more:
            return
        data += more


class Left(NamedTuple):
    """What a writer's slots hold together."""

    rows: list[list[Any]]
    """Of entries that are behind the last mark."""
    open: list[Intent]
    """Intents without an entry among these; one that an earlier turn ended may be in the tables."""
    ends: dict[str, Place]
    """By slot."""


def left_by(folder: Path, writer: str, seen: dict[str, Place] | None = None) -> Left:
    """Return what a writer's log has, or the rows that it has behind the places `seen`. Raises OSError.

    Whatever was written before the call is found, for a turn is written over only when its entries have long been in
    the tables, and intents that are open are in the next turn before that.
    """
    scans: dict[str, Scan] = {}
    for slot in SLOTS:
        path = folder / f"{writer}.{slot}"
        found = scan(path) if seen is None else scan(path, seen.get(slot), intents=False)
        if found is not None:
            scans[slot] = found
    moved = max((mark for found in scans.values() for mark in found.marks), default=Place(0, 0))
    ended: set[str] = set()
    rows: list[list[Any]] = []
    for found in sorted(scans.values(), key=lambda one: one.end):
        for place, some in found.entries:
            ended.update(row[0] for row in some)
            if place >= moved:
                rows += some
    intents = {one.id: one for found in scans.values() for one in found.intents if one.id not in ended}
    return Left(rows, list(intents.values()), {slot: found.end for slot, found in scans.items()})


def writers(folder: Path) -> Sequence[str]:
    """Return the writers that have a log here."""
    try:
        return sorted({path.stem for path in folder.iterdir() if path.suffix[1:] in SLOTS})
    except FileNotFoundError:
        return ()

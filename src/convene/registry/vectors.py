"""The index of meaning: which listings have vectors like a question's. No I/O, no numeric library.

Of each vector two things are kept: all its parts in a byte each, and the signs of `SIGNS` of them as bits. A search
finds the `RESCORED` vectors whose signs differ least from the question's (`planes.py`), works out the exact cosines of
these from their bytes, and gives the nearest. Vectors live in blocks, each of which is looked through in well under a
millisecond. Longer vectors are folded to `PARTS_MAX` parts: sums of parts with fixed signs, which keep angles up to a
small error.

Why not numpy: it would be the largest package of the installation, and is not needed (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from array import array
from itertools import chain, islice
from operator import mul
from typing import TYPE_CHECKING, Final

from convene.registry.planes import Planes, lowest, weights

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from convene.registry.pace import Pace

PARTS_MAX: Final = 1024
"""Most parts of a vector that are kept."""
SIGNS: Final = 384
"""Most signs that are compared."""
BLOCK: Final = 8192
"""Vectors of a block: planes of 1 KiB, of which all fit the nearest cache."""
BATCH: Final = 128
"""So many new vectors become bits at a time. Until then a search works out all their cosines."""
RESCORED: Final = 512
LEVELS: Final = 127
LEAST: Final = 1e-300
"""Vectors that are shorter in all parts have no direction."""
BASELINE_PAIRS: Final = 512
PARTS_HELD: Final = 128
"""So many parts of all chosen vectors are worked on before others may run."""
NOBODY: Final = -1
_SIGN: Final = b"1" * 128 + b"0" * 128
"""Of a signed byte: 1 if it is not negative."""
_SQUARES: Final = [byte * byte if byte < 128 else (256 - byte) ** 2 for byte in range(256)]  # noqa: PLR2004 -- signed
_RAISED: Final = bytes(byte ^ 128 for byte in range(256))
"""Signed bytes, 128 added."""


def pack(vector: Sequence[float]) -> bytes:
    """Return a vector's direction as signed bytes, at most `PARTS_MAX` of them; all zero if it has none."""
    parts = fold(vector, PARTS_MAX)
    top = max(map(abs, parts), default=0.0)
    if not math.isfinite(top) or top < LEAST:
        return bytes(len(parts))
    return array("b", map(round, map((LEVELS / top).__mul__, parts))).tobytes()


def fold(vector: Sequence[float], most: int) -> list[float]:
    """Return a vector with at most so many parts whose angles to others stay about the same."""
    if len(vector) <= most:
        return list(vector)
    found = list(vector[:most])
    for block in range(1, -(-len(vector) // most)):
        for at, part in enumerate(vector[block * most : (block + 1) * most]):
            found[at] += part if (at * 2_654_435_761 * block >> 7) & 1 else -part
    return found


def signs(packed: bytes) -> bytes:
    """Return the signs of a packed vector as characters `0` and `1`, at most `SIGNS` of them."""
    if len(packed) <= SIGNS:
        return packed.translate(_SIGN)
    return bytes(48 + (part >= 0) for part in fold(list(memoryview(packed).cast("b")), SIGNS))


class _Block:
    """Up to `BLOCK` vectors, each at a bit."""

    __slots__ = ("live", "norms", "places", "planes", "rows", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        """Parts of a vector."""
        self.rows = bytearray()
        self.norms = array("d")
        self.places = array("q")
        self.planes = Planes(min(width, SIGNS))
        self.live = 0
        """A one for each vector in the planes that somebody has."""

    def row(self, bit: int) -> bytes:
        return bytes(self.rows[bit * self.width : (bit + 1) * self.width])

    def add(self, place: int, packed: bytes, norm: float) -> int:
        """Take a vector in and return its bit."""
        self.rows += packed
        self.norms.append(norm)
        self.places.append(place)
        if len(self.places) - self.planes.size == BATCH:
            self._settle()
        return len(self.places) - 1

    def put(self, bit: int, place: int, packed: bytes, norm: float) -> None:
        """Put a vector in the place of another."""
        if bit < self.planes.size:
            self.planes.put(bit, signs(self.row(bit)), signs(packed))
            self.live |= 1 << bit
        self.rows[bit * self.width : (bit + 1) * self.width] = packed
        self.norms[bit] = norm
        self.places[bit] = place

    def take(self, bit: int) -> None:
        """Forget a vector."""
        self.places[bit] = NOBODY
        if bit < self.planes.size:
            self.live ^= 1 << bit

    def _settle(self) -> None:
        """Take the vectors of a batch into the planes."""
        new = range(self.planes.size, len(self.places))
        self.planes.add(b"".join([signs(self.row(bit)) for bit in new]), len(new))
        for bit in new:
            if self.places[bit] != NOBODY:
                self.live |= 1 << bit


class VectorIndex:
    """Vectors by the places of `LexicalIndex`."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._slots: dict[int, int] = {}
        """Where the vector of a place is: number of its block times `BLOCK`, and its bit."""
        self._free: list[int] = []
        self._baseline = 0.0
        self._baseline_of = 0

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, place: int, packed: bytes) -> None:
        """Give a listing its vector (`pack`)."""
        norm = _norm(packed)
        if not norm or (self._blocks and len(packed) != self._blocks[0].width):
            return  # says nothing, or is another model's
        slot = self._slots.get(place)
        if slot is None and self._free:
            slot = self._slots[place] = self._free.pop()
        if slot is not None:
            self._blocks[slot // BLOCK].put(slot % BLOCK, place, packed, norm)
            return
        if not self._blocks or len(self._blocks[-1].places) == BLOCK:
            self._blocks.append(_Block(len(packed)))
        self._slots[place] = (len(self._blocks) - 1) * BLOCK + self._blocks[-1].add(place, packed, norm)

    def take(self, place: int) -> None:
        """Forget a listing's vector, if it has one."""
        slot = self._slots.pop(place, None)
        if slot is None:
            return
        self._blocks[slot // BLOCK].take(slot % BLOCK)
        self._free.append(slot)
        if not self._slots:  # those of another model may come
            self._blocks, self._free = [], []

    async def search(
        self,
        vector: Sequence[float],
        keep: int,
        pace: Pace,
        only: Collection[int] | None = None,
        also: Collection[int] = (),
    ) -> list[tuple[int, float]]:
        """Return the places nearest to a vector with the cosine of their angle to it, nearest first.

        Args:
            vector: of the question.
            keep: how many at most.
            pace: lets others run.
            only: if given, only of these places.
            also: those of these places that have vectors follow, if they are not among the nearest.
        """
        packed = pack(vector)
        norm = _norm(packed)
        if not norm or not self._blocks or len(packed) != self._blocks[0].width:
            return []
        blocks = list(self._blocks)
        may = None if only is None else self._masks(only, len(blocks))
        asked = weights(fold(list(memoryview(packed).cast("b")), SIGNS))
        counted, settled = [], []
        for at, block in enumerate(blocks):
            live = block.live if may is None else block.live & may[at]
            counted.append((live, block.planes.differing(asked) if live else []))
            settled.append(block.planes.size)
            await pace.breathe()
        near = lowest(counted, max(keep, RESCORED))
        slots = {
            at * BLOCK + bit
            for at, block in enumerate(blocks)
            for bit in chain(near[at], range(settled[at], len(block.places)))
            if block.places[bit] != NOBODY and (may is None or may[at] >> bit & 1)
        }
        slots.update(self._slots[place] for place in also if place in self._slots)
        await pace.breathe()
        chosen = [(self._blocks[slot // BLOCK], slot % BLOCK) for slot in slots if slot // BLOCK < len(self._blocks)]
        found = await _nearest(packed, norm, chosen, pace)
        return found[:keep] + [pair for pair in found[keep:] if pair[0] in also]

    def _masks(self, places: Iterable[int], blocks: int) -> list[int]:
        """Return for each block a number with a one for each of some places."""
        marks = [bytearray(b"0") * BLOCK for _ in range(blocks)]
        for place in places:
            slot = self._slots.get(place)
            if slot is not None and slot // BLOCK < blocks:
                marks[slot // BLOCK][-1 - slot % BLOCK] = 49
        return [int(mark, 2) for mark in marks]

    async def baseline(self, pace: Pace) -> float:
        """Return the usual cosine of two listings' vectors: what being alike means differs from model to model."""
        count = len(self._slots)
        if count and (self._baseline_of == 0 or count > self._baseline_of * 2):
            some = list(islice(self._slots.values(), 0, None, max(1, count // BASELINE_PAIRS)))
            rows = [self._blocks[slot // BLOCK].row(slot % BLOCK) for slot in some]
            cosines = []
            for at, row in enumerate(rows):
                other = (at * 7 + len(rows) // 2 + 1) % len(rows)
                if other != at:
                    cosines.append(_dot(row, rows[other]) / (_norm(row) * _norm(rows[other])))
                await pace.breathe()
            self._baseline = sum(cosines) / len(cosines) if cosines else 0.0
            self._baseline_of = count
        return self._baseline


async def _nearest(
    packed: bytes, norm: float, chosen: Sequence[tuple[_Block, int]], pace: Pace
) -> list[tuple[int, float]]:
    """Return the places of some vectors with their cosines, nearest first."""
    places = [block.places[bit] for block, bit in chosen]
    norms = [norm * block.norms[bit] for block, bit in chosen]
    rows = b"".join([block.row(bit) for block, bit in chosen])
    dots = await _dots(packed, rows, len(chosen), pace)
    found = [(place, dot / length) for place, dot, length in zip(places, dots, norms, strict=True)]
    found.sort(key=lambda pair: (-pair[1], pair[0]))
    return found


async def _dots(packed: bytes, rows: bytes, count: int, pace: Pace) -> list[int]:
    """Return the inner products of a vector with the vectors of so many rows.

    The same part of all rows, raised above 0, is one whole number with four bytes for each row; so one multiplication
    by a part of the vector multiplies all of them, and a sum of such numbers holds all inner products (of `PARTS_MAX`
    parts at most 1024 * 127 * 255, less than four bytes hold). Negative parts are summed up by themselves.
    """
    raised, width = rows.translate(_RAISED), len(packed)
    parts = memoryview(packed).cast("b")
    lanes = bytearray(4 * count)
    plus = minus = 0
    for at, part in enumerate(parts):
        if part:
            lanes[::4] = raised[at::width]
            if part > 0:
                plus += part * int.from_bytes(lanes, "little")
            else:
                minus -= part * int.from_bytes(lanes, "little")
        if at % PARTS_HELD == PARTS_HELD - 1:
            await pace.breathe()
    added = 128 * sum(parts)
    ups, downs = (memoryview(total.to_bytes(4 * count, "little")).cast("I") for total in (plus, minus))
    return [up - down - added for up, down in zip(ups, downs, strict=True)]


def _norm(packed: bytes) -> float:
    return math.sqrt(sum(map(_SQUARES.__getitem__, packed)))


def _dot(one: bytes, other: bytes) -> int:
    return sum(map(mul, memoryview(one).cast("b"), memoryview(other).cast("b")))

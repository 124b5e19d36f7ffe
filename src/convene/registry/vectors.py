"""The index of meaning: which listings have vectors like a question's. No I/O, no numeric library.

Of each vector two things are kept: a sketch, the signs of its parts as the bits of one whole number, and the parts
themselves in a byte each. A search compares the question's sketch with all sketches (exclusive or, count of bits: two
calls into C for each listing), and the bytes of the `RESCORED` nearest exactly. Longer vectors are folded to
`PARTS_MAX` parts: sums of parts with fixed signs, which keep angles up to a small error.

Why not numpy: it would be the largest package of the installation; figures are in docs/benchmarks.md.
"""

from __future__ import annotations

import math
from operator import mul
from typing import TYPE_CHECKING, Final

from convene.registry.lexical import best_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.registry.pace import Pace

PARTS_MAX: Final = 1024
"""Most parts of a vector that are kept."""
SKETCH_BITS: Final = 384
CHUNK: Final = 8192
RESCORED: Final = 320
LEVELS: Final = 127
BASELINE_PAIRS: Final = 512
_NEARNESS: Final = bytes(range(255, -1, -1))


def pack(vector: Sequence[float]) -> bytes:
    """Return a vector's direction as signed bytes, at most `PARTS_MAX` of them; all zero if it has none."""
    parts = fold(vector, PARTS_MAX)
    top = max(map(abs, parts), default=0.0)
    if not top or not math.isfinite(top):
        return bytes(len(parts))
    return bytes(round(part * LEVELS / top) & 0xFF for part in parts)


def fold(vector: Sequence[float], most: int) -> list[float]:
    """Return a vector with at most so many parts whose angles to others stay about the same."""
    if len(vector) <= most:
        return list(vector)
    found = list(vector[:most])
    for block in range(1, -(-len(vector) // most)):
        for at, part in enumerate(vector[block * most : (block + 1) * most]):
            found[at] += part if (at * 2_654_435_761 * block >> 7) & 1 else -part
    return found


def sketch(packed: bytes) -> int:
    """Return the signs of the first parts as the bits of a number."""
    folded = packed if len(packed) <= SKETCH_BITS else _folded_bytes(packed)
    return int("1" + "".join("0" if part & 0x80 else "1" for part in folded), 2)


def _folded_bytes(packed: bytes) -> bytes:
    parts = fold([float(part) for part in memoryview(packed).cast("b")], SKETCH_BITS)
    return bytes(0x80 if part < 0 else 1 for part in parts)


class VectorIndex:
    """Vectors by the places of `LexicalIndex`."""

    def __init__(self) -> None:
        self._sketches: list[int] = []
        self._packed: list[bytes] = []
        self._places: list[int] = []
        self._at: dict[int, int] = {}
        self._norms: list[float] = []
        self._baseline = 0.0
        self._baseline_of = 0

    def __len__(self) -> int:
        return len(self._sketches)

    def put(self, place: int, packed: bytes) -> None:
        """Give a listing its vector (`pack`)."""
        norm = math.sqrt(_dot(packed, packed))
        if not norm or (self._packed and len(packed) != len(self._packed[0])):
            return  # says nothing, or is another model's
        at = self._at.setdefault(place, len(self._places))
        if at == len(self._places):
            self._places.append(place)
            self._sketches.append(sketch(packed))
            self._packed.append(packed)
            self._norms.append(norm)
        else:
            self._sketches[at], self._packed[at], self._norms[at] = sketch(packed), packed, norm

    def take(self, place: int) -> None:
        """Forget a listing's vector, if it has one."""
        at = self._at.pop(place, None)
        if at is None:
            return
        last = self._places.pop()
        lists = (self._sketches.pop(), self._packed.pop(), self._norms.pop())
        if last != place:
            self._places[at] = last
            self._at[last] = at
            self._sketches[at], self._packed[at], self._norms[at] = lists

    async def search(self, vector: Sequence[float], keep: int, pace: Pace) -> list[tuple[int, float]]:
        """Return the places nearest to a vector with the cosine of their angle to it, nearest first."""
        packed = pack(vector)
        norm = math.sqrt(_dot(packed, packed))
        if not self._packed or not norm or len(packed) != len(self._packed[0]):
            return []
        question = sketch(packed)
        near = bytearray()
        differing = question.__xor__
        for start in range(0, len(self._sketches), CHUNK):
            some = self._sketches[start : start + CHUNK]
            try:
                near += bytes(map(int.bit_count, map(differing, some)))
            except ValueError:  # one of them is nearly the opposite
                near += bytes([min(255, bits) for bits in map(int.bit_count, map(differing, some))])
            await pace.breathe()
        found = []
        parts = list(memoryview(packed).cast("b"))
        for at in best_bytes(near.translate(_NEARNESS), max(keep, RESCORED)):
            if at >= len(self._packed):
                continue  # taken away in the meantime
            cosine = sum(map(mul, parts, memoryview(self._packed[at]).cast("b"))) / (norm * self._norms[at])
            found.append((self._places[at], cosine))
            await pace.breathe()
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return found[:keep]

    def baseline(self) -> float:
        """Return the usual cosine of two listings' vectors: what being alike means differs from model to model."""
        count = len(self._packed)
        if count and (self._baseline_of == 0 or count > self._baseline_of * 2):
            step = max(1, count // BASELINE_PAIRS)
            pairs = [
                _dot(self._packed[at], self._packed[other]) / (self._norms[at] * self._norms[other])
                for at in range(0, count, step)
                if (other := (at * 7 + count // 2 + 1) % count) != at
            ]
            self._baseline = sum(pairs) / len(pairs) if pairs else 0.0
            self._baseline_of = count
        return self._baseline


def _dot(one: bytes, other: bytes) -> int:
    return sum(map(mul, memoryview(one).cast("b"), memoryview(other).cast("b")))

"""The index of words: which listings hold the words of a question, and how well (BM25 with fields). No I/O.

A listing has a place, a number that only grows. What a word says about a listing is worked out when the listing comes
and kept in one byte, its impact: term frequency over all fields, by the field's weight and against its usual length,
saturated as in BM25. How rare a word is counts when it is asked for. Rare words keep a list of places; a word of more
than `DENSE_MIN` listings keeps one byte for each place instead. The common words of a question are added up for all
places at once, in C: each row of bytes is scaled by the word's weight (`bytes.translate`) and read as one whole number,
and the sum of these numbers holds a rough score for each place in a byte. It says which listings to look at closely.
So a question costs little more for common words than for rare, and finds what scoring every listing would find
(`bench/agent_search.py`, recall).
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from convene.registry.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from convene.registry.pace import Pace

DENSE_MIN: Final = 4096
DENSE_SHARE: Final = 24
"""A word is dense when more than one listing in so many has it."""
ROUGH_BEST: Final = 2048
"""So many listings that have only common words are looked at closely."""
ROUGH_MAX: Final = 255
SAMPLED: Final = 8
CHUNK: Final = 65_536
"""So many places are added up at a time."""
IMPACT_MAX: Final = 255
SATURATION: Final = 2.0
"""BM25's k1, in the unit of field weights: a word once in the name has 5 / (5 + 2) of all that it can have."""
LENGTH_SHARE: Final = 0.5
"""BM25's b."""
LIKE_MAX: Final = 10
NEAR_MAX: Final = 4
UNKNOWN_SHARE: Final = 0.35
"""How much of a rare word's weight a word that no listing has takes from all: people name cities and persons."""
TABLE_MIN: Final = 256
"""From so many listings on, a word's scores are looked up in a table of all impacts."""


_BELOW: Final = bytes(range(256))


class Field(msgspec.Struct, frozen=True):
    """The words of one field of a listing."""

    weight: float
    usual: int
    """Words it usually has."""
    words: Sequence[str]


class _Sparse(msgspec.Struct, gc=False):
    """A rare word: where it is, and its impact there."""

    packed: bytearray
    """Its places, four bytes each (bytes are smaller than an array and nothing for the collector of cycles)."""
    impacts: bytearray

    @property
    def places(self) -> array[int]:
        """Where it is."""
        return array("I", self.packed)


class _Dense(msgspec.Struct, gc=False):
    """A common word: its impact everywhere, 0 where it is not."""

    impacts: bytearray
    count: int

    def put(self, place: int, impact: int) -> None:
        """Add a listing."""
        self.grow(place + 1)
        self.impacts[place] = impact
        self.count += 1

    def grow(self, size: int) -> None:
        """Have a byte for each of so many places."""
        if len(self.impacts) < size:
            self.impacts.extend(bytes(size - len(self.impacts)))


class Matches(msgspec.Struct, frozen=True):
    """What a question finds: places with their relevance (0 to 1), best first, and how many there are in all."""

    best: list[tuple[int, float]]
    total: int


class LexicalIndex:
    """Words to listings."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._postings: list[int | _Sparse | _Dense] = []
        """By the number of a word. One that a single listing has is kept as place * 256 + impact: half of all words."""
        self._size = 0
        self._live = 0

    @property
    def live(self) -> int:
        """How many listings it has."""
        return self._live

    @property
    def places(self) -> int:
        """How many it has had."""
        return self._size

    def add(self, fields: Iterable[Field]) -> int:
        """Take a listing in and return its place."""
        place = self._size
        self._size += 1
        self._live += 1
        known, number_of = self._postings, self.vocabulary.add
        packed = place.to_bytes(4, sys.byteorder)
        for word, frequency in weigh(fields).items():
            impact = round(IMPACT_MAX * frequency / (frequency + SATURATION)) or 1
            number = number_of(word)
            if number == len(known):
                known.append(place * 256 + impact)
                continue
            postings = known[number]
            if isinstance(postings, int):
                postings = known[number] = _sparse(postings)
            if isinstance(postings, _Dense):
                postings.put(place, impact)
                continue
            postings.packed += packed
            postings.impacts.append(impact)
            count = len(postings.impacts)
            if count > DENSE_MIN and count * DENSE_SHARE > self._size:
                known[number] = _dense(postings, self._size)
        return place

    def drop(self) -> None:
        """Say that a listing is gone. Its words stay until a new index is made; whoever searches leaves it out."""
        self._live -= 1

    async def search(
        self, question: Sequence[str], keep: int, pace: Pace, only: Collection[int] | None = None
    ) -> Matches:
        """Return the listings that hold the words of a question best, at most `keep`; if given, only of these."""
        scores: dict[int, float] = {}
        dense: list[tuple[float, _Dense]] = []
        ideal = 0.0
        for word in question:
            ideal += await self._score(word, scores, dense, pace)
        if only is not None:
            scores = {place: scores.get(place, 0.0) for place in only if place in scores or dense}
        elif dense:
            scores = await self._with_dense(scores, dense, keep, pace)
        for weight, common in dense:
            common.grow(self._size)
            impacts = common.impacts
            scores = {place: score + weight * impacts[place] for place, score in scores.items()}
            await pace.breathe()
        if only is not None and dense:
            scores = {place: score for place, score in scores.items() if score}
        await pace.breathe()
        if not scores:
            return Matches([], 0)
        best = _highest(scores, keep)
        scale = 1.0 / (IMPACT_MAX * ideal)
        return Matches([(place, min(1.0, score * scale)) for place, score in best], len(scores))

    async def _score(self, word: str, scores: dict[int, float], dense: list[tuple[float, _Dense]], pace: Pace) -> float:
        """Add what one word of the question finds among rare words, put a common one aside, return its weight."""
        alike = self._alike(word)
        if not alike:
            return UNKNOWN_SHARE * self._rarity(1)
        found: dict[int, float] = {}
        common: tuple[float, _Dense] | None = None
        heaviest = 0.0
        for number, factor in alike:
            postings = self._postings[number]
            count = _count(postings)
            weight = self._rarity(count) * factor
            heaviest = max(heaviest, weight)
            if isinstance(postings, int):
                place, score = postings >> 8, weight * (postings & 0xFF)
                if score > found.get(place, 0.0):
                    found[place] = score
            elif isinstance(postings, _Sparse):
                _raise_to(found, postings, weight)
            elif factor == 1.0:
                common = (weight, postings)
            await pace.breathe()
        if common is not None:
            dense.append(common)
            found = _above(found, *common, self._size)
        if len(found) > len(scores):  # the smaller is added to the larger
            added, found = found, dict(scores)
            scores.clear()
            scores.update(added)
        get = scores.get
        for place, score in found.items():
            scores[place] = get(place, 0.0) + score
        await pace.breathe()
        return heaviest

    def weights(self, word: str) -> Iterator[tuple[float, Iterator[tuple[int, int]]]]:
        """Yield for a word and each that may stand for it what it weighs, and its impact at each of its places.

        A search takes from this what matters; the whole of it is what the bench compares a search with.
        """
        for number, factor in self._alike(word):
            postings = self._postings[number]
            weight = self._rarity(_count(postings)) * factor
            if isinstance(postings, int):
                postings = _sparse(postings)
            if isinstance(postings, _Sparse):
                yield weight, zip(postings.places, postings.impacts, strict=True)
            elif factor == 1.0:
                yield weight, ((at, one) for at, one in enumerate(postings.impacts) if one)

    def _alike(self, word: str) -> list[tuple[int, float]]:
        """Return the word itself and those that may stand for it, each with how well it does."""
        own = self.vocabulary.number(word)
        alike = self.vocabulary.like(word, LIKE_MAX)
        if own is not None:
            return [(own, 1.0), *alike]
        return alike or self.vocabulary.near(word, NEAR_MAX)

    async def _with_dense(
        self, scores: dict[int, float], dense: Sequence[tuple[float, _Dense]], keep: int, pace: Pace
    ) -> dict[int, float]:
        """Return, without what common words add to them, all scores that may be among the highest with it."""
        top = ROUGH_MAX - (len(dense) + 1) // 2  # each word is rounded, and the sum must fit a byte
        unit = IMPACT_MAX * sum(weight for weight, _ in dense) / top
        tables = [(bytes(round(weight * one / unit) for one in range(IMPACT_MAX + 1)), word) for weight, word in dense]
        rough = bytearray()
        for start in range(0, self._size, CHUNK):
            stop = min(start + CHUNK, self._size)
            total = 0
            for table, word in tables:
                total += int.from_bytes(word.impacts[start:stop].translate(table), "little")
            rough += total.to_bytes(stop - start, "little")
            await pace.breathe()
        rough.extend(bytes(self._size - len(rough)))  # listings that have come in the meantime
        likely = best_bytes(rough, max(keep, ROUGH_BEST))
        await pace.breathe()
        scores = dict.fromkeys(likely, 0.0) | scores
        if len(scores) <= keep:
            return scores
        off = unit * len(dense)  # by half a unit a word each way
        floor = unit * sorted(map(rough.__getitem__, likely))[-keep] - off if len(likely) > keep else 0.0
        pairs = ((place, score + unit * rough[place]) for place, score in scores.items())
        about = {place: score for place, score in pairs if score >= floor}
        await pace.breathe()
        floor = _highest_but(keep, list(about.values())) - off
        return {place: scores[place] for place, score in about.items() if score >= floor}

    def _rarity(self, count: int) -> float:
        """Return how much a word says that so many listings have (BM25's idf, never below 0)."""
        live = max(self._live, count)
        return math.log(1.0 + (live - count + 0.5) / (count + 0.5))


def _sparse(single: int) -> _Sparse:
    """Return the word of a single listing as one of several."""
    return _Sparse(bytearray((single >> 8).to_bytes(4, sys.byteorder)), bytearray([single & 0xFF]))


def _dense(sparse: _Sparse, size: int) -> _Dense:
    """Return a rare word as a common one."""
    impacts = bytearray(size)
    for place, impact in zip(sparse.places, sparse.impacts, strict=True):
        impacts[place] = impact
    return _Dense(impacts, len(sparse.impacts))


def _count(postings: int | _Sparse | _Dense) -> int:
    """Return how many listings have a word."""
    if isinstance(postings, int):
        return 1
    return len(postings.impacts) if isinstance(postings, _Sparse) else postings.count


def _raise_to(found: dict[int, float], postings: _Sparse, weight: float) -> None:
    """Let each listing of a word have its score by it, unless it has a higher one by another word."""
    if len(postings.impacts) >= TABLE_MIN:
        scores = map([weight * impact for impact in range(IMPACT_MAX + 1)].__getitem__, postings.impacts)
    else:
        scores = map(weight.__mul__, postings.impacts)
    if not found:
        found.update(zip(postings.places, scores, strict=True))
        return
    get = found.get
    pairs = zip(postings.places, scores, strict=True)
    found.update({place: score for place, score in pairs if score > get(place, 0.0)})


def _above(found: Mapping[int, float], weight: float, common: _Dense, size: int) -> dict[int, float]:
    """Return by how much scores are above what a common word adds later: of words that are alike the best counts."""
    common.grow(size)
    impacts = common.impacts
    return {place: more for place, score in found.items() if (more := score - weight * impacts[place]) > 0}


def _highest(scores: Mapping[int, float], keep: int) -> list[tuple[int, float]]:
    """Return the highest scores, highest first; of equal ones those of the first places."""
    floor = _highest_but(keep, list(scores.values()))
    best = [pair for pair in scores.items() if pair[1] >= floor]
    best.sort(key=lambda pair: (-pair[1], pair[0]))
    return best[:keep]


def _highest_but(count: int, values: list[float]) -> float:
    """Return the value that so many are not below; the lowest if there are fewer.

    Sorting all would be most of a search for rare words, so a sample says what need not be sorted.
    """
    if len(values) > 4 * count:
        sample = sorted(values[::SAMPLED], reverse=True)
        guess = sample[min(len(sample) - 1, 2 * count // SAMPLED + SAMPLED)]
        high = [value for value in values if value >= guess]
        if len(high) >= count:
            values = high
    return sorted(values, reverse=True)[min(count, len(values)) - 1]


def weigh(fields: Iterable[Field]) -> dict[str, float]:
    """Return for each word how often it comes, by the weight of its field and the field's length."""
    found: dict[str, float] = {}
    for field in fields:
        if not field.words:
            continue
        once = field.weight / (1.0 - LENGTH_SHARE + LENGTH_SHARE * len(field.words) / field.usual)
        for word in field.words:
            found[word] = found.get(word, 0.0) + once
    return found


def best_bytes(values: bytes | bytearray, most: int) -> array[int]:
    """Return the places of the highest values above 0, at most so many; of equal ones the first."""
    low, high, left = 1, 256, values  # at `high` and above there are at most so many
    while low < high:
        middle = (low + high) // 2
        above = left.translate(None, _BELOW[:middle])
        if len(above) <= most:
            high = middle
        else:
            low, left = middle + 1, above
    found = places_of(_marked(values, low), most)
    if low > 1 and len(found) < most:
        found.extend(places_of(values.translate(_only(low - 1)), most - len(found)))
    return found


def _marked(values: bytes | bytearray, floor: int) -> bytes | bytearray:
    """Return a one for each value that is not below `floor`, else a zero."""
    return values.translate(bytes(floor) + b"\1" * (256 - floor))


def _only(value: int) -> bytes:
    return bytes(value) + b"\1" + bytes(255 - value)


def places_of(marks: bytes | bytearray, most: int) -> array[int]:
    """Return where the first ones are in a row of zeros and ones, at most so many."""
    found = array("I")
    at = marks.find(1)
    while at >= 0 and len(found) < most:
        found.append(at)
        at = marks.find(1, at + 1)
    return found

"""The index of words: which listings hold the words of a question, and how well (BM25 with fields). No I/O.

A listing has a place, a number that only grows. What a word says about a listing is worked out when the listing comes
and kept in one byte, its impact: term frequency over all fields, by the field's weight and against its usual length,
saturated as in BM25. How rare a word is counts when it is asked for. Rare words keep a list of places; a word of more
than `DENSE_MIN` listings keeps one byte for each place instead, of which a question looks at the `CHAMPIONS` highest
and, for listings that another word has brought up, at any. So a question costs the same for common words as for rare.
What that misses is measured (`bench/agent_search.py`, recall).
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import msgspec

from convene.registry.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from convene.registry.pace import Pace

DENSE_MIN: Final = 4096
DENSE_SHARE: Final = 24
"""A word is dense when more than one listing in so many has it."""
CHAMPIONS: Final = 4096
IMPACT_MAX: Final = 255
SATURATION: Final = 2.0
"""BM25's k1, in the unit of field weights: a word once in the name has 5 / (5 + 2) of all that it can have."""
LENGTH_SHARE: Final = 0.5
"""BM25's b."""
LIKE_MAX: Final = 10
NEAR_MAX: Final = 4
UNKNOWN_SHARE: Final = 0.35
"""How much of a rare word's weight a word that no listing has takes from all: people name cities and persons."""
STALE_SHARE: Final = 16
"""Champions are looked for again when one in so many of a word's listings is new."""
PRUNE_MIN: Final = 2048


class Field(msgspec.Struct, frozen=True):
    """The words of one field of a listing."""

    weight: float
    usual: int
    """Words it usually has."""
    words: Sequence[str]


class _Sparse:
    """A rare word: where it is, and its impact there."""

    __slots__ = ("impacts", "places")

    def __init__(self) -> None:
        self.places = array("I")
        self.impacts = bytearray()


class _Dense:
    """A common word: its impact everywhere, 0 where it is not."""

    __slots__ = ("_at", "_champions", "count", "impacts")

    def __init__(self, sparse: _Sparse, size: int) -> None:
        self.impacts = bytearray(size)
        for place, impact in zip(sparse.places, sparse.impacts, strict=True):
            self.impacts[place] = impact
        self.count = len(sparse.places)
        self._at = -1
        self._champions = array("I")

    def put(self, place: int, impact: int) -> None:
        """Add a listing."""
        self.grow(place + 1)
        self.impacts[place] = impact
        self.count += 1

    def grow(self, size: int) -> None:
        """Have a byte for each of so many places."""
        if len(self.impacts) < size:
            self.impacts.extend(bytes(size - len(self.impacts)))

    def champions(self) -> array[int]:
        """Return the places where it has most impact."""
        if self._at < 0 or self.count - self._at > self.count // STALE_SHARE:
            self._champions = best_bytes(self.impacts, CHAMPIONS)
            self._at = self.count
        return self._champions


class Matches(msgspec.Struct, frozen=True):
    """What a question finds: places with their relevance (0 to 1), best first, and how many there are in all."""

    best: list[tuple[int, float]]
    total: int


class LexicalIndex:
    """Words to listings."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._postings: list[_Sparse | _Dense] = []
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
        for word, frequency in weigh(fields).items():
            impact = max(1, round(IMPACT_MAX * frequency / (frequency + SATURATION)))
            number = self.vocabulary.add(word)
            if number == len(self._postings):
                self._postings.append(_Sparse())
            postings = self._postings[number]
            if isinstance(postings, _Dense):
                postings.put(place, impact)
                continue
            postings.places.append(place)
            postings.impacts.append(impact)
            count = len(postings.places)
            if count > DENSE_MIN and count * DENSE_SHARE > self._size:
                self._postings[number] = _Dense(postings, self._size)
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
        if dense:
            scores = await self._add_dense(scores, dense, keep, pace, alone=only is None)
            if only is not None:
                scores = {place: score for place, score in scores.items() if score}
        if not scores:
            return Matches([], 0)
        best = heapq.nlargest(keep, scores.items(), key=itemgetter(1))
        scale = 1.0 / (IMPACT_MAX * ideal)
        return Matches([(place, min(1.0, score * scale)) for place, score in best], len(scores))

    async def _score(self, word: str, scores: dict[int, float], dense: list[tuple[float, _Dense]], pace: Pace) -> float:
        """Add what one word of the question finds among rare words, put a common one aside, return its weight."""
        alike = self._alike(word)
        if not alike:
            return UNKNOWN_SHARE * self._rarity(1)
        found: dict[int, float] = {}
        heaviest = 0.0
        for number, factor in alike:
            postings = self._postings[number]
            count = postings.count if isinstance(postings, _Dense) else len(postings.places)
            weight = self._rarity(count) * factor
            heaviest = max(heaviest, weight)
            if not isinstance(postings, _Dense):
                _raise_to(found, postings, weight)
            elif factor == 1.0:
                dense.append((weight, postings))
            await pace.breathe()
        if scores:
            get = scores.get
            for place, score in found.items():
                scores[place] = get(place, 0.0) + score
        else:
            scores.update(found)
        await pace.breathe()
        return heaviest

    def weights(self, word: str) -> Iterator[tuple[float, Iterator[tuple[int, int]]]]:
        """Yield for a word and each that may stand for it what it weighs, and its impact at each of its places.

        A search takes from this what matters; the whole of it is what the bench compares a search with.
        """
        for number, factor in self._alike(word):
            postings = self._postings[number]
            if isinstance(postings, _Dense):
                if factor == 1.0:
                    yield self._rarity(postings.count), ((at, one) for at, one in enumerate(postings.impacts) if one)
            else:
                weight = self._rarity(len(postings.places)) * factor
                yield weight, zip(postings.places, postings.impacts, strict=True)

    def _alike(self, word: str) -> list[tuple[int, float]]:
        """Return the word itself and those that may stand for it, each with how well it does."""
        own = self.vocabulary.number(word)
        alike = self.vocabulary.like(word, LIKE_MAX)
        if own is not None:
            return [(own, 1.0), *alike]
        return alike or self.vocabulary.near(word, NEAR_MAX)

    async def _add_dense(
        self, scores: dict[int, float], dense: list[tuple[float, _Dense]], keep: int, pace: Pace, *, alone: bool
    ) -> dict[int, float]:
        """Return the scores with what common words add to them and, with `alone`, the listings that these bring up."""
        room = sum(IMPACT_MAX * weight for weight, _ in dense)
        if len(scores) > max(keep, PRUNE_MIN):
            reached = heapq.nlargest(keep, scores.values())[-1] - room
            if reached > 0:
                scores = {place: score for place, score in scores.items() if score >= reached}
        for _, postings in dense if alone else ():
            for place in postings.champions():
                scores.setdefault(place, 0.0)
            await pace.breathe()
        for weight, postings in dense:
            postings.grow(self._size)
            impacts = postings.impacts
            scores = {place: score + weight * impacts[place] for place, score in scores.items()}
            await pace.breathe()
        return scores

    def _rarity(self, count: int) -> float:
        """Return how much a word says that so many listings have (BM25's idf, never below 0)."""
        live = max(self._live, count)
        return math.log(1.0 + (live - count + 0.5) / (count + 0.5))


def _raise_to(found: dict[int, float], postings: _Sparse, weight: float) -> None:
    """Let each listing of a word have its score by it, unless it has a higher one by another word."""
    if not found:
        found.update(zip(postings.places, map(weight.__mul__, postings.impacts), strict=True))
        return
    for place, impact in zip(postings.places, postings.impacts, strict=True):
        if impact * weight > found.get(place, 0.0):
            found[place] = impact * weight


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
    low, high = 1, 256  # at `high` and above there are at most so many
    while low < high:
        middle = (low + high) // 2
        if _marked(values, middle).count(1) <= most:
            high = middle
        else:
            low = middle + 1
    found = places_of(_marked(values, low))
    if low > 1 and len(found) < most:
        found.extend(places_of(values.translate(_only(low - 1)))[: most - len(found)])
    return found


def _marked(values: bytes | bytearray, floor: int) -> bytes | bytearray:
    """Return a one for each value that is not below `floor`, else a zero."""
    return values.translate(bytes(floor) + b"\1" * (256 - floor))


def _only(value: int) -> bytes:
    return bytes(value) + b"\1" + bytes(255 - value)


def places_of(marks: bytes | bytearray) -> array[int]:
    """Return where the ones are in a row of zeros and ones."""
    found = array("I")
    at = marks.find(1)
    while at >= 0:
        found.append(at)
        at = marks.find(1, at + 1)
    return found

"""The words of an index by their numbers, and which of them look like a word that was asked for. Pure.

Alike are words with the same beginning (`translate`, `translation`) and words that are one slip of the keyboard away.
Both are looked for among those that share three letters at one end, since one slip leaves one end whole.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

END_CHARS: Final = 3
LIKE_CHARS_MIN: Final = 5
"""Shorter words share a beginning by chance."""
SAME_CHARS_MIN: Final = 4
ENDING_CHARS: Final = 3
"""How much of the end of a word may differ: `-ion`, `-ing`, `-ers`."""
LONGER_CHARS: Final = 4
SLIP_CHARS_MIN: Final = 5
BEGUN_CHARS_MIN: Final = 3
LIKE_FACTOR: Final = 0.85
SLIP_FACTOR: Final = 0.6


class Vocabulary:
    """Words to numbers, from 0 on. Grows only."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._heads: dict[str, list[str]] = {}
        """Sorted, so that those with a longer beginning stand together."""
        self._tails: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, word: str) -> int | None:
        """Return a word's number, if it is known."""
        return self._numbers.get(word)

    def add(self, word: str) -> int:
        """Return a word's number, making it known."""
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self._numbers)
            if len(word) >= SAME_CHARS_MIN and word.isalpha():
                insort(self._heads.setdefault(word[:END_CHARS], []), word)
                self._tails.setdefault(word[-END_CHARS:], []).append(word)
        return number

    def like(self, word: str, most: int) -> list[tuple[int, float]]:
        """Return other words with the same beginning, at most so many, each with how well it does (0 to 1), best first.

        A word that is the beginning of another, as while somebody types, has it for its like whatever its length.
        """
        size = len(word)
        if size < BEGUN_CHARS_MIN or not word.isalpha():
            return []
        same = max(SAME_CHARS_MIN, size - ENDING_CHARS)
        begin = word[:same]
        found = []
        alike = self._heads.get(word[:END_CHARS], [])
        for at in range(bisect_left(alike, begin), len(alike)):
            other = alike[at]
            if not other.startswith(begin):
                break
            if other == word:
                continue
            if other.startswith(word):
                found.append((self._numbers[other], LIKE_FACTOR * max(0.5, size / len(other))))
            elif size >= LIKE_CHARS_MIN and len(other) <= size + LONGER_CHARS:
                shared = _shared(word, other)
                if len(other) - shared <= ENDING_CHARS + 1:
                    found.append((self._numbers[other], LIKE_FACTOR * shared / max(size, len(other))))
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return found[:most]

    def near(self, word: str, most: int) -> list[tuple[int, float]]:
        """Return words that are one slip away (a letter more, less, other, or two swapped), at most so many."""
        if len(word) < SLIP_CHARS_MIN or not word.isalpha():
            return []
        size = len(word)
        there = {*self._heads.get(word[:END_CHARS], ()), *self._tails.get(word[-END_CHARS:], ())}
        found = [self._numbers[one] for one in there if abs(len(one) - size) <= 1 and one_slip(word, one)]
        return [(number, SLIP_FACTOR) for number in sorted(found)[:most]]


def one_slip(one: str, other: str) -> bool:
    """Whether exactly one letter is more, less or other, or two neighbours are swapped."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    at = _shared(one, other)
    rest, others = one[at:], other[at:]
    if len(one) == len(other):
        return rest[1:] == others[1:] or (rest[:2] == others[1::-1] and rest[2:] == others[2:])
    return rest[1:] == others if len(one) > len(other) else rest == others[1:]


def _shared(one: str, other: str) -> int:
    """Return how many letters two words have in common at their beginning."""
    for at, (letter, another) in enumerate(zip(one, other, strict=False)):
        if letter != another:
            return at
    return min(len(one), len(other))

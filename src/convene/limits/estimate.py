"""What a request will use, guessed from what the same key has used on the same model before.

Reserving the largest possible answer starves callers who never write that much (reliability 1.1: 31 parallel requests
where 1,333 would have fitted), so limits on tokens reserve a learned figure, and settlement corrects it either way. For
money a guess is not enough: that bound is `usage.Price.at_most`'s.

    completion   mean + 2 x deviation of past answers, both moving averages (as TCP guesses its round trips)
    prompt       bytes x the learned tokens per byte, a tenth more; without experience a token per three bytes

Pure; bounded in memory by forgetting who has been silent longest.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from convene.usage import Usage

BYTES_PER_TOKEN: Final = 3
REMEMBERED_MAX: Final = 10_000
"""Most (key, model) pairs remembered, about 300 bytes each."""
LEAST: Final = 16
"""The least tokens guessed for an answer: who said nothing twice may still speak."""
_MEAN_SHARE: Final = 1 / 8
_DEVIATION_SHARE: Final = 1 / 4
_DEVIATIONS: Final = 2
_PROMPT_MARGIN: Final = 1.1
_DENSEST: Final = 1.0
"""Tokens per byte: a byte-level tokenizer at its worst."""
_SPARSEST: Final = 1 / 16


class _Experience:
    """What is known of one key on one model. No `Struct`: setting a field of one takes seven times as long."""

    __slots__ = ("density", "deviation", "mean")

    def __init__(self, mean: float, deviation: float, density: float) -> None:
        """`density`: tokens per byte of a prompt."""
        self.mean = mean
        self.deviation = deviation
        self.density = density


class Estimates:
    """The guesses of one process. Belongs to one event loop."""

    def __init__(self, start: int = 1024) -> None:
        """`start`: tokens guessed for an answer while nothing is known of its key and model."""
        self._start = start
        self._known: dict[tuple[str, str], _Experience] = {}
        self._youngest: _Experience | None = None
        """The last one in `_known`."""

    def both(self, key_id: str, model: str, size: int, ceiling: int | None) -> tuple[int, int]:
        """Return the tokens to reserve for a prompt of `size` UTF-8 bytes and for one answer to it.

        The answer's are at most `ceiling`, the request's limit or the model's.
        """
        known = self._known.get((key_id, model))
        if known is None:
            prompt, guess = -(-size // BYTES_PER_TOKEN), self._start
        else:
            # `floor` for `int`, comparisons for `min` and `max`: a third and a tenth of their time in CPython 3.11
            prompt = floor(size * known.density * _PROMPT_MARGIN) + 1
            guess = floor(known.mean + _DEVIATIONS * known.deviation) + 1
            guess = guess if guess > LEAST else LEAST  # noqa: FURB136
        return prompt, guess if ceiling is None or guess < ceiling else ceiling

    def prompt(self, key_id: str, model: str, size: int) -> int:
        """Return the tokens to reserve for a prompt of `size` UTF-8 bytes."""
        return self.both(key_id, model, size, None)[0]

    def completion(self, key_id: str, model: str, ceiling: int | None) -> int:
        """Return the tokens to reserve for one answer, at most `ceiling`."""
        return self.both(key_id, model, 0, ceiling)[1]

    def learn(self, key_id: str, model: str, size: int, used: Usage, choices: int) -> None:
        """Take in what a request with a prompt of `size` bytes and so many choices has used, as reported."""
        written = used.completion_tokens / choices
        place = (key_id, model)
        known = self._known.get(place)
        is_youngest = known is not None and known is self._youngest
        if known is None:
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            known = _Experience(written, written / 2, 1 / BYTES_PER_TOKEN)
        else:
            known.deviation += (abs(written - known.mean) - known.deviation) * _DEVIATION_SHARE
            known.mean += (written - known.mean) * _MEAN_SHARE
        if size:
            density = used.prompt_tokens / size
            if density > _DENSEST:
                density = _DENSEST
            elif density < _SPARSEST:
                density = _SPARSEST
            known.density += (density - known.density) * _MEAN_SHARE
        if not is_youngest:  # the youngest is last, so the first is who has been silent longest
            self._known.pop(place, None)
            self._known[place] = self._youngest = known

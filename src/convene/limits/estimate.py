"""What a request will use, guessed from what the same key has used on the same model before.

Reserving the largest possible answer starves callers who never write that much (reliability 1.1: 31 parallel requests
where 1,333 would have fitted), so limits on tokens reserve a learned figure, and settlement corrects it either way. For
money a guess is not enough: that bound is `usage.Price.at_most`'s.

    completion   mean + 2 x deviation of past answers, both moving averages (as TCP guesses its round trips)
    prompt       bytes x the learned tokens per byte, a tenth more; without experience a token per three bytes

Pure; bounded in memory by forgetting who has been silent longest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

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


class _Experience(msgspec.Struct, gc=False):
    """What is known of one key on one model."""

    mean: float
    deviation: float
    density: float
    """Tokens per byte of a prompt."""


class Estimates:
    """The guesses of one process. Belongs to one event loop."""

    def __init__(self, start: int = 1024) -> None:
        """`start`: tokens guessed for an answer while nothing is known of its key and model."""
        self._start = start
        self._known: dict[tuple[str, str], _Experience] = {}

    def both(self, key_id: str, model: str, size: int, ceiling: int | None) -> tuple[int, int]:
        """Return the tokens to reserve for a prompt of `size` UTF-8 bytes and for one answer to it.

        The answer's are at most `ceiling`, the request's limit or the model's.
        """
        known = self._known.get((key_id, model))
        if known is None:
            prompt, guess = -(-size // BYTES_PER_TOKEN), self._start
        else:
            prompt = int(size * known.density * _PROMPT_MARGIN) + 1
            guess = int(known.mean + _DEVIATIONS * known.deviation) + 1
            guess = max(guess, LEAST)
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
        known = self._known.pop(place, None)
        if known is None:
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            known = _Experience(written, written / 2, 1 / BYTES_PER_TOKEN)
        else:
            known.deviation += (abs(written - known.mean) - known.deviation) * _DEVIATION_SHARE
            known.mean += (written - known.mean) * _MEAN_SHARE
        if size:
            density = used.prompt_tokens / size
            density = _DENSEST if density > _DENSEST else max(_SPARSEST, density)
            known.density += (density - known.density) * _MEAN_SHARE
        self._known[place] = known  # the youngest is last, so the first is who has been silent longest

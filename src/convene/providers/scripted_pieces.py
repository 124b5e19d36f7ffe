"""How the steps of a script become pieces: words, stop strings, the token limit, and the count. Pure.

A token is a word with the space before it. The words of calls and of reasoning are tokens too, as with real models
(CHAT-07). Not here: pauses in time and several choices (`scripted.py`, which calls this).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from convene.events import CallDelta, FinishReason, ReasoningDelta, TextDelta, TokenLogprob
from convene.providers.scripted_scripts import Call, Fail, Pause, Say, Spend, Step, Think, quote_message
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convene.providers.base import Generation, Sampling

TOKEN = re.compile(r"\s*\S+|\s+\Z")

Piece = TextDelta | ReasoningDelta | CallDelta


def split_tokens(text: str) -> list[str]:
    """Return the tokens of `text`: each word with the space before it. Joined they are `text` again."""
    return TOKEN.findall(text)


class Part:
    """One choice being played; `reason`, and the count, are right once `moves` has ended."""

    def __init__(self, sampling: Sampling, steps: tuple[Step, ...]) -> None:
        self.sampling = sampling
        self.steps = steps
        self.reason: FinishReason = "stop"
        self.tokens = 0
        self.reasoning_tokens = 0
        text = "".join(step.text for step in steps if isinstance(step, Say))
        ends = [at for at in (text.find(stop) for stop in sampling.stop if stop) if at >= 0]
        self.text_left = min(ends, default=math.inf)
        """Characters of text until the first stop string, which may span two steps (OAI-18)."""

    def moves(self) -> Iterator[Piece | Pause | Fail]:
        """Yield what to do until the script's end, a stop string or the token limit; pieces are for choice 0."""
        calls = 0
        for step in self.steps:
            if isinstance(step, Pause | Fail):
                yield step
            elif isinstance(step, Call):
                yield from self._count(_split_call(step, calls))
                calls += 1
            elif not isinstance(step, Spend):
                yield from self._count(self._split_words(step))
            if self.reason == "length" or self.text_left <= 0:
                return
        if calls:
            self.reason = "tool_calls"

    def count_usage(self, generation: Generation) -> Usage:
        """Return what the script says was used, else the words of the messages and of all choices."""
        for step in self.steps:
            if isinstance(step, Spend):
                return step.usage
        prompt = 0
        for message in generation.messages:
            prompt += len(split_tokens(quote_message(message)))
            prompt += sum(1 + len(split_tokens(call.arguments)) for call in message.tool_calls)
        return Usage(prompt, self.tokens * generation.n, self.reasoning_tokens * generation.n)

    def _count(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if self.sampling.max_tokens is not None and self.tokens >= self.sampling.max_tokens:
                self.reason = "length"
                return
            self.tokens += 1
            self.reasoning_tokens += isinstance(piece, ReasoningDelta)
            yield piece

    def _split_words(self, step: Say | Think) -> Iterator[TextDelta | ReasoningDelta]:
        for token in split_tokens(step.text):
            if isinstance(step, Think):
                yield ReasoningDelta(token)
                continue
            kept = token if self.text_left >= len(token) else token[: int(self.text_left)]
            self.text_left -= len(kept)
            if kept:
                yield TextDelta(kept, logprobs=_rate_token(kept, self.sampling))
            if self.text_left <= 0:
                return


def _split_call(call: Call, index: int) -> Iterator[CallDelta]:
    yield CallDelta(index, "", "", call.name)
    for piece in split_tokens(call.arguments):
        yield CallDelta(index, piece)


def _rate_token(token: str, sampling: Sampling) -> tuple[TokenLogprob, ...]:
    """Return the certainty of a script: probability 1, no rivals (OAI-21)."""
    if not sampling.logprobs:
        return ()
    sure = TokenLogprob(token, 0.0, list(token.encode("utf-8", "replace")))
    return (replace(sure, top_logprobs=(sure,)) if sampling.top_logprobs else sure,)

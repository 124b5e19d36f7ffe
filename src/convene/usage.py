"""Token counts, prices and what a request costs: pure integer arithmetic."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one generation, or the sum over several.

    `completion_tokens` includes `reasoning_tokens` (CHAT-07); `prompt_tokens` includes `cached_tokens`.
    `estimated` says that at least one figure was not reported by whoever generated.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Prompt plus completion."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
        )


BYTES_PER_TOKEN = 3
"""The stated estimate where no tokenizer is known: one token per three UTF-8 bytes, rounded up (reliability 1.1)."""
MILLION = 1_000_000


def estimate_tokens(text: str) -> int:
    """Return the stated estimate of the tokens in `text`."""
    return -(-count_bytes(text) // BYTES_PER_TOKEN)


def count_bytes(text: str) -> int:
    """Return the length of `text` in UTF-8; plain ASCII, the common case, is not copied for it."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs, in micro-units of the currency (reliability 2.1: integers, a version in every row).

    `input`, `cached` and `output` are for a million tokens, `request` and `image` for one.
    """

    input: int = 0
    cached: int = 0
    output: int = 0
    request: int = 0
    image: int = 0
    version: str = ""

    @property
    def free(self) -> bool:
        """Whether nothing of it costs anything."""
        return not (self.input or self.cached or self.output or self.request or self.image)

    def cost(self, usage: Usage, *, images: int = 0) -> int:
        """Return what one request costs in micro-units, rounded up once."""
        fresh = usage.prompt_tokens - usage.cached_tokens
        tokens = fresh * self.input + usage.cached_tokens * self.cached + usage.completion_tokens * self.output
        return self.request + images * self.image - (-tokens // MILLION)

    def at_most(self, prompt_tokens: int, completion_tokens: int, *, images: int = 0) -> int:
        """Return an upper bound of what a request of at most so many tokens costs (a cache may charge more)."""
        tokens = prompt_tokens * max(self.input, self.cached) + completion_tokens * self.output
        return self.request + images * self.image - (-tokens // MILLION)


FREE = Price()

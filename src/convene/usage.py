"""Token counts: pure arithmetic. Prices and cost join here with the ledger."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True):
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


def estimate_tokens(text: str) -> int:
    """Return the stated estimate of the tokens in `text`."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)

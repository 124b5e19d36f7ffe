"""The seam of kept answers: what `Idempotency-Key` needs (OSDK-06, reliability 2.1 and goal B5).

The first request with a key claims it; whoever comes later with the same key and body gets the same bytes. A claim
belongs to a writer (one open store) and dies with it, so that a repeat after a kill runs anew and never waits for ever.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

__all__ = ["Answers", "Claim", "SavedAnswer"]


class SavedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it left: its status, its headers that belong to it, its bytes (of a stream: all frames)."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What came of claiming a key: `mine` to answer, `running` elsewhere, `done` with its answer, `other` body."""

    state: Literal["mine", "running", "done", "other"]
    answer: SavedAnswer | None = None


class Answers(Protocol):
    """Kept answers, by owner and idempotency key. Every call raises `StoreFault` if the store cannot be used."""

    async def claim(self, owner: str, key: str, fingerprint: bytes, expires_at: float, now: float) -> Claim:
        """Claim a key for a request with this fingerprint (a SHA-256). An expired or orphaned claim counts as none."""
        ...

    async def save(self, owner: str, key: str, answer: SavedAnswer) -> None:
        """Keep the answer of a claim of ours; awaited, it is on the disk."""
        ...

    async def release(self, owner: str, key: str) -> None:
        """Give up a claim of ours that has no answer to keep (the request failed in passing)."""
        ...

    async def sweep(self, now: float) -> int:
        """Forget what has expired (Unix seconds) and return how many."""
        ...

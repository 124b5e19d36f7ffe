"""Kept answers in a dictionary: gone at exit, and so is every claim, so that none is ever an orphan."""

from __future__ import annotations

import msgspec

from convene.store.base_answers import Claim, SavedAnswer
from convene.store.memory_part import MemoryPart


class _Kept(msgspec.Struct):
    fingerprint: bytes
    expires_at: float
    answer: SavedAnswer | None = None


class MemoryAnswers(MemoryPart):
    """Kept answers of this process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def claim(self, owner: str, key: str, fingerprint: bytes, expires_at: float, now: float) -> Claim:
        """Claim a key (`base_answers.Answers`). Raises `StoreFault`."""
        self._check_open()
        kept = self._kept.get((owner, key))
        if kept is None or kept.expires_at <= now:
            self._kept[owner, key] = _Kept(fingerprint, expires_at)
            return Claim(state="mine")
        if kept.fingerprint != fingerprint:
            return Claim(state="other")
        return Claim(state="running" if kept.answer is None else "done", answer=kept.answer)

    async def save(self, owner: str, key: str, answer: SavedAnswer) -> None:
        """Keep the answer of a claim that is open. Raises `StoreFault`."""
        self._check_open()
        kept = self._kept.get((owner, key))
        if kept is not None and kept.answer is None:
            kept.answer = answer

    async def release(self, owner: str, key: str) -> None:
        """Give up a claim that has no answer. Raises `StoreFault`."""
        self._check_open()
        kept = self._kept.get((owner, key))
        if kept is not None and kept.answer is None:
            del self._kept[owner, key]

    async def sweep(self, now: float) -> int:
        """Forget what has expired and return how many. Raises `StoreFault`."""
        self._check_open()
        gone = [name for name, kept in self._kept.items() if kept.expires_at <= now]
        for name in gone:
            del self._kept[name]
        return len(gone)

    def close(self) -> None:
        """Forget everything."""
        super().close()
        self._kept.clear()

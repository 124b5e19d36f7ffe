"""Kept vectors in a dictionary: gone at exit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.store.memory_part import MemoryPart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class MemoryVectors(MemoryPart):
    """The vectors of this process."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, int]] = {}

    async def get(self, keys: Sequence[str], now_us: int) -> dict[str, bytes]:
        """Return vectors (`base_vectors.Vectors`)."""
        self._check_open()
        found = {key: self._kept[key][0] for key in keys if key in self._kept}
        self._kept.update((key, (vector, max(now_us, self._kept[key][1]))) for key, vector in found.items())
        return found

    async def keep(self, vectors: Mapping[str, bytes], now_us: int) -> None:
        """Keep vectors (`base_vectors.Vectors`)."""
        self._check_open()
        self._kept.update((key, (vector, now_us)) for key, vector in vectors.items())

    async def forget(self, unused_since_us: int) -> int:
        """Delete unused vectors (`base_vectors.Vectors`)."""
        self._check_open()
        before = len(self._kept)
        self._kept = {key: kept for key, kept in self._kept.items() if kept[1] >= unused_since_us}
        return before - len(self._kept)

    def close(self) -> None:
        """Forget everything."""
        super().close()
        self._kept.clear()

"""The seam of kept vectors: what listings mean, so that a restart embeds nothing again.

A vector belongs to a model and a text, known by a digest of both, and is whatever bytes `registry/vectors.py` packs.
Every implementation passes `tests/contract/test_vectors.py` unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USED_STEP_US: Final = 86_400_000_000
"""That a vector is still used is written once a day at most."""


class Vectors(Protocol):
    """Kept vectors. Every call raises `StoreFault` if the store cannot be used."""

    async def get(self, keys: Sequence[str], now_us: int) -> dict[str, bytes]:
        """Return those of these that are kept, and note that they are used."""
        ...

    async def keep(self, vectors: Mapping[str, bytes], now_us: int) -> None:
        """Keep vectors, in the place of those of the same keys."""
        ...

    async def forget(self, unused_since_us: int) -> int:
        """Delete what nobody has used since, and return how many."""
        ...

"""The face of kept answers: what `api/` knows of who runs, who waits and what is given again (`replays.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from convene.store.base_answers import SavedAnswer


class Flight(Protocol):
    """A request that is being answered under a key. Its owner ends it once, by `keep` or `release`."""

    async def keep(self, answer: SavedAnswer) -> None:
        """Keep the answer for repeats; awaited, it is on the disk, or the log says why not. Later ends do nothing."""
        ...

    async def release(self) -> None:
        """Give the key free: the next repeat runs."""
        ...


class Replays(Protocol):
    """Answers that are given again."""

    async def begin(self, owner: str, key: str, fingerprint: bytes) -> SavedAnswer | Flight:
        """Return the answer there is, waiting for one under way, else a flight for the caller to end.

        Raises:
            BadRequest: the key belongs to a request with another fingerprint.
            StoreFault: the store cannot be used, so nobody knows.
        """
        ...


class Kept(msgspec.Struct):
    """Where the replays are once the store is open; routes are made before."""

    replays: Replays | None = None

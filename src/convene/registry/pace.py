"""Long work in short pieces, so that the loop it runs on is never held for long. The index and its searches use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD_S: Final = 0.002
"""How long the loop is held at a time; a streamed answer on the same loop is late by no more."""


class Pace:
    """Lets others run whenever the work has held the loop long enough."""

    __slots__ = ("_hold_s", "_monotonic", "_since")

    def __init__(self, monotonic: Callable[[], float], hold_s: float = HOLD_S) -> None:
        self._monotonic = monotonic
        self._hold_s = hold_s
        self._since = monotonic()

    async def breathe(self) -> None:
        """Let others run if it is time."""
        if self._monotonic() - self._since >= self._hold_s:
            await asyncio.sleep(0)
            self._since = self._monotonic()

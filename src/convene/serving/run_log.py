"""What has been shown of a run that is under way, for readers who come back: its events, the durable ones numbered.

    journal ──► add(seq, event) ──► entries ──► read(after): what is behind `after`, then whatever comes

Readers share the entries and hold a place in them each, so a slow one costs nothing but its own wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.events import ReasoningDelta, TextDelta

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from convene.serving.base_runs import Piece


class RunLog:
    """The log of one run. Belongs to one event loop."""

    __slots__ = ("_news", "entries", "over", "readers")

    def __init__(self) -> None:
        self.entries: list[Piece] = []
        self.over = False
        self.readers = 0
        self._news: asyncio.Future[None] | None = None

    def add(self, piece: Piece) -> None:
        """Take in an event; its number is 0 if it is not durable, else larger than all before."""
        self.entries.append(piece)
        self._tell()

    def end(self) -> None:
        """Nothing follows."""
        self.over = True
        self._tell()

    def place(self, after: int) -> int:
        """Return where a reader goes on who has everything up to the durable event `after`."""
        for index in range(len(self.entries) - 1, -1, -1):
            seq = self.entries[index][0]
            if 0 < seq <= after:
                return index + 1
        return 0

    async def read(self, after: int) -> AsyncGenerator[list[Piece]]:
        """Yield what is behind `after`, then what comes, until the end; text that waited comes as one delta."""
        place = self.place(after)
        self.readers += 1
        try:
            while True:
                if place < len(self.entries):
                    found = joined([piece for piece in self.entries[place:] if not 0 < piece[0] <= after])
                    place = len(self.entries)
                    if found:
                        yield found
                elif self.over:
                    return
                else:
                    await self._wait()
        finally:
            self.readers -= 1

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)  # shared: a reader that leaves must not take it from the others


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with neighbouring deltas of one kind and choice made into one."""
    found: list[Piece] = []
    for piece in pieces:
        event = piece[1]
        last = found[-1][1] if found else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and last.choice == event.choice:
            found[-1] = (0, TextDelta(last.text + event.text, event.choice, last.logprobs + event.logprobs))
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta) and last.choice == event.choice:
            found[-1] = (0, ReasoningDelta(last.text + event.text, event.choice))
        else:
            found.append(piece)
    return found

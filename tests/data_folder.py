"""A data folder of a test, which is filled through the store and then worked on by verbs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.clock import SystemClock
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class DataFolder:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, work: Callable[[SqliteStore], Awaitable[None]]) -> None:
        """Do something with the store."""

        async def run() -> None:
            store = await SqliteStore.open(self.folder / "convene.db", SystemClock())
            try:
                await work(store)
            finally:
                await store.aclose()

        asyncio.run(run())

"""The store as verbs use it: opened for one piece of work, beside a running server or without one, and closed again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from convene.app_books import open_store
from convene.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.config import Config
    from convene.store.base import Store

T = TypeVar("T")


def with_store(config: Config, work: Callable[[Store], Awaitable[T]]) -> T:
    """Return `work(store)` over the store of a configuration. Raises `StoreFault` if it cannot be opened."""

    async def run() -> T:
        store = await open_store(config, SystemClock())
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())

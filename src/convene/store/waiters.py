"""Who waits for a write: futures that are told once how it went. A caller may be gone when they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Waiter = asyncio.Future[None]


def release(waiters: Iterable[Waiter], reason: Exception | None = None) -> None:
    """Let these go on, or fail them; who is gone was cancelled, and has lost nothing."""
    for waiter in waiters:
        if not waiter.done():
            if reason is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(reason)
                waiter.exception()  # whether anybody asks or not: the caller may be gone

"""Work of one run that goes on at the same time: all of it ends together, whatever ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


async def beside(*work: Coroutine[object, object, T]) -> list[T]:
    """Do all of it at the same time and return the results in its order.

    Raises what the first to fail raises. Then, and when the caller is cancelled, the others are cancelled and waited
    for, so that what they have used is entered before the run ends; `asyncio.gather` would leave them to themselves.
    """
    if not work:
        return []
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(one, name="beside") for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return [task.result() for task in sorted(done, key=tasks.index)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

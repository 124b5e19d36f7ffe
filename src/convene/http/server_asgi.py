"""The ASGI 3 types this room speaks, and the lifespan half of the protocol.

Here: type names, `Lifespan` (start-up and shut-down messages), the error for a client that left. Not here: requests
(`server_exchange.py`). `Any` in these types is ASGI's own: messages are open dictionaries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


class ClientGone(OSError):
    """Raised by `send` once the client has left (ASGI HTTP 2.4: an `OSError`)."""


class StartupFailed(Exception):
    """The application said, or showed by an exception, that it cannot start."""


class Lifespan:
    """Runs an application's lifespan scope. An application that does not know the scope is served without it."""

    def __init__(self, app: ASGIApp, state: Scope) -> None:
        """`state` is the dictionary that the application fills; every request scope gets a shallow copy."""
        self._app = app
        self._state = state
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._asked = False

    async def start(self) -> None:
        """Send `lifespan.startup` and wait. Raises `StartupFailed`."""
        scope: Scope = {"type": "lifespan", "asgi": ASGI, "state": self._state}
        self._task = asyncio.ensure_future(_as_coroutine(self._app(scope, self._receive, self._answers.put)))
        self._inbox.put_nowait({"type": "lifespan.startup"})
        answer = await self._answer()
        if answer is None:
            task, self._task = self._task, None
            fault = task.exception()
            if self._asked and fault is not None:
                raise StartupFailed("the application failed while starting") from fault
        elif answer["type"] == "lifespan.startup.failed":
            await self._end()
            raise StartupFailed(str(answer.get("message", "")) or "the application refused to start")

    async def stop(self) -> None:
        """Send `lifespan.shutdown` and wait. Raises what the application raised, `StartupFailed` if it reports one."""
        if self._task is None:
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        answer = await self._answer()
        await self._end()
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            raise StartupFailed(str(answer.get("message", "")) or "the application failed to shut down")

    async def _receive(self) -> Message:
        self._asked = True
        return await self._inbox.get()

    async def _answer(self) -> Message | None:
        """Wait for the application's next message; None when it returned or raised without one."""
        if self._task is None:
            return None
        reading = asyncio.ensure_future(self._answers.get())
        try:
            await asyncio.wait({reading, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
        if reading.done() and not reading.cancelled():
            return reading.result()
        # The application may have answered in the very step in which it ended.
        return None if self._answers.empty() else self._answers.get_nowait()

    async def _end(self) -> None:
        """Wait for the lifespan task to return and pass on what it raised."""
        task, self._task = self._task, None
        if task is not None:
            await task


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable

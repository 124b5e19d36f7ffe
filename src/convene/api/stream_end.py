"""How a stream ends that something goes wrong with: as a refusal if its head has not left, else in a frame.

A stream that has begun never ends in silence (SSE-16). `chat.py` and `image_replies.py` write theirs inside of this.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from convene.api.call import ClientLeftError
from convene.api.problems import internal
from convene.errors import Busy, ConveneError

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger
    from types import TracebackType

    from convene.api.call import Call
    from convene.api.stream import Stream

SHUT_DOWN: Final = Busy("The server is shutting down and could not finish this answer; ask again.")


class Ending:
    """A context that leaves a stream at its end, and turns what went wrong in it into the frames that end it."""

    __slots__ = ("_call", "_failure", "_log", "_stream")

    def __init__(self, stream: Stream, call: Call, failure: Callable[[ConveneError], list[bytes]], log: Logger) -> None:
        """`failure` gives the frames of a fault."""
        self._stream = stream
        self._call = call
        self._failure = failure
        self._log = log

    async def __aenter__(self) -> None:
        """Do nothing: the stream is open already."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Leave the stream; return whether what went wrong has been told."""
        try:
            return error is not None and await self._tell(error)
        finally:
            self._stream.leave()

    async def _tell(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError):
            with contextlib.suppress(ClientLeftError):
                await self._fail(SHUT_DOWN)  # reaches nobody when it was the client that left
            return False
        if isinstance(error, ClientLeftError) or not isinstance(error, Exception) or not self._stream.started:
            return False
        request_id = self._call.request_id
        if isinstance(error, ConveneError):
            self._log.warning("stream %s ended in a fault: %s %s", request_id, error.message, error.detail)
            await self._fail(error)
        else:
            self._log.error("stream %s failed", request_id, exc_info=error)
            await self._fail(internal(request_id))
        return True

    async def _fail(self, fault: ConveneError) -> None:
        if self._stream.started:
            await self._stream.fail(self._failure(fault))

"""One response while its body arrives: the buffer between a connection that pushes and a reader that pulls.

Here: `BodyResponse`, the client's `base.Response`. Not here: parsing and sockets. Made by `client`, filled by
`client_connection`, read by providers.

No task and no event belongs to it: a reader that must wait makes one future, and the connection resolves it. Waking
never raises into the future, so an error nobody waits for leaves no warning behind. Nothing is awaited on the way out
of a cancellation, which is why a second cancel has nothing to interrupt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol

from convene.http.base import Disconnected, Oversized

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Mapping

    from convene.http.base import HttpError


class Source(Protocol):
    """The connection, as its response sees it."""

    def taken(self) -> None:
        """The buffered pieces were taken: read on if reading was paused."""
        ...

    def drop(self) -> None:
        """Nobody wants the rest: close the connection at once."""
        ...


class BodyResponse:
    """A response that is its own iterator, so that breaking out of a loop leaves no generator to finalise."""

    __slots__ = ("_complete", "_error", "_loop", "_pieces", "_source", "_waiter", "headers", "length", "status")

    def __init__(self, loop: asyncio.AbstractEventLoop, source: Source) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.length: int | None = None
        self._loop = loop
        self._source: Source | None = source
        self._pieces: list[bytes] = []
        self._complete = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # For readers.

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the decoded body as it arrives; what arrived together comes together. Raises `HttpError`."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._complete:
                raise StopAsyncIteration
            await self.wait()
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._source is not None:
            self._source.taken()
        return data

    def peek(self) -> bytes | None:
        """Return the body if it is whole and came in one piece, and leave it to be read (`base.Response`)."""
        pieces = self._pieces
        return pieces[0] if self._complete and len(pieces) == 1 else None

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole decoded body. Raises `Oversized` above `max_bytes`, else any `HttpError`."""
        if self.length is not None and self.length > max_bytes and not self._complete:
            self._refuse(max_bytes)
        parts: list[bytes] = []
        size = 0
        while True:
            pieces = self._pieces
            if pieces:
                for piece in pieces:
                    size += len(piece)
                if size > max_bytes:
                    self._refuse(max_bytes)
                if self._complete and not parts:  # the common case: all of it has come
                    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    pieces.clear()
                    return data
                parts += pieces
                pieces.clear()
                if self._source is not None:
                    self._source.taken()
            if self._complete:
                return b"".join(parts)
            await self.wait()

    def _refuse(self, max_bytes: int) -> NoReturn:
        self.close()
        raise Oversized(f"the answer is larger than {max_bytes} bytes")

    def close(self) -> None:
        """Drop the connection unless the body is complete (then it went back on its own). Idempotent, never blocks."""
        if (source := self._source) is not None:
            self._source = None
            source.drop()
            if self._error is None:
                # Whoever still reads (or reads on later) must not wait for ever.
                self._error = Disconnected(received=True)
            self.more()

    def change(self) -> asyncio.Future[None]:
        """Return what is done once something has changed. Raises the `HttpError` that ended the answer.

        Whoever awaits it calls `close` if that ends in any exception, as `wait` does.
        """
        if self._error is not None:
            raise self._error
        waiter = self._waiter = self._loop.create_future()
        return waiter

    async def wait(self) -> None:
        """Wait until something has changed. Raises the `HttpError` that ended the answer; cancelled, it closes."""
        waiter = self.change()
        try:
            await waiter
        except BaseException:
            # Broad and re-raised: whatever ended the wait (nearly always a cancel), the upstream must see the close.
            self.close()
            raise
        finally:
            self._waiter = None

    @property
    def error(self) -> HttpError | None:
        """What ended the answer early, None while it is whole or still arriving."""
        return self._error

    # For the connection.

    def open(self, status: int, headers: Mapping[str, str], length: int | None, pieces: list[bytes]) -> None:
        """Take the head, and the list into which the body goes from now on."""
        self.status = status
        self.headers = headers
        self.length = length
        self._pieces = pieces

    def whole(self, status: int, headers: Mapping[str, str], length: int | None, pieces: list[bytes]) -> None:
        """Take all of it at once: `open` and `end`."""
        self.status = status
        self.headers = headers
        self.length = length
        self._pieces = pieces
        self._complete = True
        self._source = None
        if (waiter := self._waiter) is not None and not waiter.done():
            waiter.set_result(None)

    def more(self) -> None:
        """Something has arrived."""
        if (waiter := self._waiter) is not None and not waiter.done():
            waiter.set_result(None)

    def end(self) -> None:
        """The body is complete and the connection gone back."""
        self._complete = True
        self._source = None
        self.more()

    def fail(self, error: HttpError) -> None:
        """The body will not become complete; what arrived is still handed out first."""
        self._error = error
        self._source = None
        self.more()

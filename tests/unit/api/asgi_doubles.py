"""Doubles for the modules of `api/`: a recording ASGI connection, and an access log's sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convene.api.call import Call
from convene.api.limit_headers import ReadyHeaders

if TYPE_CHECKING:
    import asyncio
    from collections.abc import MutableMapping, Sequence

    Message = MutableMapping[str, Any]


class Connection:
    """One connection: the request as messages to receive, what the application sent in `sent`.

    `gone` makes `send` raise as a server does whose client has left; `stuck`, an event, holds sends back until it is
    set.
    """

    def __init__(
        self,
        *pieces: bytes,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        headers: Sequence[tuple[bytes, bytes]] = (),
        leaves: bool = False,
    ) -> None:
        self.scope: Message = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": list(headers),
        }
        self.sent: list[Message] = []
        self.gone = False
        self.stuck: asyncio.Event | None = None
        self.received = 0
        self._pieces = list(pieces) or [b""]
        self._leaves = leaves

    async def receive(self) -> Message:
        """Return the next piece of the body; after the last, or instead of it, the client leaves."""
        self.received += 1
        if not self._pieces or (self._leaves and len(self._pieces) == 1):
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        """Record a message. Raises OSError once `gone`."""
        if self.stuck is not None:
            await self.stuck.wait()
        if self.gone:
            raise OSError("the client has left")
        self.sent.append(message)

    def call(self, body_bytes_max: int = 1000) -> Call:
        """Return the request in the hands of an endpoint."""
        call = Call(self.scope, self.receive, self.send, body_bytes_max, ReadyHeaders())
        call.name("req_1")
        return call

    @property
    def status(self) -> int:
        """The status that was sent."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers that were sent."""
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        """The body that was sent so far."""
        return b"".join(message.get("body", b"") for message in self.sent[1:])

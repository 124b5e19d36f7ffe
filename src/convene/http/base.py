"""The face of this room: what the rest of the house knows of HTTP upstreams.

Here: the values a client sends and receives, the seam (`Client`, `Response`) and the error tree. Not here: sockets,
parsers, pools (`client.py`) and the server (`server.py`). Providers are handed a `Client`; tests hand them a double.

The error tree, every one an `HttpError`:

    HttpError
      ConnectFailed    no connection was made: nothing was sent, a retry is safe
      PoolTimedOut     no free connection in time: nothing was sent
      TimedOut         `phase` says which wait ended: first_byte, between_bytes or total
      Disconnected     the peer closed; `received` says whether any response byte had arrived
      ProtocolBroken   the peer does not speak HTTP/1.1 as it should, or passed a cap (Oversized: that of its body)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

Phase = Literal["first_byte", "between_bytes", "total"]


class HttpError(Exception):
    """Any failure to get a whole answer from an upstream."""


class ConnectFailed(HttpError):
    """No connection could be made (DNS, refusal, TLS, time-out, proxy); nothing was sent."""


class PoolTimedOut(HttpError):
    """No connection became free within `Timeouts.pool_s`; nothing was sent."""


class TimedOut(HttpError):
    """A wait for response bytes ended."""

    def __init__(self, phase: Phase, after_s: float) -> None:
        """Say which wait (`phase`) ended after how many seconds."""
        super().__init__(f"no answer in time: {phase} after {after_s:g} s")
        self.phase: Phase = phase
        self.after_s = after_s


class Disconnected(HttpError):
    """The peer closed before the answer was whole."""

    def __init__(self, *, received: bool) -> None:
        """`received`: whether any byte of this response had arrived (then a retry is not safe)."""
        super().__init__("the upstream closed the connection " + ("in mid-answer" if received else "without an answer"))
        self.received = received


class ProtocolBroken(HttpError):
    """The answer is not valid HTTP/1.1 or passes a cap (header block, body, decompressed size)."""


class Oversized(ProtocolBroken):
    """The body, as it travels or unpacked, is larger than was asked for or is allowed."""


class Timeouts(msgspec.Struct, frozen=True):
    """The five waits of one request, in seconds (reliability: connect, pool slot, first byte, between bytes, total)."""

    connect_s: float = 5.0
    pool_s: float = 10.0
    first_byte_s: float = 120.0
    between_bytes_s: float = 60.0
    total_s: float = 900.0


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request. `url` is absolute (http or https); `headers` go as given; framing and Host are the client's."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    timeouts: Timeouts = Timeouts()
    fresh: bool = False
    """Never reuse a connection for it, before or after (llama.cpp closes after every stream)."""


class Response(Protocol):
    """A response whose head has arrived. Iterate or read it once; always `close()` it (idempotent, never blocks)."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; repeated fields joined by ', '."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the decoded body as it arrives. Raises `HttpError`."""
        ...

    def peek(self) -> bytes | None:
        """Return the whole decoded body if it has come and nothing was taken of it, else None. It stays to be read."""
        ...

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole decoded body. Raises `ProtocolBroken` above `max_bytes`, else any `HttpError`."""
        ...

    def close(self) -> None:
        """Give the connection back if the body is complete, else drop it at once (the upstream sees the close)."""
        ...


DIRECT: Final = "convene.direct"
"""An ASGI extension of our server: `scope["extensions"]` holds a `Direct` under this name."""


class Direct(Protocol):
    """What does for a small plain request what `receive` and `send` do, without their four coroutines."""

    notes: dict[str, object] | None
    """Where the application may keep what it has worked out of the head: it comes back with every request of the
    connection that has the same head, but for the length of its body. None while the head is not known yet."""

    def take_body(self) -> bytes | None:
        """Return the whole body if it has come and none was taken, else None: then `receive` must be asked."""
        ...

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, lines: bytes = b"") -> None:
        """Send a whole answer at once; the server counts its length. Raises `OSError` if the client has left.

        `lines` are further header lines as they leave, `name: value` CRLF each. They are not looked at: whoever gives
        them vouches that nothing in them came from outside unchecked, and that none frames the answer.
        """
        ...


class Client(Protocol):
    """Sends requests to configured hosts. Cancelling `send` or an iteration drops that connection and nothing else."""

    async def send(self, request: Request) -> Response:
        """Send and return once the response head is there. Raises `HttpError`."""
        ...

    async def aclose(self) -> None:
        """Drop every connection; later sends raise `ConnectFailed`."""
        ...

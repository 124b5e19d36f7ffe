"""One upstream connection: an asyncio protocol that carries one exchange after the other.

Here: writing a request, feeding the response reader, back-pressure both ways, the deadlines of the exchange. Not here:
who may use the connection and when (`client_pool`), how it is opened (`connect`), what the bytes mean (`client_codec`).

A connection is *held* from its making on; `begin` makes it *busy*; the end of the response makes it idle in its
pool or ends it. `drop` ends it at any moment, synchronously: the transport is aborted, so the peer sees the close in
the same turn of the loop, and the pool has its slot back before `drop` returns.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, Protocol, cast

from convene.http.base import Disconnected, ProtocolBroken, TimedOut
from convene.http.client_codec import Caps, ResponseReader
from convene.http.client_known import OK
from convene.http.client_response import BodyResponse

if TYPE_CHECKING:
    from convene.http.base import HttpError, Phase, Timeouts
    from convene.http.batch import WriteBatch

BUFFERED_BYTES_MAX: Final = 256 * 1024
"""Unread body bytes above which reading pauses."""
_WRITE_BYTES: Final = 256 * 1024
"""Handed to the transport at once; the rest of a larger body follows as the transport drains."""
_KEEPALIVE_IDLE_S: Final = 60
"""TCP keep-alive probes start here: under the idle limits of common NATs and load balancers (AWS NAT: 350 s)."""


class Owner(Protocol):
    """The pool, as its connections see it."""

    def give_back(self, connection: Connection) -> None:
        """The exchange is over and the connection good for another."""
        ...

    def discard(self, connection: Connection) -> None:
        """The connection is gone while busy or idle."""
        ...

    def started(self, connection: Connection, due: float) -> None:
        """An exchange has begun; its first deadline is loop time `due`."""
        ...

    def watch(self, due: float) -> None:
        """See to it that `expire` is called no earlier than loop time `due`, and soon after."""
        ...


class Connection(asyncio.Protocol):
    """One connection of a pool. `idle` and `idle_until` (loop time) belong to the pool.

    `last_at` is the loop time of the last bytes received, `keep_alive_s` how long the peer said with its last whole
    answer that it keeps the connection open (`Keep-Alive: timeout`), None if it did not.
    """

    __slots__ = (
        "_batch",
        "_bulky",
        "_ended",
        "_head_told",
        "_loop",
        "_owner",
        "_paused",
        "_reader",
        "_response",
        "_reusable",
        "_sent_at",
        "_timeouts",
        "_total_at",
        "_transport",
        "_unsent",
        "_write_paused",
        "alive",
        "idle",
        "idle_until",
        "keep_alive_s",
        "last_at",
        "served",
    )

    def __init__(
        self, owner: Owner, caps: Caps, loop: asyncio.AbstractEventLoop, batch: WriteBatch | None = None
    ) -> None:
        """`batch` gathers the writes of a turn of the loop; without one each request leaves at once."""
        self._owner = owner
        self._batch = batch
        self._loop = loop
        self._reader = ResponseReader(caps)
        self._response: BodyResponse | None = None
        self._transport: asyncio.Transport | None = None
        self._timeouts: Timeouts | None = None
        self._unsent: memoryview | None = None
        self._write_paused = self._paused = self._head_told = self._bulky = self._ended = False
        self._reusable = True
        self._sent_at = self.last_at = self._total_at = 0.0
        self.alive = False
        self.idle = False
        self.idle_until = 0.0
        self.keep_alive_s: float | None = None
        self.served = 0

    # What the pool and the client call.

    def begin(
        self, wire: bytes, body: bytes, timeouts: Timeouts, now: float, total_at: float, *, head_only: bool, fresh: bool
    ) -> BodyResponse:
        """Send `wire` (a head, perhaps with its body) and then `body`; return the response, which has yet to arrive.

        Its `status` is 0 until its head is there; whoever waits for that waits with `wait` or `change`. `now` is the
        loop time, `total_at` that at which the whole exchange ends. Raises `Disconnected`.
        """
        transport = self._transport
        if transport is None or not self.alive or transport.is_closing():
            # The peer closed between the pool's look and now; nothing was sent.
            self._abort()
            self._owner.discard(self)
            raise Disconnected(received=False)
        response = self._response = BodyResponse(self._loop, self)
        self._timeouts = timeouts
        self._total_at = total_at
        self._reusable = not fresh
        self._head_told = False
        self.served += 1
        reader = self._reader
        if self.served > 1 or head_only:
            reader.begin(head_only=head_only)
        self._sent_at = now
        due = now + timeouts.first_byte_s
        self._owner.started(self, total_at if total_at < due else due)  # noqa: FURB136 - `min` takes ten times as long
        if body or self._batch is None:
            transport.write(wire)
        else:
            self._batch.add(transport, wire)
        self._bulky = bool(body)
        if body:
            self._unsent = memoryview(body)
            self._write_on()
        return response

    def expire(self, now: float) -> float:
        """End the exchange if one of its waits is over at loop time `now`; return when the next one will be."""
        timeouts = self._timeouts
        if self._response is None or timeouts is None:
            return now + 1.0
        phase: Phase
        if not self._reader.received:
            due, phase, after_s = self._sent_at + timeouts.first_byte_s, "first_byte", timeouts.first_byte_s
        elif self._paused:
            # Nobody reads: the silence is ours, not the peer's.
            due, phase, after_s = self._total_at, "total", timeouts.total_s
        else:
            due, phase, after_s = self.last_at + timeouts.between_bytes_s, "between_bytes", timeouts.between_bytes_s
        if self._total_at <= due:
            due, phase, after_s = self._total_at, "total", timeouts.total_s
        if due <= now:
            self._fail(TimedOut(phase, after_s))
        return due

    def drop(self) -> None:
        """Close at once, give the slot back. Idempotent; does nothing to an exchange that is over."""
        busy = self._response is not None
        self._response = None
        self._abort()
        if busy or self.idle:
            self._owner.discard(self)

    def abandon(self) -> None:
        """Close at once without a word to the pool: for a connection it has already taken out, or never had."""
        self._response = None
        self.idle = False
        self._abort()

    def shut(self) -> None:
        """End the exchange, if there is one, because the client closes."""
        self._fail(Disconnected(received=self._reader.received))

    def taken(self) -> None:
        """The reader has emptied the buffer."""
        self._reader.buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            # The peer could not be heard while reading was paused: its silence starts now.
            self.last_at = self._loop.time()
            if self._timeouts is not None:
                self._owner.watch(self.last_at + self._timeouts.between_bytes_s)
            self._transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and set its socket options."""
        # uvloop's transports are none by inheritance.
        transport = cast("asyncio.Transport", transport)
        if self._ended:
            # Over TLS the peer may speak or close before this call.
            transport.abort()
            return
        self._transport = transport
        self.alive = True
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):  # not on every system
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)

    def data_received(self, data: bytes) -> None:
        """Feed the reader and tell the response what came of it."""
        response = self._response
        if response is None:
            # Bytes nobody asked for: the next answer on this connection could not be trusted (response splitting).
            self.drop()
            return
        self.last_at = self._loop.time()
        reader = self._reader
        known = reader.glance(data)
        if known is not None:  # nearly all small answers of a host that is asked again and again
            body, known.body = known.body, b""  # a connection at rest holds none
            self._end(reusable=True, keep_alive_s=known.keep_alive_s)
            response.whole(OK, known.headers, len(body), [body] if body else [])
            return
        is_first = not reader.received
        try:
            reader.read(data)
        except ProtocolBroken as error:
            self._fail(error)
            return
        if reader.complete:
            self._finish(response)
            return
        news = reader.buffered > 0
        if reader.head_done and not self._head_told:
            self._tell_head(response)
            news = True
        if news:
            if reader.buffered > BUFFERED_BYTES_MAX and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
            response.more()
        if is_first and self._timeouts is not None:
            self._owner.watch(self.last_at + self._timeouts.between_bytes_s)

    def eof_received(self) -> None:
        """Treat a half-closed peer as gone: HTTP/1.1 clients have no use for one."""
        self._peer_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was under way. Called after every close, ours included."""
        if exc is None:
            self._peer_closed()
        else:
            # A reset: even a body that ends by closing is not known to be whole.
            self._fail(Disconnected(received=self._reader.received))
        self._transport = None
        self._reader.release()

    def pause_writing(self) -> None:
        """Stop handing out the body."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Hand out more of the body."""
        self._write_paused = False
        self._write_on()

    # Inside.

    def _write_on(self) -> None:
        while (rest := self._unsent) is not None and not self._write_paused and self._transport is not None:
            self._unsent = rest[_WRITE_BYTES:] if len(rest) > _WRITE_BYTES else None
            self._transport.write(rest[:_WRITE_BYTES])

    def _is_sent(self) -> bool:
        """An answer may come before the request is out whole; then the peer may never read the rest."""
        return self._unsent is None and self._transport is not None and not self._transport.get_write_buffer_size()

    def _tell_head(self, response: BodyResponse) -> None:
        """Hand the head over; whoever calls this wakes the reader."""
        reader = self._reader
        self._head_told = True
        response.open(reader.status, reader.headers, reader.length, reader.pieces)

    def _end(self, *, reusable: bool, keep_alive_s: float | None) -> None:
        """Give the connection back after a whole answer, or end it."""
        self._response = None
        if self._reusable and self.alive and reusable and (not self._bulky or self._is_sent()):
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            self.keep_alive_s = keep_alive_s
            self._owner.give_back(self)
        else:
            self._abort()
            self._owner.discard(self)

    def _finish(self, response: BodyResponse) -> None:
        reader = self._reader
        self._end(reusable=reader.reusable, keep_alive_s=reader.keep_alive_s)
        if self._head_told:
            response.end()
        else:  # all of it came at once, as nearly all small answers do
            response.whole(reader.status, reader.headers, reader.length, reader.pieces)

    def _fail(self, error: HttpError) -> None:
        response = self._response
        if response is None:
            self.drop()
            return
        self._response = None
        if self._reader.head_done and not self._head_told:
            # Told even when the same bytes broke off later, so that how the network cut them makes no difference.
            self._tell_head(response)
        self._abort()
        self._owner.discard(self)
        response.fail(error)

    def _peer_closed(self) -> None:
        self.alive = False
        if (response := self._response) is None:
            self.drop()
            return
        try:
            self._reader.feed_eof()
        except (Disconnected, ProtocolBroken) as error:
            self._fail(error)
        else:
            self._finish(response)

    def _abort(self) -> None:
        self.alive = False
        self._ended = True
        self._unsent = None
        if (transport := self._transport) is not None:
            self._transport = None
            transport.abort()

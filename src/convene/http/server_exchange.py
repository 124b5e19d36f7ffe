"""One request and its answer as the application sees them: `scope`, `receive`, `send`, and the task that runs it.

Here: `Exchange` and the seam `Link` it needs of a connection. Not here: parsing and time-outs (`server_protocol.py`),
header bytes (`server_wire.py`). Made by `Connection`, one per request; handed to the application as bound methods.

    send:  NOTHING --start--> HELD --body--> STREAMING --last body--> COMPLETE

The head is held until the first body message: a plain answer leaves in one write, and so does the first event.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from convene.http.server_asgi import ClientGone
from convene.http.server_refusals import DRAINING, FAILED
from convene.http.server_wire import BODYLESS, CONTINUE, LAST_CHUNK, encode_fields, status_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.http.server_asgi import Message, Scope
    from convene.http.server_guard import Edge
    from convene.http.server_refusals import Refusal

_LOG: Final = logging.getLogger(__name__)

NOTHING, HELD, STREAMING, COMPLETE = range(4)
MUTE, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)
_JOIN_MAX: Final = 256 * 1024  # above it, copying head and body together costs more than a second write


class Link(Protocol):
    """What an exchange needs of its connection."""

    write_paused: bool
    """The transport holds more than `write_held_bytes`."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""
        ...

    async def writable(self) -> None:
        """Return once the transport took enough away, or the client is gone."""
        ...

    def body_taken(self) -> None:
        """The application took the body that was held: reading may go on."""
        ...

    def body_wanted(self) -> None:
        """`100 Continue` was sent: the body's clock starts now."""
        ...

    def answered(self, exchange: Exchange) -> None:
        """The answer is complete and written."""
        ...

    def refuse_for(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer for an application that did not."""
        ...

    def abort(self) -> None:
        """Drop the connection."""
        ...


class Exchange:
    """One request. `pending`, `complete` and `gone` are set by the connection, the rest belongs to this class."""

    # Slots, and all of them set: the interpreter reads a slot at once, a class's value through its slow look-up.
    __slots__ = (
        "__weakref__",
        "_edge",
        "_framing",
        "_headers",
        "_left",
        "_line",
        "_link",
        "_stage",
        "_status",
        "_told_end",
        "_waiters",
        "complete",
        "expects_continue",
        "gone",
        "http_10",
        "is_head",
        "keep_alive",
        "notes",
        "pending",
        "scope",
        "task",
    )

    def __init__(self, link: Link, edge: Edge, scope: Scope, *, keep_alive: bool) -> None:
        """Hold a parsed head; the body follows through `take` and `end_body`."""
        self.scope = scope
        self.keep_alive = keep_alive
        self._link = link
        self._edge = edge
        self.is_head = self.http_10 = self.expects_continue = self.complete = self.gone = self._told_end = False
        self.pending = self._line = b""
        self.notes: dict[str, object] | None = None
        self.task: asyncio.Task[None] | None = None
        self._stage, self._framing = NOTHING, MUTE
        self._status = self._left = 0
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self._waiters: list[asyncio.Future[None]] | None = None

    # --- the connection's side -------------------------------------------------------------------------------------

    @property
    def head_sent(self) -> bool:
        """Whether any byte of the answer is out."""
        return self._stage >= STREAMING

    @property
    def answer_complete(self) -> bool:
        """Whether the application has sent its last body message."""
        return self._stage == COMPLETE

    def start(self) -> None:
        """Run the application for this request in a task of its own."""
        edge = self._edge
        edge.running.add(self)
        self.task = edge.start_task(self._run())

    def take(self, body: bytes) -> None:
        """Add body bytes and wake the application."""
        self.pending = self.pending + body if self.pending else body
        self.expects_continue = False  # RFC 9110 10.1.1: no need once the body comes
        if self._waiters is not None:
            self.wake()

    def end_body(self) -> None:
        """Note that the body is whole."""
        self.complete = True
        if self._waiters is not None:
            self.wake()

    def wake(self) -> None:
        """Let waiting `receive` calls look again."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def leave(self) -> None:
        """Note that nobody will read the answer: `receive` says so, and the task is cancelled at once (C1)."""
        if self.gone:
            return
        self.gone = True
        self.wake()
        if self._stage != COMPLETE and self._edge.settings.cancel_on_disconnect:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the task; one that only tidies up after a complete answer is left alone by `leave`, not by this."""
        if self.task is not None:
            # A task cancelled before its first step never enters `_run`, so the end of `_run` is not enough.
            self.task.add_done_callback(self._ended)
            self.task.cancel()

    def _ended(self, _task: object) -> None:
        """Uncount this request and leave no answer open. Idempotent."""
        self._make_up(DRAINING if self._edge.draining else FAILED)
        self._edge.running.discard(self)
        if self._edge.draining:
            self._edge.wake()

    # --- the application's side ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Run the application and make sure the client gets a whole answer or a visibly broken one."""
        try:
            app = self._edge.app
            await app(self.scope, self.receive, self.send)
            if self._stage != COMPLETE and not self.gone:
                _LOG.error("the application returned without a complete answer: %s", self.scope["path"])
                self._make_up(FAILED)
        except asyncio.CancelledError:
            self._make_up(DRAINING if self._edge.draining else FAILED)
            raise
        except Exception as fault:  # noqa: BLE001 - whatever an application raises must become an answer and a log line
            if not (self.gone and isinstance(fault, ClientGone)):
                _LOG.error("the application failed: %s", self.scope["path"], exc_info=fault)
            self._make_up(FAILED)
        finally:
            # The scope holds this exchange as an extension: a cycle would leave each request to the collector.
            self.scope.pop("extensions", None)
            self._edge.running.discard(self)
            if self._edge.draining:
                self._edge.wake()

    def _make_up(self, refusal: Refusal) -> None:
        """End an answer that the application left open: a refusal before the head, a broken connection after."""
        if self._stage == COMPLETE or self.gone:
            return
        if self._stage == STREAMING:
            self._link.abort()
        else:
            self._link.refuse_for(self, refusal)

    def take_body(self) -> bytes | None:
        """Return the whole body if it has come and none was taken, else None: what `receive` gives without a wait."""
        if not self.complete or self._told_end or self.gone:
            return None
        body, self.pending = self.pending, b""
        self._told_end = True
        return body

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, lines: bytes = b"") -> None:
        """Send a whole small answer: the two messages of `send` in one call that never waits.

        `lines` are header lines as they leave (`base.Direct`). Raises `ClientGone`, `RuntimeError` and `ValueError` as
        `send` does.
        """
        if self.gone:
            raise ClientGone("the client has left")
        if self._stage != NOTHING:
            raise RuntimeError("an answer has begun already")
        edge = self._edge
        plain = not (headers or self.is_head or self.http_10 or edge.draining)
        if plain and status == 200 and self.keep_alive and self.complete and len(body) <= _JOIN_MAX:  # noqa: PLR2004
            # The commonest answer: the same bytes as below, in one piece.
            size = b"content-length: %d\r\n\r\n" % len(body)
            self._link.write(b"".join((edge.ok_lines, lines, size, body)))
            self._finish()
            return
        self._status = status
        self._line = status_line(status)
        self._headers = headers
        self._stage = HELD
        self._send_first(body, more=False, lines=lines)

    async def receive(self) -> Message:
        """Return `http.request` with all body bytes that have come, or `http.disconnect` (ASGI HTTP 2.4)."""
        while True:
            if self.gone or self._stage == COMPLETE:
                return {"type": "http.disconnect"}
            if self.pending or (self.complete and not self._told_end):
                body, self.pending = self.pending, b""
                self._told_end = self.complete
                if not self.complete:
                    self._link.body_taken()
                return {"type": "http.request", "body": body, "more_body": not self.complete}
            if self.expects_continue and self._stage < STREAMING:
                self.expects_continue = False
                self._link.write(CONTINUE)
                self._link.body_wanted()
            waiter = self._edge.loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._drop(waiter)

    def _drop(self, waiter: asyncio.Future[None]) -> None:
        """Forget a cancelled wait, so that a caller that polls with a time-out leaves nothing behind."""
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)

    async def send(self, message: Message) -> None:
        """Take a response message; return once the transport has room.

        Raises `ClientGone` after a disconnect, `RuntimeError` for messages out of order, `ValueError` for headers that
        would break the answer.
        """
        if self.gone:
            raise ClientGone("the client has left")
        kind = message["type"]
        if kind == "http.response.body":
            stage = self._stage
            if stage == HELD:
                self._send_first(message.get("body", b""), more=message.get("more_body", False))
            elif stage == STREAMING:
                self._send_more(message.get("body", b""), more=message.get("more_body", False))
            else:
                raise RuntimeError("a body message before http.response.start, or after the last one")
            if self._link.write_paused:
                await self._link.writable()
        elif kind == "http.response.start" and self._stage == NOTHING:
            self._status = message["status"]
            self._line = status_line(self._status)
            self._headers = message.get("headers", ())
            self._stage = HELD
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def _send_first(self, body: bytes, *, more: bool, lines: bytes = b"") -> None:
        """Write the head with the first body bytes."""
        edge = self._edge
        block, length, close, dated = encode_fields(self._headers)
        if lines:
            block = lines + block
        if close or edge.draining or not self.complete:
            self.keep_alive = False
        size = len(body)
        if not (more or self.is_head or self.http_10 or dated or self._status in BODYLESS) and (
            self.keep_alive and (length is None or length == size) and size <= _JOIN_MAX
        ):
            # The hot path: the same bytes as below, in half the time.
            self._link.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (self._line, edge.date_line, block, size, body))
            self._finish()
            return
        self._send_framed(body, block, length, dated=dated, more=more)

    def _send_framed(self, body: bytes, block: bytes, length: int | None, *, dated: bool, more: bool) -> None:
        framing = self._choose_framing(length, body, more=more)
        if self._framing != LENGTH or more or length is not None:
            body = self._frame(body, more=more)
        if not self.keep_alive:
            ending = b"connection: close\r\n\r\n"
        elif self.http_10:
            ending = b"connection: keep-alive\r\n\r\n"
        else:
            ending = b"\r\n"
        head = (self._line, b"" if dated else self._edge.date_line, block, framing, ending)
        self._stage = STREAMING
        if len(body) <= _JOIN_MAX:
            self._link.write(b"".join((*head, body)))
        else:
            self._link.write(b"".join(head))
            self._link.write(body)
        if not more:
            self._finish()

    def _send_more(self, body: bytes, *, more: bool) -> None:
        """Write a later piece of a streamed body in one write (SSE-02)."""
        body = self._frame(body, more=more)
        if body:
            self._link.write(body)
        if not more:
            self._finish()

    def _choose_framing(self, length: int | None, body: bytes, *, more: bool) -> bytes:
        """Choose how the end of the body is told (RFC 9112 6.3) and return the header line for it."""
        if self._status in BODYLESS:
            self._framing = MUTE
            return b""
        if length is None and not more:
            length = len(body)
        if length is not None:
            self._left = length
            self._framing = MUTE if self.is_head else LENGTH
            return b"content-length: %d\r\n" % length
        if self.is_head:
            self._framing = MUTE
            return b""
        if self.http_10:
            self.keep_alive = False
            self._framing = UNTIL_CLOSE
            return b""
        self._framing = CHUNKED
        return b"transfer-encoding: chunked\r\n"

    def _frame(self, body: bytes, *, more: bool) -> bytes:
        """Return a piece of body as it goes on the wire.

        Raises `RuntimeError` when the application breaks its own `content-length`: that would shift every later answer.
        """
        framing = self._framing
        if framing == LENGTH:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body does not have the length that content-length gave")
            return body
        if framing == CHUNKED:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return framed if more else framed + LAST_CHUNK
        return b"" if framing == MUTE else body

    def _finish(self) -> None:
        self._stage = COMPLETE
        if self._waiters is not None:
            self.wake()
        self._link.answered(self)

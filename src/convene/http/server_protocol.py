"""One client connection: bytes to requests in order, answers to bytes, and every way to be cut off.

Here: `Connection`, an `asyncio.Protocol` around `httptools` (llhttp, strict). Not here: what one request looks like to
the application (`server_exchange.py`), the shared counts and the ticker (`server_guard.py`), how slow a body and a
reader may be (`server_clocks.py`), what a refusal says (`server_refusals.py`), sockets (`server.py`).

Reading side, by message:       Answering side:
    HEAD --head complete--> BODY     _current: the exchange being answered
    BODY --body complete--> HEAD     _waiting: parsed requests behind it (pipelining), in order
                                     _held:    unparsed bytes behind it

Three rules keep it bounded and honest. The socket is read while a request runs, because only a read shows that the
client left; what comes meanwhile is held up to a bound and then the socket is not read. A connection that is to close
(`_sealed`) throws all further input away. A refusal takes its place in the order of answers.

WebSockets later: `_resume_after_upgrade` is where an upgrade that the server understands would hand the transport over;
today every upgrade is ignored, as RFC 9110 7.8 allows, and the request is served as plain HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import httptools

from convene.http.base import DIRECT
from convene.http.known import LESSONS
from convene.http.server_asgi import ASGI
from convene.http.server_clocks import BodyClock, ReaderClock
from convene.http.server_exchange import Exchange
from convene.http.server_guard import address_key
from convene.http.server_known import KnownHead, learn
from convene.http.server_refusals import (
    DRAINING,
    Refusal,
    bad_request,
    body_too_large,
    encode_refusal,
    head_too_large,
    timed_out,
    too_many_headers,
)
from convene.http.server_wire import read_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.http.server_guard import Edge

# The connection as the ticker sees it.
FRESH, PARTIAL, IDLE, BUSY, CLOSING, LINGERING = range(6)

_METHODS: Final = {m.encode(): m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_ALLOW: Final = (b"allow", ", ".join(_METHODS.values()).encode())
_WATCHED: Final = frozenset({b"host", b"transfer-encoding", b"expect", b"connection"})
# What SDKs send in either spelling, all without a meaning for this server: one look-up instead of three per header.
_PLAIN: Final = {
    spelled.encode(): name.encode()
    for name in (
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "content-type",
        "user-agent",
        "origin",
        "referer",
        "cookie",
        "traceparent",
        "idempotency-key",
        "x-request-id",
        "x-session-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-stainless-arch",
        "x-stainless-async",
        "x-stainless-lang",
        "x-stainless-os",
        "x-stainless-package-version",
        "x-stainless-read-timeout",
        "x-stainless-retry-count",
        "x-stainless-runtime",
        "x-stainless-runtime-version",
    )
    for spelled in (name, name.title(), name.replace("x-stainless", "X-Stainless"))
}
# A host that can be put into a URL without changing its path (Starlette's BadHost, reliability 6.2).
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_OVERHEAD_PER_BYTE: Final = 8  # chunks of one byte cost six; more is padding in chunk extensions (CVE-2024-22019)


class _Refused(Exception):
    """Stops the parser from inside a callback; llhttp's error is all that comes out."""


class _RestOfBody:
    """Listens to a second parser that reads the body of an ignored upgrade, whose own parser stops at the head."""

    def __init__(self, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self.on_body = take
        self.on_message_complete = end


class Connection(asyncio.Protocol):
    """One client. Made by the server's protocol factory; the event loop, the parser and the ticker call it."""

    __slots__ = (
        "_at_start",
        "_body_bytes",
        "_body_clock",
        "_chunked",
        "_current",
        "_dropped_bytes",
        "_edge",
        "_fed",
        "_feeding",
        "_head_ends",
        "_headers",
        "_held",
        "_host",
        "_host_seen",
        "_idle_since",
        "_incoming",
        "_key",
        "_known",
        "_length",
        "_lessons",
        "_linger_ends",
        "_odd",
        "_parser",
        "_phase",
        "_raw",
        "_read_paused",
        "_reader_clock",
        "_refusal",
        "_room",
        "_scope",
        "_sealed",
        "_settings",
        "_target",
        "_target_read",
        "_trailers",
        "_transport",
        "_waiting",
        "_writers",
        "_written",
        "deadline",
        "write_paused",
    )

    def __init__(self, edge: Edge) -> None:
        """Belong to `edge`."""
        self._edge = edge
        self._settings = edge.settings
        self._parser = httptools.HttpRequestParser(self)
        self._phase = FRESH
        self._sealed = False
        self._current: Exchange | None = None
        self._incoming: Exchange | None = None
        self._waiting: deque[Exchange | Refusal] = deque()
        self._held = bytearray()
        self._refusal: Refusal | None = None
        self._read_paused = False
        self.write_paused = False
        self._writers: list[asyncio.Future[None]] = []
        self._written = self._feeding = 0
        self._body_clock: BodyClock | None = None
        """Once a body comes in pieces, or is waited for."""
        self._reader_clock: ReaderClock | None = None
        """While something waits for the client to take it."""
        self._linger_ends = self._idle_since = 0.0
        self._body_bytes = self._raw = self._trailers = 0
        self._host = self._target_read = b""
        self._scope: dict[str, Any] = {}
        self._known: KnownHead | None = None
        self._lessons = LESSONS
        self._at_start = True
        """The parser stands before a request of which it has seen nothing."""
        self._expect_head()

    def _expect_head(self) -> None:
        self._room = self._settings.headers_max
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._fed = self._dropped_bytes = 0
        self._length = -1
        self._host_seen = self._chunked = False
        self._odd: dict[bytes, bytes] | None = None

    # --- called by the event loop ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and start its clock, or turn it away."""
        edge, settings = self._edge, self._settings
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=settings.write_held_bytes)
        peer, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._key = address_key(peer)
        self._scope = {
            "type": "http",
            "asgi": ASGI,
            "scheme": "http",
            "root_path": "",
            "client": (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None,
            "server": (str(here[0]), int(here[1])) if isinstance(here, tuple) else (str(here or ""), None),
            # What follows differs by request; named here, so that a copy has the room for it already.
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "http_version": "",
            "method": "",
            "headers": [],
            "state": {},
            "extensions": {},
        }
        now = edge.loop.time()
        self.deadline = now + settings.first_byte_s
        self._head_ends = now + settings.header_s
        passed = edge.admit(self, self._key)
        if passed is not None:
            self._turn_away(passed)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Let go of everything and tell the running request at once (C1)."""
        self._edge.forget(self, self._key)
        self._sealed = True
        self._held.clear()
        self._waiting.clear()
        current, self._current, self._incoming = self._current, None, None
        if current is not None:
            current.leave()
        self.resume_writing()

    def eof_received(self) -> bool:
        """Take the end of input for the end of the client: that is how a client that left looks (C1)."""
        return False

    def data_received(self, data: bytes) -> None:
        """Parse, or hold, or throw away."""
        if self._sealed:
            return
        if self._current is not None and self._incoming is not self._current:
            self._hold(data)
            return
        known = self._known
        if known is None or self._current is not None or not self._at_start or not self._take_known(known, data):
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Give bytes to the parser, and see what came of them."""
        from_start, self._at_start = self._at_start, False
        self._feeding = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._resume_after_upgrade(data[int(upgrade.args[0]) :])
        except httptools.HttpParserError as fault:
            self._parse_failed(fault)
        # The common case first: one whole request came in one piece.
        if (self._incoming is None and self._current is not None) or self._sealed:
            if from_start and self._lessons:
                self._learn_head(data)
        elif self._incoming is None:
            self._after_part_of_head(data)
        elif self._incoming is self._current:
            self._after_part_of_body()

    def pause_writing(self) -> None:
        """Note that the transport holds enough: `send` waits."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Let waiting `send` calls go on."""
        self.write_paused = False
        self._let_writers_go()

    # --- called by the parser --------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._target = self._target + url if self._target else url
        limit = self._settings.target_bytes_max
        if len(self._target) > limit:
            self._stop(Refusal(414, "target_too_long", f"The request target is longer than {limit} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; names with underscores are dropped, as they collide with hyphens further on."""
        headers = self._headers
        if len(headers) >= self._room:
            self._has_no_room()
            return
        value = value.rstrip()
        plain = _PLAIN.get(name)
        if plain is not None:
            headers.append((plain, value))
            return
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)  # llhttp has refused bad and doubled ones already
        elif name in _WATCHED:
            self._watch(name, value)
        elif b"_" in name:
            self._room -= 1
            self._dropped_bytes += len(name) + len(value) + 4
            return
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head, make the exchange, and run it unless another one is in flight."""
        edge, settings, parser, odd = self._edge, self._settings, self._parser, self._odd
        keep_alive = parser.should_keep_alive()
        method = _METHODS.get(parser.get_method())
        # Only HTTP/1.1 stays open without saying so: then the version need not be formatted.
        version = "1.1" if keep_alive and odd is None else parser.get_http_version()
        if self._fed + self._feeding > settings.header_bytes_max:
            self._measure_head()
        if odd is not None or version != "1.1" or not self._host_seen or self._length > settings.body_bytes_max:
            self._judge_head(version)
        if edge.draining:
            self._stop(DRAINING)
        if method is None:
            self._stop(Refusal(405, "method_not_allowed", "This method is not served.", (_ALLOW,)))
        if self._target != self._target_read:
            self._read_target()
        scope = self._scope.copy()
        scope["http_version"] = version
        scope["method"] = method
        scope["headers"] = self._headers
        scope["state"] = edge.state.copy()
        exchange = Exchange(self, edge, scope, keep_alive=keep_alive)
        scope["extensions"] = {DIRECT: exchange}
        if method == "HEAD":
            exchange.is_head = True
        if odd is not None or version != "1.1":
            exchange.http_10 = version == "1.0"
            exchange.expects_continue = odd is not None and b"expect" in odd and version == "1.1"
        self._room = -1
        self._incoming = exchange
        self._body_bytes = self._raw = self._trailers = 0
        self._body_clock = None
        if self._current is None:
            self._run(exchange)
        else:
            self._waiting.append(exchange)

    def on_body(self, body: bytes) -> None:
        """Give body bytes to the exchange being read."""
        self._body_bytes += len(body)
        if self._body_bytes > self._settings.body_bytes_max:
            self._stop(body_too_large(self._settings.body_bytes_max))
        exchange = self._incoming
        if exchange is not None:
            exchange.take(body)

    def on_message_complete(self) -> None:
        """End the exchange being read, except where llhttp stops before the body of an upgrade."""
        if self._odd is None or not self._parser.should_upgrade():
            self._end_message()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _take_known(self, known: KnownHead, data: bytes) -> bool:
        """Serve a whole request whose head was read before, without reading it again. Return whether it was one."""
        body, edge = known.take(data), self._edge
        if body is None or edge.draining or len(body) > self._settings.body_bytes_max:
            return False
        scope = known.scope(edge.state, len(body))
        exchange = Exchange(self, edge, scope, keep_alive=True)
        scope["extensions"] = {DIRECT: exchange}
        exchange.pending, exchange.complete, exchange.notes = body, True, known.notes
        self._run(exchange)
        return True

    def _learn_head(self, data: bytes) -> None:
        """Keep the head of a request that came whole and alone, to know the next one by it."""
        current = self._current
        if current is None or self._waiting or self._sealed or not current.keep_alive:
            return
        self._known = learn(data, current.scope)
        if self._known is not None:
            self._at_start = True
            self._lessons -= 1

    def _watch(self, name: bytes, value: bytes) -> None:
        """Note a header that decides about framing or trust, other than the length."""
        if name == b"host":
            if self._host_seen:
                self._stop(bad_request("More than one host header."))
            if value != self._host and value and _HOST.fullmatch(value) is None:
                self._stop(bad_request("The host header is not valid."))
            self._host = value
            self._host_seen = True
        else:
            odd = self._odd
            if odd is None:
                odd = self._odd = {}
            odd[name] = odd[name] + b", " + value if name in odd else value

    def _judge_head(self, version: str) -> None:
        """Refuse what cannot be served rightly; called only for heads that are not the plain case."""
        odd = self._odd or {}
        if version not in {"1.0", "1.1"}:
            self._stop(Refusal(505, "http_version_not_supported", "This server speaks HTTP/1.1."))
        if not self._host_seen and version == "1.1":
            self._stop(bad_request("HTTP/1.1 asks for a host header."))
        coding = odd.get(b"transfer-encoding")
        if coding is not None:
            # Exactly this, and not from an HTTP/1.0 client: everything else is a way to smuggle (RFC 9112 6.1).
            if coding.lower() != b"chunked" or version != "1.1":
                self._stop(bad_request("The only transfer-encoding served is chunked, in HTTP/1.1."))
            self._chunked = True
        if odd.get(b"expect", b"100-continue").lower() != b"100-continue":
            self._stop(Refusal(417, "expectation_failed", "The only expectation served is 100-continue."))
        if self._length > self._settings.body_bytes_max:
            self._stop(body_too_large(self._settings.body_bytes_max))

    def _read_target(self) -> None:
        """Put the target into the scope that later requests are copied from: most clients ask for one path only."""
        try:
            path, raw_path, query = read_target(self._target)
        except ValueError:
            self._stop(bad_request("The request target is not valid."))
        self._scope.update(path=path, raw_path=raw_path, query_string=query)
        self._target_read = self._target

    def _measure_head(self) -> None:
        """Count the head exactly, now that the bytes fed could be too many."""
        size = len(self._target) + self._dropped_bytes
        size += sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > self._settings.header_bytes_max:
            self._stop(head_too_large(self._settings.header_bytes_max))

    def _has_no_room(self) -> None:
        """Refuse one header too many. Trailers come here too: they are not given to the application, but counted."""
        if self._incoming is not None:
            self._trailers += 1
        if self._incoming is None or self._trailers > self._settings.headers_max:
            self._stop(too_many_headers(self._settings.headers_max))

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Leave the parser; `_parse_failed` answers."""
        self._refusal = refusal
        raise _Refused

    def _parse_failed(self, fault: httptools.HttpParserError) -> None:
        """Answer a request that llhttp or a rule of ours stopped, unless nothing more was to be read anyway."""
        if self._sealed:
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif "PRI/Upgrade" in str(fault):
            self._refuse(Refusal(505, "http_version_not_supported", "This server speaks HTTP/1.1, not HTTP/2."))
        else:
            self._refuse(bad_request(f"This is not a valid HTTP/1.1 request: {fault}."))

    def _resume_after_upgrade(self, rest: bytes) -> None:
        """Serve a request that asked for an upgrade as if it had not (RFC 9110 7.8; Java's client asks with a body)."""
        if self._chunked or self._length > 0:
            self._parser = httptools.HttpRequestParser(_RestOfBody(self.on_body, self._end_rest_of_body))
            framing = b"transfer-encoding: chunked" if self._chunked else b"content-length: %d" % self._length
            rest = b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n" + rest
        else:
            self._parser = httptools.HttpRequestParser(self)
            self._end_message()
        try:
            self._parser.feed_data(rest)
        except httptools.HttpParserUpgrade:
            # A second upgrade in the same packet: no client does that.
            self._refuse(bad_request("An upgrade was pipelined."))
        except httptools.HttpParserError as fault:
            self._parse_failed(fault)

    def _end_rest_of_body(self) -> None:
        """End an upgrade's body; what followed it in the same packet went to the wrong parser and ends here."""
        if self._incoming is None:
            self._stop(bad_request("A request was pipelined behind an upgrade."))
        self._parser = httptools.HttpRequestParser(self)
        self._end_message()

    def _end_message(self) -> None:
        """End the exchange being read; after one that closes the connection nothing more is read."""
        exchange, self._incoming = self._incoming, None
        if exchange is None:
            return
        if self._waiting and len(self._waiting) >= self._settings.pipelined_max:
            exchange.keep_alive = False
        if not exchange.keep_alive:
            self._sealed = True
        self._expect_head()
        exchange.end_body()

    def _after_part_of_head(self, data: bytes) -> None:
        """Start the head's clock and hold its size down while it is not complete."""
        self._fed += self._feeding
        if self._fed > self._settings.header_bytes_max:
            self._refuse(head_too_large(self._settings.header_bytes_max))
        elif self._phase == FRESH and data.strip(b"\r\n"):
            self._phase = PARTIAL
            self.deadline = self._head_ends
        elif self._phase == IDLE and data.strip(b"\r\n"):
            self._phase = PARTIAL
            self.deadline = self._edge.loop.time() + self._settings.header_s

    def _after_part_of_body(self) -> None:
        """Start the body's clock, and stop reading while the application holds enough."""
        exchange = self._incoming
        if exchange is None:
            return
        self._raw += self._feeding
        if self._raw > _OVERHEAD_PER_BYTE * self._body_bytes + self._settings.header_bytes_max:
            self._refuse(bad_request("The chunks carry more overhead than body."))
            return
        if self._body_clock is None and not exchange.expects_continue:
            self._start_body_clock(self._edge.loop.time())
        if len(exchange.pending) > self._settings.body_held_bytes:
            self._pause_reading()

    def _start_body_clock(self, now: float) -> None:
        self._body_clock = BodyClock(self._settings, now, self._body_bytes)

    def _hold(self, data: bytes) -> None:
        """Keep bytes behind a request in flight."""
        self._held += data
        if len(self._held) > self._settings.pipelined_bytes:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self._read_paused = False

    # --- answering: the seam of an exchange ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, at the end of this turn of the loop."""
        self._written += len(data)
        self._edge.batch.add(self._transport, data)

    async def writable(self) -> None:
        """Return once the transport took enough away, or the client is gone."""
        while self.write_paused and not self._transport.is_closing():
            room = self._edge.loop.create_future()
            self._writers.append(room)
            await room

    def body_taken(self) -> None:
        """Read on: the application took what was held."""
        if self._read_paused:
            self._resume_reading()

    def body_wanted(self) -> None:
        """Start the body's clock: `100 Continue` was sent."""
        self._start_body_clock(self._edge.loop.time())

    def answered(self, exchange: Exchange) -> None:
        """Go on to the next request, or close."""
        if exchange is not self._current:
            return
        self._current = None
        if not exchange.keep_alive:
            self._close(linger=self._incoming is exchange)
            return
        self._phase = IDLE
        self._idle_since = self._edge.now
        if self._waiting:
            following = self._waiting.popleft()
            if isinstance(following, Refusal):
                self._write_refusal(following)
                return
            self._run(following)
            if self._incoming is following and not following.expects_continue:
                self._start_body_clock(self._edge.loop.time())
        elif self._edge.draining and not self._held:
            self._close(linger=False)
            return
        if self._held and self._incoming is self._current:
            held = bytes(self._held)
            self._held.clear()
            self._resume_reading()
            self.data_received(held)

    def refuse_for(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer for an application that gave none."""
        if exchange is self._current:
            self._current = None
            exchange.gone = True
            self._write_refusal(refusal)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._sealed = True
        self._transport.abort()

    def _run(self, exchange: Exchange) -> None:
        self._current = exchange
        self._phase = BUSY
        self._reader_clock = None
        self.deadline = 0.0  # looked at in every tick: body rate, stalled reader
        exchange.start()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer in the order of requests and close; a request in mid-body loses its task."""
        self._sealed = True
        self._held.clear()
        broken, self._incoming = self._incoming, None
        if broken is not None and broken is self._current:
            if broken.head_sent:
                self.abort()
                return
            self._current = None
            broken.leave()
        elif broken is not None:
            self._waiting.pop()
        if self._current is None:
            self._write_refusal(refusal)
        else:
            self._waiting.append(refusal)

    def _write_refusal(self, refusal: Refusal) -> None:
        """Write the server's own answer, with the client's request id if it sent a sane one (OSDK-07)."""
        given = next((value for name, value in self._headers if name == b"x-request-id"), b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._edge.new_id().encode()
        body = self._edge.encode_body(refusal.status, refusal.code, refusal.message)
        with_body = self._parser.get_method() != b"HEAD"
        self.write(encode_refusal(refusal, body, request_id, self._edge.date_line, with_body=with_body))
        self._close(linger=True)

    def _turn_away(self, passed: str) -> None:
        """Answer a connection above a cap without reading from it."""
        settings = self._settings
        if passed == "address":
            limit, status = settings.connections_per_address_max, 429
            message = f"More than {limit} connections from one address. Reuse connections."
        else:
            limit, status = settings.connections_max, 503
            message = f"More than {limit} connections. Try again shortly."
        self._write_refusal(Refusal(status, "too_many_connections", message, ((b"retry-after", b"1"),)))
        self._close(linger=False)

    def _close(self, *, linger: bool) -> None:
        """Close once everything is sent. Lingering reads on for a moment: a close with unread input would reset the
        connection and could take the answer with it (RFC 9112 9.6).
        """  # noqa: D205 - one thought
        self._sealed = True
        self._waiting.clear()
        self._held.clear()
        self._resume_reading()
        self._edge.batch.send()
        self._reader_clock = None
        self._linger_ends = self.deadline = 0.0
        if linger and self._transport.can_write_eof() and not self._transport.is_closing():
            self._phase = LINGERING
            self._transport.write_eof()
        else:
            self._phase = CLOSING
            self._transport.close()

    def _let_writers_go(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    # --- called by the ticker and by the drain ---------------------------------------------------------------------

    def overdue(self, now: float) -> None:
        """Act on the passed deadline of this phase, or set the next one."""
        phase = self._phase
        if phase == BUSY:
            self._check_body(now)
            self._check_reader(now)
        elif phase == PARTIAL:
            self._refuse(timed_out(f"The request head took longer than {self._settings.header_s:g} s."))
        elif phase == FRESH:
            self._close(linger=False)
        elif not self._check_reader(now):
            self._end_quiet(now)

    @property
    def unheard(self) -> bool:
        """Whether nothing was asked on it yet, or no whole head has come."""
        return self._phase in {FRESH, PARTIAL}

    def close_if_idle(self) -> None:
        """Close when no request is in flight or begun; a fresh connection stays, to be told 503."""
        if self._phase == IDLE:
            self._close(linger=False)

    def close_when_sent(self) -> None:
        """Close as soon as what was written has gone out; a request in flight is not waited for."""
        if self._current is None:
            self._close(linger=False)
        else:
            self.abort()

    def _end_quiet(self, now: float) -> None:
        """Close a connection with nothing to send: idle for too long, or lingering for long enough."""
        if self._phase == IDLE:
            self.deadline = self._idle_since + self._settings.keep_alive_s
            if self.deadline < now:
                self._close(linger=False)
        elif self._phase == LINGERING:
            if not self._linger_ends:
                self._linger_ends = self.deadline = now + self._settings.linger_s
            else:
                self._transport.abort()

    def _check_body(self, now: float) -> None:
        """Refuse a body that comes too slowly; time in which we do not read does not count."""
        clock = self._body_clock
        if clock is None or self._incoming is None or self._incoming is not self._current:
            return
        if self._read_paused:
            clock.stand_still(now, self._body_bytes)
        elif why := clock.why_late(now, self._body_bytes):
            self._refuse(timed_out(why))

    def _check_reader(self, now: float) -> bool:
        """Drop a client that takes (nearly) nothing of what waits for it. Returns whether anything waits."""
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            self._reader_clock = None
            return False
        clock, taken = self._reader_clock, self._written - waiting
        if clock is None:
            self._reader_clock = ReaderClock(self._settings, now, taken)
        elif clock.is_stalled(now, taken):
            self.abort()
        return True

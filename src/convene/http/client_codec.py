"""Response bytes in, response state out: the sans-I/O half of the client.

Here: `ResponseReader` around llhttp (through httptools), with every rule that decides where a response ends, what is
refused and whether the connection may be used again. Not here: sockets, time, waiting (`client_connection`).

llhttp in its strict mode already refuses bare LF, folded lines (RFC 9112 5.2), spaces before the colon, duplicate or
signed Content-Length, Content-Length beside Transfer-Encoding and control characters. Added here: caps, bodies of HEAD
answers and bodies until close (httptools offers neither), interim answers, transfer codings other than chunked, HTTP
versions other than 1.0 and 1.1, content codings, and bytes after the end, which mean that the peer and we disagree on
framing.

    begin(head=...) → feed(bytes)* → [feed_eof()] ;  read head_done, status, headers, pieces, complete, reusable
"""

from __future__ import annotations

import re
from typing import Final

import httptools
import msgspec

from convene.http.base import Disconnected, ProtocolBroken
from convene.http.client_known import OK, KnownAnswer, learn
from convene.http.decode import CODINGS, Inflater
from convene.http.known import LESSONS

_NAMES_KEPT_MAX: Final = 128
_FIRST_FINAL_STATUS: Final = 200
_LEAST_STATUS: Final = 100
_SWITCHED: Final = 101
_BODILESS: Final = frozenset({204, 304})
_FIELD_OVERHEAD_BYTES: Final = 4
_KEEP_ALIVE: Final = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What one response may cost. Each cap stands against memory held for a peer that never ends something."""

    head_bytes_max: int = 64 * 1024
    """Header block, interim answers included; also trailers and chunk framing between two body bytes."""
    headers_max: int = 200
    """Header fields, trailers included."""
    decoded_bytes_max: int = 1 << 30
    """Decoded size of a compressed body."""


class ResponseReader:
    """Reads the responses of one connection, one after the other.

    `length` is the declared size of the body as it travels, None when chunked or until close.
    `pieces` is a new list for each response and stays with whoever took it; `buffered` counts the bytes put there since
    it was last set to 0.
    """

    __slots__ = (
        "_bytes_left",
        "_caps",
        "_chunked",
        "_fields_left",
        "_head_only",
        "_inflater",
        "_interim",
        "_known",
        "_lessons",
        "_names",
        "_parser",
        "_quiet_bytes",
        "_spent",
        "_surplus",
        "_trouble",
        "_until_close",
        "_untouched",
        "buffered",
        "complete",
        "head_done",
        "headers",
        "keep_alive_s",
        "length",
        "pieces",
        "received",
        "reusable",
        "status",
    )

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._names: dict[bytes, str] = {}
        self._known: KnownAnswer | None = None
        self._lessons = LESSONS
        self._spent = self._untouched = self.received = False
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.begin(head_only=False)

    def begin(self, *, head_only: bool) -> None:
        """Expect the next response; `head_only` for the answer to HEAD or CONNECT, which has no body."""
        if self._untouched and not (self.received or head_only):
            return  # the answer before was had by `glance`: everything still is as the begin before has left it
        self._untouched = not head_only
        if self._spent:
            # llhttp cannot be told to skip a body through httptools, so it now waits for bytes that never come.
            self._parser = httptools.HttpResponseParser(self)
            self._spent = False
        self._head_only = head_only
        self._interim = self._surplus = self._until_close = self._chunked = False
        self.length: int | None = None
        self._inflater: Inflater | None = None
        self._trouble: ProtocolBroken | None = None
        self._quiet_bytes = 0
        self._bytes_left, self._fields_left = self._caps.head_bytes_max, self._caps.headers_max
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.buffered = 0
        self.received = self.head_done = self.complete = self.reusable = False
        self.keep_alive_s: float | None = None

    @property
    def surplus(self) -> bool:
        """Whether bytes came after the end of the response."""
        return self._surplus

    def glance(self, data: bytes) -> KnownAnswer | None:
        """Return the head of `data`, with its body, if it is a whole answer whose head was read before, else None.

        The reader has not seen it then and stays as `begin` has left it; what it would have said are status 200, the
        head's `headers`, `body` and `keep_alive_s`, complete and reusable.
        """
        known = self._known
        if known is None or self.received or self._head_only or self._parser is None or not known.take(data):
            return None
        return known

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection. Raises `ProtocolBroken`; then the connection is of no more use."""
        known = self.glance(data)
        if known is None:
            self.read(data)
        else:
            body, known.body = known.body, b""
            self._take_known(known, body)

    def read(self, data: bytes) -> None:
        """Take bytes at which `glance` has found nothing. Raises `ProtocolBroken` as `feed`."""
        parser = self._parser
        if parser is None:
            return
        is_first = not self.received
        self.received = True
        # Set to 0 by every body piece, so that only a flood of framing and trailers grows it.
        self._quiet_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise (self._trouble or ProtocolBroken(f"the answer is not valid HTTP/1.1: {error}")) from error
            self._surplus = True
        if self._surplus:
            self.reusable = False
        elif self._quiet_bytes > self._caps.head_bytes_max and not self.complete:
            raise ProtocolBroken("the header block or the framing of the body is too large")
        elif is_first and self.complete and self._lessons:
            self._learn_head(data)

    def _take_known(self, known: KnownAnswer, body: bytes) -> None:
        """Take a whole answer whose head was read before, without reading it again."""
        self.received = True
        self.status, self.headers, self.length = OK, known.headers, len(body)
        if body:
            self.pieces.append(body)
            self.buffered = len(body)
        self.keep_alive_s = known.keep_alive_s
        self.head_done = self.complete = self.reusable = True

    def _learn_head(self, data: bytes) -> None:
        """Keep the head of an answer that came whole and alone, to know the next one by it."""
        if self.reusable and not self._head_only and self.length is not None:
            self._known = learn(data, self.status, self.headers, self.keep_alive_s)
            self._lessons -= 1

    def feed_eof(self) -> None:
        """Say that the peer has closed. Raises `Disconnected` unless the response ends by closing, or is complete."""
        if self.complete:
            return
        if not (self.head_done and self._until_close):
            raise Disconnected(received=self.received)
        self._end()

    def release(self) -> None:
        """Break the reference cycle with the parser; the reader reads nothing more."""
        self._parser = None

    # What llhttp calls. An exception raised in here comes out of feed_data as another one, so it is kept in _trouble.

    def on_message_begin(self) -> None:
        """Notice a second response where none was asked for."""
        if self.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one field; fields after the head are trailers, counted and forgotten."""
        self._fields_left = fields = self._fields_left - 1
        self._bytes_left = left = self._bytes_left - len(name) - len(value) - _FIELD_OVERHEAD_BYTES
        if left < 0 or fields < 0:
            self._refuse("the header block is too large")
        if self.head_done or self.complete:
            return
        key = self._names.get(name) or self._learn(name)
        headers = self.headers
        if key in headers:
            headers[key] = f"{headers[key]}, {value.decode('latin-1')}"
        else:
            headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Decide how the body ends and whether the connection outlives it."""
        parser = self._parser
        if self.complete or parser is None:
            return
        status = parser.get_status_code()
        if status < _FIRST_FINAL_STATUS:
            if status < _LEAST_STATUS or status == _SWITCHED:
                self._refuse(f"an answer of status {status} was not asked for")
            self._interim = True
            return
        if parser.get_http_version() not in {"1.1", "1.0"}:
            self._refuse("the answer is of another HTTP version")
        self.status = status
        self._frame()
        self.head_done = True
        self.reusable = parser.should_keep_alive() and not self._until_close
        if self._head_only:
            self._spent = True
            self._end()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, decoded."""
        self._quiet_bytes = 0
        if self.complete:
            self._surplus = True
            return
        if self._inflater is not None:
            try:
                body = self._inflater.feed(body)
            except ProtocolBroken as error:
                self._trouble = error
                raise
            if not body:
                return
        self.pieces.append(body)
        self.buffered += len(body)

    def on_message_complete(self) -> None:
        """End the response, or forget an interim one (RFC 9110 15.2)."""
        if self._interim:
            self._interim = False
            self.headers.clear()
        elif not self.complete:
            try:
                self._end()
            except ProtocolBroken as error:
                self._trouble = error
                raise

    def _end(self) -> None:
        if self._inflater is not None:
            self._inflater.finish()
        self.complete = True

    def _frame(self) -> None:
        headers = self.headers
        if (transfer := headers.get("transfer-encoding")) is not None:
            if transfer.strip().lower() != "chunked":
                self._refuse("the answer has a transfer coding that was not asked for")
            self._chunked = True
        elif (length := headers.get("content-length")) is not None:
            self.length = int(length)
        bodiless = self._head_only or self.status in _BODILESS
        self._until_close = not (bodiless or self._chunked or self.length is not None)
        if (keep_alive := headers.get("keep-alive")) is not None and (found := _KEEP_ALIVE.search(keep_alive)):
            self.keep_alive_s = float(found[1])
        if (coding := headers.get("content-encoding")) is not None and not bodiless:
            coding = coding.strip().lower()
            if coding in CODINGS:
                self._inflater = Inflater(coding, self._caps.decoded_bytes_max)
                self.length = None
            elif coding not in {"", "identity"}:
                self._refuse("the answer has a content coding that was not asked for")

    def _learn(self, name: bytes) -> str:
        """Spare the decoding of names that every answer of this peer repeats."""
        key = name.decode("latin-1").lower()
        if len(self._names) < _NAMES_KEPT_MAX:
            self._names[name] = key
        return key

    def _refuse(self, why: str) -> None:
        self._trouble = ProtocolBroken(why)
        raise self._trouble

"""One HTTP request in the hands of an endpoint: its headers, its body, the ways to answer.

A thin face over ASGI, so that endpoints hold no protocol and cost little. `front.py` makes one for each request.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from convene.api.problems import UnsupportedMedia
from convene.errors import BadRequest, TooLarge
from convene.http.base import DIRECT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from convene.api.limit_headers import ReadyHeaders
    from convene.api.problems import Header
    from convene.http.base import Direct
    from convene.serving.base import Outcome, Principal

    Scope = MutableMapping[str, Any]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

DIRECT_BYTES_MAX = 64 * 1024
"""Above it an answer is worth waiting for room (back-pressure), below it fits the socket's buffer."""
JSON_TYPE = b"application/json"
_JSON_LINE = b"content-type: application/json\r\nx-request-id: %b\r\n"
CLIENT_LEFT = 499
"""nginx's number for a client that left before its answer was whole; only ever seen in the log."""
_FIELDS = "fields"
_encode = msgspec.json.Encoder().encode


class ClientLeftError(Exception):
    """The client closed the connection before its request was whole; there is nobody to answer."""


class _SameFields:
    """The header fields of a head that comes again, and the place of its length among them."""

    __slots__ = ("fields", "length_at")

    def __init__(self, headers: Sequence[Header]) -> None:
        self.fields = dict(headers)
        self.length_at = next((at for at, (name, _) in enumerate(headers) if name == b"content-length"), None)


class Call:
    """One request. `status` is set once a head has been sent, for the access log.

    `notes`: kept for the next request of the connection with the same head, where our own server says so.
    `broke_off`: its answer is a stream that ended in an error frame.
    """

    __slots__ = (
        "_direct",
        "_limit_headers",
        "body_bytes_max",
        "broke_off",
        "common",
        "cross_origin_allowed",
        "headers",
        "notes",
        "outcome",
        "params",
        "path",
        "principal",
        "receive",
        "request_id",
        "scope",
        "send",
        "status",
        "streamed",
        "trace_id",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, body_bytes_max: int, limit_headers: ReadyHeaders
    ) -> None:
        self.scope = scope
        self._limit_headers = limit_headers
        extensions = scope.get("extensions")
        self._direct: Direct | None = extensions.get(DIRECT) if extensions else None
        self.notes: dict[str, object] | None = None if self._direct is None else self._direct.notes
        self.headers: dict[bytes, bytes] = (
            dict(scope["headers"]) if self.notes is None else _fields_of(scope["headers"], self.notes)
        )
        self.receive = receive
        self.send = send
        self.request_id = ""
        self.body_bytes_max = body_bytes_max
        self.common: list[Header] = []
        self.cross_origin_allowed = False
        self.params: dict[str, str] = {}
        self.path: str = scope["path"]
        self.principal: Principal | None = None
        self.outcome: Outcome | None = None
        self.status = 0
        self.streamed = False
        self.broke_off = False
        self.trace_id = ""

    def name(self, request_id: str) -> None:
        """Give the request its id, which every answer carries (OSDK-07)."""
        self.request_id = request_id
        self.common.append((b"x-request-id", request_id.encode()))

    @property
    def caller(self) -> Principal:
        """Who is asking; only endpoints whose route needs a key may use it."""
        if self.principal is None:
            raise RuntimeError(f"{self.path} is open, yet its endpoint asks who is calling")
        return self.principal

    def header(self, name: bytes) -> str | None:
        """Return the header of that lower-case name (the last, if it came twice), as latin-1 text."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def text_header(self, name: bytes) -> str | None:
        """Return a header that holds what people write: UTF-8 where it is that, else latin-1 as browsers send it."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def divert(self, body: bytes, send: Send) -> Send:
        """Let the answer go through `send` and the body, which was read already, be read again.

        Return what took the answer before, to be put back into `send`.
        """
        before, receive = self.send, self.receive
        unread = [body]

        async def receive_again() -> MutableMapping[str, Any]:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        self.send, self.receive, self._direct = send, receive_again, None
        return before

    async def raw_body(self) -> bytes:
        """Read the whole body as it came. Raises `TooLarge` and `ClientLeftError`."""
        encoding = self.headers.pop(b"content-encoding", None)
        try:
            return await self.body()
        finally:
            if encoding is not None:
                self.headers[b"content-encoding"] = encoding

    def whole_body(self) -> bytes | None:
        """Return the body if it has come whole and plain, as is common, else None: then `body` must be asked."""
        if self._direct is None or b"content-encoding" in self.headers:
            return None
        body = self._direct.take_body()
        if body is not None and len(body) > self.body_bytes_max:
            raise self._too_large()
        return body

    async def body(self) -> bytes:
        """Read the whole body, unpacked. Raises `TooLarge`, `UnsupportedMedia`, `BadRequest`, `ClientLeftError`."""
        body = None if self._direct is None else self._direct.take_body()
        if body is None:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientLeftError
            body = message.get("body", b"")
            if message.get("more_body"):
                body = await self._rest(body)
        if len(body) > self.body_bytes_max:
            raise self._too_large()
        encoding = self.headers.get(b"content-encoding")
        return body if encoding is None else self._unpacked(body, encoding.decode("latin-1").strip().lower())

    async def _rest(self, first: bytes) -> bytes:
        pieces, size, more = [first], len(first), True
        while more:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientLeftError
            piece: bytes = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            if size > self.body_bytes_max:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(pieces)

    def _unpacked(self, body: bytes, encoding: str) -> bytes:
        """Undo gzip or deflate within the same cap (OAI-28)."""
        if encoding in {"", "identity"}:
            return body
        if encoding not in {"gzip", "deflate"}:
            raise UnsupportedMedia(f"content-encoding '{encoding[:40]}' is not read here; send gzip, deflate or none.")
        stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            plain = stream.decompress(body, self.body_bytes_max + 1)
        except zlib.error:
            raise BadRequest(f"The body is not valid {encoding}.", code="invalid_encoding") from None
        if len(plain) > self.body_bytes_max:
            raise self._too_large()
        if not stream.eof or stream.unused_data:
            raise BadRequest(f"The {encoding} body is not one whole {encoding} stream.", code="invalid_encoding")
        return plain

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The request body is larger than {self.body_bytes_max} bytes, this server's limit.")

    async def emit(self, message: MutableMapping[str, Any]) -> None:
        """Send one ASGI message. Raises `ClientLeftError` where ASGI raises `OSError`."""
        try:
            await self.send(message)
        except OSError:
            self.status = CLIENT_LEFT
            raise ClientLeftError from None

    def limit_head(self) -> list[Header]:
        """Return the fields that say how the caller's limits stand; none where nothing is limited (LIMIT-03)."""
        standing = None if self.outcome is None else self.outcome.standing
        if standing is None:
            return []
        ready = self._limit_headers.of(standing.limits)
        if standing.refusal is not None:
            return ready.refused(standing.refusal)
        return ready.granted(standing.now_us, standing.states)

    def reply_whole(self, body: bytes) -> bool:
        """Send a whole JSON answer of status 200 if that needs no wait, as is common; else `reply` must be asked."""
        direct = self._direct
        if direct is None or len(body) > DIRECT_BYTES_MAX:
            return False
        self.reply_at_once(direct, 200, body)
        return True

    async def reply(
        self, status: int, body: bytes, content_type: bytes = JSON_TYPE, headers: list[Header] | None = None
    ) -> None:
        """Send a whole answer."""
        direct = self._direct
        if direct is not None and len(body) <= DIRECT_BYTES_MAX:
            self.reply_at_once(direct, status, body, content_type, headers)
            return
        self.status = status
        head = [(b"content-type", content_type), *self.common]
        outcome = self.outcome
        if outcome is not None and outcome.standing is not None:
            head += self.limit_head()
        if headers:
            head += headers
        head.append((b"content-length", b"%d" % len(body)))
        await self.emit({"type": "http.response.start", "status": status, "headers": head})
        await self.emit({"type": "http.response.body", "body": body})

    def reply_at_once(
        self,
        direct: Direct,
        status: int,
        body: bytes,
        content_type: bytes = JSON_TYPE,
        headers: list[Header] | None = None,
    ) -> None:
        """Send a whole answer through our own server: the same as `reply`, and most of its head as finished lines."""
        self.status = status
        common = self.common
        if content_type is JSON_TYPE and common:
            lines, rest = _JSON_LINE % common[0][1], common[1:] if len(common) > 1 else []
        else:
            lines, rest = b"", [(b"content-type", content_type), *common]
        outcome = self.outcome
        standing = None if outcome is None else outcome.standing
        if standing is not None:
            ready = self._limit_headers.of(standing.limits)
            if standing.refusal is None:
                lines += ready.lines(standing.now_us, standing.states)
            else:
                rest += ready.refused(standing.refusal)
        if headers:
            rest += headers
        try:
            direct.respond(status, rest, body, lines)
        except OSError:
            self.status = CLIENT_LEFT
            raise ClientLeftError from None

    async def reply_json(self, value: object, status: int = 200) -> None:
        """Send a value as JSON."""
        await self.reply(status, _encode(value))


def _fields_of(headers: Sequence[Header], notes: dict[str, object]) -> dict[bytes, bytes]:
    """Return the fields of a head that its connection has sent before: a copy of a dictionary, not another one.

    The copy takes a fifth of the time, of the eighteen fields of an SDK a tenth; only the length is not the same.
    """
    same = notes.get(_FIELDS)
    if type(same) is not _SameFields:
        notes[_FIELDS] = same = _SameFields(headers)
    fields = same.fields.copy()
    if same.length_at is not None:
        fields[b"content-length"] = headers[same.length_at][1]
    return fields

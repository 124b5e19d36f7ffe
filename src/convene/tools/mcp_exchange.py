"""One request to an MCP server over its streamable HTTP transport, and what comes with the answer.

    Wire.ask   POST ─► a JSON body, or a stream: notes and the server's own requests, then the reply
                        broken off before it ─► GET with Last-Event-ID, where the stream gave ids (2025-11-25)
    Wire.tell  POST of a notification      Wire.listen   GET of the server's own stream      Wire.end   DELETE

Only the configured endpoint is ever asked: no redirect, no address out of an answer is followed. A request is sent
once; what may be sent again is for `mcp_link.py` to know. Bytes are read by `mcp_codec.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

import convene
from convene.event_stream import EventStream, EventTooLarge
from convene.http import base as http
from convene.tools.mcp_codec import (
    MODERN,
    Ask,
    Fault,
    McpFault,
    Note,
    NotMcp,
    Reply,
    clean,
    encode_answer,
    encode_initialize,
    encode_note,
    encode_request,
    read_messages,
)
from convene.tools.mcp_headers import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ERROR_BYTES_MAX: Final = 64 * 1024
LISTEN_EVENT_BYTES_MAX: Final = 256 * 1024
ANSWERS_MAX: Final = 64
"""Requests of the server's that are answered on one stream; a stream with more is broken off."""
TELL_S: Final = 5.0
RESUMES_MAX: Final = 8
RESUME_AFTER_S: Final = 1.0
RESUME_AFTER_S_MAX: Final = 30.0
SILENCE_S: Final = 600.0
"""A stream that only listens is opened anew after so long without a byte."""
DAY_S: Final = 86_400.0

OK_BELOW: Final = 300
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
NO_METHOD: Final = 405


class Unreachable(McpFault):
    """No answer: no connection, none in time, or it broke off. `sent` is False if nothing can have arrived."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent


class Turned(McpFault):
    """An HTTP status that refuses, with no error of the protocol's in it."""

    def __init__(self, status: int, location: str = "") -> None:
        """`location` is where it points to instead; nobody goes there, but the operator should know."""
        super().__init__(f"it answers {status}" + (f" and points to {clean(location, 200)}" if location else ""))
        self.status = status


class SessionGone(McpFault):
    """The server does not know the session any more; the request was not looked at."""


class Refusal(McpFault):
    """The server answered with an error of the protocol."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"error {fault.code}: {clean(fault.message, 300)}")
        self.code = fault.code
        self.message = fault.message
        self.data = fault.data


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is and how it is asked. Its headers, which hold keys, do not show in its `repr`."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    connect_s: float = 5.0
    bytes_max: int = 1024 * 1024
    """Of one whole answer, what came before it on its stream included."""

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"


class Session(msgspec.Struct, frozen=True):
    """What was agreed with a server: a revision and, before 2026-07-28, perhaps an id. Empty: nothing yet."""

    version: str = ""
    id: str = ""
    list_changed: bool = False

    @property
    def modern(self) -> bool:
        """Whether each request stands for itself."""
        return self.version == MODERN

    @property
    def audible(self) -> bool:
        """Whether it is worth listening to: a session also tells, by its stream's end, that its server has ended."""
        return self.list_changed or bool(self.id)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request: `number` is its id, `name` the tool that it calls."""

    number: int
    method: str
    params: dict[str, object] = {}
    timeout_s: float
    name: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    fresh: bool = False
    """On a connection of its own, so that not even the client below sends it twice."""


class Answer(msgspec.Struct, frozen=True):
    """A result, and the id of the session if one came with it."""

    result: dict[str, Any]
    session_id: str = ""


class Wire:
    """Carries messages to one endpoint and back. Used by any number of tasks at once."""

    def __init__(self, client: http.Client, endpoint: Endpoint) -> None:
        """`client` is shared and not closed here."""
        self._client = client
        self._endpoint = endpoint
        self._numbers = count(1)
        self._asides: set[asyncio.Task[None]] = set()
        given = {name.lower() for name, _ in endpoint.headers}
        agent = (("user-agent", f"convene/{convene.__version__}"),)
        self._always = endpoint.headers + (() if "user-agent" in given else agent)

    def number(self) -> int:
        """Return an id that no request to this endpoint has had."""
        return next(self._numbers)

    async def ask(self, call: Call, session: Session, hear: Callable[[Note], None] = lambda _: None) -> Answer:
        """Send a request and return its result; `hear` gets the notes that come before it. Raises `McpFault`."""
        body = (
            encode_initialize(call.number)
            if call.method == "initialize"
            else encode_request(call.number, call.method, call.params, session.version)
        )
        headers = self._headers(session, call)
        response = await self._send("POST", headers, body, call.timeout_s, fresh=call.fresh)
        try:
            await self._check(response, session)
            reading = _Reading(call, session, hear, self._endpoint.bytes_max)
            reply = await self._read(response, reading)
            session_id = response.headers.get("mcp-session-id", "")
        finally:
            response.close()
        if reply is None:
            reply = await self._resume(reading)
        if isinstance(reply, Fault):
            raise Refusal(reply)
        return Answer(reply.result, session_id)

    async def listen(self, session: Session, hear: Callable[[Note], None]) -> bool:
        """Hand on what the server says of its own accord until its stream ends; False if it offers none.

        Raises `McpFault`.
        """
        if session.modern:
            about: dict[str, object] = {"notifications": {"toolsListChanged": True}}
            call = Call(number=self.number(), method="subscriptions/listen", params=about, timeout_s=DAY_S)
            body = encode_request(call.number, call.method, call.params, session.version)
            response = await self._send("POST", self._headers(session, call), body, DAY_S, SILENCE_S)
        else:
            call = Call(number=0, method="", timeout_s=DAY_S)
            response = await self._send("GET", self._headers(session), b"", DAY_S, SILENCE_S)
        try:
            if response.status == NO_METHOD:
                return False
            await self._check(response, session)
            if not _streams(response):
                return False
            await self._read(response, _Reading(call, session, hear, None))
        finally:
            response.close()
        return True

    async def tell(self, session: Session, method: str, params: dict[str, object] | None = None) -> None:
        """Send a notification. Raises `McpFault`."""
        await self._post(session, encode_note(method, params))

    def tell_aside(self, session: Session, method: str, params: dict[str, object] | None = None) -> None:
        """Send a notification without waiting for it; a failure is nobody's."""
        self._aside(self._post(session, encode_note(method, params)))

    async def end(self, session: Session) -> None:
        """Tell the server that its session is over, if it has one; a failure is nobody's."""
        if session.id:
            with contextlib.suppress(McpFault):
                response = await self._send("DELETE", self._headers(session), b"", TELL_S)
                response.close()

    async def aclose(self) -> None:
        """Let go of what is still being sent aside."""
        for task in self._asides:
            task.cancel()
        await asyncio.gather(*self._asides, return_exceptions=True)

    async def _post(self, session: Session, body: bytes) -> None:
        response = await self._send("POST", self._headers(session), body, TELL_S)
        try:
            await self._check(response, session)
        finally:
            response.close()

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        async def quiet() -> None:
            with contextlib.suppress(McpFault):
                await work

        task = asyncio.create_task(quiet(), name="MCP aside")
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    def _headers(self, session: Session, call: Call | None = None) -> tuple[tuple[str, str], ...]:
        headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            *self._always,
        ]
        if session.version:
            headers.append(("mcp-protocol-version", session.version))
        if session.id:
            headers.append(("mcp-session-id", session.id))
        if call is not None:
            if session.modern:
                headers.append(("mcp-method", call.method))
                if call.name:
                    headers.append(("mcp-name", encode_value(call.name)))
            headers += call.headers
        return tuple(headers)

    async def _send(
        self,
        method: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
        total_s: float,
        silence_s: float | None = None,
        *,
        fresh: bool = False,
    ) -> http.Response:
        endpoint = self._endpoint
        silence_s = total_s if silence_s is None else silence_s
        waits = http.Timeouts(endpoint.connect_s, endpoint.connect_s, silence_s, silence_s, total_s)
        try:
            return await self._client.send(http.Request(method, endpoint.url, headers, body, waits, fresh))
        except (http.ConnectFailed, http.PoolTimedOut) as error:
            raise Unreachable(str(error), sent=False) from error
        except http.ProtocolBroken as error:
            raise NotMcp(str(error)) from error
        except http.HttpError as error:
            raise Unreachable(str(error), sent=True) from error
        except ValueError as error:  # a configured header that cannot be sent
            raise Unreachable(str(error), sent=False) from error

    async def _check(self, response: http.Response, session: Session) -> None:
        """Raise for a status that refuses: as an error of the protocol where the body holds one."""
        if response.status < OK_BELOW:
            return
        fault: Fault | None = None
        try:
            messages = read_messages(await response.read(ERROR_BYTES_MAX))
            fault = next((one for one in messages if isinstance(one, Fault)), None)
        except (NotMcp, http.HttpError):
            pass  # the status says enough
        if session.id and _forgotten(response.status, fault):
            raise SessionGone(f"it answers {response.status} to its session")
        if fault is not None:
            raise Refusal(fault)
        raise Turned(response.status, response.headers.get("location", ""))

    async def _read(self, response: http.Response, reading: _Reading) -> Reply | Fault | None:
        """Return the reply, or None if a stream broke off that can be taken up again. Raises `McpFault`."""
        try:
            if _streams(response):
                async for chunk in response.chunks():
                    if (reply := self._take(reading, chunk)) is not None:
                        return reply
            else:
                body = await response.read(self._endpoint.bytes_max)
                return reading.require(read_messages(body))
        except http.ProtocolBroken as error:
            raise NotMcp(str(error)) from error
        except http.TimedOut as error:
            raise Unreachable(str(error), sent=True) from error
        except http.HttpError as error:
            if not reading.can_resume:
                raise Unreachable(str(error), sent=True) from error
        if not reading.can_resume and reading.limited:
            raise Unreachable("it ended the stream without an answer", sent=True)
        return None

    def _take(self, reading: _Reading, chunk: bytes) -> Reply | Fault | None:
        """Take the next bytes of a stream: notes and the server's requests are dealt with, a reply is returned."""
        reply, asks = reading.feed(chunk)
        for ask in asks:
            self._aside(self._post(reading.session, encode_answer(ask)))
        return reply

    async def _resume(self, reading: _Reading) -> Reply | Fault:
        """Take up a stream that broke off before its reply, as often as it takes. Raises `McpFault`."""
        for _ in range(RESUMES_MAX):
            await asyncio.sleep(reading.pause_s)
            headers = (*self._headers(reading.session), ("last-event-id", reading.stream.last_id))
            try:
                response = await self._send("GET", headers, b"", reading.call.timeout_s)
            except Unreachable:
                continue
            try:
                await self._check(response, reading.session)
                reading.begin()
                reply = await self._read(response, reading)
            finally:
                response.close()
            if reply is not None:
                return reply
        raise Unreachable("it ended the stream without an answer, again and again", sent=True)


class _Reading:
    """What one request has got so far."""

    def __init__(self, call: Call, session: Session, hear: Callable[[Note], None], bytes_max: int | None) -> None:
        """`bytes_max` None: a stream without end, on which no reply is waited for."""
        self.call = call
        self.session = session
        self.limited = bytes_max is not None
        self._hear = hear
        self._left = bytes_max or 0
        self._event_bytes_max = bytes_max or LISTEN_EVENT_BYTES_MAX
        self._answers_left = ANSWERS_MAX
        self.stream = EventStream(self._event_bytes_max)

    def begin(self) -> None:
        """Read a new response that goes on where the last one ended."""
        self.stream = EventStream(self._event_bytes_max, self.stream)

    @property
    def can_resume(self) -> bool:
        """Whether the server has said from where it would go on."""
        return self.limited and not self.session.modern and bool(self.stream.last_id)

    @property
    def pause_s(self) -> float:
        """How long to wait before it is taken up again."""
        asked = self.stream.retry_ms
        return RESUME_AFTER_S if asked is None else min(asked / 1000, RESUME_AFTER_S_MAX)

    def feed(self, chunk: bytes) -> tuple[Reply | Fault | None, list[Ask]]:
        """Take the next bytes of a stream and return the reply, if it came, and what the server asks of us."""
        if self.limited:
            self._left -= len(chunk)
            if self._left < 0:
                raise NotMcp("the answer is too large")
        asks: list[Ask] = []
        try:
            events = self.stream.feed(chunk)
        except EventTooLarge as error:
            raise NotMcp(str(error)) from error
        for data in events:
            for message in read_messages(data):
                if isinstance(message, Note):
                    self._hear(message)
                elif isinstance(message, Ask):
                    self._answers_left -= 1
                    if self._answers_left < 0:
                        raise NotMcp("it asks too much of its client")
                    if not self.session.modern:
                        asks.append(message)
                elif self._is_ours(message):
                    return message, asks
        return None, asks

    def require(self, messages: list[Any]) -> Reply | Fault:
        """Return the reply of a whole body. Raises `NotMcp`."""
        for message in messages:
            if isinstance(message, Note):
                self._hear(message)
            elif isinstance(message, Reply | Fault) and self._is_ours(message):
                return message
        raise NotMcp("the answer holds no reply to the request")

    def _is_ours(self, message: Reply | Fault) -> bool:
        if message.id is None:
            return isinstance(message, Fault)
        return str(message.id) == str(self.call.number)  # some servers give numbers back as texts


def _streams(response: http.Response) -> bool:
    return "event-stream" in response.headers.get("content-type", "").lower()


def _forgotten(status: int, fault: Fault | None) -> bool:
    """Whether a refusal means that the session is not known: 404, or what some servers say instead of it."""
    if status == NOT_FOUND:
        return True
    return status == BAD_REQUEST and fault is not None and "session" in fault.message.lower()

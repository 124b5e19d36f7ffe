"""Doubles for the server's unit tests: a transport that remembers, a loop whose time the test moves, small apps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from convene.http.server_guard import Edge
from convene.http.server_protocol import Connection
from convene.http.server_refusals import encode_refusal_body
from convene.http.server_settings import ServerSettings

if TYPE_CHECKING:
    from convene.http.server_asgi import ASGIApp, Message, Receive, Scope, Send

WALL_S = 1_700_000_000.0
TURNS = 30


class FakeTransport(asyncio.Transport):
    """Remembers what a connection did. `waiting` plays the bytes that the client has not taken."""

    def __init__(self, peer: object = ("10.0.0.1", 4711)) -> None:
        super().__init__()
        self.peer = peer
        self.writes: list[bytes] = []
        self.closed = self.aborted = self.eof = self.paused = False
        self.waiting = 0

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": self.peer, "sockname": ("10.0.0.2", 8000)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class HandMovedLoop:
    """The running loop, except that its time stands still until the test moves it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = 1000.0
        self.create_task = self._loop.create_task
        self.create_future = self._loop.create_future
        self.call_soon = self._loop.call_soon

    def time(self) -> float:
        return self.now


class Line:
    """One connection under test, with its transport, edge and time."""

    def __init__(self, app: ASGIApp, settings: ServerSettings | None = None, *, edge: Edge | None = None) -> None:
        self.loop = HandMovedLoop()
        self.edge = edge or make_edge(app, settings or ServerSettings(), self.loop)
        self.transport = FakeTransport()
        self.connection = Connection(self.edge)
        self.connection.connection_made(self.transport)

    async def feed(self, *pieces: bytes) -> bytes:
        """Give bytes piece by piece, let the application run, and return all that was sent so far."""
        for piece in pieces:
            self.connection.data_received(piece)
        await turn()
        return self.transport.sent

    async def pass_time(self, seconds: float) -> None:
        """Move the time in steps of a tick, as the real ticker would."""
        end = self.loop.now + seconds
        while self.loop.now < end:
            self.loop.now += self.edge.settings.tick_s
            self.edge.tick()
        await turn()

    async def end(self) -> None:
        """Lose the connection and let the tasks end."""
        self.connection.connection_lost(None)
        await turn()
        assert not self.edge.running


def make_edge(app: ASGIApp, settings: ServerSettings, loop: HandMovedLoop) -> Edge:
    """Return an edge on a hand-moved loop, with countable request ids."""
    ids = iter(range(1, 1_000_000))
    edge = Edge(
        app,
        settings,
        loop,  # type: ignore[arg-type]  # the three methods an edge uses
        new_id=lambda: f"req_{next(ids)}",
        wall_now=lambda: WALL_S,
        encode_body=encode_refusal_body,
    )
    edge.start_task = loop.create_task  # a task wants the loop itself
    return edge


async def turn() -> None:
    """Let everything that can run now, run."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def request(
    method: str = "POST", target: str = "/v1/x", headers: str = "", body: bytes = b"", version: str = "1.1"
) -> bytes:
    """Return a request's bytes; `headers` are lines joined by newlines. A body gets its content-length."""
    lines = [f"{method} {target} HTTP/{version}", "Host: convene.test", *filter(None, headers.split("\n"))]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_body(receive: Receive) -> bytes:
    """Read a request's whole body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        piece_of_body: bytes = message["body"]
        body += piece_of_body
        if not message["more_body"]:
            return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with `<method> <path>?<query>:<body>`."""
    body = await read_body(receive)
    text = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}:".encode() + body
    await respond(send, text)


async def respond(send: Send, body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Send a plain answer."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def scripted(*messages: Message, read: bool = True) -> ASGIApp:
    """Return an application that sends the given messages."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        if read:
            await read_body(receive)
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, **headers: str) -> Message:
    """Return a response start."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def piece(body: bytes, *, more: bool = True) -> Message:
    """Return a response body message."""
    return {"type": "http.response.body", "body": body, "more_body": more}


class Answer(msgspec.Struct):
    """One answer, read from the bytes sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the house's shape."""
        found = msgspec.json.decode(self.body)
        assert set(found) == {"error", "message"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert found["message"] == found["error"]["message"]
        error: dict[str, Any] = found["error"]
        return error


def read_answers(sent: bytes, *, heads: bool = False) -> list[Answer]:
    """Read all complete answers; `heads`: they answer HEAD and have no bodies. A close-delimited one takes the rest."""
    answers = []
    while sent:
        head, found, sent = sent.partition(b"\r\n\r\n")
        assert found, f"half a head: {head!r}"
        first, *lines = head.decode().split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name not in headers, f"{name} sent twice"
            headers[name] = value
        status = int(first.split(" ")[1])
        if status == 100 or heads or status in {204, 304}:
            body = b""
        elif "content-length" in headers:
            length = int(headers["content-length"])
            assert len(sent) >= length, "half a body"
            body, sent = sent[:length], sent[length:]
        elif headers.get("transfer-encoding") == "chunked":
            body, sent = _read_chunks(sent)
        else:
            body, sent = sent, b""
        answers.append(Answer(status, headers, body))
    return answers


def _read_chunks(sent: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, sent = sent.partition(b"\r\n")
        length = int(size, 16)
        assert sent[length : length + 2] == b"\r\n"
        body += sent[:length]
        sent = sent[length + 2 :]
        if not length:
            return body, sent


def only(sent: bytes) -> Answer:
    """Return the one answer in `sent`."""
    (answer,) = read_answers(sent)
    return answer


def small(**changes: float) -> ServerSettings:
    """Return settings with some fields changed."""
    return msgspec.structs.replace(ServerSettings(), **changes)

"""Doubles for the client's unit tests: a loop whose time is virtual, and transports that lead to a script.

No sockets anywhere: `Network.open` stands where `convene.http.connect.open_connection` stands in the program.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

from convene.http.client import ClientOptions, HttpClient

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from convene.http.client_route import Origin

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Passes the time a loop would sleep instead of sleeping it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("the test waits for something that cannot happen")
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time. Fails if it leaves a task behind or an exception nobody saw."""
    loop = VirtualLoop()
    complaints: list[str] = []
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    try:
        result = loop.run_until_complete(main)
        left = asyncio.all_tasks(loop)
        assert not left, left
    finally:
        loop.close()
    assert not complaints, complaints
    return result


class Wire(asyncio.Transport):
    """The client's end of one connection; a test plays the peer through it."""

    def __init__(self, protocol: asyncio.Protocol, origin: Origin, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self.protocol = protocol
        self.origin = origin
        self.tls = tls
        self.sent = b""
        self.writes = 0
        self.reading = True
        self.closed = False
        self.on_write: Callable[[Wire], None] | None = None
        self.unflushed = 0

    # What the client calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent += bytes(data)
        self.writes += 1
        if self.on_write is not None:
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        if self.on_write is not None and not self.closed:
            self.on_write(self)

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unflushed

    # What the peer does.

    def say(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.protocol.data_received(data)

    def hang_up(self, error: Exception | None = None) -> None:
        """Close the connection, with a reset if `error` is given."""
        if not self.closed:
            if error is None:
                self.protocol.eof_received()
            self.closed = True
            self.protocol.connection_lost(error)


class Network:
    """Opens wires: `on_write` answers each write, `on_open` sees each new wire, `failure` and `delay_s` obstruct."""

    def __init__(self, on_write: Callable[[Wire], None] | None = None) -> None:
        self.wires: list[Wire] = []
        self.on_write = on_write
        self.on_open: Callable[[Wire], None] | None = None
        self.failure: Exception | None = None
        self.delay_s = 0.0
        self.opening = 0

    async def open(self, origin: Origin, tls: ssl.SSLContext | None, factory: Callable[[], asyncio.Protocol]) -> None:
        self.opening += 1
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.opening -= 1
        if self.failure is not None:
            raise self.failure
        wire = Wire(factory(), origin, tls)
        wire.on_write = self.on_write
        self.wires.append(wire)
        wire.protocol.connection_made(wire)
        if self.on_open is not None:
            self.on_open(wire)

    def client(self, **options: Any) -> HttpClient:  # noqa: ANN401 - whatever ClientOptions takes
        """Return a client on this network."""
        return HttpClient(ClientOptions(**options), open_with=self.open)


def answering(answer: bytes) -> Callable[[Wire], None]:
    """Return an `on_write` that answers everything with `answer`."""

    def on_write(wire: Wire) -> None:
        wire.say(answer)

    return on_write


async def turns(count: int = 3) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def plain(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    """Return a response with a Content-Length."""
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status}\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    """Return `pieces` as a chunked body."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n" + trailer + b"\r\n"

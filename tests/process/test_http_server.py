"""The server on real sockets, on both event loops: attackers, slow clients, caps, disconnects, drain.

Time-outs are made small by settings; every wait is bounded by `PATIENCE_S` and none is a plain sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import resource
import socket
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
import uvloop

from convene.http.server import Server
from convene.http.server_asgi import StartupFailed
from convene.http.server_settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from convene.http.server_asgi import ASGIApp, Receive, Scope, Send

PATIENCE_S = 60.0
QUICK = msgspec.structs.replace(ServerSettings(), tick_s=0.02, linger_s=0.2, cancel_s=1.0)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def on_both_loops(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """Run an asynchronous test on asyncio's own loop and on uvloop, which differ in how they read, write and close."""

    def run(make_loop: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(test(**arguments))

    signature = inspect.signature(test)
    loop = inspect.Parameter("make_loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[loop, *signature.parameters.values()])  # type: ignore[attr-defined]
    run.__name__, run.__module__ = test.__name__, test.__module__
    run.__dict__.update(test.__dict__)
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("make_loop", loops, ids=["asyncio", "uvloop"])(run)


class App:
    """`/` says ok, `/echo` gives the body back, `/hang` never answers, `/flood` sends without end, `/gate` waits."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.gate = asyncio.Event()
        self.lifespan: list[str] = []
        self.sent_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        body = b""
        if scope["path"] == "/echo":
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
        self.started.set()
        try:
            await self.answer(scope["path"], body, send)
        finally:
            self.ended.set()

    async def live(self, receive: Receive, send: Send) -> None:
        for _ in range(2):
            kind = str((await receive())["type"])
            self.lifespan.append(kind)
            await send({"type": kind + ".complete"})

    async def answer(self, path: str, body: bytes, send: Send) -> None:
        if path == "/hang":
            await asyncio.get_running_loop().create_future()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while path == "/flood":
            await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})
            self.sent_bytes += 16_384
        if path in {"/gate", "/stuck"}:
            await send({"type": "http.response.body", "body": b"first ", "more_body": True})
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                await send({"type": "http.response.body", "body": b"cancelled"})
                raise
            body = b"last"
        await send({"type": "http.response.body", "body": body or b"ok"})


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, settings: ServerSettings = QUICK, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Serve while the block runs; nothing may be left behind."""
    server = Server(app, settings, new_id=lambda: "req_1", wall_now=time.time)
    await server.start(host)
    try:
        yield server
    finally:
        await server.stop(grace_s=0.1)
        assert server._edge is not None
        assert not server._edge.connections
        assert not server._edge.running


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear_all(self) -> bytes:
        """Read until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read(-1)

    async def hear(self, end: bytes) -> bytes:
        """Read until `end`."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(end)


@contextlib.asynccontextmanager
async def connecting(server: Server, **options: int) -> AsyncIterator[Client]:
    """Connect while the block runs. `rcvbuf`: the receive buffer in bytes."""
    plain = socket.socket()
    if "rcvbuf" in options:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["rcvbuf"])
    plain.setblocking(False)  # noqa: FBT003 - the socket's own signature
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=options.get("limit", 2**16))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()


def changed(**fields: float) -> ServerSettings:
    return msgspec.structs.replace(QUICK, **fields)


# --- plain service -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@on_both_loops
async def test_it_serves_keeps_alive_and_runs_the_lifespan(host: str) -> None:
    app = App()
    async with serving(app, host=host) as server:
        assert app.lifespan == ["lifespan.startup"]
        async with connecting(server) as client:
            for _ in range(2):
                await client.say(GET)
                assert (await client.hear(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


@on_both_loops
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(App()) as server, connecting(server) as client:
        body = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nb"
        await client.say(b"".join(body + b"%d" % n for n in range(8)))
        for n in range(8):
            assert (await client.hear(b"\r\n\r\nb%d" % n)).count(b"HTTP/1.1 200") == 1


@on_both_loops
async def test_a_large_body_and_a_large_answer_go_through_whole() -> None:
    body = bytes(range(256)) * 40_000
    async with serving(App()) as server, connecting(server, limit=2**25) as client:
        await client.say(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        await client.say(body)
        assert (await client.hear_all()).endswith(b"\r\n\r\n" + body)


@on_both_loops
async def test_it_serves_on_a_socket_it_is_given() -> None:
    given = socket.create_server(("127.0.0.1", 0))
    server = Server(App(), QUICK, new_id=str, wall_now=time.time)
    await server.start(sockets=[given])
    assert server.port == given.getsockname()[1]
    async with connecting(server) as client:
        await client.say(GET)
        await client.hear(b"ok")
    await server.stop()
    await server.stop()


@on_both_loops
async def test_accepted_sockets_probe_silent_peers() -> None:
    async with serving(App()) as server, connecting(server) as client:
        await client.say(GET)
        await client.hear(b"ok")
        assert server._edge is not None
        (connection,) = server._edge.connections
        accepted = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


# --- start-up faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["raises", "says so", "says so without words"])
@on_both_loops
async def test_a_start_that_fails_is_raised_and_leaves_no_socket(way: str) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if way == "raises":
            raise LookupError
        await send({"type": "lifespan.startup.failed", "message": "no disk" if way == "says so" else ""})

    server = Server(app, QUICK, new_id=str, wall_now=time.time)
    with pytest.raises(StartupFailed, match="no disk" if way == "says so" else "start"):
        await server.start()
    await server.stop()


@on_both_loops
async def test_an_application_without_a_lifespan_is_served() -> None:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(app) as server, connecting(server) as client:
        await client.say(GET)
        await client.hear(b"ok")


@on_both_loops
async def test_a_shutdown_that_fails_is_raised() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no disk"})

    server = Server(app, QUICK, new_id=str, wall_now=time.time)
    await server.start()
    with pytest.raises(StartupFailed, match="no disk"):
        await server.stop()


@on_both_loops
async def test_a_taken_port_is_an_error_at_once() -> None:
    async with serving(App()) as server:
        second = Server(App(), QUICK, new_id=str, wall_now=time.time)
        with pytest.raises(OSError, match="in use"):
            await second.start(port=server.port)


# --- attackers and slow clients --------------------------------------------------------------------------------------


@on_both_loops
async def test_an_idle_connection_is_closed() -> None:
    async with serving(App(), changed(first_byte_s=0.1)) as server, connecting(server) as client:
        assert await client.hear_all() == b""


@on_both_loops
async def test_a_head_drip_is_ended_with_408() -> None:
    async with serving(App(), changed(header_s=0.3)) as server, connecting(server) as client:
        await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n")
        answer = asyncio.ensure_future(client.hear_all())
        while not answer.done():
            with contextlib.suppress(OSError):
                await client.say(b"X: y\r\n")
            await asyncio.wait({answer}, timeout=0.05)
        assert answer.result().startswith(b"HTTP/1.1 408 ")


@on_both_loops
async def test_a_body_drip_is_ended_with_408_and_the_task_with_it() -> None:
    app = App()
    async with serving(app, changed(body_window_s=0.3)) as server, connecting(server) as client:
        await client.say(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        answer = asyncio.ensure_future(client.hear_all())
        while not answer.done():
            with contextlib.suppress(OSError):
                await client.say(b"x")
            await asyncio.wait({answer}, timeout=0.05)
        assert answer.result().startswith(b"HTTP/1.1 408 ")
        assert not app.started.is_set()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 2**20 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + b"\r\n", b"431"),
        (b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n" + b"a" * 2**20, b"413"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    ],
    ids=["one large header", "many headers", "long target", "large body", "two framings"],
)
@on_both_loops
async def test_what_is_too_much_is_refused_in_words_the_client_can_read(raw: bytes, status: bytes) -> None:
    async with serving(App(), changed(linger_s=PATIENCE_S)) as server, connecting(server, limit=2**25) as client:
        with contextlib.suppress(OSError):  # the rest may not be taken any more
            await client.say(raw)
        answer = await client.hear_all()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b'"message"' in answer


@pytest.mark.req("ERR-07")
@on_both_loops
async def test_a_client_that_still_sends_its_large_body_can_read_the_413() -> None:
    settings = changed(body_bytes_max=1000, linger_s=PATIENCE_S)
    async with serving(App(), settings) as server, connecting(server, limit=2**25) as client:
        await client.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
        await client.say(b"x" * 8_000_000)
        assert (await client.hear_all()).startswith(b"HTTP/1.1 413 ")


@on_both_loops
async def test_a_stalled_reader_is_dropped_and_held_little() -> None:
    app = App()
    settings = changed(write_stall_s=0.4)
    async with serving(app, settings) as server, connecting(server, rcvbuf=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.say(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(app.ended)
        assert server._edge is not None
        assert app.sent_bytes < 16 * 2**20  # what kernel buffers took; the process held 64 KiB of it


@on_both_loops
async def test_a_client_that_leaves_ends_a_silent_request_at_once() -> None:
    app = App()
    async with serving(app) as server:
        async with connecting(server) as client:
            await client.say(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(app.started)
        await until(app.ended)


@on_both_loops
async def test_a_client_that_leaves_while_its_next_request_waits_is_noticed_too() -> None:
    app = App()
    async with serving(app) as server:
        async with connecting(server) as client:
            await client.say(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
            await until(app.started)
            await client.say(GET)
        await until(app.ended)


@on_both_loops
async def test_half_requests_do_not_keep_others_from_being_served() -> None:
    app = App()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    settings = changed(connections_per_address_max=3000, header_s=60.0, first_byte_s=60.0, tick_s=0.5)
    async with serving(app, settings) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(2000):
            client = await stack.enter_async_context(connecting(server))
            client.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Half: ")
        for _ in range(3):
            async with connecting(server) as honest:
                await honest.say(GET)
                await honest.hear(b"ok")
        assert server._edge is not None
        assert len(server._edge.connections) >= 2000


@on_both_loops
async def test_one_address_may_hold_about_a_thousand_connections() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    async with serving(App(), changed(first_byte_s=60.0, tick_s=0.5)) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connecting(server)) for _ in range(1500)]
        for refused in clients[1000:]:
            assert (await refused.hear_all()).startswith(b"HTTP/1.1 429 ")
        for admitted in (clients[0], clients[999]):
            await admitted.say(GET)
            await admitted.hear(b"ok")
        clients[0].writer.close()
        await clients[0].writer.wait_closed()
        async with asyncio.timeout(PATIENCE_S):
            answer = b""
            while not answer.startswith(b"HTTP/1.1 200"):  # until the server has seen the close
                async with connecting(server) as client:
                    with contextlib.suppress(OSError):
                        await client.say(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                        answer = await client.hear_all()


# --- drain -------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_drain_lets_streams_end_tells_new_requests_503_and_closes_idle_connections() -> None:
    app = App()
    drains: list[int] = []
    server = Server(app, QUICK, new_id=str, wall_now=time.time, on_drain=lambda: drains.append(1))
    await server.start()
    async with connecting(server) as stream, connecting(server) as idle, connecting(server) as fresh:
        await stream.say(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n")
        await stream.hear(b"first ")
        await idle.say(GET)
        await idle.hear(b"ok")
        stopping = asyncio.ensure_future(server.stop())
        assert await idle.hear_all() == b""
        await fresh.say(GET)
        answer = await fresh.hear_all()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        async with connecting(server) as late:
            await late.say(GET)
            assert (await late.hear_all()).startswith(b"HTTP/1.1 503 ")
        assert not stopping.done()
        app.gate.set()
        assert (await stream.hear_all()).endswith(b"4\r\nlast\r\n0\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await stopping
    assert drains == [1]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


@on_both_loops
async def test_whoever_has_just_connected_when_a_drain_ends_is_told_503_and_who_says_nothing_is_not_waited_for() -> (
    None
):
    server = Server(App(), changed(unheard_s=1.0), new_id=str, wall_now=time.time)
    await server.start()
    async with connecting(server) as fresh, connecting(server) as half, connecting(server) as mute:
        await half.say(GET[:9])
        await asyncio.sleep(0.05)
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        await fresh.say(GET)
        await half.say(GET[9:])
        assert (await fresh.hear_all()).startswith(b"HTTP/1.1 503 ")
        assert (await half.hear_all()).startswith(b"HTTP/1.1 503 ")
        assert not stopping.done()
        assert await mute.hear_all() == b""
        async with asyncio.timeout(PATIENCE_S):
            await stopping


@pytest.mark.parametrize("way", ["released", "hurried", "out of patience"])
@on_both_loops
async def test_a_server_that_is_held_refuses_with_503_until_it_may_close(way: str) -> None:
    quiet = asyncio.Event()
    server = Server(App(), QUICK, new_id=str, wall_now=time.time, on_quiet=quiet.set)
    await server.start()
    stopping = asyncio.ensure_future(server.stop(0.5 if way == "out of patience" else None))
    await until(quiet)
    if way != "out of patience":
        for _ in range(3):
            async with connecting(server) as late:
                await late.say(GET)
                assert (await late.hear_all()).startswith(b"HTTP/1.1 503 ")
        assert not stopping.done()
        server.release() if way == "released" else server.hurry()
    async with asyncio.timeout(PATIENCE_S):
        await stopping
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


@pytest.mark.parametrize("hurried", [True, False])
@on_both_loops
async def test_what_outlasts_the_grace_is_cancelled_and_may_say_so(*, hurried: bool) -> None:
    server = Server(App(), QUICK, new_id=str, wall_now=time.time)
    await server.start()
    async with connecting(server) as stream, connecting(server) as silent:
        await stream.say(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        await stream.hear(b"first ")
        await silent.say(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        stopping = asyncio.ensure_future(server.stop(grace_s=60.0 if hurried else 0.2))
        await asyncio.sleep(0)
        if hurried:
            server.hurry()
        assert (await stream.hear_all()).endswith(b"9\r\ncancelled\r\n0\r\n\r\n")
        await silent.hear_all()
        async with asyncio.timeout(PATIENCE_S):
            await stopping


@on_both_loops
async def test_a_request_that_ignores_its_cancellation_does_not_keep_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        assert scope["type"] == "http"
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    server = Server(app, changed(cancel_s=0.1), new_id=str, wall_now=time.time)
    await server.start()
    async with connecting(server) as client:
        await client.say(GET)
        await until(started)
        await server.stop(grace_s=0.0)
        assert "1 requests did not end" in caplog.text
    release.set()
    assert server._edge is not None
    (request,) = server._edge.running
    await asyncio.wait({request.task}, timeout=PATIENCE_S)  # type: ignore[attr-defined]
    assert not server._edge.running


@on_both_loops
async def test_stopping_what_never_started_is_harmless() -> None:
    server = Server(App(), QUICK, new_id=str, wall_now=time.time)
    server.begin_drain()
    server.hurry()
    server.release()
    await server.stop()

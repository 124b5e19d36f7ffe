"""The listening edge: our own ASGI 3 server for HTTP/1.1, with the defences that common servers lack.

    Server(app, settings=ServerSettings(), *, new_id, wall_now, on_drain=None, on_quiet=None,
           encode_body=encode_refusal_body)
        await server.start(host, port)      or  await server.start(sockets=[...])
        server.port                         the first port it listens on
        server.begin_drain()                new requests get 503, idle connections close, `on_drain()` is called once
        await server.stop()                 drain, wait up to `grace_s`, cancel the rest, lifespan shutdown
        server.hurry()                      end the waits of `stop`
        server.release()                    let `stop` close the sockets (only with `on_quiet`)
    serve(server, asked, *, host, port | sockets, on_ready=None)   all of that until the event `asked` is set
    run(app, settings=..., *, host, port, new_id, wall_now, on_drain=None, on_ready=None) -> exit code

    new_id: () -> str          a fresh request id, for answers the server gives itself
    wall_now: () -> float      Unix seconds, for the `date` header
    encode_body: (status, code, message) -> bytes   the JSON body of such an answer

Here: life cycle, signals. Not here: sockets (`server_bind.py`), connections (`server_protocol.py`), requests
(`server_exchange.py`), bounds (`server_settings.py`), TLS and HTTP/2 (a proxy's work), access logs (the application's).
Called by `app_serve.py` and `app_worker.py`.
Decision record: docs/decisions/0001-http-server.md.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
from typing import TYPE_CHECKING, Final

import uvloop

from convene.http.server_asgi import Lifespan
from convene.http.server_bind import bind, port_of
from convene.http.server_guard import Edge
from convene.http.server_protocol import Connection
from convene.http.server_refusals import encode_refusal_body
from convene.http.server_settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.http.server_asgi import ASGIApp

_LOG: Final = logging.getLogger(__name__)
_PROBE_INTERVAL_S: Final = 5
_PROBES: Final = 3
_SPARE_FILES: Final = 1_024  # beside connections: databases, upstream calls, logs


class Server:
    """One application on one event loop. Start it once, stop it once."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings | None = None,
        *,
        new_id: Callable[[], str],
        wall_now: Callable[[], float],
        on_drain: Callable[[], None] | None = None,
        on_quiet: Callable[[], None] | None = None,
        encode_body: Callable[[int, str, str], bytes] = encode_refusal_body,
    ) -> None:
        """Hold the parts; nothing happens before `start`.

        `on_quiet` is called once a drain has nothing left to wait for; the server then goes on refusing with 503 until
        `release()`, within the grace. It is for servers that share a port: those that close earlier than the others
        reset the connections that the kernel has given to them.
        """
        self._app = app
        self._settings = settings if settings is not None else ServerSettings()
        self._new_id = new_id
        self._wall_now = wall_now
        self._on_drain = on_drain
        self._on_quiet = on_quiet
        self._encode_body = encode_body
        self._edge: Edge | None = None
        self._lifespan: Lifespan | None = None
        self._listeners: list[asyncio.Server] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._hurried = False
        self._released = False
        self._stopped = False
        self.port = 0

    @property
    def connections_max(self) -> int:
        """How many connections it takes at most."""
        return self._settings.connections_max

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, sockets: Sequence[socket.socket] = ()) -> None:
        """Run the lifespan start-up, then listen on `sockets` or on every address of `host`.

        Raises `StartupFailed` from the application, `OSError` if an address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        edge = Edge(
            self._app,
            self._settings,
            loop,
            new_id=self._new_id,
            wall_now=self._wall_now,
            encode_body=self._encode_body,
        )
        own = list(sockets) or await bind(loop, host, port)
        try:
            self._lifespan = Lifespan(self._app, edge.state)
            await self._lifespan.start()
        except BaseException:  # whatever ended the start-up, the bound sockets must not outlive it
            for listening in own:
                listening.close()
            raise
        self._edge = edge
        for listening in own:
            _tune(listening, self._settings)
            self._listeners.append(
                await loop.create_server(lambda: Connection(edge), sock=listening, backlog=self._settings.backlog)
            )
        self.port = port_of(own)
        self._ticker = loop.call_later(self._settings.tick_s, self._tick, edge)

    def begin_drain(self) -> None:
        """Answer new requests with 503 and let go of idle connections. Running requests go on. Idempotent."""
        edge = self._edge
        if edge is None or edge.draining:
            return
        edge.draining = True
        if self._on_drain is not None:
            self._on_drain()
        for connection in list(edge.connections):
            connection.close_if_idle()

    async def stop(self, grace_s: float | None = None) -> None:
        """Drain and end: running requests have `grace_s` seconds (default: the setting), then they are cancelled."""
        edge = self._edge
        if edge is None or self._stopped:
            return
        self._stopped = True
        self.begin_drain()
        loop, settings = edge.loop, self._settings
        until = loop.time() + (settings.grace_s if grace_s is None else grace_s)
        await self._wait(edge, lambda: not edge.running, until)
        if self._on_quiet is not None:
            self._on_quiet()
            await self._wait(edge, lambda: self._released, until)
        for request in list(edge.running):
            request.cancel()
        until = max(until, loop.time() + settings.cancel_s)
        await self._wait(edge, lambda: not edge.running, loop.time() + settings.cancel_s, always=True)
        if edge.running:
            _LOG.error("%d requests did not end when cancelled", len(edge.running))
        for listener in self._listeners:
            listener.close()
        # Whoever has just connected has most likely just asked: an end without an answer would look like a fault.
        unheard_until = min(until, loop.time() + settings.unheard_s)
        await self._wait(edge, lambda: not any(one.unheard for one in edge.connections), unheard_until)
        for connection in list(edge.connections):
            connection.close_when_sent()
        await self._wait(edge, lambda: not edge.connections, until)
        for connection in list(edge.connections):
            connection.abort()
        await self._wait(edge, lambda: not edge.connections, loop.time() + settings.cancel_s, always=True)
        if self._ticker is not None:
            self._ticker.cancel()
        for listener in self._listeners:
            await listener.wait_closed()
        if self._lifespan is not None:
            await self._lifespan.stop()

    def hurry(self) -> None:
        """End the patience of `stop`: cancel what runs now (a second signal)."""
        self._hurried = True
        if self._edge is not None:
            self._edge.wake()

    def release(self) -> None:
        """Let `stop` close what it listens on, where `on_quiet` has made it wait for that."""
        self._released = True
        if self._edge is not None:
            self._edge.wake()

    async def _wait(self, edge: Edge, done: Callable[[], bool], until: float, *, always: bool = False) -> None:
        """Wait for `done`, at most until loop time `until`; `hurry` ends it unless `always`."""
        while not done() and (always or not self._hurried):
            left = until - edge.loop.time()
            if left <= 0:
                return
            await asyncio.wait({edge.next_change()}, timeout=left)

    def _tick(self, edge: Edge) -> None:
        self._ticker = edge.loop.call_later(self._settings.tick_s, self._tick, edge)
        edge.tick()


def _tune(listening: socket.socket, settings: ServerSettings) -> None:
    """Set what accepted sockets inherit: no delay, probes of silent peers, an end for unacknowledged bytes."""
    listening.settimeout(0)
    if listening.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        ("TCP_KEEPIDLE", settings.keepalive_idle_s),
        ("TCP_KEEPINTVL", _PROBE_INTERVAL_S),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", settings.unacknowledged_s * 1000),
    ):
        number = getattr(socket, option, None)  # absent on some systems
        if number is not None:
            listening.setsockopt(socket.IPPROTO_TCP, number, value)


def run(
    app: ASGIApp,
    settings: ServerSettings | None = None,
    *,
    host: str,
    port: int,
    new_id: Callable[[], str],
    wall_now: Callable[[], float],
    on_drain: Callable[[], None] | None = None,
    on_ready: Callable[[Server], None] | None = None,
) -> int:
    """Serve on uvloop until SIGTERM or SIGINT, then drain; a second signal ends the grace.

    Returns the process's exit code: 0 after a drain, also one that a second signal cut short. Raises `StartupFailed`
    and `OSError` as `Server.start` does. `on_ready(server)` is called once it listens.
    """
    server = Server(app, settings, new_id=new_id, wall_now=wall_now, on_drain=on_drain)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_signal(server, host, port, on_ready))
    return 0


async def serve(
    server: Server,
    asked: asyncio.Event,
    *,
    host: str = "",
    port: int = 0,
    sockets: Sequence[socket.socket] = (),
    on_ready: Callable[[Server], None] | None = None,
) -> None:
    """Serve as the one task of this process until `asked` is set, then drain. Raises as `Server.start` does."""
    _raise_file_limit(server.connections_max + _SPARE_FILES)
    await server.start(host, port, sockets=sockets)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    if on_ready is not None:
        on_ready(server)
    await asked.wait()
    await server.stop()


async def _serve_until_signal(server: Server, host: str, port: int, on_ready: Callable[[Server], None] | None) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            server.hurry()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await serve(server, asked, host=host, port=port, on_ready=on_ready)


def _raise_file_limit(wanted: int) -> None:
    """Ask for enough file descriptors: the usual soft limit of 1,024 is below the connection cap."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))

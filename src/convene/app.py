"""The composition root: a configuration to a running application. With `app_models.py`, the only place that knows all.

`build` makes the ASGI application and what must start and stop with it; importing this does nothing and two
applications can live in one process (invariant 1). `serve` runs one on the real edge until a signal.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import msgspec

import convene
from convene import logs
from convene.api.access import AccessLog
from convene.api.chat import ChatCompletions
from convene.api.cors import Cors
from convene.api.docs import Docs
from convene.api.embeddings import EmbeddingRequests
from convene.api.front import Front, Lifespan
from convene.api.health import Health
from convene.api.models import Models
from convene.api.routes import Router
from convene.api.stream import Streams
from convene.api.table import Endpoints, route_table
from convene.app_models import TINY, TINY_NOTE, Deployments
from convene.clock import SystemClock
from convene.errors import Busy, Unavailable
from convene.http.client import ClientOptions, HttpClient
from convene.http.server import run
from convene.http.server_settings import ServerSettings
from convene.serving.admission import Open
from convene.serving.catalog import Catalog
from convene.serving.embedding import Embedder
from convene.serving.keyring import LOCAL, KeyRing, ensure_first_key
from convene.serving.turn import Turns
from convene.store.memory import MemoryStore
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.config import Config
    from convene.http.base import Client
    from convene.http.server import Server
    from convene.serving.base import Principal
    from convene.store.base import Store


class App:
    """One application: `front` is the ASGI callable; its lifespan starts and stops everything."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sink: Callable[[bytes], object],
        connect: Callable[[ClientOptions], Client] = HttpClient,
    ) -> None:
        """`sink` takes the lines of the access log, `connect` makes the client of an upstream."""
        self._config = config
        self._clock = clock
        self._store: Store = MemoryStore()
        self._watch: asyncio.Task[None] | None = None
        self.deployments = Deployments(config, clock, connect)
        self.access = AccessLog(sink, clock.now) if config.access_log else None
        self.draining = False
        self.first_key: str | None = None
        catalog = Catalog(self.deployments.all)
        self.catalog = catalog
        models = Models(catalog)
        health = Health(catalog, lambda: self.draining)
        endpoints = Endpoints(
            chat=ChatCompletions(Turns(catalog, Open(), clock), Streams(config.edge.ping_s, config.edge.first_event_s)),
            embeddings=EmbeddingRequests(Embedder(catalog)),
            list_models=models.list_all,
            show_model=models.show,
            alive=health.alive,
            ready=health.ready,
        )
        routes = route_table(endpoints)
        docs = Docs(routes, listed=config.docs)
        self.front = Front(
            router=Router((*routes, *docs.routes())),
            gatekeeper=LocalGate() if config.auth == "none" else ClosedGate(),
            clock=clock,
            lifespan=Lifespan(self.start, self.stop),
            cors=Cors(config.cors_origins),
            access=self.access,
            body_bytes_max=config.edge.body_bytes_max,
            loopback_only=config.auth == "none",
        )

    async def start(self) -> None:
        """Open the store, make the first key if there is none, begin loading models."""
        config = self._config
        if config.auth == "keys":
            self._store = await SqliteStore.open(config.store_path)
            ring = KeyRing(self._store.keys, self._clock)
            self.first_key = await ensure_first_key(ring)
            self.front.gatekeeper = ring
            self._watch_keys(ring)
        self.deployments.start()

    def _watch_keys(self, ring: KeyRing) -> None:
        """Keep an eye on the store; a watch that dies is replaced, else revocations elsewhere would go unseen."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                log.error("the key watch died and starts anew", exc_info=task.exception())
                self._watch_keys(ring)

        self._watch = asyncio.create_task(ring.watch(), name="key watch")
        self._watch.add_done_callback(ended)

    async def stop(self) -> None:
        """End in the opposite order; nothing of it is left."""
        await self.deployments.aclose()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._store.aclose()
        if self.access is not None:
            self.access.flush()

    def drain(self) -> None:
        """From now on not ready."""
        self.draining = True


log = logging.getLogger("convene.app")


class ClosedGate:
    """Nobody yet: the keys are not open before the start."""

    def admit(self, authorization: str | None) -> Principal | None:
        """Refuse."""
        del authorization
        raise Busy("The server is starting.", retry_after_s=1)

    async def look_up(self, authorization: str | None) -> Principal:
        """Refuse."""
        self.admit(authorization)
        raise AssertionError("unreachable: admit raises")


class LocalGate:
    """Everybody is the local operator: `auth = "none"`, on loopback only (decisions 20)."""

    def admit(self, authorization: str | None) -> Principal:
        """Admit."""
        del authorization
        return LOCAL

    async def look_up(self, authorization: str | None) -> Principal:
        """Admit."""
        return self.admit(authorization)


def serve(config: Config) -> int:
    """Serve until a signal; return the exit code. Raises `ConveneError` for a store or a port that cannot be had."""
    logs.install(config.log_level, secrets_of(config))
    clock = SystemClock()
    app = App(config, clock, _write_line)
    for notice in config.notices:
        _say(notice)
    edge = config.edge
    settings = msgspec.convert(edge, ServerSettings, from_attributes=True)
    try:
        return run(
            app.front,
            settings,
            host=config.host,
            port=config.port,
            new_id=lambda: clock.new_id("req_"),
            wall_now=clock.now,
            on_drain=app.drain,
            on_ready=lambda server: _announce(app, config, server),
        )
    except OSError as fault:
        raise Unavailable(
            f"Cannot listen on {config.host}:{config.port}: {fault.strerror}. Choose another port with --port or PORT."
        ) from fault


def _announce(app: App, config: Config, server: Server) -> None:
    """Say where the server is and, the first time, print the key inside a line to paste."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    base = f"http://{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{server.port}"  # noqa: S104 - only compared
    _say(f"Convene {convene.__version__} listens on {base}; documentation at {base}/docs")
    if config.engine.enabled and config.engine.model == TINY:
        _say(f"The embedded model is {TINY_NOTE}")
    if config.auth == "none":
        _say('auth = "none": everybody on this machine may use it without a key.')
    key = app.first_key or "YOUR_KEY" if config.auth == "keys" else "none-needed"
    if app.first_key is not None:
        _say("A first key was made; it is shown only now. Paste this to try it:")
    elif config.auth == "keys":
        _say("`convene keys create NAME` makes a key. Then:")
    sys.stdout.write(
        f"curl {base}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' "
        """-d '{"model": "asi1", "messages": [{"role": "user", "content": "What are you capable of?"}]}'\n"""
    )
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _write_line(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()

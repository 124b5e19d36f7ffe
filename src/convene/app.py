"""The composition root: a configuration to a running application. With `app_models.py`, the only place that knows all.

`App` is the ASGI application and what must start and stop with it; importing this does nothing and two applications
can live in one process (invariant 1). `app_serve.py` runs one on the real edge until a signal.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from typing import TYPE_CHECKING, Final

import msgspec

import convene
from convene.api.access import AccessLog
from convene.api.chat import ChatCompletions
from convene.api.cors import Cors
from convene.api.docs import Docs
from convene.api.embeddings import EmbeddingRequests
from convene.api.front import Front, Lifespan
from convene.api.health import Health
from convene.api.idempotency import Idempotent
from convene.api.metrics import Metrics, MetricsPage
from convene.api.models import Models
from convene.api.routes import Router
from convene.api.stream import Streams
from convene.api.table import Endpoints, route_table
from convene.api.tools import ServerTools
from convene.api.usage import LimitReports, UsageReports
from convene.app_accounts import AccountParts
from convene.app_agent import make_agent, reply_shape
from convene.app_agent_search import SearchParts, Ties, embedding_model
from convene.app_agents import AgentParts, Home
from convene.app_answering import AnsweringParts
from convene.app_books import BookRoom, allowances_of, open_store
from convene.app_fees import AgentTill
from convene.app_images import ImageParts
from convene.app_market import MarketParts
from convene.app_metrics import Shelf
from convene.app_models import Deployments
from convene.app_place import Place
from convene.app_runs import RunParts
from convene.app_tools import ToolRoom
from convene.config import is_loopback
from convene.http.client import ClientOptions, HttpClient
from convene.registry.meaning import Share
from convene.serving.admission import Open
from convene.serving.base_replays import Kept
from convene.serving.catalog import Catalog
from convene.serving.doors import make_first_link
from convene.serving.embedding import Embedder
from convene.serving.gates import ClosedGate, LocalGate
from convene.serving.keyring import LOCAL, KeyRing, ensure_first_key
from convene.serving.limit_desk import LimitReader
from convene.serving.replays import Replays
from convene.serving.tool_desk import ToolReader
from convene.serving.turn import Turns
from convene.serving.usage import UsageReader
from convene.store.memory import MemoryStore
from convene.tools.ask_agent import ASK
from convene.tools.find_agents import FIND

log = logging.getLogger("convene.app")

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convene.agents.base import AgentCard
    from convene.api.routes import Endpoint, Route
    from convene.app_models import EngineMaker
    from convene.clock import Clock
    from convene.config import Config
    from convene.http.base import Client
    from convene.serving.admission import Admission
    from convene.serving.base import Gatekeeper, Principal
    from convene.serving.resume import Resumption
    from convene.store.base import Store
    from convene.store.base_ledger import Ledger
    from convene.tools.base import Toolbox


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the processes behind one port and over one data folder this is."""

    index: int = 0
    """From 0; a process that takes the place of a dead one has its index."""
    count: int = 1
    """How many there are."""

    @property
    def shown(self) -> int | None:
        """What the log says of it: nothing, if it is the only one."""
        return self.index if self.count > 1 else None


ALONE: Final = Worker()
"""The only process: it may count in memory."""


class First(msgspec.Struct, frozen=True):
    """What the first start makes and shows once: a key, and a link for the first admin; None: not this start."""

    key: str | None = None
    link: str | None = None


async def prepare_store(config: Config, clock: Clock) -> First:
    """Bring the store up to date and make what the first start makes, for workers that open it afterwards.

    Raises `StoreFault`.
    """
    store = await open_store(config, clock)
    try:
        return First() if config.auth != "keys" else await make_first(store, clock)
    finally:
        await store.aclose()


async def make_first(store: Store, clock: Clock) -> First:
    """Make the first key and the first admin's link, each if there is none. Raises `StoreFault`."""
    key = await ensure_first_key(KeyRing(store.keys, clock))
    return First(key, await make_first_link(store.accounts, clock))


class App:
    """One application: `front` is the ASGI callable; its lifespan starts and stops everything."""

    books: BookRoom | None = None
    draining = False
    first = First()

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sink: Callable[[bytes], object],
        connect: Callable[[ClientOptions], Client] = HttpClient,
        admission: Admission | None = None,
        *,
        make_engine: EngineMaker | None = None,
        worker: Worker = ALONE,
        tools: Toolbox | None = None,
    ) -> None:
        """`sink` takes the lines of the access log, `connect` makes the client of an upstream.

        `admission` decides which requests may run and hears what each has used, for tests and simulations; without it
        the configured limits and the ledger do, from `start` on. `make_engine` gives the embedded engines where they
        are not this process's own. `worker` says which of several processes this is: counters in memory are exact only
        where there is one. `tools` are offered beside those that are configured.
        """
        self._config, self._clock = config, clock
        self._admission, self.worker = admission, worker
        self._store: Store = MemoryStore()
        self._watch: asyncio.Task[None] | None = None
        self._kept: list[asyncio.Task[None]] = []
        self.deployments = Deployments(config, clock, connect, make_engine)
        self.access = AccessLog(sink, clock.now, worker.shown) if config.access_log else None
        self.catalog = catalog = Catalog(self.deployments.all)
        models, health = Models(catalog), Health(catalog, lambda: self.draining)
        self.accounts = AccountParts(config, clock)
        self.images = ImageParts(config, clock, self.accounts.holder, catalog, admission or Open())
        more = (*((self.images,) if config.images else ()), *(() if tools is None else (tools,)))
        self._place = Place(config)
        self.market = MarketParts(
            config, clock, lambda: self._store, self._gatekeeper, lambda: self.agents, self._place
        )
        self.found, self.agents = self._open_agents(admission or Open())
        self.tools = ToolRoom.open(config, clock, connect, more, self.agents)
        self.runs = RunParts(config, clock, lambda: self._store, lambda: self.draining)
        agents = self.agents if tools is None else None
        self.agent = make_agent(config, clock, self.tools, self.runs.runs, self.runs.sessions, agents)
        self._turns = Turns(catalog, admission or Open(), clock, self.agent)
        self.answering = AnsweringParts(config, clock, self._turns, catalog, self.runs, self.agents)
        self._embedder = Embedder(catalog, admission or Open(), clock)
        self._replays: Replays | None = None
        self._kept_answers = Kept()
        streams = Streams(config.edge.ping_s, config.edge.first_event_s)
        endpoints = Endpoints(
            # `__call__` by name: CPython 3.11 calls a method in a quarter of the time of an object that has one
            chat=self._once(ChatCompletions(self._turns, streams, reply_shape(config)).__call__),
            embeddings=self._once(EmbeddingRequests(self._embedder)),
            **self.images.endpoints(streams, self._once),
            list_models=models.list_all,
            show_model=models.show,
            **self._readers(),
            **self.runs.endpoints(streams),
            **self.found.endpoints(),
            **self.answering.endpoints(streams),
            alive=health.alive,
            ready=health.ready,
            **self.accounts.endpoints(),
        )
        routes = route_table(endpoints)
        about = {"version": convene.__version__, "python": platform.python_version()}
        self.metrics = Metrics(info=about, queue_depth=self._waiting)
        self._shelf = Shelf(config.data_dir / "metrics", worker.index) if worker.count > 1 else None
        shown = _metrics_page(config, self.metrics, self._shelf)
        rooms = (Docs(routes, listed=config.docs), self.accounts, shown, self.market)
        served = (*routes, *(route for room in rooms for route in room.routes()))
        self.front = self._open_front(served)
        self.metrics.attach((route.path for route in served), lambda: self.front.in_flight)

    def _open_agents(self, admission: Admission) -> tuple[SearchParts, AgentParts]:
        """Return who finds agents and who asks them; each needs the other, once there are requests."""
        config, clock = self._config, self._clock

        async def describe(url: str) -> AgentCard:
            return await self.agents.callers.describe(url)

        found = SearchParts(
            config,
            clock,
            lambda: self._store,
            Ties(self.market.admit, lambda: self.agents, lambda: self.agents.address, describe),
            embedding_model(config, self.deployments.all),
            Share(self.worker.index, self.worker.count),
        )
        asked = AgentParts(
            config,
            clock,
            lambda: self._store.sessions,
            egress=self.market.egress,
            directories=(found.directory,),
            populated=found.anybody,
            till=self._till(admission),
            home=Home(self._place, self.market.near, self.market.asset, self.images.keep),
        )
        return found, asked

    def _waiting(self) -> int:
        return 0 if self.books is None else self.books.waiting

    def _gatekeeper(self) -> Gatekeeper:
        return self.front.gatekeeper

    def _open_front(self, served: tuple[Route, ...]) -> Front:
        config = self._config
        return Front(
            router=Router(served),
            gatekeeper=LocalGate() if config.auth == "none" else ClosedGate(),
            clock=self._clock,
            lifespan=Lifespan(self.start, self.stop),
            cors=Cors(config.cors_origins),
            witnesses=(self.metrics.note,) if self.access is None else (self.metrics.note, self.access.write),
            body_bytes_max=config.edge.body_bytes_max,
            loopback_only=config.auth == "none",
            browsers=self.accounts.browsers,
        )

    @property
    def ledger(self) -> Ledger:
        """The books of the store that is open now."""
        return self._store.ledger

    def _once(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that knows `Idempotency-Key`."""
        return Idempotent(endpoint, self._kept_answers, self._config.idempotency.answer_bytes_max).__call__

    def _till(self, admission: Admission) -> AgentTill:
        """Return what charges for priced agents, until the books are open by this admission."""
        self.till = AgentTill(self._config, self.accounts.holder, admission)
        return self.till

    def _readers(self) -> dict[str, Endpoint]:
        """Return the endpoints that read the books, the counters and the box of tools."""
        config, catalog = self._config, self.catalog
        usage = UsageReports(UsageReader(lambda: self.ledger), self._clock.now, config.currency)
        desk = LimitReader(
            allowances_of(config),
            catalog,
            catalog.terms,
            lambda: None if self.books is None else self.books.counters,
            self._clock.now,
        )
        return {
            "list_tools": ServerTools(ToolReader(self.tools, self.tools.missing, self._idle_tools)).list_all,
            "usage": usage.show,
            "usage_requests": usage.requests,
            "usage_request": usage.request,
            "limits": LimitReports(desk, config.currency).show,
            "admin_usage": usage.show_all,
            "admin_usage_requests": usage.all_requests,
            "admin_usage_request": usage.any_request,
        }

    def _idle_tools(self) -> frozenset[str]:
        """Return the names of tools that no answer can use now: there is nobody to ask, or no model that looks."""
        if not self.agents.anybody():
            return frozenset({FIND, ASK})
        looks = any(one.chat is not None and one.agentic.agents for one in self.deployments.all)
        return frozenset() if looks else frozenset({FIND})

    async def start(self) -> None:
        """Open the store, make the first key if there is none, open the books, begin loading models."""
        config = self._config
        if config.auth == "keys" or self._admission is None:
            self._store = await open_store(config, self._clock)
        ring = self.accounts.open(self._store)
        if config.auth == "keys":
            self.first = await make_first(self._store, self._clock)
            self.front.gatekeeper = ring
            self._watch_keys(ring)
        if self._admission is None:

            async def principals() -> Mapping[str, Principal]:
                return self.answering.known(await ring.principals() | {LOCAL.key_id: LOCAL})

            killed = self._resume_runs(ring)
            self.books = await BookRoom.open(config, self._clock, self._store, self.catalog, principals, killed)
            self._turns.admission = self._embedder.admission = self.images.desk.admission = self.books.books
            self.till.fees.admission = self.books.books
        self._replays = Replays(self._store.answers, self._clock, config.idempotency.keep_s)
        self._kept_answers.replays = self._replays
        self.keep(asyncio.create_task(self._replays.sweep(), name="expired answers"))
        self.keep(asyncio.create_task(self.images.links.sweep(), name="expired pictures"))
        if self._shelf is not None:
            self.keep(asyncio.create_task(self._shelf.keep(self.metrics), name="metrics"))
        await self.market.start()
        self.found.start()
        await self.agents.start()
        self.tools.start()
        self.runs.start()
        self.deployments.start()

    def _resume_runs(self, ring: KeyRing) -> Resumption:
        """Let the runs of the dead be taken up; return who knows what they have used."""

        async def holder(key_id: str) -> Principal | None:
            known = LOCAL if key_id == LOCAL.key_id else self.answering.holder(key_id)
            return known or await ring.holder(key_id)

        return self.runs.resume_with(self._turns, holder, self.tools.asked)

    @property
    def first_key(self) -> str | None:
        """The key that this start has made, if it has."""
        return self.first.key

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
        for task in self._kept:
            task.cancel()
        await asyncio.gather(*self._kept, return_exceptions=True)
        self.drain()
        await self.runs.aclose()
        await self.answering.aclose()
        await self._turns.drains.aclose()
        await self.agents.aclose()
        await self.found.aclose()
        await self.market.aclose()
        await self.tools.aclose()
        await self.deployments.aclose()
        if self.books is not None:
            await self.books.aclose()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self.accounts.aclose()
        if self._replays is not None:
            await self._replays.aclose()
        await self._store.aclose()
        if self.access is not None:
            self.access.flush()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task live as long as the application, and no longer."""
        self._kept.append(task)

    def listen_at(self, port: int) -> None:
        """Take the port that this server listens on: links and the inbox of agents name it."""
        self._place.listen_at(port)
        self.images.listen_at(port)

    def drain(self) -> None:
        """From now on not ready."""
        self.draining = True


def _metrics_page(config: Config, metrics: Metrics, shelf: Shelf | None) -> MetricsPage:
    access = config.metrics
    if access == "auto":
        access = "open" if is_loopback(config.host) else "key"
    return MetricsPage(metrics, access, None if shelf is None else shelf.others)

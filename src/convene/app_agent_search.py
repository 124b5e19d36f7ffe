"""The composition of searching agents: the index and what follows the store, the directory, endpoints, for `app.py`.

A part of the composition root. What asks agents (`app_agents.py`) is built after it and handed in as functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents.base import AgentCard
from convene.api.agent_search import AdminAgents, AgentPages, AgentSearchPages
from convene.api.askers import in_their_words
from convene.api.call import Call
from convene.config import ConfigError
from convene.errors import BadRequest, Failed, StoreFault
from convene.providers.base import EmbeddingModel
from convene.registry.base_operator import Card, Heard
from convene.registry.counter import Counter
from convene.registry.directory import LocalDirectory
from convene.registry.follower import Follower
from convene.registry.meaning import Meaning, Share
from convene.registry.operator import Operator
from convene.registry.search import Search
from convene.tools.agents_base import AgentDesk, Asking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.api.routes import Endpoint
    from convene.clock import Clock
    from convene.config import Config
    from convene.registry.base import Found
    from convene.serving.catalog import Deployment
    from convene.store.base import Store
    from convene.store.base_market import Market, Outcome

log = logging.getLogger("convene.registry")

PING: Final = "ping"
PING_S: Final = 75.0
"""More than the wait for a first sign of life (decision 3)."""
WORDS_MAX: Final = 500
FAULTS: Final[dict[str, Outcome]] = {"timed_out": "timed_out", "refused": "refused"}
"""What the reason of an error says of the agent; one that we have not asked has not failed."""
PINGER: Final = "operator"
QUESTION_CHARS_MAX: Final = 1000
EMBEDDED: Final = frozenset({"embedded", "engine"})
"""What the upstream of the embedded engine's models is called."""


class Model(msgspec.Struct, frozen=True):
    """A model that embeds, and the name that its vectors are kept under."""

    name: str
    embedding: EmbeddingModel


def embedding_model(config: Config, deployments: Iterable[Deployment]) -> Model | None:
    """Return the model that finds agents by meaning. Raises `ConfigError` if the one that is named is not there.

    A host's model is taken only if it is named: each listing would be sent to it.
    """
    wanted = config.agents.embedding_model
    there = [one for one in deployments if one.embedding is not None]
    for one in there if wanted != "off" else ():
        card = one.card
        is_it = wanted in {card.id, *card.aliases} if wanted != "auto" else card.upstream in EMBEDDED
        if is_it and one.embedding is not None:
            return Model(f"{card.upstream}/{card.target}", one.embedding)
    if wanted not in {"auto", "off"}:
        known = ", ".join(one.card.id for one in there) or "none"
        raise ConfigError(f"agents.embedding_model: no model '{wanted}' makes embeddings; there are: {known}")
    return None


class Ties(msgspec.Struct, frozen=True):
    """What is needed of parts that are built later."""

    admit: Callable[[Call], Awaitable[object]]
    """Says who may search without a key; raises `Unauthorized`."""
    desk: Callable[[], AgentDesk]
    """Asks agents, for pings."""
    own: Callable[[], str]
    """Our own address, empty while there is none."""
    describe: Callable[[str], Awaitable[AgentCard]]
    """Reads what an agent at a URL says of itself; raises `Failed`."""


class SearchParts:
    """Everything about searching agents, of one application."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        store: Callable[[], Store],
        ties: Ties,
        model: Model | None = None,
        share: Share = Share(),  # noqa: B008 -- frozen
    ) -> None:
        """Take what is needed.

        Args:
            config: the settings.
            clock: the time.
            store: gives the one that is open.
            ties: what is needed of parts that are built later.
            model: finds agents by meaning; None: they are found by words alone.
            share: which of several processes on one store this is.
        """

        def market() -> Market:
            return store().market

        self._config = config
        self._clock = clock
        self._ties = ties
        self._tasks: list[asyncio.Task[None]] = []
        self._model = model
        self._meaning: Meaning | None = None
        if model is not None:
            self._meaning = Meaning(
                lambda: self.follower.index,
                lambda: store().vectors,
                clock,
                self._embed,
                model.name,
                config.agents.embed_per_minute,
                share,
            )
        self.follower = Follower(market, clock, *(() if self._meaning is None else (self._meaning.want,)))
        self._counter = Counter(market, clock)
        self.search = Search(
            lambda: self.follower.index, clock, self._counter, None if model is None else self._embed_one
        )
        poke = self.follower.poke
        self.directory = LocalDirectory(self.search, market, clock, ties.own, poke)
        asks = config.agents.enabled
        self.operator = Operator(market, clock, self.describe if asks else None, self.ping if asks else None, poke)

    def anybody(self) -> bool:
        """Whether there is anybody in our own marketplace."""
        return len(self.follower.index) > 0

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the endpoints; errors of Agentverse's have the form that agents' libraries read (decision 11)."""
        theirs = AgentSearchPages(self.search, self._ties.admit)
        ours = AgentPages(self.search, self._config.currency)
        admins = AdminAgents(self.operator, self._config.currency)
        return {
            "search_agents": in_their_words(theirs.search),
            "search_agents_near": in_their_words(theirs.search_near),
            "click_agent": in_their_words(theirs.click),
            "show_agent_hit": in_their_words(theirs.show),
            "list_agents": ours.find,
            "show_agent": ours.show,
            "admin_list_agents": admins.page,
            "admin_add_agent": admins.add,
            "admin_ping_agent": admins.ping,
            "admin_change_agent": admins.change,
            "admin_remove_agent": admins.remove,
        }

    async def _embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        if self._model is None:
            raise RuntimeError("there is no model that embeds")
        return (await self._model.embedding.embed(texts)).vectors

    async def _embed_one(self, text: str) -> Sequence[float]:
        return (await self._embed((text[:QUESTION_CHARS_MAX],)))[0]

    async def describe(self, url: str) -> Card:
        """Return what an agent at a URL says of itself (`base_operator.Describe`)."""
        try:
            card = await self._ties.describe(url)
        except Failed as fault:
            raise BadRequest(fault.message, code="agent_unreadable", param="url", detail=fault.detail) from fault
        return Card(
            protocol=card.protocol,
            url=card.url or url,
            name=card.name,
            description=card.description,
            readme=card.readme,
            skills=card.skills,
        )

    async def ping(self, agent: Found) -> Heard:
        """Talk to an agent and note how it went (`base_operator.Ping`)."""
        desk, clock = self._ties.desk(), self._clock
        name = clock.new_id("ping-")
        agent = msgspec.structs.replace(agent, price_micros=0)  # the operator pays itself nothing
        asking = Asking(owner=PINGER, conversation=name, call_key=name, say=PING)
        began = clock.monotonic()
        outcome: Outcome = "timed_out"
        words = f"No answer within {PING_S:.0f} s."
        said: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PING_S), aclosing(desk.ask(agent, asking)) as pieces:
                async for piece in pieces:
                    if piece.kind == "text":
                        said.append(piece.text)
                    elif piece.kind == "error":
                        outcome = FAULTS.get(piece.metadata.get("reason", ""), "failed")
                        words = piece.text
                    elif piece.kind in {"end", "needs_input", "payment"}:
                        outcome, words = "success", piece.text
        seconds = clock.monotonic() - began
        await desk.note(agent, outcome, seconds)
        return Heard(outcome=outcome, seconds=seconds, words=("".join(said) or words)[:WORDS_MAX])

    def start(self) -> None:
        """Begin to follow the store and to write what was counted; returns at once."""
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self.follower.run(), name="index of agents"))
        self._tasks.append(loop.create_task(self._counter.run(), name="what was shown of agents"))
        if self._meaning is not None:
            self._tasks.append(loop.create_task(self._meaning.run(), name="meaning of listings"))

    async def aclose(self) -> None:
        """End the background work; what was counted is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        try:
            await self._counter.flush()
        except StoreFault as fault:
            log.warning("what was shown of agents is not counted: %s", fault.detail or fault.message)

"""The composition of agents asked over HTTP (A2A, MCP) and of those that the operator names, for `app_agents.py`.

A part of the composition root. `describe` finds out what is behind a URL; `Named` is a directory of `[agent.NAME]`;
`HouseRules` says who may be asked, in whichever directory he was found.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Final, Literal, Protocol

from convene.agents.a2a import A2aTalker
from convene.agents.a2a_discovery import Discovery, as_agent
from convene.agents.a2a_wire import A2aWire
from convene.agents.answer_rules import Patience
from convene.agents.base import AgentCard
from convene.agents.breaker import Breaker
from convene.agents.credentials import Credentials, key_of
from convene.agents.faults import TalkFault
from convene.agents.guarded import GuardedTalker
from convene.agents.mcp import McpTalker
from convene.agents.mcp_choice import as_agent as mcp_agent
from convene.agents.seats import Seats
from convene.agents.talk_notes import TalkNotes
from convene.app_mcp_agents import McpAgents
from convene.errors import Failed
from convene.registry.base import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from convene.agents.base import Talker
    from convene.clock import Clock
    from convene.config_agents import Agents, KnownAgent
    from convene.egress import Egress
    from convene.registry.base import Interaction
    from convene.store.base_sessions import Sessions

log = logging.getLogger("convene.agents")

FRESH_S: Final = 300.0
"""How long what an agent says of itself is taken for right."""
LOOK_S: Final = 3.0
"""How long a search waits for agents that have not said yet what they are."""
NAMED: Final = "named"
WORD: Final = re.compile(r"\w{3,}")
MCP_PATH: Final = re.compile(r"/(?:mcp|sse)/?$")
STOP: Final = frozenset({"unreachable", "timed_out", "busy"})
"""What is wrong with the address, whatever is spoken there."""
Spoken = Literal["auto", "a2a", "mcp"]


class HouseRules:
    """What the operator says of agents in `[agent.NAME]`."""

    def __init__(self, agents: Mapping[str, KnownAgent]) -> None:
        self._known = {key_of(agent.id): agent for agent in agents.values()}

    def admit(self, found: Found | None) -> Found | None:
        """Return an agent, or None if it is switched off."""
        known = None if found is None else self._known.get(key_of(found.address or found.url))
        return found if known is None or known.enabled else None


class Callers:
    """How agents are asked over HTTP, and what they say of themselves. There from the start; nothing is asked yet."""

    def __init__(self, settings: Agents, agents: Mapping[str, KnownAgent], egress: Egress, clock: Clock) -> None:
        """`egress` is the guarded way out."""
        self._settings = settings
        self._clock = clock
        self.seats = Seats(settings.open_per_agent_max)
        credentials = Credentials({one.url: headers_of(one) for one in agents.values() if one.url})
        self._wire = A2aWire(egress, credentials)
        self._discovery = Discovery(self._wire, clock)
        self._servers = McpAgents(egress, credentials, clock)

    async def describe(self, url: str, protocol: Spoken = "auto") -> AgentCard:
        """Return what the agent at a URL says of itself. Raises `Failed`, with words for whoever gave the URL.

        What is spoken there is found out if nobody says it: a card of A2A first, unless the path looks like MCP's.
        """
        order: tuple[Spoken, ...] = ("mcp", "a2a") if MCP_PATH.search(url) else ("a2a", "mcp")
        words: list[str] = []
        for spoken in order if protocol == "auto" else (protocol,):
            try:
                if spoken == "mcp":
                    return mcp_agent(url, await self._servers.offer(url))
                return as_agent(await self._discovery.find(url))
            except TalkFault as fault:
                words.append(fault.words)
                if fault.reason in STOP:
                    break
        raise Failed(" ".join(dict.fromkeys(words)))

    async def aclose(self) -> None:
        """Leave the servers that were asked."""
        await self._servers.aclose()

    def talkers(self, sessions: Callable[[], Sessions], secret: bytes) -> Sequence[Talker]:
        """Return the talkers."""
        settings, clock = self._settings, self._clock
        patience = Patience(first_s=settings.first_s, total_s=settings.total_s)
        notes = TalkNotes(sessions, clock, "a2a")
        breaker = Breaker(clock.monotonic)
        a2a = A2aTalker(self._wire, self._discovery, notes, clock, secret, patience)
        mcp = McpTalker(self._servers, TalkNotes(sessions, clock, "mcp"), clock, secret, patience)
        return GuardedTalker(a2a, self.seats, breaker), GuardedTalker(mcp, self.seats, breaker)


class Describe(Protocol):
    """See `Callers.describe`."""

    async def __call__(self, url: str, protocol: Spoken = "auto") -> AgentCard:
        """Return what the agent at a URL says of itself. Raises `Failed`."""
        ...


class Named:
    """The agents of `[agent.NAME]` as a `registry.base.Directory`; they say themselves what they can do."""

    def __init__(self, agents: Mapping[str, KnownAgent], describe: Describe, clock: Clock) -> None:
        """Agents of the Agent Chat Protocol are not described here: the registries know them."""
        self._agents = {name: agent for name, agent in agents.items() if agent.url and agent.enabled}
        self._describe = describe
        self._clock = clock
        self._cards: dict[str, tuple[float, AgentCard | None]] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    def anybody(self) -> bool:
        """Whether there is one."""
        return bool(self._agents)

    async def search(self, query: str, limit: int, *, source: str = "") -> Sequence[Found]:
        """See `Directory.search`."""
        del source
        await self._look(self._agents)
        wanted = words_of(query)
        found = [self._found(name, wanted) for name in self._agents]
        return sorted((one for one in found if one.score > 0), key=lambda one: -one.score)[:limit]

    async def find(self, name: str) -> Found | None:
        """See `Directory.find`."""
        for known, agent in self._agents.items():
            if name.removeprefix("@").lower() == known.lower() or key_of(name) == key_of(agent.url):
                await self._look([known])
                return self._found(known, frozenset())
        return None

    async def note(self, interaction: Interaction) -> None:
        """Keep nothing: the operator has chosen."""

    async def aclose(self) -> None:
        """Let go of looks under way."""
        looking = [*self._looking.values()]
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def _look(self, names: Iterable[str]) -> None:
        """See what agents say of themselves where that is not known or old; nobody is waited for long."""
        now = self._clock.monotonic()
        old = [name for name in names if name not in self._cards or now - self._cards[name][0] >= FRESH_S]
        for name in old:
            if name not in self._looking:
                task = asyncio.get_running_loop().create_task(self._look_at(name), name=f"card of {name}")
                self._looking[name] = task
        if old:
            await asyncio.wait([self._looking[name] for name in old], timeout=LOOK_S)

    async def _look_at(self, name: str) -> None:
        card: AgentCard | None = None
        try:
            card = await self._describe(self._agents[name].url, self._agents[name].protocol)
        except Failed as fault:
            log.warning("agent.%s does not say what it is: %s", name, fault.message)
        finally:
            self._cards[name] = (self._clock.monotonic(), card)
            del self._looking[name]

    def _found(self, name: str, wanted: frozenset[str]) -> Found:
        agent = self._agents[name]
        card = self._cards.get(name, (0.0, None))[1]
        if card is None:
            card = AgentCard(protocol="mcp" if agent.protocol == "mcp" else "a2a", url=agent.url, name=name)
        known = words_of(" ".join((name, card.name, agent.description or card.description, *card.skills)))
        return Found(
            protocol=card.protocol,
            name=card.name,
            url=card.url,
            handle=name,
            description=agent.description or card.description,
            readme=card.readme,
            skills=card.skills,
            directory=NAMED,
            score=len(wanted & known) / max(1, len(wanted)),
            reachable=name in self._cards and self._cards[name][1] is not None,
        )


def headers_of(agent: KnownAgent) -> tuple[tuple[str, str], ...]:
    """Return what goes along with requests to an agent."""
    headers = tuple((name, value.reveal()) for name, value in agent.headers.items())
    if agent.api_key and not any(name.lower() == "authorization" for name, _ in headers):
        headers = (("authorization", f"Bearer {agent.api_key.reveal()}"), *headers)
    return headers


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, without their endings as far as those are `s`."""
    return frozenset(word.removesuffix("s") for word in WORD.findall(text.casefold()))

"""The composition of agents: who we are among them, how they are found and asked, our inbox, for `app.py`.

A part of the composition root. Rooms of one floor meet here: `tools/` gets a desk that finds in directories
(`registry.base.Directory`) and asks by talkers (`agents.base.Talker`), one for each protocol. To add a protocol or a
directory, hand it in here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from convene.agent_hops import DEPTH, fault, onward
from convene.agent_identity import Identity, verify_digest
from convene.agents.acp_tools import AcpTalker, AcpTools
from convene.agents.agentverse import Agentverse
from convene.agents.answer_rules import Patience
from convene.agents.base import AgentCard, Conversation, Heard, Verdict
from convene.agents.breaker import Breaker
from convene.agents.chat_protocol import ChatTalker, TalkTerms
from convene.agents.courier import Away, Courier
from convene.agents.faults import TalkFault
from convene.agents.guarded import GuardedTalker
from convene.agents.inbox import Inbox
from convene.agents.letters import OWNER, Letters
from convene.agents.mailbox import Mailbox, MailboxTerms
from convene.agents.mcp import McpTalker
from convene.agents.mcp_choice import DESCRIPTION_CHARS_MAX, TOOLS_SHOWN_MAX, USAGE, described
from convene.agents.pace import Pace
from convene.agents.questions import Questions
from convene.agents.responder import Responder, ResponderTerms
from convene.agents.seats import Seats
from convene.agents.storage import Storages
from convene.agents.talk_notes import TalkNotes
from convene.agents.tool_codec import lends_tools
from convene.app_callers import Callers, HouseRules, Named
from convene.app_egress import open_egress
from convene.app_place import Place
from convene.config import is_loopback, plans_of
from convene.errors import ConveneError, Failed, UpstreamFault
from convene.registry.base import Found, Interaction
from convene.tools.ask_agent import AskAgent
from convene.tools.find_agents import FindAgents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from convene.agents.base import AgentProtocol, Talker
    from convene.agents.responder import Replies
    from convene.agents.storage import Kept, Shelf
    from convene.clock import Clock
    from convene.config import Config
    from convene.egress import Egress
    from convene.events import Noticed
    from convene.registry.base import Directory
    from convene.store.base_sessions import Sessions
    from convene.tools.agents_base import AgentOutcome, Asking, FoundAgent
    from convene.tools.base import Tool

log = logging.getLogger("convene.agents")

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
INBOX: Final = "/agents/inbox"
SELF: Final = "self"
"""The session of nobody's in which our seed is kept."""
SEED_BYTES: Final = 32
ABROAD: Final = 1
"""Which of the seed's identities the directory elsewhere knows; the first is that of our own registry."""
OPEN_MAX: Final = 256
OPEN_PER_HOST_MAX: Final = 64
ANNOUNCE_S: Final = 3_600.0
TOUCH_S: Final = 86_400.0
AGAIN_S: Final = 5.0
LIST_S: Final = 3.0
"""How long a search waits for agents to say which tools they have."""
HOSTED: Final = "agentverse.ai"
HOSTED_PER_MINUTE: Final = 90
"""Between the 60 and 120 that the hosted service bears (HOSTED-05)."""
CLOSED: Final = Verdict(503, "this server has not started yet")


class RemoteDirectory:
    """An Agentverse elsewhere as a `registry.base.Directory`."""

    def __init__(self, agentverse: Agentverse) -> None:
        self._agentverse = agentverse

    async def search(self, query: str, limit: int, *, source: str = "") -> Sequence[Found]:
        """See `Directory.search`."""
        del source
        return [_found_of(one.card, reachable=one.reachable) for one in await self._agentverse.search(query, limit)]

    async def find(self, name: str) -> Found | None:
        """See `Directory.find`."""
        card = await self._agentverse.find(name)
        return None if card is None else _found_of(card, reachable=True)

    async def note(self, interaction: Interaction) -> None:
        """Keep nothing: it ranks by what it sees itself."""


class Desk:
    """A `tools.agents_base.AgentDesk` over directories and talkers."""

    def __init__(
        self,
        directories: Sequence[Directory],
        talkers: Sequence[Talker],
        me: str = "",
        depth: int = DEPTH,
        rules: HouseRules | None = None,
        tools: AcpTools | None = None,
        storages: Storages | None = None,
        abroad: str = "",
    ) -> None:
        """Of one agent in several directories the first counts.

        `me` is our address, `abroad` the one by which a directory elsewhere knows us, `depth` the most agents that a
        question passes through, `rules` are the operator's, `tools` knows the tools of agents that lend some,
        `storages` reads files that agents name in their answers.
        """
        self._me = me
        self._us = frozenset((me, abroad)) - {""}
        self._depth = depth
        self._directories = tuple(directories)
        self._rules = rules or HouseRules({})
        self._tools = tools
        self._storages = storages
        self._talkers: dict[AgentProtocol, Talker] = {talker.protocol: talker for talker in talkers}

    async def search(self, query: str, limit: int) -> Sequence[Found]:
        """Return who fits best, of all directories. Raises `Failed` if none of them can be used."""
        asked = [directory.search(query, limit) for directory in self._directories]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found: dict[str, Found] = {}
        for answer in answers:
            if isinstance(answer, ConveneError):
                log.warning("a directory of agents cannot be searched: %s %s", answer.message, answer.detail)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for one in answer:
                    if one.address not in self._us and (admitted := self._rules.admit(one)) is not None:
                        found.setdefault(one.address or one.url, admitted)
        if answers and all(isinstance(answer, ConveneError) for answer in answers):
            raise Failed("No directory of agents can be searched now.")
        ordered = sorted(found.values(), key=lambda one: -one.score)
        best = [one for one in ordered if one.protocol in self._talkers][:limit]
        return await asyncio.gather(*map(self._with_tools, best))

    async def _with_tools(self, found: Found) -> Found:
        """Return an agent that lends tools with what each of them wants, if it says so soon."""
        if self._tools is None or found.protocol != "acp" or not found.reachable or not lends_tools(found.protocols):
            return found
        try:
            async with asyncio.timeout(LIST_S):
                offer = await self._tools.offer(found.address)
        except (TimeoutError, TalkFault) as fault:
            log.info("%s does not say which tools it has: %s", found.address, fault)
            return found
        return msgspec.structs.replace(
            found,
            description=f"{found.description[:DESCRIPTION_CHARS_MAX]} {USAGE}".strip(),
            skills=tuple(described(tool) for tool in offer.tools[:TOOLS_SHOWN_MAX]),
        )

    async def find(self, name: str) -> Found | None:
        """Return the agent of an address, a handle or a URL. Raises `Failed` if that cannot be known now."""
        unknown = False
        for directory in self._directories:
            try:
                found = await directory.find(name)
            except ConveneError as fault:
                log.warning("a directory of agents cannot be asked: %s %s", fault.message, fault.detail)
                unknown = True
            else:
                if found is not None:
                    return self._rules.admit(found)
        if unknown:
            raise Failed("A directory of agents cannot be asked now, so it is not known who that is.")
        return None

    async def ask(self, agent: FoundAgent, asking: Asking) -> AsyncGenerator[Heard]:
        """Ask and yield what is heard."""
        talker = self._talkers.get(agent.protocol)
        if talker is None:
            yield Heard(kind="error", text=f"Agents of the protocol {agent.protocol} cannot be asked here.")
            return
        words = fault(asking.hops, asking.caller, self._me, agent.address or agent.url, self._depth)
        if words:
            yield Heard(kind="error", text=words, metadata={"reason": "loop"})
            return
        async for heard in talker.talk(card_of(agent), self._conversation(asking), asking.say):
            if heard.kind == "resource" and self._storages is not None:
                yield await self._storages.opened(heard, asking.owner)
            else:
                yield heard

    async def give_up(self, agent: FoundAgent, asking: Asking) -> None:
        """Tell the agent that nobody waits for its answer any more."""
        talker = self._talkers.get(agent.protocol)
        if talker is not None:
            await talker.give_up(card_of(agent), self._conversation(asking))

    def _conversation(self, asking: Asking) -> Conversation:
        """Return a question as talkers know it."""
        return Conversation(
            owner=asking.owner,
            key=asking.conversation,
            call_key=asking.call_key,
            caller=asking.caller,
            hops=onward(asking.hops, asking.caller, self._me),
        )

    async def note(self, agent: FoundAgent, outcome: AgentOutcome, seconds: float) -> None:
        """Tell every directory how a call went."""
        await self._tell(Interaction(agent=agent.address or agent.url, outcome=outcome, seconds=seconds))

    async def note_judged(self, agent: Mapping[str, object], useful: bool) -> None:  # noqa: FBT001 -- `judge.Judge`
        """Tell every directory whether an answer did what was asked (PICK-04); `agent` as in `executable_data`."""
        await self._tell(Interaction(agent=str(agent.get("address") or agent.get("url") or ""), useful=useful))

    async def _tell(self, interaction: Interaction) -> None:
        for directory in self._directories:
            try:
                await directory.note(interaction)
            except ConveneError as fault:
                log.warning("how a call went is not kept: %s %s", fault.message, fault.detail)


class Till(Protocol):
    """Charges for questions to agents that have a price."""

    def charged(self, agent: FoundAgent, asking: Asking, answer: AsyncGenerator[Heard]) -> AsyncGenerator[Heard]:
        """Yield the answer, charged for if the agent has a price; instead of it an error, if it cannot be paid."""
        ...


class Home(NamedTuple):
    """What is this server's own."""

    place: Place
    near: Callable[[str, bytes], Awaitable[bool | None]] | None = None
    """Takes envelopes for endpoints of its own (`agents.courier.Courier`)."""
    asset: Callable[[str, str], Awaitable[Kept | None]] | None = None
    """Reads files that agents have left here (`agents.storage.Storages`)."""
    shelve: Shelf | None = None
    """Keeps pictures for users."""


class AgentParts:
    """Everything about asking agents, of one application. Tools are there from the start, agents from `start` on."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sessions: Callable[[], Sessions],
        egress: Egress | None = None,
        directories: Sequence[Directory] = (),
        populated: Callable[[], bool] = lambda: True,
        till: Till | None = None,
        home: Home | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            config: the settings.
            clock: the time.
            sessions: gives those of the store that is open.
            egress: takes the place of the guarded way out.
            directories: come before the configured one, and are this server's own.
            populated: whether any of them has anybody; asked for every request of an agentic model, so it is cheap.
            till: charges for agents with a price; without it nothing costs anything.
            home: what is this server's own; by the settings, if nobody says.
        """
        self._config = config
        self._settings = config.agents
        self._clock = clock
        self._sessions = sessions
        self._egress = egress or open_agents_egress(config)
        settings = self._settings
        self._remote: Agentverse | None = None
        if settings.enabled and settings.directory:
            self._remote = Agentverse(settings.directory, self._egress, clock, settings.directory_key.reveal())
        remote = () if self._remote is None else (RemoteDirectory(self._remote),)
        self._rules = HouseRules(config.agent)
        self.callers = Callers(settings, config.agent, self._egress, clock)
        self._named = Named(config.agent, self.callers.describe, clock)
        named = (self._named,) if self._named.anybody() else ()
        self._sure = self._remote is not None or self._named.anybody()
        """There is always somebody: those in the configuration stay, and a registry elsewhere is not asked."""
        self.directories: tuple[Directory, ...] = (*named, *directories, *remote) if settings.enabled else ()
        self._populated = populated if directories else lambda: False
        self._till = till
        self._home = home or Home(Place(config))
        self.me: Identity | None = None
        self._abroad: Identity | None = None
        """Who we are in the directory elsewhere (HOSTED-04)."""
        self._inbox: Inbox | None = None
        self._desk = Desk(self.directories, (), rules=self._rules)
        self._tasks: list[asyncio.Task[None]] = []
        self.replies: Replies | None = None
        """Answers agents that ask us; without it they are not heard."""
        self._responder: Responder | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._mailbox: Mailbox | None = None
        self._tools: AcpTools | None = None

    @property
    def address(self) -> str:
        """Our own (`agents.base.Inbox`)."""
        return "" if self.me is None else self.me.address

    @property
    def inbox_url(self) -> str:
        """Where agents reach us that are registered here."""
        return self._settings.inbox_url or self._home.place.url + INBOX

    def is_us(self, address: str) -> bool:
        """Whether an address is ours, here or elsewhere (`agents.base.Inbox`)."""
        ours = (self.me, self._abroad)
        return any(one is not None and one.address == address for one in ours)

    def anybody(self) -> bool:
        """Whether there is anybody to be asked."""
        return self.me is not None and (self._sure or self._populated())

    def tools(self) -> Sequence[Tool]:
        """Return the tools (`tools.base.Toolbox`)."""
        return (FindAgents(self), AskAgent(self)) if self.directories else ()

    def notices(self) -> Sequence[Noticed]:
        """Return nothing (`tools.base.Toolbox`)."""
        return ()

    async def receive(self, body: bytes) -> Verdict:
        """Take in what an agent has posted (`agents.base.Inbox`)."""
        return CLOSED if self._inbox is None else await self._inbox.receive(body)

    async def search(self, query: str, limit: int) -> Sequence[Found]:
        """See `tools.agents_base.AgentDesk`."""
        return await self._desk.search(query, limit)

    async def find(self, name: str) -> Found | None:
        """See `tools.agents_base.AgentDesk`."""
        return await self._desk.find(name)

    def ask(self, agent: FoundAgent, asking: Asking) -> AsyncGenerator[Heard]:
        """See `tools.agents_base.AgentDesk`."""
        answer = self._desk.ask(agent, asking)
        return answer if self._till is None else self._till.charged(agent, asking, answer)

    async def give_up(self, agent: FoundAgent, asking: Asking) -> None:
        """See `tools.agents_base.AgentDesk`; it is said aside, for an answer to a user waits for this to return."""
        task = asyncio.get_running_loop().create_task(self._desk.give_up(agent, asking), name="an agent given up")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def note(self, agent: FoundAgent, outcome: AgentOutcome, seconds: float) -> None:
        """See `tools.agents_base.AgentDesk`."""
        await self._desk.note(agent, outcome, seconds)

    async def note_judged(self, agent: Mapping[str, object], useful: bool) -> None:  # noqa: FBT001 -- `judge.Judge`
        """Take in whether an agent's answer did what was asked; never raises."""
        await self._desk.note_judged(agent, useful)

    async def start(self) -> None:
        """Become somebody, and let that be known. Raises `StoreFault`."""
        if not self._settings.enabled:
            return
        seed = self._settings.seed.reveal() or await self._kept_seed()
        self.me = Identity.from_seed(seed)
        log.info("agents know this server as %s", self.me.address)
        if self._remote is not None:
            self._abroad = Identity.from_seed(seed, ABROAD)
            log.info("agents of %s know it as %s", self._settings.directory, self._abroad.address)
        self._open(seed)
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._stay(), name="our seed"))
        if self._responder is not None:
            self._tasks.append(loop.create_task(self._responder.watch(), name="open questions of agents"))
        if self._remote is not None:
            self._tasks.append(loop.create_task(self._announce(self._remote), name="announcement"))
        if self._mailbox is not None:
            self._tasks.append(loop.create_task(self._mailbox.run(), name="mailbox"))

    async def aclose(self) -> None:
        """End the background work."""
        ending = (*self._tasks, *self._aside)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._tasks.clear()
        if self._tools is not None:
            await self._tools.aclose()
        await self._named.aclose()
        await self.callers.aclose()
        if self._responder is not None:
            await self._responder.aclose()
        if self._inbox is not None:
            await self._inbox.aclose()

    def _open(self, seed: str) -> None:
        me, settings = self.me, self._settings
        abroad = "" if self._abroad is None else self._abroad.address
        if me is None:
            raise RuntimeError("agents are opened before there is an identity")
        letters = Letters(self._sessions, self._clock)
        away = None
        if self._abroad is not None and self._remote is not None:
            away = Away(self._abroad, self._remote.resolve)
        courier = Courier(me, self._egress, self._resolve, self._home.near, away)
        secret = f"convene sessions {seed}".encode()
        shared = self._config.workers > 1 or bool(self._config.database_url)
        if self.replies is not None and answers_agents(self._config):
            self._responder = self._open_responder(self.replies, courier, secret, shared=shared)
        strangers = None if self._responder is None else self._responder.take
        self._inbox = Inbox(courier, letters, self._clock, verify_digest, strangers)
        if self._abroad is not None and has_mailbox(self._config):
            mailbox = MailboxTerms(base_url=settings.directory, key=settings.directory_key.reveal())
            inbox = self._inbox
            self._mailbox = Mailbox(
                mailbox, self._abroad, self._egress, self._clock, inbox.receive, lambda: inbox.awaited
            )
        terms = TalkTerms(
            patience=Patience(first_s=settings.first_s, total_s=settings.total_s, quiet_s=settings.quiet_s),
            openers=frozenset(settings.openers),
            shared=shared,
        )
        breaker = Breaker(self._clock.monotonic)
        chat = ChatTalker(courier, self._inbox, letters, breaker, self._clock, secret, terms)
        tools = AcpTools(courier, self._inbox, letters, self._clock, secret, shared=shared)
        self._tools = tools
        notes = TalkNotes(self._sessions, self._clock, "acp tools")
        caller = McpTalker(tools, notes, self._clock, secret, terms.patience)
        talker = AcpTalker(chat, GuardedTalker(caller, Seats(settings.open_per_agent_max), breaker))
        acp = GuardedTalker(talker, self.callers.seats, pace=pace_of(self._config, self._clock))
        talkers = (acp, *self.callers.talkers(self._sessions, secret))
        self._desk = Desk(
            self.directories, talkers, me.address, settings.depth, self._rules, tools, self._storages(), abroad
        )

    def _storages(self) -> Storages | None:
        home = self._home
        if self.me is None or home.asset is None or home.shelve is None:
            return None
        trusted = "" if self._abroad is None else self._settings.directory
        return Storages(self._egress, self._abroad or self.me, self._clock, home.asset, home.shelve, trusted)

    def _open_responder(self, replies: Replies, courier: Courier, secret: bytes, *, shared: bool) -> Responder:
        answering, plans = self._settings.answering, plans_of(self._config.plans)
        usual = ResponderTerms()
        terms = ResponderTerms(
            per_sender=_twice(plans[answering.plan].requests_per_minute, usual.per_sender),
            together=_twice(plans[answering.together].requests_per_minute, usual.together),
            allow=frozenset(answering.allow),
            stream=answering.stream,
            per_minute=answering.messages_per_minute,
            shared=shared,
        )
        return Responder(courier, Questions(self._sessions, self._clock), replies, self._clock, secret, terms)

    async def _resolve(self, address: str) -> Sequence[str]:
        """Return the endpoints of an address that is registered here."""
        for directory in self.directories:
            found = None if isinstance(directory, RemoteDirectory) else await directory.find(address)
            if found is not None and found.endpoints:
                return found.endpoints
        return ()

    async def _kept_seed(self) -> str:
        """Return the seed that the first start has made; of several at once one is given to all."""
        fresh = self._clock.token(SEED_BYTES).hex()
        record = await self._sessions().touch(OWNER, SELF, fresh, int(self._clock.now() * 1_000_000))
        return record.conversation_id

    async def _stay(self) -> None:
        """Use the kept seed daily, so that it is not forgotten as sessions are."""
        while True:
            await asyncio.sleep(TOUCH_S)
            try:
                await self._kept_seed()
            except ConveneError as fault:
                log.warning("our seed could not be looked at: %s", fault.detail or fault.message)

    async def _announce(self, agentverse: Agentverse) -> None:
        """Make ourselves known, again and again (HOSTED-04)."""
        mailbox = self._mailbox
        if mailbox is None and not self._settings.inbox_url:
            await self._home.place.known()
        while True:
            wait_s = AGAIN_S
            try:
                if self._abroad is not None:
                    await agentverse.announce(self._abroad, self.inbox_url if mailbox is None else mailbox.endpoint)
                wait_s = ANNOUNCE_S
            except (UpstreamFault, Failed) as fault:
                log.warning("agents elsewhere do not know us yet: %s %s", fault.message, fault.detail)
            await asyncio.sleep(wait_s)


def open_agents_egress(config: Config) -> Egress:
    """Return the way to agents: the guarded one, to loopback too where this server is there itself (decision 17)."""
    settings = config.egress
    allow = (*settings.allow, *LOOPBACK) if is_loopback(config.host) else settings.allow
    longest_s = max(settings.total_s, config.agents.total_s)
    return open_egress(
        msgspec.structs.replace(
            settings,
            allow=allow,
            open_max=max(settings.open_max, OPEN_MAX),
            open_per_host_max=max(settings.open_per_host_max, OPEN_PER_HOST_MAX),
            # Every request to an agent names its own waits; an answer may take as long as agents are waited for.
            total_s=longest_s,
            first_byte_s=longest_s,
        )
    )


def pace_of(config: Config, clock: Clock) -> Pace | None:
    """Return how often agents of the directory elsewhere are asked; None: as often as anybody wants."""
    said = config.agents
    host = urlsplit(said.directory).hostname or ""
    hosted = host == HOSTED or host.endswith(f".{HOSTED}")
    per_minute = said.directory_per_minute or (HOSTED_PER_MINUTE if hosted else 0)
    return Pace(per_minute, clock.monotonic) if per_minute else None


def has_mailbox(config: Config) -> bool:
    """Whether answers are fetched from a mailbox elsewhere: a key is there, and no address that agents could reach."""
    said = config.agents
    if not said.directory or said.mailbox == "off":
        return False
    is_reachable = bool(said.inbox_url or config.public_url)
    return said.mailbox == "on" or (bool(said.directory_key) and not is_reachable)


def answers_agents(config: Config) -> bool:
    """Whether agents without a key are answered: by default only where they are on this machine, as this server is."""
    said = config.agents.answering.enabled
    return config.agents.enabled and (is_loopback(config.host) if said == "auto" else said == "on")


def _twice(most: int | None, otherwise: int) -> int:
    """Return how many messages are looked at where so many are answered: a refusal is an answer too."""
    return otherwise if most is None else 2 * most + 1


def card_of(agent: FoundAgent) -> AgentCard:
    """Return a found agent as talkers know it."""
    endpoints = agent.endpoints if isinstance(agent, Found) else ()
    directory = agent.directory if isinstance(agent, Found) else "local"
    return AgentCard(
        protocol=agent.protocol,
        address=agent.address,
        url=agent.url,
        name=agent.name,
        handle=agent.handle,
        description=agent.description,
        readme=agent.readme,
        skills=tuple(agent.skills),
        endpoints=endpoints,
        protocols=agent.protocols if isinstance(agent, Found) else (),
        directory=directory,
    )


def _found_of(card: AgentCard, *, reachable: bool) -> Found:
    return Found(
        protocol=card.protocol,
        name=card.name,
        address=card.address,
        url=card.url,
        handle=card.handle,
        description=card.description,
        readme=card.readme,
        skills=card.skills,
        endpoints=card.endpoints,
        protocols=card.protocols,
        directory=card.directory,
        reachable=reachable,
    )

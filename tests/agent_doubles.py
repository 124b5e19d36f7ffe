"""Agents of the Agent Chat Protocol as a test plays them, and the post between them and our inbox.

    house = House(world)                       our courier, inbox, letters and talker over one post
    echo = house.agent("echo", play)           what it does with each message: an async function of the message
    await house.heard(echo, "hello")           everything that one question brings

Messages are written by the product's codec, which tests/contract holds to the library; keys are names.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Self

from convene.agents import chat_codec as codec
from convene.agents.base import AgentCard, Conversation, Heard, Verdict
from convene.agents.breaker import Breaker
from convene.agents.chat_protocol import ChatTalker, TalkTerms
from convene.agents.courier import Courier
from convene.agents.envelope import Draft, Envelope, read_envelope, seal
from convene.agents.inbox import Inbox
from convene.agents.letters import Letters, uuid_of
from convene.egress import EgressFailed
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

    from convene.clock import Clock
    from convene.egress import Request

    Play = Callable[["PlayedAgent", str, str, "codec.ChatMessage"], Coroutine[None, None, None]]
    """What an agent does with a chat message: itself, sender, session, message."""

SECRET = b"a secret of tests"


class FakeSigner:
    """An identity whose signature everybody could compute; good enough where nobody attacks signatures."""

    def __init__(self, name: str) -> None:
        self.address = f"agent1q{name}"

    def sign_digest(self, digest: bytes) -> str:
        return hashlib.sha256(self.address.encode() + digest).hexdigest()


def verify(address: str, digest: bytes, signature: str) -> bool:
    return address.startswith("agent1q") and signature == hashlib.sha256(address.encode() + digest).hexdigest()


class FakeFetched:
    """An answer to a post, as `egress.Fetched`."""

    def __init__(self, status: int = 200, body: bytes = b"{}") -> None:
        self.status = status
        self.body = body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def read(self) -> bytes:
        return self.body


class Post:
    """The network: takes what is posted to an agent's endpoint to the agent."""

    def __init__(self) -> None:
        self.agents: dict[str, PlayedAgent] = {}
        self.posted: list[Request] = []

    async def fetch(self, request: Request) -> FakeFetched:
        self.posted.append(request)
        agent = self.agents.get(request.url)
        if agent is None:
            raise EgressFailed("The address does not answer: no connection could be made.", "connect")
        if agent.breaks is not None:
            raise agent.breaks
        if agent.status != 200:
            return FakeFetched(agent.status, b'{"error": "bad mood"}')
        agent.take(request.body)
        return FakeFetched()


class PlayedAgent:
    """One agent. Everything it was sent is in `received`, acknowledgements in `acknowledged`."""

    def __init__(self, house: House, name: str, play: Play | None, *, acknowledges: bool) -> None:
        self.house = house
        self.me = FakeSigner(name)
        self.url = f"http://{name}.test/submit"
        self.play = play
        self.acknowledges = acknowledges
        self.status = 200
        self.breaks: Exception | None = None
        self.received: list[tuple[Envelope, codec.Heard]] = []
        self.acknowledged: list[str] = []
        self.verdicts: list[Verdict] = []
        self._numbers = 0

    @property
    def card(self) -> AgentCard:
        return AgentCard(protocol="acp", address=self.me.address, name=self.me.address, endpoints=(self.url,))

    def take(self, body: bytes) -> None:
        """Take an envelope in and work on it in a task of its own, as agents do."""
        envelope = read_envelope(body)
        assert envelope.target == self.me.address
        assert envelope.signature is not None
        assert verify(envelope.sender, envelope.digest(), envelope.signature)
        said = codec.read_message(envelope.schema_digest, envelope.body())
        self.received.append((envelope, said))
        if isinstance(said, codec.Acknowledgement):
            self.acknowledged.append(said.msg_id)
        elif isinstance(said, codec.ChatMessage):
            self.house.work(self._work(envelope, said))

    async def _work(self, envelope: Envelope, said: codec.ChatMessage) -> None:
        if self.acknowledges:
            await self.send(envelope.session, codec.write_acknowledgement(said.msg_id, at=self.house.clock.now()))
        if self.play is not None:
            await self.play(self, envelope.sender, envelope.session, said)

    def new_id(self) -> str:
        self._numbers += 1
        return uuid_of(SECRET, self.me.address, str(self._numbers))

    async def say(self, session: str, *content: codec.Content | str, msg_id: str = "") -> Verdict:
        """Send a chat message."""
        parts = [codec.Text(one) if isinstance(one, str) else one for one in content]
        at = self.house.clock.now()
        return await self.send(session, codec.write_chat(parts, msg_id=msg_id or self.new_id(), at=at))

    async def send(self, session: str, draft: Draft) -> Verdict:
        body = seal(draft, self.me.address, self.house.me.address, session, self.me.sign_digest)
        self.verdicts.append(await self.house.inbox.receive(body))
        return self.verdicts[-1]


class House:
    """Our side."""

    def __init__(
        self,
        clock: Clock,
        terms: TalkTerms = TalkTerms(),  # noqa: B008 -- frozen
        post: Post | None = None,
        sessions: SessionsDouble | None = None,
    ) -> None:
        self.clock = clock
        self.post = post or Post()
        self.me = FakeSigner("ours")
        self.sessions = sessions or SessionsDouble()
        self.letters = Letters(lambda: self.sessions, clock)
        self.courier = Courier(self.me, self.post, self.resolve)  # type: ignore[arg-type]  # a double of what it uses
        self.inbox = Inbox(self.courier, self.letters, clock, verify)
        self.breaker = Breaker(clock.monotonic)
        self.talker = ChatTalker(self.courier, self.inbox, self.letters, self.breaker, clock, SECRET, terms)
        self.tasks: set[asyncio.Task[None]] = set()

    def agent(self, name: str, play: Play | None = None, *, acknowledges: bool = True) -> PlayedAgent:
        agent = PlayedAgent(self, name, play, acknowledges=acknowledges)
        self.post.agents[agent.url] = agent
        return agent

    async def resolve(self, address: str) -> Sequence[str]:
        return [agent.url for agent in self.post.agents.values() if agent.me.address == address]

    def work(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def talk(
        self, agent: PlayedAgent, say: str, key: str = "conv", call: str = "run_1:s1:1", owner: str = "o"
    ) -> AsyncGenerator[Heard]:
        """Ask; see `Talker.talk`."""
        return self.talker.talk(agent.card, Conversation(owner=owner, key=key, call_key=call), say)

    async def heard(self, agent: PlayedAgent, say: str, key: str = "conv", call: str = "run_1:s1:1") -> list[Heard]:
        """Ask and return all that was heard."""
        return [one async for one in self.talk(agent, say, key, call)]

    async def aclose(self) -> None:
        """Let everybody come to an end."""
        while self.tasks:
            await asyncio.wait(self.tasks)
        await self.inbox.aclose()


def text_of(heard: Sequence[Heard]) -> str:
    """Return the answer's text."""
    return "".join(one.text for one in heard if one.kind == "text")


def kinds(heard: Sequence[Heard]) -> list[str]:
    return [one.kind for one in heard]

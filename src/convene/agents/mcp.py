"""The talker of MCP: a server asked as an agent, one call of one tool for one question (MCP-01, MCP-03).

    message ──► which tool (`mcp_choice.py`) ──► the call, once ──► progress ──► its result, which is the whole answer

The protocol is spoken by whoever is handed in as `McpServers`: `tools/` has it, which this room does not see. A call
that a crash cut off is made again only where the server says that it does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from convene.agents.base import Heard
from convene.agents.faults import STORE, TalkFault, error, why_not
from convene.agents.letters import uuid_of
from convene.agents.mcp_choice import Chosen, McpOffer, choose, signature
from convene.agents.one_at_a_time import OneAtATime
from convene.agents.talk_notes import Sent
from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.agents.answer_rules import Patience
    from convene.agents.base import AgentCard, Conversation
    from convene.agents.talk_notes import TalkNotes
    from convene.clock import Clock

log = logging.getLogger("convene.agents")

PROGRESS_MAX: Final = 100
LOST: Final = "The tool {name} may have been carried out before this server was restarted; it is not called twice."
NO_WORDS: Final = "The tool {name} failed and gave no reason."
LATE: Final = "The tool {name} did not answer within {seconds:g} seconds."


class ToolAsked(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool."""

    tool: str
    arguments: Mapping[str, object]
    key: str
    """The same when a call is repeated."""
    wait_s: float
    progress: Callable[[str], None] = lambda _: None
    """Takes what the server says on the way."""
    hops: tuple[str, ...] = ()
    """Agents that the question has been through (`agent_hops.py`)."""


class ToolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a call gave."""

    text: str
    failed: bool = False


class WrongArgumentsError(Exception):
    """The server has not taken the arguments; the text is its own, bounded."""


class McpServers(Protocol):
    """Speaks the protocol with servers at addresses that strangers named. Raises `TalkFault`."""

    async def offer(self, url: str) -> McpOffer:
        """Return what a server offers; may be some minutes old."""
        ...

    async def call(self, url: str, asked: ToolAsked) -> ToolAnswer:
        """Call a tool of a server. Raises `WrongArgumentsError` too."""
        ...


class McpTalker:
    """Speaks MCP (`base.Talker`). Belongs to one event loop."""

    protocol: Literal["mcp"] = "mcp"

    def __init__(self, servers: McpServers, notes: TalkNotes, clock: Clock, secret: bytes, patience: Patience) -> None:
        """Take what is needed; keys of calls are computed with `secret`, the same in every process."""
        self._servers = servers
        self._notes = notes
        self._clock = clock
        self._secret = secret
        self._patience = patience
        self._turns = OneAtATime()

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        """Ask and yield what is heard (`base.Talker`)."""
        if words := why_not(card.url, conversation):
            yield error(words, "refused")
            return
        session = uuid_of(self._secret, "mcp", conversation.owner, conversation.key, card.url)
        try:
            async with self._turns.alone(session):
                heard: asyncio.Queue[Heard] = asyncio.Queue()
                work = asyncio.get_running_loop().create_task(
                    self._ask(card.url, session, conversation, say, heard), name="call of an MCP agent"
                )
                try:
                    while not work.done() or not heard.empty():
                        getting = asyncio.ensure_future(heard.get())
                        try:
                            await asyncio.wait((getting, work), return_when=asyncio.FIRST_COMPLETED)
                        finally:
                            if not getting.done():  # also where the talk is closed meanwhile
                                getting.cancel()
                        if getting.done():
                            yield getting.result()
                    for one in work.result():
                        yield one
                finally:
                    work.cancel()
                    await asyncio.wait([work])
        except TalkFault as fault:
            yield fault.heard()
        except StoreFault as broken:
            log.warning("an MCP agent cannot be asked: %s", broken.detail or broken.message)
            yield error(STORE, "store")

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        """Do nothing: closing the talk has told the server already."""

    async def _ask(
        self, url: str, session: str, conversation: Conversation, say: str, heard: asyncio.Queue[Heard]
    ) -> tuple[Heard, ...]:
        """Return what ends the talk. Raises `TalkFault` and `StoreFault`."""
        call = conversation.call_key
        await self._notes.open(session)
        sent = await self._notes.sent(session, call)
        if sent is not None and sent.answer:
            return _told(msgspec.json.decode(sent.answer, type=ToolAnswer), sent.msg_id)
        offer = await self._servers.offer(url)
        chosen = choose(offer, say)
        if not isinstance(chosen, Chosen):
            return (Heard(kind="needs_input", text=chosen.words),)
        name = chosen.tool.name
        if sent is not None and not chosen.tool.repeatable:
            raise TalkFault(LOST.format(name=name), "lost")
        sent = Sent(msg_id=name, at=self._clock.now())
        await self._notes.keep_sent(session, call, sent)
        heard.put_nowait(Heard(kind="acknowledged"))
        try:
            key = uuid_of(self._secret, "message", session, call)
            answer = await self._call(url, chosen, key, conversation.hops, heard)
        except WrongArgumentsError as fault:
            await self._notes.take_back(session, call)
            return (Heard(kind="needs_input", text=f"{fault}\n{signature(chosen.tool)}"),)
        except TalkFault as fault:
            if not fault.sent:
                await self._notes.take_back(session, call)
            raise
        kept = msgspec.structs.replace(sent, answer=msgspec.json.encode(answer))
        await self._notes.keep_sent(session, call, kept)
        return _told(answer, name)

    async def _call(
        self, url: str, chosen: Chosen, key: str, hops: tuple[str, ...], heard: asyncio.Queue[Heard]
    ) -> ToolAnswer:
        left = PROGRESS_MAX

        def show(words: str) -> None:
            nonlocal left
            if left > 0 and words:
                left -= 1
                heard.put_nowait(Heard(kind="progress", text=words))

        total_s = self._patience.total_s
        asked = ToolAsked(
            tool=chosen.tool.name, arguments=chosen.arguments, key=key, wait_s=total_s, progress=show, hops=hops
        )
        try:
            async with asyncio.timeout(total_s):
                return await self._servers.call(url, asked)
        except TimeoutError:
            raise TalkFault(LATE.format(name=chosen.tool.name, seconds=total_s), "timed_out") from None


def _told(answer: ToolAnswer, name: str) -> tuple[Heard, ...]:
    if answer.failed:
        return (error(answer.text or NO_WORDS.format(name=name), "agent_error"),)
    said = (Heard(kind="text", text=answer.text),) if answer.text else ()
    return (*said, Heard(kind="end"))

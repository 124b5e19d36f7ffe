"""The tools of agents that speak the MCPProtocol, called by name and arguments (ACP-14).

    offer ──► ListTools, in a session of its own ──► the list, kept for some minutes
    call  ──► CallTool, in the session that is the call's key ──► its result; a repeat after a crash only listens

`AcpTools` implements `mcp.McpServers` for addresses instead of URLs, so that everything else about tools is
`mcp.McpTalker`. An answer names no question, so each question has a session of its own. The synchronous connection is
not used, although this protocol could: its answers are unsigned, and it leads to no mailbox (SYNC-02, SYNC-03).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from convene.agents import chat_codec as codec
from convene.agents import tool_codec
from convene.agents.faults import STORE, TalkFault
from convene.agents.letters import Sent, uuid_of
from convene.agents.mcp import ToolAnswer
from convene.agents.mcp_choice import McpOffer, names_tool
from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.agents.base import AgentCard, Conversation, Heard, Talker
    from convene.agents.courier import Courier
    from convene.agents.envelope import Draft
    from convene.agents.faults import Reason
    from convene.agents.inbox import Inbox, Mailslot
    from convene.agents.letters import Letter, Letters
    from convene.agents.mcp import ToolAsked
    from convene.clock import Clock

T = TypeVar("T", tool_codec.ToolsListed, tool_codec.ToolGave)
log = logging.getLogger("convene.agents")

LIST_S: Final = 10.0
"""How long a list is waited for: nothing is worked on for it, and mailboxes take a second."""
FRESH_S: Final = 300.0
AGAIN_S: Final = 30.0
"""How long one that has not told its tools is not asked for them again."""
KEPT_MAX: Final = 1_000
LOOK_S: Final = 0.25
"""How often the store is asked for answers that reached another process."""
ASKED: Final = "asked"
TOKEN_BYTES: Final = 16
WORDS_MAX: Final = 400
SILENT: Final = "The agent did not answer within {seconds:g} seconds."
FAILED: Final = "The agent says that it failed, and not why."
UNREADABLE: Final = "The agent has answered something that cannot be read."


class AcpTools:
    """Implements `mcp.McpServers`. Belongs to one event loop."""

    def __init__(
        self, courier: Courier, inbox: Inbox, letters: Letters, clock: Clock, secret: bytes, *, shared: bool = False
    ) -> None:
        """`shared`: answers may reach another process of this server, so the store is asked for them too."""
        self._courier = courier
        self._inbox = inbox
        self._letters = letters
        self._clock = clock
        self._secret = secret
        self._shared = shared
        self._offers: OrderedDict[str, tuple[float, McpOffer | TalkFault]] = OrderedDict()
        self._looking: dict[str, asyncio.Task[McpOffer | TalkFault]] = {}

    async def offer(self, url: str) -> McpOffer:
        """Return the tools of the agent at an address; they may be some minutes old. Raises `TalkFault`.

        Whoever waits no longer ends his own waiting alone: the list is there for the next one.
        """
        known = self._offers.get(url)
        if known is not None and self._clock.monotonic() - known[0] < (
            FRESH_S if isinstance(known[1], McpOffer) else AGAIN_S
        ):
            found = known[1]
        else:
            task = self._looking.get(url)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._look(url), name="tools of an agent")
                self._looking[url] = task
            found = await asyncio.shield(task)
        if isinstance(found, TalkFault):
            raise TalkFault(found.words, found.reason, sent=False)
        return found

    async def aclose(self) -> None:
        """Let go of lists under way."""
        looking = [*self._looking.values()]
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def call(self, url: str, asked: ToolAsked) -> ToolAnswer:
        """Call a tool of the agent at an address. Raises `TalkFault`, `StoreFault`.

        The protocol has no place for hops, and tells no progress.
        """
        draft = tool_codec.write_call(asked.tool, asked.arguments)
        gave = await self._ask(url, asked.key, draft, tool_codec.ToolGave, asked.wait_s)
        return ToolAnswer(text=gave.error or gave.result, failed=bool(gave.error))

    async def _look(self, address: str) -> McpOffer | TalkFault:
        try:
            found = await self._list(address)
            self._offers[address] = (self._clock.monotonic(), found)
            self._offers.move_to_end(address)
            while len(self._offers) > KEPT_MAX:
                self._offers.popitem(last=False)
            return found
        finally:
            del self._looking[address]

    async def _list(self, address: str) -> McpOffer | TalkFault:
        session = uuid_of(self._secret, "tools", address, self._clock.token(TOKEN_BYTES).hex())
        try:
            listed = await self._ask(address, session, tool_codec.write_list(), tool_codec.ToolsListed, LIST_S)
        except TalkFault as fault:
            return fault
        except StoreFault as broken:
            log.warning("the tools of an agent cannot be asked for: %s", broken.detail or broken.message)
            return TalkFault(STORE, "store")
        if listed.error and not listed.tools:
            return TalkFault(listed.error[:WORDS_MAX], "agent_error")
        return McpOffer(name=address, tools=listed.tools)

    async def _ask(self, address: str, session: str, draft: Draft, wanted: type[T], wait_s: float) -> T:
        """Send a question in a session of its own, once, and return the answer of this kind."""
        letters, clock = self._letters, self._clock
        await letters.open(session, address, elsewhere=False)
        slot = self._inbox.listen(session, address)
        try:
            sent = await letters.sent(session, ASKED)
            if sent is None:
                sent = Sent(msg_id=session, at=clock.now())
                await letters.note_sent(session, ASKED, sent)
                delivery = await self._courier.send(draft, address, session)
                if delivery.outcome in {"unreachable", "refused"}:
                    await letters.take_back(session, ASKED)
                    reason: Reason = "refused" if delivery.outcome == "refused" else "unreachable"
                    raise TalkFault(delivery.words, reason, sent=False)
            until = clock.monotonic() + wait_s - max(0.0, clock.now() - sent.at)
            async with aclosing(self._incoming(slot, until)) as incoming:
                async for letter in incoming:
                    said = _read(letter)
                    if isinstance(said, wanted):
                        return said
            raise TalkFault(SILENT.format(seconds=wait_s), "timed_out")
        finally:
            self._inbox.leave(slot)

    async def _incoming(self, slot: Mailslot, until: float) -> AsyncGenerator[Letter]:
        """Yield what the agent sends, first what came while nobody listened, until a time of the monotonic clock."""
        told: set[str] = set()
        look = True
        while True:
            if look:
                for key, letter in await self._letters.waiting(slot.session, ASKED):
                    if key not in told:
                        told.add(key)
                        yield letter
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                return
            incoming = await slot.get(min(left_s, LOOK_S) if self._shared else left_s)
            look = incoming is None
            if incoming is not None and incoming.key not in told:
                told.add(incoming.key)
                yield incoming.letter


class AcpTalker:
    """Speaks with agents of `uagents` by whichever of their two protocols a message is for (`base.Talker`)."""

    protocol: Literal["acp"] = "acp"

    def __init__(self, chat: Talker, tools: Talker) -> None:
        """`tools` takes what names a tool, and everything that agents are told which do not chat."""
        self._chat = chat
        self._tools = tools

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        """See `base.Talker`."""
        is_for_tools = tool_codec.lends_tools(card.protocols) and (not codec.chats(card.protocols) or names_tool(say))
        talker = self._tools if is_for_tools else self._chat
        asked = msgspec.structs.replace(card, url=card.address) if is_for_tools else card
        async with aclosing(talker.talk(asked, conversation, say)) as talk:
            async for heard in talk:
                yield heard

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        """Do nothing: neither protocol can say it."""


def _read(letter: Letter) -> codec.Heard:
    """Return an answer. Raises `TalkFault` for what says that there will be none."""
    try:
        said = codec.read_message(letter.schema_digest, letter.body)
    except codec.BadMessageError:
        raise TalkFault(UNREADABLE, "unreadable") from None
    if isinstance(said, codec.AgentError):
        raise TalkFault(said.error or FAILED, "agent_error")
    return said

"""An MCP server as the talker sees it (`agents.mcp.McpServers`), played in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.agents.answer_rules import Patience
from convene.agents.base import AgentCard, Conversation, Heard
from convene.agents.faults import TalkFault
from convene.agents.mcp import McpTalker, ToolAnswer, WrongArgumentsError
from convene.agents.mcp_choice import McpOffer, OfferedTool
from convene.agents.talk_notes import TalkNotes
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from convene.agents.mcp import ToolAsked
    from convene.clock import Clock

SECRET = b"a secret of tests"
URL = "https://tools.test/mcp"
CARD = AgentCard(protocol="mcp", url=URL, name="tools")


def text_tool(name: str, *, repeatable: bool = False) -> OfferedTool:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return OfferedTool(name=name, schema=schema, repeatable=repeatable)


class PlayedServers:
    """One server with the tool `echo`. At the texts `fail`, `hang`, `wrong` and `slow` it does what they say."""

    def __init__(self) -> None:
        self.offered = McpOffer(name="tools", tools=(text_tool("echo"),))
        self.calls: list[tuple[str, dict[str, object], str]] = []
        self.is_down = False
        self.breaks: TalkFault | None = None
        """What the next call ends with, after it was carried out."""
        self.cancelled = 0
        self.hops: tuple[str, ...] = ()

    async def offer(self, url: str) -> McpOffer:
        assert url == URL
        self._check()
        return self.offered

    async def call(self, url: str, asked: ToolAsked) -> ToolAnswer:
        assert url == URL
        self.hops = asked.hops
        assert asked.wait_s > 0
        self._check()
        self.calls.append((asked.tool, dict(asked.arguments), asked.key))
        if self.breaks is not None:
            fault, self.breaks = self.breaks, None
            raise fault
        text = str(asked.arguments.get("text", ""))
        try:
            await asyncio.sleep({"hang": 1e6, "slow": 3.0}.get(text, 0.0))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if text == "wrong":
            raise WrongArgumentsError("The tool echo refused the arguments: text is too long")
        for step in range(2 if text != "chatty" else 500):
            asked.progress(f"step {step}")
        return ToolAnswer(text="no" if text == "fail" else f"echo: {text}", failed=text == "fail")

    def _check(self) -> None:
        if self.is_down:
            raise TalkFault("The agent cannot be reached.", "unreachable", sent=False)


class McpHouse:
    """Our side; `fresh` gives one that remembers what the store does."""

    def __init__(
        self, clock: Clock, servers: PlayedServers | None = None, sessions: SessionsDouble | None = None
    ) -> None:
        self.clock = clock
        self.servers = servers or PlayedServers()
        self.sessions = sessions or SessionsDouble()
        notes = TalkNotes(lambda: self.sessions, clock, "mcp")
        self.talker = McpTalker(self.servers, notes, clock, SECRET, Patience())

    def fresh(self) -> McpHouse:
        return McpHouse(self.clock, self.servers, self.sessions)

    async def heard(self, say: str, call: str = "one") -> list[Heard]:
        about = Conversation(owner="o", key="k", call_key=call)
        return [one async for one in self.talker.talk(CARD, about, say)]

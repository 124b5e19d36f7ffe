"""What the tools that find and ask agents need of whoever knows agents: filled by `app_agents.py`.

Rooms of one floor do not see each other, so what is needed of `registry/` and `agents/` is said here in its own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

AgentOutcome = Literal["success", "failed", "timed_out", "refused", "late"]
"""`late`: the agent was at work when the request could wait no longer, which says nothing of the agent."""


class FoundAgent(Protocol):
    """An agent as it was found (`registry.base.Found`)."""

    @property
    def protocol(self) -> Literal["acp", "a2a", "mcp"]:
        """How it is talked to."""
        ...

    @property
    def name(self) -> str:
        """What it calls itself."""
        ...

    @property
    def address(self) -> str:
        """`agent1q...`, or empty."""
        ...

    @property
    def url(self) -> str:
        """Of an agent without an address."""
        ...

    @property
    def handle(self) -> str:
        """Without `@`; empty if it has none."""
        ...

    @property
    def description(self) -> str:
        """In a sentence or two."""
        ...

    @property
    def readme(self) -> str:
        """In full."""
        ...

    @property
    def skills(self) -> Sequence[str]:
        """What it can do, by its card."""
        ...

    @property
    def reachable(self) -> bool:
        """Whether it has answered lately."""
        ...


class HeardAttachment(Protocol):
    """Something beside text (`agents.base.Attachment`)."""

    @property
    def uri(self) -> str:
        """Where it is."""
        ...

    @property
    def media_type(self) -> str:
        """What it is."""
        ...

    @property
    def role(self) -> str:
        """What it is for."""
        ...


class HeardPiece(Protocol):
    """One thing heard of an agent (`agents.base.Heard`)."""

    @property
    def kind(self) -> str:
        """acknowledged, progress, text, resource, needs_input, payment, error or end."""
        ...

    @property
    def text(self) -> str:
        """Words."""
        ...

    @property
    def attachments(self) -> Sequence[HeardAttachment]:
        """What came with it."""
        ...

    @property
    def metadata(self) -> dict[str, str]:
        """What is no text."""
        ...


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """One question to an agent."""

    owner: str
    conversation: str
    call_key: str
    say: str
    caller: str = ""
    """Address of the agent on whose behalf is asked."""
    hops: tuple[str, ...] = ()
    """Agents that the request has been through before it came here."""
    key_id: str = ""
    """Whose limits and books a question to a priced agent is entered in."""


class AgentDesk(Protocol):
    """Finds agents and talks to them. Every call raises `ConveneError` if what it needs cannot be used."""

    async def search(self, query: str, limit: int) -> Sequence[FoundAgent]:
        """Return the agents that fit best, best first."""
        ...

    async def find(self, name: str) -> FoundAgent | None:
        """Return the agent of an address, a handle or a URL."""
        ...

    def ask(self, agent: FoundAgent, asking: Asking) -> AsyncGenerator[HeardPiece]:
        """Ask and yield what is heard (`agents.base.Talker.talk`)."""
        ...

    async def give_up(self, agent: FoundAgent, asking: Asking) -> None:
        """Tell the agent that nobody waits for its answer any more; never raises."""
        ...

    async def note(self, agent: FoundAgent, outcome: AgentOutcome, seconds: float) -> None:
        """Take in how a call went; never raises."""
        ...


def manifest_of(agent: FoundAgent) -> dict[str, object]:
    """Return the `agent` of an item in `executable_data` (decisions, shapes of the extras)."""
    where = {"address": agent.address} if agent.address else {"url": agent.url}
    found: dict[str, object] = {**where, "protocol": agent.protocol, "name": agent.name}
    if agent.handle:
        found["handle"] = agent.handle
    found["description"] = agent.description
    if agent.skills:
        found["manifest"] = {"skills": list(agent.skills)}
    return found

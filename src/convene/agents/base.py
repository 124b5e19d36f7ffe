"""The seam of this room: one shape for agents of three protocols, and how one is talked to (AGENT-01).

    Talker.talk(card, conversation, say) ──► Heard* ── the last one is `end` or `error`

A talker speaks one protocol (ACP, A2A, MCP) and is picked by `card.protocol`; `app_agents.py` puts them together.
What an agent says is data, never instruction (invariant 10). Addresses come from strangers, so every connection goes
through `egress.py`, with the networks that the operator has opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

AgentProtocol = Literal["acp", "a2a", "mcp"]
HeardKind = Literal["acknowledged", "progress", "text", "resource", "needs_input", "payment", "error", "end"]


class AgentCard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent as it was found: what a model chooses by, and where it is reached."""

    protocol: AgentProtocol
    address: str = ""
    """`agent1q...` of an ACP agent, else empty."""
    url: str = ""
    """Of an A2A agent's card or an MCP server; an ACP agent's endpoint is resolved when it is called."""
    name: str
    handle: str = ""
    description: str = ""
    readme: str = ""
    skills: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    """Digests of what an ACP agent speaks, with or without `proto:`; none: nobody has said."""
    directory: str = "local"
    """Whose listing it is: this server's own, or the name of a configured directory."""

    @property
    def id(self) -> str:
        """What it is known by: its address, else its URL."""
        return self.address or self.url


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """Something an agent gives beside text. The address is data: it is shown, not followed."""

    uri: str
    media_type: str = ""
    role: str = ""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One thing heard from an agent.

    `acknowledged` is the first sign of life (decision 3), `progress` is no answer (END-05), `needs_input` and
    `payment` end the talk with a question to the user, `error` ends it with words fit for users, `end` ends it well.
    """

    kind: HeardKind
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    metadata: dict[str, str] = {}


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """Which conversation a talk belongs to: agents hang their memory on it (ACP-06)."""

    owner: str
    key: str
    """Ours: the same for all turns of one user's conversation with one agent; never a caller's session id itself."""
    call_key: str
    """Idempotency key of this very message, the same when it is repeated after a crash."""
    caller: str = ""
    """Address of the agent on whose behalf the user asks, for loops to be seen."""
    hops: tuple[str, ...] = ()
    """Agents that this request has been through, ourselves the last: what a talker passes on (`agent_hops.py`)."""


class Talker(Protocol):
    """Speaks one protocol. May be used by many turns at the same time."""

    @property
    def protocol(self) -> AgentProtocol:
        """Which."""
        ...

    def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        """Say something and yield what is heard, ending with `end`, `error`, `needs_input` or `payment`.

        Waits are the talker's: 60 s to the first sign of life, 240 s in all (decision 3). Closing the generator stops
        listening; what comes later is kept for the next turn of the conversation (END-04). Raises nothing of the
        network: that is an `error`.
        """
        ...

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        """Tell the agent, where its protocol can, that nobody waits for the answer of this call. Never raises."""
        ...


class Verdict(msgspec.Struct, frozen=True):
    """How our inbox answers what was posted to it; `error` is for the agent's log."""

    status: int = 200
    error: str = ""


class Inbox(Protocol):
    """Where agents post what they have to say to us."""

    @property
    def address(self) -> str:
        """Our own; empty while there is none."""
        ...

    def is_us(self, address: str) -> bool:
        """Whether it takes in what is for an address: ours, or the one by which a directory elsewhere knows us."""
        ...

    async def receive(self, body: bytes) -> Verdict:
        """Take in what was posted, whatever it is, and say how to answer."""
        ...

"""The seam of this room: what `serving/` and its tools know of the marketplace, this server's own or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

AgentProtocol = Literal["acp", "a2a", "mcp"]


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One agent of a search, best first. `app.py` makes an `agents.base.AgentCard` of it, field by field."""

    protocol: AgentProtocol
    name: str
    address: str = ""
    url: str = ""
    handle: str = ""
    description: str = ""
    readme: str = ""
    skills: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    """Digests of what an ACP agent speaks."""
    directory: str = "local"
    score: float = 0.0
    """From 0 to 1; only the order means something."""
    price_micros: int = 0
    """What an answered question costs the caller, in millionths of the currency, by its listing's terms."""
    reachable: bool = True
    """False: it has not answered lately, and whoever shows it says so."""


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """How a call of an agent went, for the ranking (PICK-03, PICK-04)."""

    agent: str
    """Address or URL."""
    outcome: Literal["success", "failed", "timed_out", "refused", "late"] | None = None
    """None: this is no call, only what the judge says of one that was noted before. `late`: the agent was chosen, and
    the caller could not wait for it; that is neither for nor against it."""
    seconds: float = 0.0
    useful: bool | None = None
    """Whether the answer did what was asked, by the judge's word; None: nobody has judged."""
    search_id: str = ""


class Directory(Protocol):
    """A place where agents are found. Every call raises `StoreFault` or `UpstreamFault` if it cannot be used."""

    async def search(self, query: str, limit: int, *, source: str = "") -> Sequence[Found]:
        """Return the agents that fit best and can be called, best first."""
        ...

    async def find(self, name: str) -> Found | None:
        """Return the agent of this address, handle (`@name` or `name`) or URL, active or not."""
        ...

    async def note(self, interaction: Interaction) -> None:
        """Take in how a call went."""
        ...

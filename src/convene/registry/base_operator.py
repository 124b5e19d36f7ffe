"""The seam of what the operator does with agents: list all, add one by its URL, set terms, take it away, ping it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.registry.base import AgentProtocol, Found
from convene.store.base_market import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.registry.base_search import Hit
    from convene.store.base_market import Terms


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent at a URL says of itself (A2A-02, MCP-04)."""

    protocol: AgentProtocol
    url: str
    """Where it is called; the one that was asked may lead to it."""
    name: str
    description: str = ""
    readme: str = ""
    skills: tuple[str, ...] = ()


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """How a ping went: a short conversation, since an agent that is deaf may say that it is ready (TRAP-01)."""

    outcome: Outcome
    seconds: float
    words: str = ""
    """The beginning of its answer, or why there is none."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An agent to be added; what is empty is as its card says."""

    url: str
    name: str = ""
    handle: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    owner: str = ""


Describe = Callable[[str], Awaitable[Card]]
"""Fetches what an agent says of itself. Raises `ConveneError` with words for the operator."""
Ping = Callable[[Found], Awaitable[Heard]]
"""Talks to an agent and notes how it went. Raises `ConveneError` if nothing can be asked here."""


class OperatorDesk(Protocol):
    """What an operator may do. Every call raises `StoreFault` if the store cannot be used."""

    async def page(self, limit: int, after: str = "") -> tuple[Sequence[Hit], bool]:
        """Return agents, those that changed last at the end, and whether there are more; `after` is an id."""
        ...

    async def show(self, agent: str) -> Hit:
        """Return one by its id or `@handle`. Raises `NotFound`."""
        ...

    async def add(self, draft: Draft, terms: Terms) -> Hit:
        """Add an A2A agent or an MCP server, or read its card anew.

        Raises `BadRequest` if nothing is there that can be asked, `Conflict` if somebody else has the handle.
        """
        ...

    async def set_terms(self, agent: str, terms: Terms) -> Hit:
        """Say whether an agent is found and asked, and what that costs. Raises `NotFound`."""
        ...

    async def remove(self, agent: str) -> str:
        """Take an agent away and return its id; it may register again. Raises `NotFound`."""
        ...

    async def ping(self, agent: str) -> tuple[Hit, Heard]:
        """Talk to an agent, switched off or not. Raises `NotFound`, `BadRequest` if it cannot be talked to."""
        ...

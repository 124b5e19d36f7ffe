"""The seam of the search: what `api/`, the command line and the directory ask of it.

The fields of `SearchRequest` are those of Agentverse's search (SEARCH-02), each with the meaning that it has here.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

from convene.registry.ranking import Health, Score
from convene.store.base_market import AgentRow

State = Literal["active", "inactive", "responsive", "unresponsive"]
Sort = Literal["relevancy", "created-at", "last-modified", "interactions"]
Cutoff = Literal["none", "permissive", "balanced", "strict"]

LIMIT_MAX: Final = 50
TEXT_MAX: Final = 4000
"""Longest text that is searched for, in characters."""
PAGED_MAX: Final = 500
"""Most hits of one search that are ranked and can be paged through."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a hit must be; an empty tuple or None asks for nothing. Of several values of one field one will do."""

    state: tuple[State, ...] = ()
    """Without `inactive` in it, inactive agents are left out (PICK-07)."""
    category: tuple[str, ...] = ()
    agent_type: tuple[str, ...] = ()
    """What its listing says it is, or how it is reached: mailbox, proxy, custom."""
    protocol_digest: tuple[str, ...] = ()
    """With or without `proto:`."""
    has_location: bool | None = None
    has_readme: bool | None = None
    n_interactions: int | None = None
    """At least so many calls."""
    tags: tuple[str, ...] = ()


class Circle(msgspec.Struct, frozen=True):
    """A place on the globe: degrees, and a radius in kilometres."""

    latitude: float
    longitude: float
    radius: float


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One search."""

    text: str = ""
    """What the agent should do; `address:agent1...`, an address and `@handle` ask for one agent directly."""
    filters: Filters = Filters()
    sort: Sort = "relevancy"
    ascending: bool = False
    cutoff: Cutoff = "none"
    exact_match: bool = False
    """Only an agent of exactly this name, handle or address."""
    semantic: bool = False
    """Also by meaning, if there is an embedding model."""
    rerank: bool = True
    """Let what is known of an agent count, beside relevance."""
    offset: int = 0
    limit: int = 30
    exclude_geo: bool = True
    """Leave out agents that belong to a place on the map."""
    callable_only: bool = False
    """Only agents that this server can ask something."""
    near: Circle | None = None
    """Only agents whose own circle meets this one."""
    geo_relevancy: bool = False
    """Let nearer agents come first."""
    source: str = ""
    """Who asks, for the log."""
    search_id: str = ""
    """Of the search whose further page this is."""


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that was found, and why it is where it is."""

    row: AgentRow
    score: Score
    health: Health
    reachable: bool
    kind: str
    """mailbox, proxy, custom, a2a or mcp."""
    geo: tuple[float, float, float] | None = None
    protocols: tuple[ProtocolName, ...] = ()


class ProtocolName(msgspec.Struct, frozen=True):
    """A protocol that an agent speaks; name and version are empty where nobody has published it."""

    digest: str
    name: str = ""
    version: str = ""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a search."""

    hits: tuple[Hit, ...]
    offset: int
    limit: int
    total: int
    """How many hits there are on all pages, at most `PAGED_MAX`."""
    search_id: str


class AgentSearch(Protocol):
    """Finds agents. It works on an index in this process; none of its calls waits for the store."""

    async def search(self, request: SearchRequest) -> Page:
        """Return a page of a search."""
        ...

    def show(self, agent: str) -> Hit | None:
        """Return the agent of this address or URL, active or not."""
        ...

    def click(self, agent: str, search_id: str) -> bool:
        """Count that this hit of a search was chosen (PICK-08); False: there is no such agent."""
        ...

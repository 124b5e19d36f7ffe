"""The wire shapes of searching agents: Agentverse's (SEARCH-02 to 07) and our own lists of agents.

Agentverse's times are ISO 8601 texts, ours Unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from convene.api.shapes_usage import Money

Word = Annotated[str, Meta(max_length=200)]
Words = Annotated[list[Word], Meta(max_length=50)]
Latitude = Annotated[float, Meta(ge=-90, le=90)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
Metadata = dict[str, str | list[str] | dict[str, str]]
State = Literal["active", "inactive", "responsive", "unresponsive"]


class FilterBody(msgspec.Struct, kw_only=True):
    """What a hit must be."""

    state: Annotated[list[State], Meta(max_length=4)] | None = None
    category: Words | None = None
    agent_type: Words | None = None
    protocol_digest: Words | None = None
    has_location: bool | None = None
    has_readme: bool | None = None
    n_interactions: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    tags: Words | None = None


class GeoBody(msgspec.Struct, kw_only=True):
    """A circle: degrees, and a radius in kilometres."""

    latitude: Latitude
    longitude: Longitude
    radius: Annotated[float, Meta(ge=0, le=25_000)]


class AgentSearchBody(msgspec.Struct, kw_only=True):
    """A search as Agentverse's clients send it; all may be left out or null."""

    search_text: Annotated[str, Meta(max_length=4000)] | None = None
    filters: FilterBody | None = None
    sort: Literal["relevancy", "created-at", "last-modified", "interactions"] | None = None
    direction: Literal["asc", "desc"] | None = None
    cutoff: Literal["none", "permissive", "balanced", "strict"] | None = None
    exact_match: bool | None = None
    semantic_search: bool | None = None
    rerank: bool | None = None
    offset: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=50)] | None = None
    exclude_geo_agents: bool | None = None
    source: Word | None = None
    search_id: Word | None = None
    geo_filter: GeoBody | None = None
    include_geo_in_relevancy: bool | None = None


class ClickBody(msgspec.Struct, kw_only=True):
    """Which hit of a search was chosen."""

    address: Annotated[str, Meta(min_length=1, max_length=4000)]
    search_id: Word | None = None
    page_index: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    contract: Word | None = None


class HitProtocol(msgspec.Struct, kw_only=True):
    """A protocol that a hit speaks."""

    name: str
    version: str
    digest: str


class HitPlace(msgspec.Struct, kw_only=True):
    """Where a hit belongs."""

    latitude: float
    longitude: float
    radius: float


class AgentHit(msgspec.Struct, kw_only=True):
    """A hit in Agentverse's words (SEARCH-04). What is called recent is of all that is kept."""

    address: str
    prefix: str
    name: str
    description: str
    readme: str
    protocols: list[HitProtocol]
    avatar_href: str | None
    banner_href: str | None
    total_interactions: int
    recent_interactions: int
    rating: float
    status: Literal["active", "inactive"]
    unresponsive: bool
    type: str
    featured: bool
    category: Literal["community"]
    system_wide_tags: list[str]
    geo_location: HitPlace | None
    handle: str | None
    domain: str | None
    metadata: Metadata
    last_updated: str
    created_at: str
    recent_success_rate: float | None
    recent_eval_success_rate: float | None
    owner: str | None
    recent_verified_interactions: int
    recent_success_verified_interactions: int


class AgentHits(msgspec.Struct, kw_only=True):
    """A page of hits (SEARCH-03)."""

    agents: list[AgentHit]
    offset: int
    limit: int
    num_hits: int
    total: int
    search_id: str


class AgentScore(msgspec.Struct, kw_only=True):
    """Why an agent is where it is; all from 0 to 1, and `value` is what the order follows."""

    value: float
    relevance: float
    quality: float
    success: float
    health: float


class Seen(msgspec.Struct, kw_only=True):
    """How often an agent was shown in a search, chosen from one, and the share of that."""

    impressions: int
    picks: int
    selection_rate: float | None


class AgentItem(msgspec.Struct, kw_only=True):
    """An agent of this server's marketplace. `price` is what a call costs you; `seen` is for its owner."""

    id: str
    object: Literal["agent"] = "agent"
    protocol: Literal["acp", "a2a", "mcp"]
    address: str | None
    url: str | None
    name: str
    handle: str | None
    description: str
    skills: list[str]
    tags: list[str]
    status: Literal["active", "inactive"]
    health: Literal["good", "new", "shaky", "unreachable", "inactive"]
    health_words: str
    reachable: bool
    calls: int
    success_rate: float | None
    answer_seconds: float | None
    price: Money
    score: AgentScore | UnsetType = UNSET
    why: str | UnsetType = UNSET
    readme: str | UnsetType = UNSET
    seen: Seen | UnsetType = UNSET


class AgentList(msgspec.Struct, kw_only=True):
    """Agents, best first. With `offset` and `search_id` the next page is of the same search."""

    object: Literal["list"] = "list"
    data: list[AgentItem]
    has_more: bool
    total: int
    search_id: str


class AdminAgent(AgentItem, kw_only=True):
    """An agent as the operator sees it."""

    enabled: bool
    owner: str | None
    listed: bool
    endpoints: list[str]
    created_at: float
    registered_at: float | None
    expires_at: float | None


class AdminAgentList(msgspec.Struct, kw_only=True):
    """A page of agents; the last id is the `after` of the next page. One that changes meanwhile may come twice."""

    object: Literal["list"] = "list"
    data: list[AdminAgent]
    has_more: bool


class AgentBody(msgspec.Struct, kw_only=True):
    """An A2A agent or an MCP server to be added by its URL; what is left out is as its card says."""

    url: Annotated[str, Meta(min_length=8, max_length=4000)]
    name: Annotated[str, Meta(max_length=32)] | None = None
    handle: Annotated[str, Meta(max_length=40)] | None = None
    description: Annotated[str, Meta(max_length=300)] | None = None
    tags: Words | None = None
    enabled: bool | None = None
    price_micros: Annotated[int, Meta(ge=0, le=10**15)] | None = None


class AgentChangeBody(msgspec.Struct, kw_only=True):
    """What is to change of an agent's terms."""

    enabled: bool | UnsetType = UNSET
    price_micros: Annotated[int, Meta(ge=0, le=10**15)] | UnsetType = UNSET


class PingBody(msgspec.Struct, kw_only=True):
    """Which agent to talk to: its address, URL or @handle."""

    agent: Annotated[str, Meta(min_length=1, max_length=4000)]


class PingReply(msgspec.Struct, kw_only=True):
    """How a short conversation with an agent went; `words` is the beginning of its answer, or why there is none."""

    object: Literal["agent.ping"] = "agent.ping"
    id: str
    outcome: Literal["success", "failed", "timed_out", "refused"]
    seconds: float
    words: str
    health: Literal["good", "new", "shaky", "unreachable", "inactive"]


class AgentRemoved(msgspec.Struct, kw_only=True):
    """An agent that is no more."""

    id: str
    object: Literal["agent"] = "agent"
    deleted: Literal[True] = True

"""Agents on the web: Agentverse's search (SEARCH), `/v1/agents` for users, `/v1/admin/agents` for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.api import shapes_agents as shapes
from convene.api.accounts_wire import read_body, read_page, reply
from convene.api.agent_words import admin_item_of, hit_of, item_of
from convene.api.json_body import read_object, read_shape
from convene.api.query import Parameter, Query
from convene.errors import BadRequest, NotFound
from convene.registry.base_names import whole_url
from convene.registry.base_operator import Draft
from convene.registry.base_search import LIMIT_MAX, PAGED_MAX, Circle, Filters, SearchRequest
from convene.store.base_market import Terms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.api.call import Call
    from convene.registry.base_operator import OperatorDesk
    from convene.registry.base_search import AgentSearch

BODY_MAX: Final = 65_536
LIMIT: Final = 30
"""Of Agentverse's search (SEARCH-02)."""
OWN_LIMIT: Final = 10
QUERY_CHARS_MAX: Final = 1000
STATES: Final = ("active", "inactive", "responsive", "unresponsive")
PROTOCOLS: Final = ("acp", "a2a", "mcp")

AGENTS_QUERY: Final = (
    Parameter(name="query", about="What the agent should do, in your words; `@handle` or an address asks for one."),
    Parameter(name="limit", about=f"At most so many; {OWN_LIMIT} by default.", least=1, most=LIMIT_MAX),
    Parameter(name="offset", about="Leave out so many, for further pages.", least=0, most=PAGED_MAX),
    Parameter(name="search_id", about="Of the page before, so that pages fit together."),
    Parameter(
        name="state",
        about="Only agents in these states; inactive ones only if this says so.",
        enum=STATES,
        is_list=True,
    ),
    Parameter(name="protocol", about="Only agents that are talked to like this.", enum=PROTOCOLS),
    Parameter(name="tag", about="Only agents with this tag."),
)


class AgentSearchPages:
    """Agentverse's endpoints."""

    def __init__(self, search: AgentSearch, admit: Callable[[Call], Awaitable[object]]) -> None:
        """`admit` raises `Unauthorized` for who may not search (decision 17)."""
        self._search = search
        self._admit = admit

    async def search(self, call: Call) -> None:
        """Search (SEARCH-01 to 06)."""
        await self._find(call, near=False)

    async def search_near(self, call: Call) -> None:
        """Search near a place (SEARCH-07)."""
        await self._find(call, near=True)

    async def show(self, call: Call) -> None:
        """Show one agent as a hit, active or not."""
        await self._admit(call)
        hit = self._search.show(named(call.params["agent"]))
        if hit is None:
            raise NotFound("There is no agent of this address here.", code="agent_not_found")
        await call.reply_json(hit_of(hit))

    async def click(self, call: Call) -> None:
        """Count that a hit was chosen."""
        await self._admit(call)
        body = read_shape(read_object(await _body(call)), shapes.ClickBody)
        if not self._search.click(body.address, body.search_id or ""):
            raise NotFound("There is no agent of this address here.", code="agent_not_found", param="address")
        await call.reply_json({"success": True})

    async def _find(self, call: Call, *, near: bool) -> None:
        await self._admit(call)
        raw = await _body(call)
        body = read_shape(read_object(raw) if raw.strip() else {}, shapes.AgentSearchBody)
        if near and body.geo_filter is None:
            message = "Missing required field: 'geo_filter'."
            raise BadRequest(message, code="missing_required_parameter", param="geo_filter")
        page = await self._search.search(request_of(body, near=near))
        hits = [hit_of(hit) for hit in page.hits]
        await call.reply_json(
            shapes.AgentHits(
                agents=hits,
                offset=page.offset,
                limit=page.limit,
                num_hits=len(hits),
                total=page.total,
                search_id=page.search_id,
            )
        )


class AgentPages:
    """`/v1/agents`: what users see."""

    def __init__(self, search: AgentSearch, currency: str) -> None:
        self._search = search
        self._currency = currency

    async def find(self, call: Call) -> None:
        """List agents, the best for a question first."""
        query = Query.of(call)
        text = query.text("query", QUERY_CHARS_MAX) or ""
        protocol = query.choice("protocol", "", ("", *PROTOCOLS))
        tag = query.text("tag", 200)
        kinds = {"": (), "acp": ("uagent",), "a2a": ("a2a",), "mcp": ("mcp",)}[protocol]
        page = await self._search.search(
            SearchRequest(
                text=text,
                filters=Filters(
                    state=query.choices("state", STATES),  # type: ignore[arg-type]  # checked just here
                    agent_type=kinds,
                    tags=(tag,) if tag else (),
                ),
                semantic=True,
                exclude_geo=False,
                limit=query.number("limit", OWN_LIMIT, 1, LIMIT_MAX),
                offset=query.number("offset", 0, 0, PAGED_MAX),
                search_id=query.text("search_id") or "",
                source=call.caller.owner,
            )
        )
        items = [item_of(hit, self._currency, call.caller.owner, query=text) for hit in page.hits]
        more = page.offset + len(items) < page.total and bool(items)
        await call.reply_json(shapes.AgentList(data=items, has_more=more, total=page.total, search_id=page.search_id))

    async def show(self, call: Call) -> None:
        """Show one, with its readme."""
        hit = self._search.show(named(call.params["agent"]))
        if hit is None:
            raise NotFound("There is no agent of this id. GET /v1/agents lists them.", code="agent_not_found")
        await call.reply_json(item_of(hit, self._currency, call.caller.owner, readme=True))


class AdminAgents:
    """`/v1/admin/agents`: what operators do; the front door has checked the scope."""

    def __init__(self, desk: OperatorDesk, currency: str) -> None:
        self._desk = desk
        self._currency = currency

    async def page(self, call: Call) -> None:
        """List all agents, those that are switched off too."""
        limit, after = read_page(call)
        found, more = await self._desk.page(limit, after)
        items = [admin_item_of(hit, self._currency) for hit in found]
        await reply(call, shapes.AdminAgentList(data=items, has_more=more))

    async def add(self, call: Call) -> None:
        """Add an A2A agent or an MCP server by its URL."""
        body = await read_body(call, shapes.AgentBody)
        draft = Draft(
            url=body.url,
            name=body.name or "",
            handle=body.handle or "",
            description=body.description or "",
            tags=tuple(body.tags or ()),
            owner=call.caller.owner,
        )
        terms = Terms(enabled=body.enabled is not False, price_micros=body.price_micros or 0)
        await reply(call, admin_item_of(await self._desk.add(draft, terms), self._currency))

    async def change(self, call: Call) -> None:
        """Switch an agent on or off, or price it."""
        body = await read_body(call, shapes.AgentChangeBody)
        agent = named(call.params["agent"])
        terms = (await self._desk.show(agent)).row.terms
        terms = Terms(
            enabled=body.enabled if isinstance(body.enabled, bool) else terms.enabled,
            price_micros=body.price_micros if isinstance(body.price_micros, int) else terms.price_micros,
        )
        await reply(call, admin_item_of(await self._desk.set_terms(agent, terms), self._currency))

    async def remove(self, call: Call) -> None:
        """Take an agent away."""
        await reply(call, shapes.AgentRemoved(id=await self._desk.remove(named(call.params["agent"]))))

    async def ping(self, call: Call) -> None:
        """Talk to an agent and say how that went."""
        body = await read_body(call, shapes.PingBody)
        hit, heard = await self._desk.ping(body.agent)
        await reply(
            call,
            shapes.PingReply(
                id=hit.row.id,
                outcome=heard.outcome,
                seconds=round(heard.seconds, 3),
                words=heard.words,
                health=hit.health,
            ),
        )


def request_of(body: shapes.AgentSearchBody, *, near: bool) -> SearchRequest:
    """Return what was asked, with the defaults of SEARCH-02."""
    filters, geo = body.filters or shapes.FilterBody(), body.geo_filter
    return SearchRequest(
        text=body.search_text or "",
        filters=Filters(
            state=tuple(filters.state or ()),
            category=tuple(filters.category or ()),
            agent_type=tuple(filters.agent_type or ()),
            protocol_digest=tuple(filters.protocol_digest or ()),
            has_location=filters.has_location,
            has_readme=filters.has_readme,
            n_interactions=filters.n_interactions,
            tags=tuple(filters.tags or ()),
        ),
        sort=body.sort or "relevancy",
        ascending=body.direction == "asc",
        cutoff=body.cutoff or "none",
        exact_match=bool(body.exact_match),
        semantic=bool(body.semantic_search),
        rerank=body.rerank is not False,
        offset=body.offset or 0,
        limit=body.limit or LIMIT,
        exclude_geo=body.exclude_geo_agents is not False,
        near=Circle(geo.latitude, geo.longitude, geo.radius) if near and geo is not None else None,
        geo_relevancy=bool(body.include_geo_in_relevancy),
        source=body.source or "",
        search_id=body.search_id or "",
    )


def named(agent: str) -> str:
    """Return an agent's id out of a path, where doubled slashes have become one."""
    return whole_url(agent).removeprefix("agent:/")


async def _body(call: Call) -> bytes:
    call.body_bytes_max = min(call.body_bytes_max, BODY_MAX)
    return await call.body()

"""The rows of the route table for agents: searching them, and what operators do. `table.py` puts them among the others.

Agentverse's own paths are outside the API description: their libraries have one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.api import agent_search, shapes_agents
from convene.api.accounts_wire import PAGED
from convene.api.routes import Route

if TYPE_CHECKING:
    from convene.api.table import Endpoints


def agent_routes(to: Endpoints) -> tuple[Route, ...]:
    """Return the rows."""
    return (*_own(to), *_admins(to), *_agentverse(to))


def _own(to: Endpoints) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path="/v1/agents",
            endpoint=to.list_agents,
            summary="Find agents that can do something, the best first, and see why and how they are",
            query=agent_search.AGENTS_QUERY,
            gives=shapes_agents.AgentList,
            tag="Agents",
        ),
        Route(
            method="GET",
            path="/v1/agents/{agent}",
            endpoint=to.show_agent,
            summary="Show an agent by its address or URL, with its readme",
            gives=shapes_agents.AgentItem,
            tag="Agents",
        ),
    )


def _admins(to: Endpoints) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path="/v1/admin/agents",
            endpoint=to.admin_list_agents,
            summary="List all agents, those that are switched off too",
            query=PAGED,
            gives=shapes_agents.AdminAgentList,
            scope="admin",
            names=True,
            tag="Agents",
        ),
        Route(
            method="POST",
            path="/v1/admin/agents",
            endpoint=to.admin_add_agent,
            summary="Add an A2A agent or an MCP server by its URL, or read its card anew",
            takes=shapes_agents.AgentBody,
            gives=shapes_agents.AdminAgent,
            scope="admin",
            tag="Agents",
        ),
        Route(
            method="POST",
            path="/v1/admin/agents/ping",
            endpoint=to.admin_ping_agent,
            summary="Talk to an agent and see whether it answers",
            takes=shapes_agents.PingBody,
            gives=shapes_agents.PingReply,
            scope="admin",
            names=True,
            tag="Agents",
        ),
        Route(
            method="PATCH",
            path="/v1/admin/agents/{agent}",
            endpoint=to.admin_change_agent,
            summary="Switch an agent on or off, or price its calls",
            takes=shapes_agents.AgentChangeBody,
            gives=shapes_agents.AdminAgent,
            scope="admin",
            tag="Agents",
        ),
        Route(
            method="DELETE",
            path="/v1/admin/agents/{agent}",
            endpoint=to.admin_remove_agent,
            summary="Take an agent away; one that registers itself may come back",
            gives=shapes_agents.AgentRemoved,
            scope="admin",
            tag="Agents",
        ),
    )


def _agentverse(to: Endpoints) -> tuple[Route, ...]:
    rows = (
        ("POST", "/v1/search/agents", to.search_agents, "Search agents"),
        ("POST", "/v1/search/agents/geo", to.search_agents_near, "Search agents near a place"),
        ("POST", "/v1/search/agents/click", to.click_agent, "Say which hit was chosen"),
        ("GET", "/v1/search/agents/{agent}", to.show_agent_hit, "Show one agent as a hit"),
        ("POST", "/v1/search", to.search_agents, "Search agents"),
        ("POST", "/v1/search/geo", to.search_agents_near, "Search agents near a place"),
    )
    return tuple(
        Route(method=method, path=path, endpoint=endpoint, summary=summary, open=True, tag="Agents", described=False)
        for method, path, endpoint, summary in rows
    )

"""The table of routes: every path this server serves, in one list. The API description is generated from it.

`app.py` fills `Endpoints`; to add an endpoint, add a field there and a row here.
"""

from __future__ import annotations

import msgspec

from convene.api import shapes, shapes_tools, shapes_usage, usage
from convene.api.absent import ABSENT, Absent, refuse_stored
from convene.api.routes import Endpoint, Route
from convene.api.table_accounts import account_routes
from convene.api.table_agents import agent_routes
from convene.api.table_asked import asked_routes
from convene.api.table_images import image_routes
from convene.api.table_runs import run_routes


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever answers, by what it does."""

    chat: Endpoint
    embeddings: Endpoint
    make_images: Endpoint
    make_image: Endpoint
    edit_images: Endpoint
    vary_images: Endpoint
    show_image: Endpoint
    delete_image: Endpoint
    list_models: Endpoint
    show_model: Endpoint
    list_tools: Endpoint
    usage: Endpoint
    usage_requests: Endpoint
    usage_request: Endpoint
    limits: Endpoint
    admin_usage: Endpoint
    admin_usage_requests: Endpoint
    admin_usage_request: Endpoint
    show_me: Endpoint
    list_keys: Endpoint
    create_key: Endpoint
    rotate_key: Endpoint
    change_key: Endpoint
    revoke_key: Endpoint
    list_users: Endpoint
    add_user: Endpoint
    change_user: Endpoint
    disable_user: Endpoint
    reset_link: Endpoint
    list_teams: Endpoint
    add_team: Endpoint
    change_team: Endpoint
    list_members: Endpoint
    put_member: Endpoint
    remove_member: Endpoint
    list_links: Endpoint
    invite: Endpoint
    withdraw_link: Endpoint
    list_all_keys: Endpoint
    issue_key: Endpoint
    list_runs: Endpoint
    show_run: Endpoint
    cancel_run: Endpoint
    list_sessions: Endpoint
    show_session: Endpoint
    delete_session: Endpoint
    list_agents: Endpoint
    show_agent: Endpoint
    admin_list_agents: Endpoint
    admin_add_agent: Endpoint
    admin_ping_agent: Endpoint
    admin_change_agent: Endpoint
    admin_remove_agent: Endpoint
    search_agents: Endpoint
    search_agents_near: Endpoint
    click_agent: Endpoint
    show_agent_hit: Endpoint
    agent_inbox: Endpoint
    agent_probe: Endpoint
    a2a: Endpoint
    a2a_card: Endpoint
    a2a_send: Endpoint
    a2a_stream: Endpoint
    a2a_tasks: Endpoint
    a2a_task: Endpoint
    a2a_change_task: Endpoint
    a2a_delete: Endpoint
    a2a_extended_card: Endpoint
    mcp: Endpoint
    mcp_other: Endpoint
    alive: Endpoint
    ready: Endpoint


def route_table(to: Endpoints) -> tuple[Route, ...]:
    """Return all routes of the API, those that refuse with a reason included."""
    return (
        Route(
            method="POST",
            path="/v1/chat/completions",
            endpoint=to.chat,
            summary="Answer a chat, whole or as a stream of server-sent events",
            takes=shapes.ChatBody,
            gives=shapes.ChatReply,
            streams=True,
            repeatable=True,
        ),
        Route(
            method="POST",
            path="/v1/embeddings",
            endpoint=to.embeddings,
            summary="Turn texts into vectors",
            takes=shapes.EmbeddingBody,
            gives=shapes.EmbeddingReply,
            repeatable=True,
            tag="Embeddings",
        ),
        *image_routes(to),
        Route(
            method="GET",
            path="/v1/models",
            endpoint=to.list_models,
            summary="List the models this key may use, with their real limits",
            gives=shapes.ModelList,
            tag="Models",
        ),
        Route(
            method="GET",
            path="/v1/models/{model}",
            endpoint=to.show_model,
            summary="Show one model",
            gives=shapes.Model,
            tag="Models",
        ),
        Route(
            method="GET",
            path="/v1/tools",
            endpoint=to.list_tools,
            summary="List the tools that the server itself may call during an answer",
            gives=shapes_tools.ToolList,
            tag="Tools",
        ),
        *run_routes(to),
        *_usage(to),
        *account_routes(to),
        *agent_routes(to),
        *_agents(to),
        *asked_routes(to),
        *_probes(to),
        *_refusals(),
    )


def _usage(to: Endpoints) -> tuple[Route, ...]:
    """Each kind of answer for oneself and, under `/v1/admin`, for everybody."""
    total = "Sum up what the calling key has used; with group_by, by day, model and so on"
    kinds = (
        ("/v1", to.usage, to.usage_requests, to.usage_request, usage.USAGE_QUERY, usage.REQUESTS_QUERY),
        (
            "/v1/admin",
            to.admin_usage,
            to.admin_usage_requests,
            to.admin_usage_request,
            usage.ADMIN_USAGE_QUERY,
            usage.ADMIN_REQUESTS_QUERY,
        ),
    )
    rows: list[Route] = []
    for prefix, show, pages, one, show_query, pages_query in kinds:
        admin = prefix != "/v1"
        whose = ", of everybody (scope admin)" if admin else ""
        rows += (
            Route(
                method="GET",
                path=f"{prefix}/usage",
                endpoint=show,
                summary=f"Sum up what was used{whose}" if admin else total,
                query=show_query,
                gives=shapes_usage.UsageTotal,
                or_gives=shapes_usage.UsageGroups,
                tag="Usage",
                scope="admin" if admin else "api",
            ),
            Route(
                method="GET",
                path=f"{prefix}/usage/requests",
                endpoint=pages,
                summary=f"List single requests, newest first{whose}",
                query=pages_query,
                gives=shapes_usage.UsageEntries,
                tag="Usage",
                scope="admin" if admin else "api",
            ),
            Route(
                method="GET",
                path=f"{prefix}/usage/requests/{{request}}",
                endpoint=one,
                summary=f"Show one request, by its id or its x-request-id{whose}",
                query=() if admin else usage.FIND_QUERY,
                gives=shapes_usage.UsageEntry,
                tag="Usage",
                scope="admin" if admin else "api",
            ),
        )
    limits = Route(
        method="GET",
        path="/v1/limits",
        endpoint=to.limits,
        summary="List every limit that binds the calling key, and what is left of it",
        query=usage.LIMITS_QUERY,
        gives=shapes_usage.LimitLevels,
        names=True,
        tag="Usage",
    )
    return (*rows, limits)


def _agents(to: Endpoints) -> tuple[Route, ...]:
    """Where agents post: their protocol's own, outside the API description."""
    path = "/agents/inbox"
    return (
        Route(
            method="POST",
            path=path,
            endpoint=to.agent_inbox,
            summary="Take in what an agent says",
            open=True,
            tag="Agents",
            described=False,
        ),
        Route(
            method="GET",
            path=path,
            endpoint=to.agent_probe,
            summary="Say whether envelopes are taken",
            open=True,
            tag="Agents",
            described=False,
        ),
    )


def _probes(to: Endpoints) -> tuple[Route, ...]:
    alive = ("/health", "/livez")
    summary = "Is the process alive? Needs no key, calls no model"
    return (
        *(
            Route(method="GET", path=path, endpoint=to.alive, summary=summary, open=True, tag="Health")
            for path in alive
        ),
        Route(
            method="GET",
            path="/readyz",
            endpoint=to.ready,
            summary="200 once a configured model can serve, else 503; ?verbose says why",
            open=True,
            tag="Health",
        ),
    )


def _refusals() -> tuple[Route, ...]:
    """Paths that clients try: they need a key like the rest and answer why not, outside the API description."""
    stored = (
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions/{completion}"),
        ("POST", "/v1/chat/completions/{completion}"),
        ("DELETE", "/v1/chat/completions/{completion}"),
    )
    return (
        *(
            Route(method=method, path=path, endpoint=Absent(what), summary=f"{what}: not offered", described=False)
            for method, path, what in ABSENT
        ),
        *(
            Route(method=method, path=path, endpoint=refuse_stored, summary="Not kept", described=False)
            for method, path in stored
        ),
    )

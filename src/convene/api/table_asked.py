"""The rows of the route table for agents that ask this server over protocols of their own, with a key like anybody.

Outside the API description: their protocols say what they are. `table.py` puts the rows among the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.api.routes import Route

if TYPE_CHECKING:
    from convene.api.table import Endpoints


def asked_routes(to: Endpoints) -> tuple[Route, ...]:
    """Return the rows."""
    return (
        Route(
            method="POST",
            path="/a2a",
            endpoint=to.a2a,
            summary="Answer one request of the Agent2Agent protocol",
            tag="Agents",
            described=False,
        ),
        *(
            Route(method=method, path=path, endpoint=endpoint, summary=summary, tag="Agents", described=False)
            for method, path, endpoint, summary in (
                ("POST", "/a2a/message:send", to.a2a_send, "Send a message, over A2A's HTTP+JSON"),
                ("POST", "/a2a/message:stream", to.a2a_stream, "Send a message and hear what comes of it"),
                ("GET", "/a2a/tasks", to.a2a_tasks, "List tasks"),
                ("GET", "/a2a/tasks/{task}", to.a2a_task, "Show a task, or hear what comes of it"),
                ("POST", "/a2a/tasks/{task}", to.a2a_change_task, "End a task, or hear what comes of it"),
                ("DELETE", "/a2a/tasks/{task}", to.a2a_delete, "Not offered: there is nothing to delete"),
                ("GET", "/a2a/extendedAgentCard", to.a2a_extended_card, "Not offered: there is no other card"),
            )
        ),
        *(
            Route(
                method="GET",
                path=f"/.well-known/{name}.json",
                endpoint=to.a2a_card,
                summary="Show the card of this server as an A2A agent",
                open=True,
                tag="Agents",
                described=False,
            )
            for name in ("agent-card", "agent")
        ),
        Route(
            method="POST",
            path="/mcp",
            endpoint=to.mcp,
            summary="Answer one message of the Model Context Protocol",
            tag="Agents",
            described=False,
        ),
        *(
            Route(
                method=method,
                path="/mcp",
                endpoint=to.mcp_other,
                summary="Not offered: there is nothing to listen to, and no session to end",
                tag="Agents",
                described=False,
            )
            for method in ("GET", "DELETE")
        ),
    )

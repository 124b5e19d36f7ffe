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

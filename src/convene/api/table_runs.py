"""The rows of the route table for runs and sessions. `table.py` puts them among the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.api import runs
from convene.api import shapes_runs as shapes
from convene.api.accounts_wire import PAGED
from convene.api.routes import Route

if TYPE_CHECKING:
    from convene.api.table import Endpoints


def run_routes(to: Endpoints) -> tuple[Route, ...]:
    """Return the rows."""
    return (
        Route(
            method="GET",
            path="/v1/runs",
            endpoint=to.list_runs,
            summary="List your agentic turns, newest first",
            query=runs.RUNS_QUERY,
            gives=shapes.RunList,
            tag="Runs",
        ),
        Route(
            method="GET",
            path="/v1/runs/{run}",
            endpoint=to.show_run,
            summary="Show an agentic turn with its steps and its answer, or go on reading its stream",
            query=runs.RUN_QUERY,
            gives=shapes.RunDetail,
            streams=True,
            tag="Runs",
        ),
        Route(
            method="POST",
            path="/v1/runs/{run}/cancel",
            endpoint=to.cancel_run,
            summary="End an agentic turn; one that is over stays as it ended",
            gives=shapes.RunReply,
            tag="Runs",
        ),
        Route(
            method="GET",
            path="/v1/sessions",
            endpoint=to.list_sessions,
            summary="List your sessions, last used first",
            query=PAGED,
            gives=shapes.SessionList,
            tag="Sessions",
        ),
        Route(
            method="GET",
            path="/v1/sessions/{session}",
            endpoint=to.show_session,
            summary="Show a session and what it remembers",
            gives=shapes.SessionDetail,
            tag="Sessions",
        ),
        Route(
            method="DELETE",
            path="/v1/sessions/{session}",
            endpoint=to.delete_session,
            summary="Delete a session, what it remembers, and its runs that are over",
            gives=shapes.SessionDeleted,
            tag="Sessions",
        ),
    )

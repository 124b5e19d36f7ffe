"""The table of routes: every path this server serves, in one list. The API description is generated from it.

`app.py` fills `Endpoints`; to add an endpoint, add a field there and a row here.
"""

from __future__ import annotations

import msgspec

from convene.api import shapes
from convene.api.absent import ABSENT, Absent, refuse_stored
from convene.api.routes import Endpoint, Route


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever answers, by what it does."""

    chat: Endpoint
    embeddings: Endpoint
    list_models: Endpoint
    show_model: Endpoint
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
        ),
        Route(
            method="POST",
            path="/v1/embeddings",
            endpoint=to.embeddings,
            summary="Turn texts into vectors",
            takes=shapes.EmbeddingBody,
            gives=shapes.EmbeddingReply,
            tag="Embeddings",
        ),
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
        *_probes(to),
        *_refusals(),
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

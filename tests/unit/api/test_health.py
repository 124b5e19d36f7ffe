"""The probes: alive as long as it answers, ready when a model can serve and nobody is shutting down."""

from __future__ import annotations

import msgspec
import pytest

import convene
from convene.api.health import Health
from convene.serving.catalog import Catalog
from unit.api.asgi_doubles import Connection


class Known(Catalog):
    """A catalog of which only the readiness counts."""

    def __init__(self, **models: str | None) -> None:
        super().__init__(())
        self._models = models

    def readiness(self) -> dict[str, str | None]:
        return dict(self._models)


async def probe(models: Known, *, draining: bool = False, query: bytes = b"") -> Connection:
    """Ask whether it is ready."""
    connection = Connection(method="GET", path="/readyz")
    connection.scope["query_string"] = query
    await Health(models, lambda: draining).ready(connection.call())
    return connection


@pytest.mark.req("OPS-02", "ERR-07")
@pytest.mark.parametrize(
    ("models", "draining", "status", "word"),
    [
        (Known(a=None), False, 200, b"ready"),
        (Known(a="loading", b=None), False, 200, b"ready"),
        (Known(a="loading"), False, 503, b"loading"),
        (Known(), False, 503, b"loading"),
        (Known(a=None), True, 503, b"shutting down"),
    ],
)
async def test_ready_is_one_model_that_can_serve_and_no_shutdown(
    models: Known, status: int, word: bytes, *, draining: bool
) -> None:
    connection = await probe(models, draining=draining)
    assert (connection.status, connection.body) == (status, b'{"status":"%b"}' % word)


@pytest.mark.req("OPS-02")
async def test_verbose_gives_each_models_reason() -> None:
    connection = await probe(Known(a=None, b="the weights are being fetched"), query=b"verbose")
    assert msgspec.json.decode(connection.body) == {
        "status": "ready",
        "version": convene.__version__,
        "models": {"a": "ready", "b": "the weights are being fetched"},
    }


@pytest.mark.req("OPS-01")
async def test_alive_asks_no_model() -> None:
    connection = Connection(method="GET", path="/livez")
    await Health(Known(a="loading"), lambda: True).alive(connection.call())
    assert (connection.status, connection.body) == (200, b'{"status":"ok"}')

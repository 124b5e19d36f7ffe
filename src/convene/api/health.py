"""`/health`, `/livez`, `/readyz`: open, cheap, and no model is ever called (OPS-01, OPS-02)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import convene

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call
    from convene.serving.base import Catalog

ALIVE = b'{"status":"ok"}'


class Health:
    """The probes. Ready means: not shutting down, and at least one configured model can serve."""

    def __init__(self, catalog: Catalog, draining: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._draining = draining

    async def alive(self, call: Call) -> None:
        """Answer as long as the process runs its loop."""
        await call.reply(200, ALIVE)

    async def ready(self, call: Call) -> None:
        """Answer 200 once any model can serve, else 503; `?verbose` says why for each model."""
        models = self._catalog.readiness()
        draining = self._draining()
        is_ready = not draining and self._catalog.serves()
        status = "shutting down" if draining else "ready" if is_ready else "loading"
        answer: dict[str, object] = {"status": status}
        if b"verbose" in call.scope.get("query_string", b""):
            answer |= {
                "version": convene.__version__,
                "models": {name: "ready" if reason is None else reason for name, reason in models.items()},
            }
        await call.reply_json(answer, 200 if is_ready else 503)

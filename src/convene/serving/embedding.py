"""The use case behind an embedding request: find the model, reserve, ask it, settle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.errors import ConveneError
from convene.serving.admission import Ask
from convene.serving.base import Agentic, Outcome
from convene.usage import BYTES_PER_TOKEN, Usage, count_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.clock import Clock
    from convene.providers.base import Embeddings
    from convene.serving.admission import Admission
    from convene.serving.base import EmbeddingRequest, Principal
    from convene.serving.catalog import Catalog

_NO_AGENTS = Agentic()


class Embedder:
    """Answers embedding requests."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self.admission = admission

    async def embed(self, request: EmbeddingRequest, principal: Principal, outcome: Outcome) -> Embeddings:
        """Return one vector an input, filling `outcome` on the way.

        Raises:
            NotFound, BadRequest: the model, or what it cannot read.
            Refused: a limit.
            UpstreamFault: whoever embeds failed.
        """
        deployed = self._catalog.embedding(request.model, principal)
        outcome.model, outcome.upstream = deployed.card.id, deployed.card.upstream
        size = _bytes_of(request.inputs)
        ask = Ask(
            id=self._clock.stamped_id("emb-"),
            request_id=request.request_id,
            kind="embedding",
            principal=principal,
            model_asked=request.model,
            model=deployed.card.id,
            terms=deployed.terms,
            agentic=_NO_AGENTS,
            prompt_bytes=size,
        )
        began_at = self._clock.monotonic()
        lease = await self.admission.reserve(ask, outcome)
        try:
            found = await deployed.embedding.embed(request.inputs, request.dimensions)
            outcome.first_event_ms = (self._clock.monotonic() - began_at) * 1000
            outcome.usage, outcome.finish = found.usage, "stop"
        except ConveneError as fault:
            outcome.status, outcome.finish = "failed", fault.code
            raise
        except asyncio.CancelledError:
            outcome.status = "client_left"
            outcome.usage = Usage(-(-size // BYTES_PER_TOKEN), estimated=True)
            raise
        finally:
            lease.settle()
            if outcome.status == "failed":
                await lease.written()
        await lease.written()
        return found


def _bytes_of(inputs: Sequence[str | Sequence[int]]) -> int:
    """Return the UTF-8 bytes of all inputs; a token id counts as what a token is estimated at."""
    return sum(count_bytes(one) if isinstance(one, str) else len(one) * BYTES_PER_TOKEN for one in inputs)

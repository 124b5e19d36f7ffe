"""The use case behind an embedding request: find the model, ask it. Limits and the ledger join at the same seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.providers.base import Embeddings
    from convene.serving.base import Principal
    from convene.serving.catalog import Catalog


class Embedder:
    """Answers embedding requests."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def embed(
        self, model: str, inputs: Sequence[str | Sequence[int]], dimensions: int | None, principal: Principal
    ) -> Embeddings:
        """Return one vector an input. Raises `NotFound`, `BadRequest` or `UpstreamFault`."""
        _, deployed = self._catalog.embedding(model, principal)
        return await deployed.embed(inputs, dimensions)

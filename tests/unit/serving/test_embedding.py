"""An embedding request finds its model by any of its names, reserves, asks it and settles once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, Busy, NotFound
from convene.providers.scripted import ScriptedEmbeddings
from convene.serving.base import EmbeddingRequest, ModelCard, Outcome, Principal
from convene.serving.catalog import Catalog, Deployment
from convene.serving.embedding import Embedder
from convene.usage import Usage
from fakes import FakeClock
from unit.serving.test_turn import Books

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.providers.base import Embeddings

WHO = Principal(key_id="k", owner="o")
CARD = ModelCard(id="vectors", created=0, owned_by="u", upstream="u", target="t", kind="embedding", aliases=("alias",))


def embedder(books: Books, model: ScriptedEmbeddings | None = None) -> Embedder:
    """Return the use case over one model."""
    deployment = Deployment(card=CARD, embedding=model or ScriptedEmbeddings(dimensions=4))
    return Embedder(Catalog([deployment]), books, FakeClock())


def wish(model: str, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> EmbeddingRequest:
    """Return a request."""
    return EmbeddingRequest(model=model, inputs=inputs, dimensions=dimensions, request_id="req_1")


@pytest.mark.req("OAI-62", "OAI-63")
async def test_inputs_go_to_the_model_behind_the_name_in_order() -> None:
    books = Books()
    by_name = await embedder(books).embed(wish("vectors", ["one", [1, 2]]), WHO, Outcome())
    by_alias = await embedder(books).embed(wish("alias", ["one", [1, 2]], 6), WHO, Outcome())
    assert [len(vector) for vector in by_name.vectors] == [4, 4]
    assert [len(vector) for vector in by_alias.vectors] == [6, 6]
    assert by_name.usage.prompt_tokens == 3


async def test_it_is_reserved_by_the_size_of_its_inputs_and_settled_once_with_what_was_read() -> None:
    books, outcome = Books(), Outcome()
    await embedder(books).embed(wish("alias", ["one", [1, 2]]), WHO, outcome)
    (ask,) = books.reserved
    assert (ask.kind, ask.model, ask.model_asked, ask.prompt_bytes) == ("embedding", "vectors", "alias", 9)
    assert books.settled == [outcome]
    assert (outcome.usage, outcome.status, outcome.finish) == (Usage(3, 0), "ok", "stop")


async def test_refusals_pass_through() -> None:
    books = Books()
    with pytest.raises(NotFound):
        await embedder(books).embed(wish("nobody", ["x"]), WHO, Outcome())
    other = Principal(key_id="k", owner="o", models=("other",))
    with pytest.raises(NotFound):
        await embedder(books).embed(wish("vectors", ["x"]), other, Outcome())
    assert books.reserved == []
    with pytest.raises(BadRequest):
        await embedder(books).embed(wish("vectors", ["x"], -1), WHO, Outcome())
    assert [(one.status, one.usage) for one in books.settled] == [("failed", None)]
    with pytest.raises(Busy):
        await embedder(Books(Busy("full"))).embed(wish("vectors", ["x"]), WHO, Outcome())


async def test_a_client_that_leaves_is_billed_for_what_was_sent() -> None:
    class Endless(ScriptedEmbeddings):
        async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
            await asyncio.Event().wait()
            return await super().embed(inputs, dimensions)

    books, outcome = Books(), Outcome()
    task = asyncio.create_task(embedder(books, Endless()).embed(wish("vectors", ["abcdef"]), WHO, outcome))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert books.settled == [outcome]
    assert (outcome.status, outcome.usage) == ("client_left", Usage(2, 0, estimated=True))

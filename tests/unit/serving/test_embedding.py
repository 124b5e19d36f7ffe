"""An embedding request finds its model by any of its names and asks it."""

from __future__ import annotations

import pytest

from convene.errors import BadRequest, NotFound
from convene.providers.scripted import ScriptedEmbeddings
from convene.serving.base import ModelCard, Principal
from convene.serving.catalog import Catalog, Deployment
from convene.serving.embedding import Embedder

WHO = Principal(key_id="k", owner="o")
CARD = ModelCard(id="vectors", created=0, owned_by="u", upstream="u", target="t", kind="embedding", aliases=("alias",))


@pytest.mark.req("OAI-62", "OAI-63")
async def test_inputs_go_to_the_model_behind_the_name_in_order() -> None:
    embedder = Embedder(Catalog([Deployment(card=CARD, embedding=ScriptedEmbeddings(dimensions=4))]))
    by_name = await embedder.embed("vectors", ["one", [1, 2]], None, WHO)
    by_alias = await embedder.embed("alias", ["one", [1, 2]], 6, WHO)
    assert [len(vector) for vector in by_name.vectors] == [4, 4]
    assert [len(vector) for vector in by_alias.vectors] == [6, 6]
    assert by_name.usage.prompt_tokens == 3


async def test_refusals_pass_through() -> None:
    embedder = Embedder(Catalog([Deployment(card=CARD, embedding=ScriptedEmbeddings())]))
    with pytest.raises(NotFound):
        await embedder.embed("nobody", ["x"], None, WHO)
    with pytest.raises(NotFound):
        await embedder.embed("vectors", ["x"], None, Principal(key_id="k", owner="o", models=("other",)))
    with pytest.raises(BadRequest):
        await embedder.embed("vectors", ["x"], -1, WHO)

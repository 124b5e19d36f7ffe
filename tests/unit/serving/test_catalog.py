"""Names and aliases to deployments, and who may use which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.errors import NotFound
from convene.providers.base import Capabilities
from convene.providers.scripted import ScriptedEmbeddings
from convene.serving.base import ModelCard, Principal
from convene.serving.catalog import Catalog, Deployment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.providers.base import Generation

ANYBODY = Principal(key_id="k", owner="o")


class Model:
    """A chat model of which only the face counts."""

    def __init__(self, reason: str | None = None) -> None:
        self.capabilities = Capabilities()
        self.upstream = "up"
        self._reason = reason

    @property
    def whole(self) -> None:
        return None

    def ready(self) -> str | None:
        return self._reason

    def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        raise AssertionError(f"a catalog generates nothing: {generation}")


def card(name: str, *aliases: str, kind: str = "chat") -> ModelCard:
    """Return a card."""
    return ModelCard(id=name, created=1, owned_by="up", upstream="up", target=name, kind=kind, aliases=aliases)


def may(*models: str) -> Principal:
    """Return somebody who may use only these models."""
    return Principal(key_id="k", owner="o", models=models)


BIG, SMALL = Model(), Model("loading")
CATALOG = Catalog(
    [
        Deployment(card=card("big", "old", "small", "shared"), chat=BIG),
        Deployment(card=card("small", "tiny", "shared"), chat=SMALL),
        Deployment(card=card("vectors", "text-embedding-3-small", kind="embedding"), embedding=ScriptedEmbeddings()),
        Deployment(card=card("broken")),
    ]
)


@pytest.mark.req("MODEL-02", "OAI-62")
@pytest.mark.parametrize(
    ("name", "model"), [("big", BIG), ("old", BIG), ("small", SMALL), ("tiny", SMALL), ("shared", BIG)]
)
def test_a_name_wins_over_an_alias_and_an_earlier_alias_over_a_later(name: str, model: Model) -> None:
    found = CATALOG.chat(name, ANYBODY)
    assert found.chat is model
    assert found.card.id == ("big" if model is BIG else "small")
    assert CATALOG.chat(name, may(found.card.id)) is found, "a key of certain models takes the longer way"


@pytest.mark.req("OAI-60")
def test_every_name_and_alias_is_listed_once_and_aliases_say_of_what() -> None:
    listed = {found.id: found.alias_of for found in CATALOG.cards(ANYBODY)}
    assert listed == {
        "big": None,
        "old": "big",
        "shared": "big",
        "small": None,
        "tiny": "small",
        "vectors": None,
        "text-embedding-3-small": "vectors",
        "broken": None,
    }
    assert CATALOG.card("old", ANYBODY).aliases == ()


@pytest.mark.req("ERR-02", "OAI-61")
@pytest.mark.parametrize("name", ["nobody", "BIG", "", "big ", "x" * 256])
def test_an_unknown_name_is_not_found(name: str) -> None:
    for find in (CATALOG.chat, CATALOG.embedding, CATALOG.card):
        with pytest.raises(NotFound) as caught:
            find(name, ANYBODY)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert len(caught.value.message) < 250


def test_a_key_bound_to_models_sees_and_gets_only_those() -> None:
    assert {found.id for found in CATALOG.cards(may("big"))} == {"big", "old", "shared"}
    assert {found.id for found in CATALOG.cards(may("tiny"))} == {"tiny"}
    assert CATALOG.chat("old", may("big")).chat is BIG
    assert CATALOG.chat("tiny", may("tiny")).chat is SMALL
    for name, principal in (("small", may("big")), ("small", may("tiny")), ("big", may()), ("vectors", may("big"))):
        for find in (CATALOG.chat, CATALOG.embedding, CATALOG.card):
            with pytest.raises(NotFound) as caught:
                find(name, principal)
            assert "does not exist or this key may not use it" in caught.value.message


def test_chat_and_embedding_models_are_kept_apart() -> None:
    with pytest.raises(NotFound, match="makes embeddings"):
        CATALOG.chat("vectors", ANYBODY)
    with pytest.raises(NotFound, match="does not make embeddings"):
        CATALOG.embedding("big", ANYBODY)
    assert CATALOG.embedding("text-embedding-3-small", ANYBODY).card.id == "vectors"


@pytest.mark.req("OPS-02")
def test_readiness_gives_each_deployment_its_reason() -> None:
    assert CATALOG.readiness() == {"big": None, "small": "loading", "vectors": None, "broken": "not deployed"}


@pytest.mark.req("OPS-02")
def test_a_ready_embedding_model_alone_does_not_make_a_chat_server_ready() -> None:
    vectors = Deployment(card=card("vectors", kind="embedding"), embedding=ScriptedEmbeddings())
    loading = Deployment(card=card("small"), chat=Model("loading"))
    assert not Catalog([loading, vectors]).serves()
    assert Catalog([loading, vectors, Deployment(card=card("big"), chat=Model())]).serves()
    assert Catalog([vectors]).serves()
    assert not Catalog([]).serves()

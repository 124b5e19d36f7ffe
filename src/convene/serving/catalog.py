"""Which models there are: names and aliases to deployments, who may use which, and whether each can serve.

`app.py` fills it from the configuration; `turn.py` and `embedding.py` ask it for the model behind a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from convene.errors import NotFound
from convene.providers.base import ChatModel, EmbeddingModel, Generation
from convene.providers.base_images import ImageModel
from convene.serving.base import ModelCard, Principal
from convene.serving.images import describe_images
from convene.serving.terms import AGENTIC, PLAIN, AgenticTerms, Terms
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


ANY_IMAGE = "asi1"
"""How the names of ASI:One's models begin."""
Tally = Callable[[Generation, str], Awaitable[Usage]]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One model as deployed: its card and exactly one of `chat`, `embedding` and `image`."""

    card: ModelCard
    chat: ChatModel | None = None
    embedding: EmbeddingModel | None = None
    image: ImageModel | None = None
    terms: Terms = PLAIN
    tally: Tally | None = None
    """Counts what was cut off by the model's own tokenizer, where one is at hand; else it is estimated."""
    agentic: AgenticTerms = AGENTIC

    def ready(self) -> str | None:
        """Return None if it can serve, else why not."""
        model = self.chat or self.embedding or self.image
        return "not deployed" if model is None else model.ready()


class ChatDeployment(msgspec.Struct, frozen=True):
    """A deployment that chats."""

    card: ModelCard
    chat: ChatModel
    terms: Terms
    tally: Tally | None = None
    agentic: AgenticTerms = AGENTIC


class EmbeddingDeployment(msgspec.Struct, frozen=True):
    """A deployment that makes embeddings."""

    card: ModelCard
    embedding: EmbeddingModel
    terms: Terms


class ImageDeployment(msgspec.Struct, frozen=True):
    """A deployment that makes pictures."""

    card: ModelCard
    image: ImageModel
    terms: Terms


class Catalog:
    """The deployed models by every name a client may use. Fixed for the life of the process."""

    def __init__(self, deployments: Iterable[Deployment]) -> None:
        """Take the deployments. A name of one's own wins over another's alias, an earlier alias over a later one."""
        self._by_id = {deployment.card.id: deployment for deployment in deployments}
        self._by_name = dict(self._by_id)
        for deployment in self._by_id.values():
            for alias in deployment.card.aliases:
                self._by_name.setdefault(alias, deployment)
        deployed = self._by_id.items()
        self._chats = {
            name: ChatDeployment(one.card, one.chat, one.terms, one.tally, one.agentic)
            for name, one in deployed
            if one.chat is not None
        }
        self._chats_by_name = {
            name: self._chats[one.card.id] for name, one in self._by_name.items() if one.card.id in self._chats
        }
        self._embeddings = {
            name: EmbeddingDeployment(one.card, one.embedding, one.terms)
            for name, one in deployed
            if one.embedding is not None
        }
        self._images = {
            name: ImageDeployment(one.card, one.image, one.terms) for name, one in deployed if one.image is not None
        }

    def chat(self, name: str, principal: Principal) -> ChatDeployment:
        """Return the chat model behind a name or alias. Raises `NotFound`."""
        if principal.models is None:  # as nearly always: one look-up, in place of three
            found = self._chats_by_name.get(name)
            if found is not None:
                return found
        found = self._chats.get(self._find(name, principal).card.id)
        if found is None:
            kind = "embeddings" if self._find(name, principal).embedding is not None else "pictures"
            raise _not_found(f"The model '{name}' makes {kind}, not chat completions.")
        return found

    def embedding(self, name: str, principal: Principal) -> EmbeddingDeployment:
        """Return the embedding model behind a name or alias. Raises `NotFound`."""
        found = self._embeddings.get(self._find(name, principal).card.id)
        if found is None:
            raise _not_found(f"The model '{name}' does not make embeddings.")
        return found

    def image(self, name: str, principal: Principal) -> ImageDeployment:
        """Return the image model behind a name or alias. Raises `NotFound`.

        No name, a name of ASI:One's and a chat model's mean the first image model: ASI:One's clients ask `asi1-mini`
        for pictures (IMAGE-02), whether or not this server has a model of that name. A scripted one is meant only if
        nothing else draws.
        """
        if not self._images:
            raise _not_found(
                "There is no image model here: the operator names one in [images.NAME], with kind and base_url."
            )
        deployment = None
        if name in self._by_name or not name.startswith(ANY_IMAGE):
            deployment = self._find(name, principal)
        found = None if deployment is None else self._images.get(deployment.card.id)
        if found is None and (deployment is None or deployment.chat is not None):
            may = (one for one in self._images.values() if _allowed(one.card, principal))
            found = min(may, key=lambda one: one.image.capabilities.scripted, default=None)
        if found is None:
            raise _not_found(f"The model '{name}' makes no pictures.")
        return found

    def terms(self) -> dict[str, Terms]:
        """Return the terms of every deployment by its name."""
        return {name: deployment.terms for name, deployment in self._by_id.items()}

    def cards(self, principal: Principal) -> Sequence[ModelCard]:
        """Return a card for every name and alias this caller may use."""
        cards = (self._named(name, deployment) for name, deployment in self._by_name.items())
        return [card for card in cards if _allowed(card, principal)]

    def card(self, name: str, principal: Principal) -> ModelCard:
        """Return one card by name or alias. Raises `NotFound`."""
        return self._named(name, self._find(name, principal))

    def readiness(self) -> dict[str, str | None]:
        """Return each deployment's reason for not being ready, None when it is."""
        return {name: deployment.ready() for name, deployment in self._by_id.items()}

    def serves(self) -> bool:
        """Whether a chat model can serve now, or, where there is none, any model.

        An embedding model alone would be ready long before the weights of the chat model are here.
        """
        reasons = self.readiness()
        chats = [reasons[name] for name, deployment in self._by_id.items() if deployment.chat is not None]
        return any(reason is None for reason in chats or reasons.values())

    @staticmethod
    def _named(name: str, deployment: Deployment) -> ModelCard:
        card = deployment.card
        if deployment.image is not None:  # what a model of this machine can is known once it is loaded
            card = msgspec.structs.replace(card, image=describe_images(deployment.image.capabilities))
        return card if name == card.id else msgspec.structs.replace(card, id=name, alias_of=card.id, aliases=())

    def _find(self, name: str, principal: Principal) -> Deployment:
        deployment = self._by_name.get(name)
        if deployment is None or not (principal.models is None or _allowed(self._named(name, deployment), principal)):
            raise _not_found(
                f"The model '{name[:100]}' does not exist or this key may not use it. GET /v1/models lists them."
            )
        return deployment


def _allowed(card: ModelCard, principal: Principal) -> bool:
    return principal.models is None or card.id in principal.models or card.alias_of in principal.models


def _not_found(message: str) -> NotFound:
    return NotFound(message, code="model_not_found", param="model")

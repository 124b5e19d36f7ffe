"""`GET /v1/models` and `GET /v1/models/{id}`: names, aliases and the real limits of what is deployed (MODEL-05)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import UNSET

from convene.api.shapes import Model, ModelCapabilities, ModelImages, ModelList

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.serving.base import Catalog, ModelCard
    from convene.serving.base_images import ImageAbilities


_KINDS: Final[dict[str, Literal["chat", "embedding", "image"]]] = {"embedding": "embedding", "image": "image"}


class Models:
    """The two endpoints."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def list_all(self, call: Call) -> None:
        """Answer with every model the caller may use, aliases too (OAI-60)."""
        await call.reply_json(ModelList([model_of(card) for card in self._catalog.cards(call.caller)]))

    async def show(self, call: Call) -> None:
        """Answer with one model; ids may hold `/` and `:` (OAI-61). Raises `NotFound`."""
        await call.reply_json(model_of(self._catalog.card(call.params["model"], call.caller)))


def model_of(card: ModelCard) -> Model:
    """Return a card as clients see it."""
    can = card.capabilities
    model = Model(
        id=card.id,
        created=card.created,
        owned_by=card.owned_by,
        kind=_KINDS.get(card.kind, "chat"),
        alias_of=UNSET if card.alias_of is None else card.alias_of,
        dimensions=UNSET if card.dimensions is None else card.dimensions,
        description=card.notes or UNSET,
    )
    if card.image is not None:
        model.image = _image_of(card.image)
    if can is not None:
        model.context_window = can.context_window
        model.max_output_tokens = can.output_tokens_max
        model.default_temperature = can.temperature
        model.capabilities = ModelCapabilities(
            vision=can.vision,
            tools=can.tools,
            json_schema=can.json_schema,
            logprobs=can.logprobs,
            reasoning=can.reasoning,
        )
    return model


def _image_of(can: ImageAbilities) -> ModelImages:
    return ModelImages(
        tasks=list(can.tasks),
        sizes=list(can.sizes),
        default_size=can.default_size,
        formats=list(can.formats),
        count_max=can.count_max,
        sources_max=can.sources_max,
        seed=can.seed,
        transparent_background=can.transparent,
        progress=can.progress,
        scripted=can.scripted,
    )

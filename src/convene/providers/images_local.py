"""Pictures drawn on this machine: an `ImageModel` over the local image engine (`engine/image_process`).

    refuse what it cannot do ─► wait in line ─► paint ─► ImageProgress, ImageMade

Here: the order of one request, capabilities, and what the engine's faults mean to a caller. Not here: processes,
folders and torch (`engine/`). `app_images.py` makes it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from convene.engine.base import EngineFault, NotReady
from convene.engine.base_images import SEED_MAX, Painted, PaintOrder, PaintRefused
from convene.errors import BadRequest, Unavailable, UpstreamFault
from convene.providers.base_images import ImageCapabilities, ImageMade, ImageProgress
from convene.providers.local_child import describe_status
from convene.providers.local_line import WaitingLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock
    from convene.engine.base import EngineStatus
    from convene.engine.base_images import Painter
    from convene.providers.base_images import ImageAsk, ImageEvent

SEED_BYTES = 4
"""Of a seed of ours: short enough to be written down, as others give them."""


class LocalImagesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a local image model is used.

    Attributes:
        upstream: its name in `metadata.upstream` and the books.
        side: of the square picture that `auto` means; 0 takes what the pipeline was made for.
        side_max: the longest side.
        count_max: pictures of one request; they are drawn one after the other.
        waiting_max: requests that may wait while one is drawn; any more are `Busy`.
        retry_after_s: when a caller is told to come back while the model is loading.
    """

    upstream: str = "local"
    side: int = 0
    side_max: int = 2048
    count_max: int = 4
    waiting_max: int = 8
    retry_after_s: float = 10.0


class LocalImages:
    """One pipeline on this machine, as an `ImageModel`."""

    def __init__(self, painter: Painter, settings: LocalImagesSettings, clock: Clock) -> None:
        """Serve `painter`'s pipeline; it is started and closed by `start` and `aclose`."""
        self._painter = painter
        self._settings = settings
        self._clock = clock
        self._line = WaitingLine(1, settings.waiting_max, clock)

    @property
    def capabilities(self) -> ImageCapabilities:
        """What it can make; the sizes are those of the pipeline once that has been loaded."""
        facts = self._painter.facts
        settings = self._settings
        side = settings.side or (facts.side if facts is not None else 512)
        side = min(side, settings.side_max)
        return ImageCapabilities(
            default_size=(side, side),
            side_max=settings.side_max,
            side_step=facts.side_step if facts is not None else 8,
            count_max=settings.count_max,
            progress=True,
        )

    @property
    def upstream(self) -> str:
        """Its name in the books."""
        return self._settings.upstream

    @property
    def name(self) -> str:
        """The name of its weights."""
        return self._painter.name

    def status(self) -> EngineStatus:
        """Return how its engine stands."""
        return self._painter.status()

    def start(self) -> None:
        """Begin fetching and loading in the background."""
        self._painter.start()

    async def aclose(self) -> None:
        """End the child."""
        await self._painter.aclose()

    def ready(self) -> str | None:
        """Return None if it can draw now, else why not, with the megabytes of a fetch under way."""
        return describe_status(self._painter.status(), self._painter.name)

    async def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        """Draw the pictures, see `ImageModel`. Raises `BadRequest`, `Busy` or `UpstreamFault`."""
        order = self._order(ask)
        async with self._line.place():
            try:
                async with aclosing(self._painter.paint(order)) as events:
                    async for event in events:
                        if isinstance(event, Painted):
                            yield ImageMade(index=event.index, data=event.data, seed=event.seed)
                        else:
                            yield ImageProgress(event.done, event.total)
            except EngineFault as fault:
                raise self._explain(fault) from fault

    def _order(self, ask: ImageAsk) -> PaintOrder:
        """Return what is to be drawn. Raises `BadRequest` for what no local pipeline can do."""
        if ask.task != "generate":
            raise BadRequest(
                "This model draws from text only; choose another for changing pictures.", code="unsupported_parameter"
            )
        if ask.background == "transparent":
            message = "This model paints no transparent backgrounds; leave `background` out."
            raise BadRequest(message, code="unsupported_parameter", param="background")
        if ask.seed is not None and not 0 <= ask.seed <= SEED_MAX:
            raise BadRequest(f"`seed` must be between 0 and {SEED_MAX}.", param="seed")
        width, height = ask.size
        step = self.capabilities.side_step
        if width % step or height % step:
            raise BadRequest(f"Both sides of `size` must be multiples of {step} for this model.", param="size")
        seed = ask.seed
        if seed is None:
            seed = int.from_bytes(self._clock.token(SEED_BYTES), "big")
        return PaintOrder(
            prompt=ask.prompt,
            negative_prompt=ask.negative_prompt,
            width=width,
            height=height,
            seed=seed,
            count=ask.count,
        )

    def _explain(self, fault: EngineFault) -> BadRequest | UpstreamFault:
        detail = f"{self._settings.upstream}: {fault.detail}"
        if isinstance(fault, PaintRefused):
            code = "content_policy_violation" if fault.param == "prompt" else "unsupported_parameter"
            return BadRequest(fault.message, code=code, param=fault.param or None, detail=detail)
        if isinstance(fault, NotReady):
            return Unavailable(fault.message, detail=detail, retry_after_s=self._settings.retry_after_s)
        if self.ready() is None:
            return UpstreamFault(fault.message, detail=detail)
        return Unavailable(fault.message, detail=detail)

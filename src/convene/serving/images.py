"""The use case behind a picture: find the model, reserve, have it drawn, look at what came, settle (IMAGE-01).

    ImageRequest ──► fit: size, count, format ──► reserve images ──► ImageModel ──► open, measure, convert ──► settle

Pictures are opened here, in a thread, before anybody gets them: what is no picture of a known form, or is larger than
it may be, never leaves. What was drawn before a caller left is paid for, as it was made.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.errors import BadRequest, ConveneError, Malformed, TimedOut
from convene.providers.base_images import ImageAsk, ImageMade
from convene.serving.admission import Ask
from convene.serving.base import Agentic
from convene.serving.base_images import Drawn
from convene.serving.picture import Unfit, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.providers.base_images import ImageCapabilities, ImageFormat, ImageProgress
    from convene.serving.admission import Admission
    from convene.serving.base import Outcome, Principal
    from convene.serving.base_images import ImageRequest, Picture
    from convene.serving.catalog import Catalog, ImageDeployment

SIZES: Final = (*((256, 256), (512, 512), (1024, 1024), (1024, 1536), (1536, 1024), (1024, 1792), (1792, 1024)),)
"""The documented sizes of ASI:One and OpenAI (IMAGE-03, IMAGE-04)."""
ANY_SIZE: Final = frozenset({"auto", ""})
TOTAL_S: Final = 900.0
_NO_AGENTS: Final = Agentic()


class ImageDesk:
    """Answers requests for pictures."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self.admission = admission

    async def draw(
        self,
        request: ImageRequest,
        principal: Principal,
        outcome: Outcome,
        progress: Callable[[ImageProgress], None] = lambda _: None,
    ) -> Drawn:
        """Return the pictures, filling `outcome` on the way.

        Raises:
            NotFound, BadRequest: the model, or what it cannot make.
            Refused: a limit.
            UpstreamFault: whoever draws failed, or gave something that is no picture.
        """
        deployed = self._catalog.image(request.model, principal)
        outcome.model, outcome.upstream = deployed.card.id, deployed.image.upstream
        ask = fit(request, deployed.image.capabilities)
        lease = await self.admission.reserve(self._reservation(request, principal, deployed), outcome)
        try:
            async with asyncio.timeout(TOTAL_S):
                pictures = await self._draw(deployed, ask, request.output_format, outcome, progress)
            outcome.finish = "stop"
        except TimeoutError as fault:
            outcome.status, outcome.finish = "failed", TimedOut.code
            raise TimedOut(f"No picture came within {TOTAL_S:g} s; ask for fewer or smaller ones.") from fault
        except ConveneError as fault:
            outcome.status, outcome.finish = "failed", fault.code
            raise
        except asyncio.CancelledError:
            outcome.status = "client_left"
            raise
        finally:
            lease.settle()
            if outcome.status == "failed":
                await lease.written()
        await lease.written()
        return Drawn(pictures=pictures, model=request.model)

    async def _draw(
        self,
        deployed: ImageDeployment,
        ask: ImageAsk,
        wanted: ImageFormat | None,
        outcome: Outcome,
        progress: Callable[[ImageProgress], None],
    ) -> tuple[Picture, ...]:
        began_at = self._clock.monotonic()
        pictures: list[Picture] = []
        async with aclosing(deployed.image.generate(ask)) as events:
            async for event in events:
                if outcome.first_event_ms is None:
                    outcome.first_event_ms = (self._clock.monotonic() - began_at) * 1000
                if isinstance(event, ImageMade):
                    outcome.images += 1
                    pictures.append(await self._finish(event, ask, deployed, wanted))
                else:
                    progress(event)
        if not pictures:
            raise Malformed("The model gave no picture; try again.", detail=f"{deployed.card.id}: no picture")
        return tuple(pictures)

    async def _finish(
        self, made: ImageMade, ask: ImageAsk, deployed: ImageDeployment, wanted: ImageFormat | None
    ) -> Picture:
        try:
            return await asyncio.to_thread(finish, made, ask.prompt, deployed.card.target, wanted)
        except Unfit as fault:
            message = f"The upstream '{deployed.image.upstream}' gave something that is no picture; try again."
            raise Malformed(message, detail=f"{deployed.card.id}: {fault}") from fault

    def _reservation(self, request: ImageRequest, principal: Principal, deployed: ImageDeployment) -> Ask:
        return Ask(
            id=self._clock.stamped_id("img-"),
            request_id=request.request_id,
            kind="image",
            principal=principal,
            model_asked=request.model,
            model=deployed.card.id,
            terms=deployed.terms,
            agentic=_NO_AGENTS,
            images=request.count,
        )


def fit(request: ImageRequest, can: ImageCapabilities) -> ImageAsk:
    """Return the request as the model can carry it out. Raises `BadRequest` naming the field."""
    if not request.prompt.strip():
        raise BadRequest("'prompt' must say what to draw.", param="prompt")
    if request.count > can.count_max:
        raise BadRequest(f"'n' may be at most {can.count_max} for this model.", param="n")
    if request.background == "transparent" and not can.transparent:
        raise BadRequest("This model makes no transparent background.", param="background")
    return ImageAsk(
        prompt=request.prompt,
        count=request.count,
        size=_size(request.size, can),
        seed=request.seed,
        quality=request.quality,
        style=request.style,
        negative_prompt=request.negative_prompt,
        user=request.user,
        extra=request.extra,
    )


def sizes_of(can: ImageCapabilities) -> tuple[tuple[int, int], ...]:
    """Return the sizes that may be asked for."""
    if can.sizes is not None:
        return can.sizes
    return tuple(one for one in SIZES if max(one) <= can.side_max and not any(side % can.side_step for side in one))


def _size(text: str, can: ImageCapabilities) -> tuple[int, int]:
    if text in ANY_SIZE:
        return can.default_size
    for width, height in sizes_of(can):
        if text == f"{width}x{height}":
            return width, height
    known = ", ".join(f"{width}x{height}" for width, height in sizes_of(can))
    raise BadRequest(f"'size' must be auto or one of {known}, not '{text[:40]}'.", param="size")

"""The use case behind a picture: find the model, reserve, have it drawn, look at what came, settle (IMAGE-01).

    ImageRequest ──► fit: size, count, format ──► reserve images ──► ImageModel ──► open, measure, convert ──► settle

Pictures are opened here, in a thread, before anybody gets them: what is no picture of a known form, or is larger than
it may be, never leaves. What was drawn before a caller left is paid for, as it was made; of a request that fails, what
its caller has got: nothing, unless it was streamed.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.errors import BadRequest, ConveneError, Malformed, TimedOut
from convene.providers.base_images import ImageAsk, ImageMade
from convene.serving.admission import Ask
from convene.serving.base import Agentic
from convene.serving.base_images import Drawn, Picture
from convene.serving.picture import QUALITY, Unfit, finish
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from convene.clock import Clock
    from convene.providers.base_images import ImageCapabilities, ImageProgress
    from convene.serving.admission import Admission
    from convene.serving.base import Outcome, Principal
    from convene.serving.base_images import ImageRequest
    from convene.serving.catalog import Catalog, ImageDeployment

SIZES: Final = (*((256, 256), (512, 512), (1024, 1024), (1024, 1536), (1536, 1024), (1024, 1792), (1792, 1024)),)
"""The documented sizes of ASI:One and OpenAI (IMAGE-03, IMAGE-04)."""
ANY_SIZE: Final = frozenset({"auto", ""})
TOTAL_S: Final = 900.0
_NO_AGENTS: Final = Agentic()
_NO_TOKENS: Final = Usage()
"""Of a picture: it has been made, and it is paid for by the picture."""


class ImageDesk:
    """Answers requests for pictures."""

    def __init__(self, catalog: Catalog, admission: Admission, clock: Clock, longest_s: float = TOTAL_S) -> None:
        """`longest_s`: what one request may take once it is admitted."""
        self._catalog = catalog
        self._clock = clock
        self._longest_s = longest_s
        self.admission = admission

    async def draw(
        self,
        request: ImageRequest,
        principal: Principal,
        outcome: Outcome,
        progress: Callable[[ImageProgress], None] = lambda _: None,
    ) -> Drawn:
        """Return all the pictures, filling `outcome` on the way. Raises as `events`."""
        pictures: list[Picture] = []
        async with aclosing(self.events(request, principal, outcome)) as events:
            async for event in events:
                if isinstance(event, Picture):
                    pictures.append(event)
                else:
                    progress(event)
        return Drawn(pictures=tuple(pictures), model=request.model)

    async def events(
        self, request: ImageRequest, principal: Principal, outcome: Outcome
    ) -> AsyncGenerator[ImageProgress | Picture]:
        """Yield how far it is, and each picture when it is finished. Closing the generator ends the work.

        Raises:
            NotFound, BadRequest: the model, or what it cannot make.
            Refused: a limit.
            UpstreamFault: whoever draws failed, or gave something that is no picture.
        """
        deployed = self._catalog.image(request.model, principal)
        outcome.model, outcome.upstream = deployed.card.id, deployed.image.upstream
        ask = fit(request, deployed.image.capabilities)
        lease = await self.admission.reserve(self._reservation(request, principal, deployed), outcome)
        outcome.status, outcome.finish = "failed", ConveneError.code  # until it is known to be otherwise
        try:
            async with aclosing(self._draw(deployed, ask, request, outcome)) as events:
                async for event in events:
                    yield event
            outcome.status, outcome.finish = "ok", "stop"
        except ConveneError as fault:
            outcome.finish = fault.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome.status = "client_left"
            raise
        finally:
            failed = outcome.status == "failed"
            if failed and not request.stream:
                outcome.images, outcome.usage = 0, None  # nobody gets them
            lease.settle()
            if failed:
                await lease.written()
        await lease.written()

    async def _draw(
        self, deployed: ImageDeployment, ask: ImageAsk, request: ImageRequest, outcome: Outcome
    ) -> AsyncGenerator[ImageProgress | Picture]:
        began_at = self._clock.monotonic()
        deadline = asyncio.get_running_loop().time() + self._longest_s
        async with aclosing(deployed.image.generate(ask)) as events:
            while outcome.images < ask.count:
                try:
                    async with asyncio.timeout_at(deadline):
                        found: ImageProgress | Picture | None
                        event = await anext(events, None)
                        if isinstance(event, ImageMade):
                            found = await self._finish(event, ask, deployed, request)
                        else:
                            found = event
                except TimeoutError as fault:
                    message = f"No picture came within {self._longest_s:g} s; ask for fewer or smaller ones."
                    raise TimedOut(message) from fault
                if found is None:
                    break
                if outcome.first_event_ms is None:
                    outcome.first_event_ms = (self._clock.monotonic() - began_at) * 1000
                if isinstance(found, Picture):
                    outcome.images += 1
                    outcome.usage = _NO_TOKENS
                yield found
        if not outcome.images:
            raise Malformed("The model gave no picture; try again.", detail=f"{deployed.card.id}: no picture")

    async def _finish(
        self, made: ImageMade, ask: ImageAsk, deployed: ImageDeployment, request: ImageRequest
    ) -> Picture:
        wanted, quality = request.output_format, QUALITY if request.compression is None else request.compression
        try:
            return await asyncio.to_thread(finish, made, ask.prompt, deployed.card.target, wanted, quality)
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
    if request.background == "transparent" and request.output_format == "jpeg":
        raise BadRequest("A JPEG has no transparent background; ask for png or webp.", param="output_format")
    return ImageAsk(
        prompt=request.prompt,
        count=request.count,
        size=_size(request.size, can),
        seed=request.seed,
        background=request.background,
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

"""The use case behind a picture: find the model, reserve, have it drawn, look at what came, settle (IMAGE-01).

    ImageRequest ──► fit: size, count, format ──► reserve ──► ImageModel ──► open, measure, convert ──► keep ──► settle

Pictures are opened here, in a thread, before anybody gets them: what is no picture of a known form, or is larger than
it may be, never leaves. What was drawn before a caller left is paid for, as it was made; of a request that fails, what
its caller has got: nothing, unless it was streamed. So links are made before the books are: a picture that was to be
kept and cannot be is not paid for either.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, ConveneError, Malformed, StoreFault, TimedOut
from convene.providers.base_images import ImageAsk, ImageMade
from convene.serving.admission import Ask
from convene.serving.base import Agentic
from convene.serving.base_images import Drawn, ImageAbilities, Picture
from convene.serving.picture import FORMATS, Unfit, finish, look
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from convene.clock import Clock
    from convene.providers.base_images import ImageCapabilities, ImageProgress, ImageTask, SourceImage
    from convene.serving.admission import Admission
    from convene.serving.base import Outcome, Principal
    from convene.serving.base_images import ImageLinks, ImageRequest
    from convene.serving.catalog import Catalog, ImageDeployment
    from convene.serving.picture import Seen

SIZES: Final = (*((256, 256), (512, 512), (1024, 1024), (1024, 1536), (1536, 1024), (1024, 1792), (1792, 1024)),)
"""The documented sizes of ASI:One and OpenAI (IMAGE-03, IMAGE-04)."""
_CANNOT: Final = {"generate": "draws nothing new", "edit": "changes no pictures", "vary": "varies no pictures"}
TASKS: Final[tuple[ImageTask, ...]] = ("generate", "edit", "vary")
ANY_SIZE: Final = frozenset({"auto", ""})
TOTAL_S: Final = 900.0
_NO_AGENTS: Final = Agentic()
_NO_TOKENS: Final = Usage()
"""Of a picture: it has been made, and it is paid for by the picture."""


class ImageDesk:
    """Answers requests for pictures."""

    def __init__(
        self, catalog: Catalog, admission: Admission, clock: Clock, links: ImageLinks, longest_s: float = TOTAL_S
    ) -> None:
        """`links` keeps what is asked for as a link. `longest_s`: what one request may take once it is admitted."""
        self._catalog = catalog
        self._links = links
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
        return Drawn(pictures=tuple(pictures), model=outcome.model or request.model)

    async def events(
        self, request: ImageRequest, principal: Principal, outcome: Outcome
    ) -> AsyncGenerator[ImageProgress | Picture]:
        """Yield how far it is, and each picture when it is finished. Closing the generator ends the work.

        Raises:
            NotFound, BadRequest: the model, or what it cannot make.
            Refused: a limit.
            UpstreamFault: whoever draws failed, or gave something that is no picture.
            StoreFault: a picture was to be kept and cannot be.
        """
        deployed = self._catalog.image(request.model, principal)
        outcome.model, outcome.upstream = deployed.card.id, deployed.image.upstream
        can = deployed.image.capabilities
        ask = await asyncio.to_thread(fit, request, can) if request.sources else fit(request, can)
        lease = await self.admission.reserve(self._reservation(request, principal, deployed), outcome)
        outcome.status, outcome.finish = "failed", ConveneError.code  # until it is known to be otherwise
        try:
            async with aclosing(self._draw(deployed, ask, request, outcome)) as events:
                held: list[Picture] = []
                async for event in events:
                    if not isinstance(event, Picture):
                        yield event
                    elif request.stream:
                        yield await self._keep(event, request, principal, outcome)
                    else:
                        held.append(event)
            for one in [await self._keep(one, request, principal, outcome) for one in held]:
                yield one
            outcome.status, outcome.finish = "ok", "stop"
        except ConveneError as fault:
            outcome.finish = fault.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome.status, outcome.finish = "client_left", ""
            raise
        finally:
            failed = outcome.status == "failed"
            if failed and not (request.stream and outcome.images):
                outcome.images, outcome.usage = 0, None  # nobody gets any
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

    async def _keep(self, picture: Picture, request: ImageRequest, principal: Principal, outcome: Outcome) -> Picture:
        """Return a picture with the link to it, if that was asked for. One that cannot be kept was not delivered."""
        if not request.as_link:
            return picture
        try:
            return msgspec.structs.replace(picture, link=await self._links.shelve(picture, principal.owner))
        except StoreFault:
            outcome.images -= 1
            raise

    async def _finish(
        self, made: ImageMade, ask: ImageAsk, deployed: ImageDeployment, request: ImageRequest
    ) -> Picture:
        wanted, quality = request.output_format, request.compression
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
    if request.task not in can.tasks:
        raise BadRequest(f"This model {_CANNOT[request.task]}.", code="unsupported_parameter", param="model")
    if not request.prompt.strip() and request.task != "vary":
        raise BadRequest("'prompt' must say what to draw.", param="prompt")
    if request.count > can.count_max:
        raise BadRequest(f"'n' may be at most {can.count_max} for this model.", param="n")
    if request.background == "transparent" and not can.transparent:
        raise BadRequest("This model makes no transparent background.", param="background")
    if request.background == "transparent" and request.output_format == "jpeg":
        raise BadRequest("A JPEG has no transparent background; ask for png or webp.", param="output_format")
    images, mask, source_size = _sources(request, can)
    return ImageAsk(
        prompt=request.prompt,
        task=request.task,
        count=request.count,
        size=_size(request, can, source_size),
        seed=request.seed,
        background=request.background,
        quality=request.quality,
        style=request.style,
        negative_prompt=request.negative_prompt,
        images=images,
        mask=mask,
        user=request.user,
        extra=request.extra,
    )


def _sources(
    request: ImageRequest, can: ImageCapabilities
) -> tuple[tuple[SourceImage, ...], SourceImage | None, tuple[int, int] | None]:
    """Return what is to be changed, what of it may be, and how large it is; no pixel is decoded."""
    if request.task == "generate":
        return (), None, None
    most = can.sources_max if request.task == "edit" else 1
    if not 0 < len(request.sources) <= most:
        how_many = "one picture" if most == 1 else f"1 to {most} pictures"
        raise BadRequest(f"'{request.sources_param}' must be {how_many}.", param=request.sources_param)
    seen = [_seen(data, request.sources_param) for data in request.sources]
    size = seen[0].size
    mask = None if request.mask is None else _seen(request.mask, "mask")
    if mask is not None and (mask.size != size or not mask.transparent):
        message = f"'mask' must be as large as the picture, {size[0]}x{size[1]}, and transparent where to draw anew."
        raise BadRequest(message, param="mask")
    return tuple(one.image for one in seen), None if mask is None else mask.image, size


def _seen(data: bytes, param: str) -> Seen:
    try:
        return look(data)
    except Unfit as fault:
        raise BadRequest(f"'{param}' cannot be read: {fault}.", code="invalid_image", param=param) from fault


def sizes_of(can: ImageCapabilities) -> tuple[tuple[int, int], ...]:
    """Return the sizes that may be asked for."""
    if can.sizes is not None:
        return can.sizes
    known = [one for one in SIZES if max(one) <= can.side_max and not any(side % can.side_step for side in one)]
    return tuple(known if can.default_size in known else [*known, can.default_size])


def describe_images(can: ImageCapabilities) -> ImageAbilities:
    """Return what clients are told of a model (IMAGE-11: one who wants more pictures sends more requests)."""
    width, height = can.default_size
    return ImageAbilities(
        tasks=tuple(task for task in TASKS if task in can.tasks),
        sizes=tuple(f"{width}x{height}" for width, height in sizes_of(can)),
        default_size=f"{width}x{height}",
        formats=FORMATS,
        count_max=can.count_max,
        sources_max=can.sources_max,
        seed=can.seed,
        transparent=can.transparent,
        progress=can.progress,
        scripted=can.scripted,
    )


def _size(request: ImageRequest, can: ImageCapabilities, source: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size that is meant; of a picture that is changed, `auto` is its own as near as the model can."""
    text = request.size
    if text is None:
        made = {f"{width}x{height}" for width, height in sizes_of(can)}
        text = request.size_usual if source is None and request.size_usual in made else "auto"
    if text in ANY_SIZE:
        return can.default_size if source is None else _near(source, can)
    for width, height in sizes_of(can):
        if text == f"{width}x{height}":
            return width, height
    known = ", ".join(f"{width}x{height}" for width, height in sizes_of(can))
    raise BadRequest(f"'size' must be auto or one of {known}, not '{text[:40]}'.", param="size")


def _near(source: tuple[int, int], can: ImageCapabilities) -> tuple[int, int]:
    if can.sizes is not None:
        return source if source in can.sizes else can.default_size
    scale = min(1.0, can.side_max / max(source))
    width, height = (max(1, int(side * scale) // can.side_step) * can.side_step for side in source)
    return width, height

"""Pictures from AUTOMATIC1111 and its kin (SD.Next, Forge, sd-server): `POST /sdapi/v1/txt2img` and `img2img`.

The API: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API and the `/docs` of a running one. It makes one
picture after the other and tells its progress for the whole server, so requests of ours wait for each other here: then
the progress, and an interruption, are those of the right one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from typing import TYPE_CHECKING, Any, Final

import msgspec
from PIL import Image

from convene.errors import BadRequest, ConveneError
from convene.providers.base_images import ImageCapabilities, ImageMade, ImageProgress
from convene.providers.images_host import ImageHost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock
    from convene.http import base as http
    from convene.providers.base_images import ImageAsk, ImageEvent
    from convene.providers.images_host import ImageHostSettings

LOOK_S: Final = 0.5
"""How often the progress is looked at."""
INTERRUPT_S: Final = 2.0
"""How long an interruption may take to be heard."""
SIDE_STEP: Final = 8
HALF: Final = 128
"""Less of 255 is clear."""
_PROGRESS: Final = "/sdapi/v1/progress?skip_current_image=true"


class A1111Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How it is to draw. `checkpoint` is the file of weights by the name it has there; empty: the one it has loaded."""

    steps: int = 25
    sampler: str = ""
    guidance: float = 7.0
    checkpoint: str = ""
    strength: float = 0.6
    """How much of a picture that is to be changed is drawn anew, from 0 to 1."""


class A1111Images:
    """An `ImageModel` at one web UI."""

    def __init__(
        self, client: http.Client, settings: ImageHostSettings, how: A1111Settings, clock: Clock, side_max: int = 2048
    ) -> None:
        self.capabilities = ImageCapabilities(
            default_size=(512, 512),
            side_max=side_max,
            side_step=SIDE_STEP,
            tasks=frozenset({"generate", "edit", "vary"}),
            progress=True,
        )
        self.upstream = settings.upstream
        self._how = how
        self._host = ImageHost(client, settings, clock)
        self._turn = asyncio.Lock()

    def ready(self) -> str | None:
        """Return None: whether the host is there is seen when it is asked."""
        return None

    async def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        """Make the pictures (`base_images.ImageModel`)."""
        async with self._turn:
            path = "/sdapi/v1/txt2img" if ask.task == "generate" else "/sdapi/v1/img2img"
            body = self._body(ask)
            if ask.mask is not None:
                body["mask"] = await asyncio.to_thread(_white_where_clear, ask.mask.data)
            drawing = asyncio.create_task(self._host.post(path, body), name="txt2img")
            try:
                seen: ImageProgress | None = None
                while not (await asyncio.wait([drawing], timeout=LOOK_S))[0]:
                    now = await self._progress()
                    if now is not None and now != seen:
                        seen = now
                        yield now
                async for made in self._read(await drawing, ask):
                    yield made
            finally:
                if not drawing.done():
                    drawing.cancel()
                    await self._interrupt()

    def _body(self, ask: ImageAsk) -> dict[str, object]:
        how = self._how
        width, height = ask.size
        body: dict[str, object] = {
            "prompt": ask.prompt,
            "negative_prompt": ask.negative_prompt,
            "seed": -1 if ask.seed is None else ask.seed,
            "steps": how.steps,
            "cfg_scale": how.guidance,
            "width": width,
            "height": height,
            "batch_size": 1,
            "n_iter": ask.count,
            "save_images": False,
            "send_images": True,
        }
        if how.sampler:
            body["sampler_name"] = how.sampler
        if how.checkpoint:
            body["override_settings"] = {"sd_model_checkpoint": how.checkpoint}
        if ask.images:
            body["init_images"] = [base64.b64encode(image.data).decode() for image in ask.images]
            body["denoising_strength"] = how.strength
        return body

    async def _read(self, reply: dict[str, Any], ask: ImageAsk) -> AsyncGenerator[ImageMade]:
        images = reply.get("images")
        if not isinstance(images, list) or not images:
            raise self._host.malformed("a reply without pictures")
        seeds = _seeds(reply.get("info"))
        for index, image in enumerate(images[: ask.count]):
            seed = seeds[index] if index < len(seeds) else ask.seed
            yield ImageMade(index=index, data=await self._host.picture(image), seed=seed)

    async def _progress(self) -> ImageProgress | None:
        """Return how far it is; None if it does not say."""
        try:
            state = (await self._host.get(_PROGRESS)).get("state")
        except ConveneError:
            return None
        if not isinstance(state, dict):
            return None
        step, steps = state.get("sampling_step"), state.get("sampling_steps")
        job, jobs = state.get("job_no"), state.get("job_count")
        numbers = [value for value in (step, steps, job, jobs) if isinstance(value, int) and value >= 0]
        if len(numbers) < 4 or not steps:  # noqa: PLR2004 -- all four
            return None
        done, each, at, all_jobs = numbers
        return ImageProgress(min(at * each + done, max(1, all_jobs) * each), max(1, all_jobs) * each)

    async def _interrupt(self) -> None:
        """Tell it to stop; whether it has heard is its own affair."""
        with contextlib.suppress(ConveneError, TimeoutError):
            async with asyncio.timeout(INTERRUPT_S):
                await self._host.ask("POST", "/sdapi/v1/interrupt", b"{}", (("content-type", "application/json"),))


def _white_where_clear(mask: bytes) -> str:
    """Return a mask as these UIs read it, white where to draw anew: of the kin, some overlook transparency."""
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(mask)) as found:
            clear = found.convert("RGBA").getchannel("A").point(lambda alpha: 255 if alpha < HALF else 0)
        clear.save(out, "PNG")
    except (OSError, ValueError, SyntaxError) as fault:
        raise BadRequest("'mask' cannot be read.", param="mask", detail=str(fault)) from fault
    return base64.b64encode(out.getvalue()).decode()


def _seeds(info: object) -> list[int]:
    """Return the seeds that `info`, JSON inside JSON, names."""
    if not isinstance(info, str):
        return []
    try:
        found = msgspec.json.decode(info)
    except (msgspec.DecodeError, RecursionError):
        return []
    seeds = found.get("all_seeds") if isinstance(found, dict) else None
    return [seed for seed in seeds if isinstance(seed, int)] if isinstance(seeds, list) else []

"""The composition of image models: which hosts make pictures, under which names, for `app_models.py`.

A part of the composition root. To add a kind, write it in `providers/` and add a case to `_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from convene.api.image_replies import ImageReplies
from convene.api.images import ImageFiles, ImageRequests
from convene.app_place import own_address
from convene.config import ConfigError
from convene.engine.base_images import PaintSettings
from convene.engine.image_process import PaintEngine
from convene.engine.image_weights import find_images
from convene.errors import Failed
from convene.http.base import Timeouts
from convene.http.client import ClientOptions
from convene.providers.base_images import ImageCapabilities
from convene.providers.images_a1111 import A1111Images, A1111Settings
from convene.providers.images_comfy import ComfyImages, PlaceUnfit, WorkflowUnfit
from convene.providers.images_host import ImageHostSettings
from convene.providers.images_local import LocalImages, LocalImagesSettings
from convene.providers.images_openai import OpenAIImages
from convene.providers.images_scripted import SCRIPTS, ScriptedImages, ScriptedImagesSettings
from convene.serving.base import ModelCard, Outcome
from convene.serving.base_images import ImageRequest, Picture
from convene.serving.catalog import ANY_IMAGE, Deployment
from convene.serving.image_links import ImageLinks
from convene.serving.images import SIZES, ImageDesk
from convene.store.picture_files import PictureFiles
from convene.tools.image import Drawing, GenerateImage, Wish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from convene.api.routes import Endpoint
    from convene.api.stream import Streams
    from convene.clock import Clock
    from convene.config import Config, Images
    from convene.engine.base import FetchSettings
    from convene.events import Noticed
    from convene.http.base import Client
    from convene.providers.base_images import ImageFormat, ImageModel, ImageProgress
    from convene.serving.admission import Admission
    from convene.serving.base import Principal
    from convene.serving.catalog import Catalog
    from convene.tools.base import Tool, ToolContext

SLACK_S = 30.0
"""How much longer the desk waits than the slowest host may take, whose own words about it are the better ones."""
SCRIPTED_NOTE: Final = "Test pictures by rule, for trying out clients: it draws nothing of what a prompt says."
SOURCES_MAX = 16
"""Pictures that OpenAI's API changes in one request."""


def image_models(
    config: Config, clock: Clock, client: Callable[[ClientOptions], Client], fetch: FetchSettings
) -> list[Deployment]:
    """Return the image models of a configuration; those of this machine are not started.

    `client` makes the connections of one, `fetch` says where weights may come from. Raises `ConfigError`.
    """
    found: list[Deployment] = []
    for name, wanted in config.images.items():
        if wanted.kind == "local":
            model: ImageModel = _local(config, name, wanted, clock, fetch)
        elif wanted.kind == "scripted":
            model = _scripted(name, wanted, clock)
        else:
            model = _hosted(name, wanted, clock, client(ClientOptions()))
        card = ModelCard(
            id=name,
            created=int(clock.now()),
            owned_by=name,
            upstream=name,
            target=wanted.model or Path(wanted.folder).name or name,
            kind="image",
            aliases=wanted.aliases,
            notes=SCRIPTED_NOTE if model.capabilities.scripted else "",
        )
        found.append(Deployment(card=card, image=model))
    return found


def image_links(config: Config, clock: Clock) -> ImageLinks:
    """Return the links to pictures, which are kept in the data folder."""
    files = PictureFiles(config.data_dir / "images", clock, config.image_bytes_max)
    return ImageLinks(files, clock, own_address(config, config.port), config.image_link_hours * 3600)


class ImageParts:
    """Everything about pictures: use case, links, endpoints, and the tool `generate_image` as a box of one."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        holder: Callable[[str], Awaitable[Principal | None]],
        catalog: Catalog,
        admission: Admission,
    ) -> None:
        """`holder` says who is behind a key."""
        self._config, self._clock = config, clock
        self._holder = holder
        longest_s = max((one.total_s for one in config.images.values()), default=0.0)
        self.links = image_links(config, clock)
        self.desk = ImageDesk(catalog, admission, clock, self.links, longest_s + SLACK_S)
        sizes = [f"{width}x{height}" for width, height in SIZES]
        self._tools: tuple[Tool, ...] = (GenerateImage(self.draw, sizes, longest_s),) if config.images else ()

    def endpoints(self, streams: Streams, once: Callable[[Endpoint], Endpoint]) -> dict[str, Endpoint]:
        """Return the endpoints of pictures; `once` makes one know `Idempotency-Key`."""
        replies = ImageReplies(self.desk, streams, self._clock.now, self._config.image_reply)
        files = ImageFiles(self.links)
        return {
            "make_images": once(ImageRequests(replies)),
            "make_image": once(ImageRequests(replies, milliseconds=True)),
            "edit_images": once(ImageRequests(replies, "edit")),
            "vary_images": once(ImageRequests(replies, "vary")),
            "show_image": files.show,
            "delete_image": files.delete,
        }

    def listen_at(self, port: int) -> None:
        """Name this port in links: the system has chosen it, if 0 was configured."""
        self.links.base_url = own_address(self._config, port)

    async def keep(self, picture: bytes, form: ImageFormat, owner: str) -> str:
        """Keep a picture of an owner's and return a link to it (`agents.storage.Shelf`). Raises `StoreFault`."""
        return await self.links.shelve(Picture(data=picture, format=form, width=0, height=0), owner)

    def tools(self) -> Sequence[Tool]:
        """Return the tool; see `Toolbox`."""
        return self._tools

    def notices(self) -> Sequence[Noticed]:
        """Return nothing: that nothing draws is no news."""
        return ()

    async def draw(self, wish: Wish, context: ToolContext) -> Drawing:
        """Draw for the key of a turn (`tools.image.Draw`)."""
        principal = await self._holder(context.key_id)
        if principal is None:
            raise Failed("Nothing can be drawn for this key.")

        def tell(progress: ImageProgress) -> None:
            context.progress(f"Drawing: step {progress.done} of {progress.total}")

        request = ImageRequest(
            model=ANY_IMAGE, prompt=wish.prompt, size=wish.size, request_id=context.run_id, as_link=True
        )
        drawn = await self.desk.draw(request, principal, Outcome(), tell)
        picture = drawn.pictures[0]
        return Drawing(
            link=picture.link,
            model=drawn.model,
            width=picture.width,
            height=picture.height,
            format=picture.format,
            seed=picture.seed,
        )


def studios(deployments: Sequence[Deployment]) -> list[LocalImages]:
    """Return the image models that draw on this machine: each has a child to start and to end."""
    return [one.image for one in deployments if isinstance(one.image, LocalImages)]


def _hosted(name: str, wanted: Images, clock: Clock, client: Client) -> ImageModel:
    model = _model(name, wanted, clock, client)
    if model.capabilities.count_max > 1:
        model.capabilities = msgspec.structs.replace(model.capabilities, count_max=wanted.count_max)
    return model


def _local(config: Config, name: str, wanted: Images, clock: Clock, fetch: FetchSettings) -> LocalImages:
    settings = LocalImagesSettings(
        upstream=name, side_max=wanted.side_max, count_max=wanted.count_max, waiting_max=wanted.waiting_max
    )
    paint = PaintSettings(
        device=wanted.device,
        precision=wanted.precision,
        steps=wanted.steps or 0,
        guidance=wanted.guidance,
        threads=wanted.threads,
    )
    if wanted.python:
        paint = msgspec.structs.replace(paint, python=wanted.python)
    # On the processor `auto` computes with whole weights, so halves would only have to be widened.
    half = paint.precision in {"float16", "bfloat16"} or (paint.precision == "auto" and paint.device != "cpu")
    weights = find_images(wanted.folder or wanted.model, config.cache_dir, fetch, half=half)
    return LocalImages(PaintEngine(weights, paint), settings, clock)


def _scripted(name: str, wanted: Images, clock: Clock) -> ScriptedImages:
    settings = ScriptedImagesSettings(
        upstream=name,
        script=next((one for one in SCRIPTS if one == wanted.model), "draw"),
        step_s=wanted.step_s,
        side_max=wanted.side_max,
        count_max=wanted.count_max,
    )
    if wanted.steps is not None:
        settings = msgspec.structs.replace(settings, steps=wanted.steps)
    return ScriptedImages(settings, clock)


def _model(name: str, wanted: Images, clock: Clock, client: Client) -> OpenAIImages | A1111Images | ComfyImages:
    key = wanted.api_key.reveal()
    headers = tuple((header, value.reveal()) for header, value in wanted.headers.items())
    if key:
        headers = (("authorization", f"Bearer {key}"), *headers)
    settings = ImageHostSettings(
        upstream=name,
        model=wanted.model or name,
        base_url=wanted.base_url.rstrip("/"),
        headers=headers,
        api_key=key,
        timeouts=Timeouts(first_byte_s=wanted.total_s, total_s=wanted.total_s),
    )
    if wanted.kind == "automatic1111":
        how = A1111Settings(
            steps=wanted.steps or 25,
            sampler=wanted.sampler,
            guidance=7.0 if wanted.guidance is None else wanted.guidance,
            checkpoint=wanted.model,
        )
        return A1111Images(client, settings, how, clock, wanted.side_max)
    if wanted.kind == "comfyui":
        return _workflow(name, wanted, clock, client, settings)
    can = ImageCapabilities(
        tasks=frozenset(wanted.tasks), seed=wanted.seed, transparent=wanted.transparent, sources_max=SOURCES_MAX
    )
    return OpenAIImages(client, settings, clock, can)


def _workflow(name: str, wanted: Images, clock: Clock, client: Client, settings: ImageHostSettings) -> ComfyImages:
    try:
        workflow = msgspec.json.decode(Path(wanted.workflow).read_bytes(), type=dict)
        return ComfyImages(client, settings, workflow, clock, wanted.places)
    except PlaceUnfit as fault:
        raise ConfigError(f"images.{name}.places: {fault}", param=f"images.{name}.places") from fault
    except (OSError, msgspec.DecodeError, WorkflowUnfit) as fault:
        raise ConfigError(f"images.{name}.workflow: {fault}", param=f"images.{name}.workflow") from fault

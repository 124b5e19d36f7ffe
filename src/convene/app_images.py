"""The composition of image models: which hosts make pictures, under which names, for `app_models.py`.

A part of the composition root. To add a kind, write it in `providers/` and add a case to `_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convene.api.images import ImageFiles, ImageRequests
from convene.config import ConfigError
from convene.http.base import Timeouts
from convene.http.client import ClientOptions
from convene.providers.images_a1111 import A1111Images, A1111Settings
from convene.providers.images_comfy import ComfyImages, WorkflowUnfit
from convene.providers.images_host import ImageHostSettings
from convene.providers.images_openai import OpenAIImages
from convene.serving.base import ModelCard
from convene.serving.catalog import Deployment
from convene.serving.image_links import ImageLinks
from convene.store.picture_files import PictureFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.routes import Endpoint
    from convene.clock import Clock
    from convene.config import Config, Images
    from convene.http.base import Client
    from convene.serving.images import ImageDesk


def image_models(config: Config, clock: Clock, client: Callable[[ClientOptions], Client]) -> list[Deployment]:
    """Return the image models of a configuration; `client` makes the connections of one. Raises `ConfigError`."""
    found: list[Deployment] = []
    for name, wanted in config.images.items():
        model = _model(name, wanted, clock, client(ClientOptions()))
        if model.capabilities.count_max > 1:
            model.capabilities = msgspec.structs.replace(model.capabilities, count_max=wanted.count_max)
        card = ModelCard(
            id=name,
            created=int(clock.now()),
            owned_by=name,
            upstream=name,
            target=wanted.model or name,
            kind="image",
            aliases=wanted.aliases,
            sizes=tuple(f"{width}x{height}" for width, height in model.capabilities.sizes or ()),
        )
        found.append(Deployment(card=card, image=model))
    return found


def image_links(config: Config, clock: Clock) -> ImageLinks:
    """Return the links to pictures, which are kept in the data folder."""
    host = "127.0.0.1" if config.host in ("", "0.0.0.0", "::") else config.host  # noqa: S104 -- compared, not bound
    base_url = (config.public_url or f"http://{host}:{config.port}").rstrip("/")
    files = PictureFiles(config.data_dir / "images", clock)
    return ImageLinks(files, clock, base_url, config.image_link_hours * 3600)


def image_endpoints(
    desk: ImageDesk, links: ImageLinks, clock: Clock, once: Callable[[Endpoint], Endpoint]
) -> dict[str, Endpoint]:
    """Return the endpoints of pictures; `once` makes one know `Idempotency-Key`."""
    return {
        "make_images": once(ImageRequests(desk, links, clock.now)),
        "make_image": once(ImageRequests(desk, links, clock.now, 1000)),
        "show_image": ImageFiles(links),
    }


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
            steps=wanted.steps, sampler=wanted.sampler, guidance=wanted.guidance, checkpoint=wanted.model
        )
        return A1111Images(client, settings, how, clock)
    if wanted.kind == "comfyui":
        return _workflow(name, wanted, clock, client, settings)
    return OpenAIImages(client, settings, clock)


def _workflow(name: str, wanted: Images, clock: Clock, client: Client, settings: ImageHostSettings) -> ComfyImages:
    try:
        workflow = msgspec.json.decode(Path(wanted.workflow).read_bytes(), type=dict)
        return ComfyImages(client, settings, workflow, clock, wanted.places)
    except (OSError, msgspec.DecodeError, WorkflowUnfit) as fault:
        raise ConfigError(f"images.{name}.workflow: {fault}", param=f"images.{name}.workflow") from fault

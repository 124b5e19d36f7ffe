"""Pictures from ComfyUI: a workflow of the operator's, filled in and queued, its result fetched.

    POST /prompt {"prompt": workflow, "client_id"} ──► {"prompt_id"}
    GET  /history/{prompt_id}                      ──► outputs, status
    GET  /view?filename&subfolder&type             ──► a picture
    GET  /queue                                    ──► what runs and what waits

The API: https://docs.comfy.org/development/comfyui-server/comms_routes; the workflow is what "Export (API)" saves.
Where the prompt, the seed and the size go is found by following the sampler's links, or said by the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec

from convene.errors import ConveneError, Rejected
from convene.providers.base_images import ImageCapabilities, ImageMade
from convene.providers.images_host import PICTURE_BYTES_MAX, ImageHost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from convene.clock import Clock
    from convene.http import base as http
    from convene.providers.base_images import ImageAsk, ImageEvent
    from convene.providers.images_host import ImageHostSettings

LOOK_S: Final = 0.5
"""How often its history is looked at."""
STOP_S: Final = 2.0
SEED_MAX: Final = 2**63 - 1
SLOTS: Final = ("prompt", "negative_prompt", "seed", "width", "height", "count")
"""What of a request can go into a workflow."""
TEXTS: Final = ("prompt", "negative_prompt")

Workflow = dict[str, Any]


class Slot(msgspec.Struct, frozen=True):
    """One input of one node."""

    node: str
    input: str


class WorkflowUnfit(ValueError):
    """A workflow that cannot be filled in; the text tells the operator why."""


class PlaceUnfit(WorkflowUnfit):
    """A place of the operator's that is none in the workflow, or not for what goes there."""


class ComfyImages:
    """An `ImageModel` at one ComfyUI."""

    def __init__(
        self,
        client: http.Client,
        settings: ImageHostSettings,
        workflow: Workflow,
        clock: Clock,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """`places` says where things go, as `{"prompt": "6.text"}`; what it leaves out is found.

        Raises `WorkflowUnfit`.
        """
        self._workflow = workflow
        self._slots = find_slots(workflow, places or {})
        width, height = self._sample("width", 1024), self._sample("height", 1024)
        self.capabilities = ImageCapabilities(
            sizes=None if {"width", "height"} <= self._slots.keys() else ((width, height),),
            default_size=(width, height),
            count_max=4 if "count" in self._slots else 1,
            seed="seed" in self._slots,
        )
        self.upstream = settings.upstream
        self._host = ImageHost(client, settings, clock)
        self._clock = clock

    def ready(self) -> str | None:
        """Return None: whether the host is there is seen when it is asked."""
        return None

    async def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        """Make the pictures (`base_images.ImageModel`)."""
        seed = int.from_bytes(self._clock.token(4), "big") if ask.seed is None else ask.seed
        queued = await self._host.post("/prompt", {"prompt": self._filled(ask, seed), "client_id": "convene"})
        prompt_id = queued.get("prompt_id")
        if not isinstance(prompt_id, str):
            raise self._host.malformed("it did not say under which id the work is queued")
        ended = False
        try:
            files = await self._wait(prompt_id)
            ended = True
        finally:
            if not ended:
                await self._stop(prompt_id)
        for index, file in enumerate(files[: ask.count]):
            query = urlencode({name: file.get(name, "") for name in ("filename", "subfolder", "type")})
            data = await self._host.ask("GET", f"/view?{query}", max_bytes=PICTURE_BYTES_MAX)
            yield ImageMade(index=index, data=self._host.checked(data), seed=seed if "seed" in self._slots else None)

    def _filled(self, ask: ImageAsk, seed: int) -> Workflow:
        """Return the workflow with what is asked for in its places."""
        values: dict[str, object] = {
            "prompt": ask.prompt,
            "negative_prompt": ask.negative_prompt,
            "seed": seed & SEED_MAX,
            "width": ask.size[0],
            "height": ask.size[1],
            "count": ask.count,
        }
        if not ask.negative_prompt:
            del values["negative_prompt"]  # then what the operator has written there stays
        filled = copy.deepcopy(self._workflow)
        for name, value in values.items():
            slot = self._slots.get(name)
            if slot is not None:
                filled[slot.node]["inputs"][slot.input] = value
        return filled

    async def _wait(self, prompt_id: str) -> list[dict[str, str]]:
        """Wait until the work has ended and return its files."""
        while True:
            entry = (await self._host.get(f"/history/{prompt_id}")).get(prompt_id)
            if isinstance(entry, dict):
                status = entry.get("status")
                if isinstance(status, dict) and status.get("status_str") == "error":
                    raise self._failed(status)
                files = _files(entry.get("outputs"))
                if files or (isinstance(status, dict) and status.get("completed")):
                    if not files:
                        raise self._host.malformed("a workflow that saves no picture")
                    return files
            await asyncio.sleep(LOOK_S)

    def _failed(self, status: Mapping[str, object]) -> Rejected:
        words = msgspec.json.encode(status.get("messages")).decode()
        message = f"The workflow of the upstream '{self.upstream}' failed; the operator must look at it."
        return Rejected(message, detail=self._host.blamed.detail("a workflow failed", words))

    async def _stop(self, prompt_id: str) -> None:
        """Take the work off the queue, and end it if it runs; whether it has heard is its own affair."""
        with contextlib.suppress(ConveneError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._tell("/queue", {"delete": [prompt_id]})
                running = (await self._host.get("/queue")).get("queue_running")
                if isinstance(running, list) and any(prompt_id in job for job in running if isinstance(job, list)):
                    await self._tell("/interrupt", {"prompt_id": prompt_id})

    async def _tell(self, path: str, body: object) -> None:
        await self._host.ask("POST", path, msgspec.json.encode(body), (("content-type", "application/json"),))

    def _sample(self, name: str, default: int) -> int:
        """Return what the workflow has in a place."""
        slot = self._slots.get(name)
        found = None if slot is None else self._workflow[slot.node]["inputs"].get(slot.input)
        return found if isinstance(found, int) else default


def find_slots(workflow: Workflow, places: Mapping[str, str]) -> dict[str, Slot]:
    """Return where each part of a request goes; `places` goes before what is found. Raises `WorkflowUnfit`."""
    for node in workflow.values():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict) or "class_type" not in node:
            raise WorkflowUnfit('it is not a workflow in API form; in ComfyUI use "Export (API)"')
    named: dict[str, Slot] = {}
    for name, place in places.items():
        node, _, entry = place.partition(".")
        if name not in SLOTS:
            raise PlaceUnfit(f"'{name}' cannot be filled in; there are: {', '.join(SLOTS)}")
        if node not in workflow or entry not in workflow[node]["inputs"]:
            raise PlaceUnfit(f"there is no input {place!r}; write the number of a node, a dot and the input's name")
        _check_place(name, place, workflow[node]["inputs"][entry])
        if Slot(node, entry) in named.values():
            raise PlaceUnfit(f"{place!r} is the place of two things")
        named[name] = Slot(node, entry)
    slots = {name: slot for name, slot in _follow(workflow).items() if slot not in named.values()} | named
    if "prompt" not in slots:
        raise WorkflowUnfit('it is not clear where the prompt goes; say it, as in prompt = "6.text"')
    return slots


def _check_place(name: str, place: str, value: object) -> None:
    """Look at what the workflow has in a place: it must be of the kind that goes there, and no link to a node."""
    if isinstance(value, list):
        raise PlaceUnfit(f"{place!r} is linked to the node {_linked(value)!r}; name an input that holds a value")
    is_text = name in TEXTS
    if not isinstance(value, str if is_text else int) or isinstance(value, bool):
        raise PlaceUnfit(f"{place!r} holds no {'text' if is_text else 'whole number'}, so '{name}' cannot go there")


def _follow(workflow: Workflow) -> dict[str, Slot]:
    """Return what can be found by the links of the only sampler."""
    samplers = [name for name, node in workflow.items() if {"positive", "latent_image"} <= node["inputs"].keys()]
    if len(samplers) != 1:
        return {}
    inputs = workflow[samplers[0]]["inputs"]
    slots: dict[str, Slot] = {}
    for name, link in (("prompt", "positive"), ("negative_prompt", "negative")):
        node = _linked(inputs.get(link))
        if node in workflow and isinstance(workflow[node]["inputs"].get("text"), str):
            slots[name] = Slot(node, "text")
    for entry in ("seed", "noise_seed"):
        if isinstance(inputs.get(entry), int):
            slots["seed"] = Slot(samplers[0], entry)
    latent = _linked(inputs["latent_image"])
    if latent in workflow:
        for name, entry in (("width", "width"), ("height", "height"), ("count", "batch_size")):
            if isinstance(workflow[latent]["inputs"].get(entry), int):
                slots[name] = Slot(latent, entry)
    return slots


def _linked(value: object) -> str:
    """Return the node that an input is linked to; empty for a plain value."""
    return str(value[0]) if isinstance(value, list) and value else ""


def _files(outputs: object) -> list[dict[str, str]]:
    """Return the saved pictures of all nodes, finished ones before previews."""
    if not isinstance(outputs, dict):
        return []
    found = [
        image
        for node in outputs.values()
        if isinstance(node, dict)
        for image in (node.get("images") or ())
        if isinstance(image, dict) and isinstance(image.get("filename"), str)
    ]
    return sorted(found, key=lambda image: image.get("type") != "output")

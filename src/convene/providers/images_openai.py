"""Pictures from any host with OpenAI's images API: `POST /images/generations`, `/images/edits`, `/images/variations`.

The API: https://platform.openai.com/docs/api-reference/images. Hosts differ in one thing: models of the name
`gpt-image...` always answer in base64 and refuse `response_format`, others answer with an address unless they are asked
for base64. An address is fetched only from the host itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from convene.errors import BadRequest
from convene.providers.base_images import ImageCapabilities, ImageMade
from convene.providers.images_host import PICTURE_BYTES_MAX, ImageHost, NoPath
from convene.providers.multipart import encode_multipart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.clock import Clock
    from convene.http import base as http
    from convene.providers.base_images import ImageAsk, ImageEvent
    from convene.providers.images_host import ImageHostSettings

ALWAYS_BASE64: Final = ("gpt-image", "chatgpt-image")
"""Models that know no `response_format`, by the beginnings of their names."""
_PATHS: Final = {"generate": "/images/generations", "edit": "/images/edits", "vary": "/images/variations"}
_CANNOT: Final = {"edit": "changes no pictures", "vary": "varies no pictures"}
_BOUNDARY_BYTES: Final = 16


class OpenAIImages:
    """An `ImageModel` at an OpenAI-compatible host."""

    def __init__(
        self,
        client: http.Client,
        settings: ImageHostSettings,
        clock: Clock,
        can: ImageCapabilities = ImageCapabilities(seed=False),  # noqa: B008 -- frozen
    ) -> None:
        self.capabilities = can
        self.upstream = settings.upstream
        self._model = settings.model
        self._origin = urlsplit(settings.base_url)[:2]
        self._root = urlsplit(settings.base_url).path
        self._host = ImageHost(client, settings, clock)
        self._clock = clock

    def ready(self) -> str | None:
        """Return None: whether the host is there is seen when it is asked."""
        return None

    async def generate(self, ask: ImageAsk) -> AsyncGenerator[ImageEvent]:
        """Make the pictures (`base_images.ImageModel`)."""
        fields = self._fields(ask)
        if ask.task == "generate":
            reply = await self._host.post(_PATHS["generate"], fields)
        else:
            files = [("image" if len(ask.images) == 1 else "image[]", image) for image in ask.images]
            if ask.mask is not None:
                files.append(("mask", ask.mask))
            boundary = self._clock.token(_BOUNDARY_BYTES).hex()
            body = encode_multipart(boundary, {name: str(value) for name, value in fields.items()}, files)
            head = (("content-type", f"multipart/form-data; boundary={boundary}"), ("accept", "application/json"))
            try:
                reply = self._host.read_object(await self._host.ask("POST", _PATHS[ask.task], body, head))
            except NoPath as fault:
                message = f"This model {_CANNOT[ask.task]}: its host has no {_PATHS[ask.task]}."
                raise BadRequest(message, code="unsupported_parameter", param="model", detail=fault.detail) from fault
        found = reply.get("data")
        if not isinstance(found, list) or not found:
            raise self._host.malformed("a reply without pictures")
        for index, one in enumerate(found[: ask.count]):
            if not isinstance(one, dict):
                raise self._host.malformed("a picture that is no object")
            revised = one.get("revised_prompt")
            yield ImageMade(
                index=index,
                data=await self._picture(one),
                seed=ask.seed if self.capabilities.seed else None,
                revised_prompt=revised if isinstance(revised, str) else None,
            )

    def _fields(self, ask: ImageAsk) -> dict[str, object]:
        width, height = ask.size
        fields: dict[str, object] = {"model": self._model, "n": ask.count, "size": f"{width}x{height}"}
        if ask.task != "vary":
            fields["prompt"] = ask.prompt
        if not self._model.startswith(ALWAYS_BASE64):
            fields["response_format"] = "b64_json"
        if ask.seed is not None and self.capabilities.seed:
            fields["seed"] = ask.seed
        if ask.background != "auto":
            fields["background"] = ask.background
        if ask.negative_prompt:
            fields["negative_prompt"] = ask.negative_prompt
        given = {"quality": ask.quality, "style": ask.style, "user": ask.user}
        fields |= {name: value for name, value in given.items() if value is not None}
        return ask.extra | fields

    async def _picture(self, one: dict[str, object]) -> bytes:
        address = one.get("url")
        if one.get("b64_json") is not None or not isinstance(address, str):
            return await self._host.picture(one.get("b64_json"))
        if address.startswith("data:"):
            return await self._host.picture(address)
        parts = urlsplit(address)
        if parts[:2] != self._origin:
            raise self._host.malformed("an address elsewhere in the place of a picture; it is not followed")
        path = parts._replace(scheme="", netloc="").geturl()
        if not path.startswith(self._root):
            raise self._host.malformed("an address outside of its API in the place of a picture")
        return self._host.checked(
            await self._host.ask("GET", path.removeprefix(self._root), max_bytes=PICTURE_BYTES_MAX)
        )

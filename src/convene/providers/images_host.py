"""One host that makes pictures: asked over HTTP, its failures told as ours. Shared by the dialects of images.

Nothing is sent a second time: a picture costs seconds of a card or money, and a host that broke off may have made it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

import msgspec

import convene
from convene.errors import Malformed, Unavailable
from convene.http import base as http
from convene.providers.openai_faults import Blamed, judge_status, judge_transport

if TYPE_CHECKING:
    from convene.clock import Clock

ERROR_BYTES_MAX: Final = 64 * 1024
DETAIL_CHARS: Final = 500
PICTURE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Largest picture that is taken from a host."""
REPLY_BYTES_MAX: Final = 160 * 1024 * 1024
"""Largest reply: four such pictures in base64."""
IN_PLACE_MAX: Final = 4 * 1024 * 1024
"""Characters that are decoded on the loop: 4 ms."""
_MAGIC: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


class NoPath(Unavailable):
    """The host has no such path."""


class ImageHostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One image model at one host. Neither its key nor its headers show in its `repr`."""

    upstream: str
    model: str
    base_url: str
    """Without a slash at its end."""
    headers: tuple[tuple[str, str], ...] = ()
    api_key: str = ""
    """For taking it out of the host's words only; `headers` carry it."""
    timeouts: http.Timeouts = http.Timeouts(first_byte_s=300.0, total_s=900.0)

    def __repr__(self) -> str:
        return f"ImageHostSettings(upstream={self.upstream!r}, model={self.model!r})"


class ImageHost:
    """Asks one host."""

    def __init__(self, client: http.Client, settings: ImageHostSettings, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self.blamed = Blamed(settings.upstream, settings.model, settings.base_url, settings.api_key)
        self._own = (("user-agent", f"convene/{convene.__version__}"), *settings.headers)

    async def post(self, path: str, body: object) -> dict[str, Any]:
        """Post JSON and return the object that comes back. Raises as `ask`."""
        headers = (("content-type", "application/json"), ("accept", "application/json"))
        return self.read_object(await self.ask("POST", path, msgspec.json.encode(body), headers))

    async def get(self, path: str) -> dict[str, Any]:
        """Return the object that a path gives. Raises as `ask`."""
        return self.read_object(await self.ask("GET", path, headers=(("accept", "application/json"),)))

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        max_bytes: int = REPLY_BYTES_MAX,
    ) -> bytes:
        """Return the body of a success.

        Raises:
            BadRequest: what the host refuses for the caller's sake.
            NoPath: the host does not know the path.
            RateLimited, UpstreamFault: everything else.
        """
        settings = self._settings
        request = http.Request(method, settings.base_url + path, (*headers, *self._own), body, settings.timeouts)
        try:
            response = await self._client.send(request)
            try:
                if 200 <= response.status < 300:  # noqa: PLR2004 - the statuses of success
                    return await response.read(max_bytes)
                words = await response.read(ERROR_BYTES_MAX)
            finally:
                response.close()
        except http.HttpError as error:
            raise judge_transport(error, self.blamed, begun=False).fault from error
        if response.status in (404, 405) and b"model" not in words.lower():
            raise self._no_path(response.status, path, words)
        raise judge_status(response.status, response.headers, words, self.blamed, self._clock.now()).fault

    def _no_path(self, status: int, path: str, words: bytes) -> NoPath:
        """Return the fault of a host that knows no such path, as its own words do not speak of a model."""
        where = path.partition("?")[0]
        message = f"The upstream '{self._settings.upstream}' has no {where}; the operator should check its base_url."
        return NoPath(
            message, detail=self.blamed.detail(f"status {status}", words[:DETAIL_CHARS].decode("utf-8", "replace"))
        )

    def malformed(self, what: str) -> Malformed:
        """Return the fault of a reply that is none."""
        message = f"The upstream '{self._settings.upstream}' gave no picture; try again."
        return Malformed(message, detail=self.blamed.detail(what))

    async def picture(self, text: object) -> bytes:
        """Return the picture that a base64 text holds, with or without the head of a data URL. Raises `Malformed`."""
        if not isinstance(text, str):
            raise self.malformed("a picture is missing")
        if text.startswith("data:"):
            text = text.partition(",")[2]
        if len(text) > PICTURE_BYTES_MAX * 4 // 3 + 4:
            raise self.malformed(f"a picture of {len(text)} characters")
        try:
            if len(text) < IN_PLACE_MAX:
                return self.checked(base64.b64decode(text, validate=True))
            return self.checked(await asyncio.to_thread(base64.b64decode, text, validate=True))
        except binascii.Error as error:
            raise self.malformed("a picture is not base64") from error

    def checked(self, data: bytes) -> bytes:
        """Return a picture if it begins like one; it is opened and measured by `serving/`. Raises `Malformed`."""
        if not data.startswith(_MAGIC):
            raise self.malformed(f"{len(data)} bytes that are neither PNG, JPEG nor WebP")
        return data

    def read_object(self, body: bytes) -> dict[str, Any]:
        """Return the JSON object that a body holds. Raises `Malformed`."""
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.malformed("a reply that is not JSON") from error
        if not isinstance(found, dict):
            raise self.malformed("a reply that is no object")
        return found

"""Requests to the engine's child process: the recipe that keeps it honest (engine.md 4), and what its faults mean.

    address() ──► send, never on a used connection ──► 200 ──► bytes
        │              │ no response byte: once more, after the child has restarted
        └ loading: wait└ an error body: our own error

Here: I/O for streams and small JSON calls. Not here: what is asked (`local`, `local_embeddings`) and how replies are
read (`openai_reply`). Why never on a used connection: the child advertises keep-alive after a stream and then closes.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from convene.engine.base import EngineFault, NotReady
from convene.errors import BadRequest, ConveneError, Malformed, TimedOut, Unavailable
from convene.http import base as http
from convene.providers.openai_faults import clean

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.engine.base import ChildAddress, EngineStatus, LocalEngine

Reply = TypeVar("Reply")

ERROR_BYTES_MAX = 64 * 1024
REPLY_BYTES_MAX = 16 * 1024 * 1024
MEGABYTE = 1_000_000


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Waits of one request to the child, in seconds.

    Attributes:
        ready_s: for a child that is loading or restarting (0.3 to 0.5 s measured) before a request gives up.
        notice_s: for the engine to notice that the child it named is gone.
        first_byte_s: until the reply begins; queueing before the slots is not part of it.
        between_bytes_s: silence inside a reply: progress comes with each batch, so silence means stuck.
        total_s: for one reply.
    """

    ready_s: float = 10.0
    notice_s: float = 0.25
    first_byte_s: float = 120.0
    between_bytes_s: float = 60.0
    total_s: float = 900.0


class ErrorBody(msgspec.Struct, frozen=True):
    """What the child says of a failure."""

    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class ErrorReply(msgspec.Struct, frozen=True):
    """The error's envelope."""

    error: ErrorBody = ErrorBody()


def describe_status(status: EngineStatus, name: str) -> str | None:
    """Return why the engine cannot serve now, in words for a person, or None if it can."""
    if status.state == "ready":
        return None
    said = f" ({status.detail})" if status.detail else ""
    if status.state == "fetching" and status.total_bytes:
        done, total = status.completed_bytes / MEGABYTE, status.total_bytes / MEGABYTE
        return f"{name}: fetching {done:.0f} of {total:.0f} MB"
    words = {
        "absent": "not started",
        "fetching": "fetching the weights",
        "loading": "loading",
        "failed": "failed",
    }
    return f"{name}: {words[status.state]}{said}"


class LocalChild:
    """Sends requests to the present child of one engine."""

    def __init__(self, engine: LocalEngine, client: http.Client, settings: ChildSettings) -> None:
        self._engine = engine
        self._client = client
        self._settings = settings

    @property
    def model(self) -> str:
        """The name of the model it serves."""
        return self._engine.name

    def ready(self) -> str | None:
        """Return None if the child can serve, else why not."""
        return describe_status(self._engine.status(), self._engine.name)

    async def call(self, path: str, body: object, reply: type[Reply]) -> Reply:
        """Post a small JSON call and decode its reply. Raises `BadRequest` or `UpstreamFault`."""
        async with self.open(path, msgspec.json.encode(body)) as response:
            try:
                return msgspec.json.decode(await response.read(REPLY_BYTES_MAX), type=reply)
            except http.HttpError as error:
                raise self.judge(error) from error
            except msgspec.DecodeError as error:
                raise Malformed("The embedded model gave no valid reply.", detail=f"{path}: {error}") from error

    @asynccontextmanager
    async def open(self, path: str, body: bytes) -> AsyncGenerator[http.Response]:
        """Send and give the response with status 200; leaving closes it, which ends the child's work on it."""
        response = await self._send(path, body)
        try:
            if response.status != 200:  # noqa: PLR2004 - a status is plainest as a number
                raise await self._read_refusal(response)
            yield response
        finally:
            response.close()

    async def _send(self, path: str, body: bytes) -> http.Response:
        address = await self._find_address()
        try:
            return await self._client.send(self._write_request(address, path, body))
        except http.HttpError as error:
            if not isinstance(error, http.ConnectFailed | http.Disconnected) or getattr(error, "received", False):
                raise self.judge(error) from error
            first = error
        if self._engine.status().state == "ready" and self._is_present(address):
            # The connection ended before the engine heard of its child's death.
            await asyncio.sleep(self._settings.notice_s)
        address = await self._find_address(after=first)
        try:
            return await self._client.send(self._write_request(address, path, body))
        except http.HttpError as error:
            raise self.judge(error) from error

    def _is_present(self, address: ChildAddress) -> bool:
        try:
            return self._engine.address() == address
        except EngineFault:
            return False

    async def _find_address(self, after: http.HttpError | None = None) -> ChildAddress:
        """Return where the child answers, waiting for one that is loading; weights are not waited for."""
        state = self._engine.status().state
        try:
            if state == "ready" and after is None:
                return self._engine.address()
            if state in {"absent", "fetching"}:
                raise NotReady(describe_status(self._engine.status(), self._engine.name) or "not ready")
            return await self._engine.wait_ready(self._settings.ready_s)
        except EngineFault as fault:
            retry_after_s = self._settings.ready_s if fault.retryable else None
            raise Unavailable(fault.message, detail=fault.detail, retry_after_s=retry_after_s) from fault

    def _write_request(self, address: ChildAddress, path: str, body: bytes) -> http.Request:
        waits = self._settings
        return http.Request(
            "POST",
            address.base_url + path,
            (("authorization", f"Bearer {address.api_key}"), ("content-type", "application/json")),
            body,
            http.Timeouts(
                first_byte_s=waits.first_byte_s, between_bytes_s=waits.between_bytes_s, total_s=waits.total_s
            ),
            fresh=True,
        )

    async def _read_refusal(self, response: http.Response) -> ConveneError:
        try:
            raw = await response.read(ERROR_BYTES_MAX)
        except http.HttpError as error:
            return self.judge(error)
        try:
            said = msgspec.json.decode(raw, type=ErrorReply).error
        except msgspec.DecodeError:
            said = ErrorBody(clean(raw[:500].decode("utf-8", "replace")))
        detail = f"{self._engine.name}: status {response.status}: {clean(said.message)}"
        if said.type == "exceed_context_size_error":
            return refuse_length(said.n_prompt_tokens, said.n_ctx)
        if response.status == 400:  # noqa: PLR2004
            return BadRequest(f"The embedded model refused the request: {clean(said.message)}", detail=detail)
        message = "The embedded model failed; try again."
        if response.status in {401, 503}:
            # Another key or a model still loading: the child is not the one we knew.
            message = "The embedded model is restarting; try again."
        return Unavailable(message, detail=detail, retry_after_s=1.0)

    def judge(self, error: http.HttpError) -> ConveneError:
        """Return what a failed connection means to a caller."""
        detail = f"{self._engine.name}: {type(error).__name__}: {error}"
        if isinstance(error, http.TimedOut):
            return TimedOut("The embedded model did not answer in time; ask for less or try again.", detail=detail)
        if isinstance(error, http.Disconnected) and error.received:
            message = "The embedded model's process ended in mid-answer; it restarts by itself, so try again."
            return Unavailable(message, detail=detail, retry_after_s=1.0)
        if isinstance(error, http.ProtocolBroken):
            return Malformed("The embedded model gave no valid reply.", detail=detail)
        message = "The embedded model does not answer; it restarts by itself, so try again."
        return Unavailable(message, detail=detail, retry_after_s=1.0)


def refuse_length(tokens: int, window: int, *, about: bool = False) -> BadRequest:
    """Return the refusal of a prompt that leaves no room for an answer."""
    return BadRequest(
        f"The messages take {'about ' if about else ''}{tokens} tokens, but the model's context window is {window} "
        "tokens, the answer included. Shorten the messages or ask a model with a longer window.",
        code="context_length_exceeded",
        param="messages",
    )

"""Doubles of an upstream: a scripted `http.Client`, and builders of OpenAI-shaped replies and streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from convene.http.base import ConnectFailed, HttpError, ProtocolBroken, Request, Response
from convene.messages import Message
from convene.providers.base import Capabilities, Generation
from convene.providers.hosts import Hosts
from convene.providers.openai import OpenAIChat, OpenAISettings
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from convene.events import Event

SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


class Stall:
    """A piece of a script: nothing more comes until the test lets it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()


class FakeResponse:
    """A response whose body is a list of pieces; an error among them is raised, a `Stall` waits."""

    def __init__(self, status: int, headers: Mapping[str, str], pieces: Sequence[bytes | HttpError | Stall]) -> None:
        self.status = status
        self.headers = headers
        self.closed = False
        self._pieces = list(pieces)

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, HttpError):
                raise piece
            if isinstance(piece, bytes):
                return piece
            piece.reached.set()
            await piece.go_on.wait()
        raise StopAsyncIteration

    def peek(self) -> bytes | None:
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else None

    async def read(self, max_bytes: int) -> bytes:
        body = b"".join([piece async for piece in self.chunks()])
        if len(body) > max_bytes:
            raise ProtocolBroken("too large")
        return body

    def close(self) -> None:
        self.closed = True


class FakeClient:
    """A `Client` that answers its n-th request with the n-th of `script`; a callable answers all of them."""

    def __init__(
        self, *script: FakeResponse | HttpError | Stall, answer: Callable[[Request], FakeResponse] | None = None
    ) -> None:
        self.requests: list[Request] = []
        self.responses: list[FakeResponse] = []
        self._script = list(script)
        self._answer = answer

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        if self._answer is not None:
            found: FakeResponse | HttpError | Stall = self._answer(request)
        else:
            found = self._script.pop(0)
        if isinstance(found, Stall):
            found.reached.set()
            await found.go_on.wait()
            found = ConnectFailed("the script's stall was ended")
        if isinstance(found, HttpError):
            raise found
        self.responses.append(found)
        return found

    async def aclose(self) -> None:
        pass


def whole(message: object = None, *, finish: object = "stop", **more: object) -> bytes:
    """Return a reply with one choice; `message` may be its text."""
    if isinstance(message, str):
        message = {"role": "assistant", "content": message}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    reply = {"id": "x", "object": "chat.completion", "model": "host-model", "choices": [choice], "usage": usage}
    return msgspec.json.encode({**reply, **more})


def chunk(delta: object = None, *, finish: object = None, index: int = 0, **more: object) -> bytes:
    """Return one event of a stream; `delta` may be its text."""
    if isinstance(delta, str):
        delta = {"content": delta}
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    body = {"id": "x", "object": "chat.completion.chunk", "model": "host-model", "choices": [choice], **more}
    return frame(body)


def frame(body: object) -> bytes:
    """Return `body` as a server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


USAGE = frame({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})
DONE = b"data: [DONE]\n\n"


def ok(body: bytes) -> FakeResponse:
    """Return a whole reply as a response."""
    return FakeResponse(200, JSON, [body])


def streamed(*pieces: bytes | HttpError | Stall) -> FakeResponse:
    """Return a stream as a response."""
    return FakeResponse(200, SSE, pieces)


def refused(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> FakeResponse:
    """Return an error status as a response."""
    return FakeResponse(status, {**JSON, **(headers or {})}, [body])


def ask(text: str = "Hello", *, stream: bool = False) -> Generation:
    """Return a small generation."""
    return Generation(messages=(Message(role="user", content=text),), stream=stream)


def model_at(
    client: FakeClient, *base_urls: str, clock: FakeClock | None = None, settings: OpenAISettings | None = None
) -> OpenAIChat:
    """Return a chat model over `client`, at one host unless more are named."""
    clock = clock or FakeClock()
    hosts = Hosts(base_urls or ("http://a/v1",), (), clock)
    settings = settings or OpenAISettings(upstream="up", model="host-model", api_key="sk-secret-1234567890")
    return OpenAIChat(client, hosts, settings, Capabilities(), clock)


async def gather(model: OpenAIChat, generation: Generation | None = None) -> list[Event]:
    """Return all events of one generation."""
    return [event async for event in model.generate(generation or ask())]

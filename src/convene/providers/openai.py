"""Models at any OpenAI-compatible host: the I/O around the pure codec. `app.py` builds one object a configured model.

    generate:  encode_chat -> Exchange.open (hosts, retries) -> ReplyReader -> events
    embed:     encode_embeddings -> Exchange.open -> read_embeddings

Not here: bytes (`openai_codec.py`, `openai_reply.py`), refusals (`openai_faults.py`), which host (`hosts.py`), second
tries (`exchange.py`), other models in case of failure (`fallback.py`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from convene.http import base as http
from convene.providers.exchange import Exchange, OpenAISettings
from convene.providers.openai_codec import encode_chat, encode_embeddings
from convene.providers.openai_faults import Verdict, judge_transport
from convene.providers.openai_reply import ReplyReader, read_plain
from convene.providers.openai_vectors import read_embeddings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from convene.clock import Clock
    from convene.events import Event
    from convene.providers.base import Capabilities, Embeddings, Generation
    from convene.providers.hosts import Hosts
    from convene.providers.openai_faults import Blamed

__all__ = ["OpenAIChat", "OpenAIEmbeddings", "OpenAISettings"]

DRAIN_S = 0.1
"""After `[DONE]` the body's own end follows at once; with it the connection can serve the next request."""


class _Answer(NamedTuple):
    """The beginning of an answer; `chunks` is None when it was whole."""

    reader: ReplyReader
    events: list[Event]
    chunks: AsyncIterator[bytes] | None


class OpenAIChat:
    """A `ChatModel` at an OpenAI-compatible upstream."""

    def __init__(
        self, client: http.Client, hosts: Hosts, settings: OpenAISettings, capabilities: Capabilities, clock: Clock
    ) -> None:
        """Serve one model.

        Args:
            client: sends the requests; shared, not closed here.
            hosts: where the upstream is; shared by all models of one upstream.
            settings: which model, with which key.
            capabilities: what it can do, as configured.
            clock: ids, dates and jitter.
        """
        # Attributes, not properties: each is read for every request, and a property costs ten times as much.
        self.capabilities = capabilities
        self.upstream = settings.upstream
        self.whole: Callable[[Generation], Awaitable[Iterable[Event]]] = self._answer
        self._read, self._look = self._read_whole, self._glance
        self._settings = settings
        self._clock = clock
        self._exchange = Exchange(client, hosts, "/chat/completions", settings, clock)

    def ready(self) -> str | None:
        """Return None if some host may be asked now, else why not."""
        return self._exchange.ready()

    def _answer(self, generation: Generation) -> Awaitable[Iterable[Event]]:
        settings = self._settings
        body = encode_chat(generation, settings.model, settings.dialect)
        return self._exchange.ask(body, self._read, generation, self._look)

    def _glance(self, body: bytes, blamed: Blamed, generation: Generation) -> Iterable[Event] | None:
        """Read a plain answer; None for what `_read_whole` must judge."""
        settings = self._settings
        if len(body) > settings.body_bytes_max:
            return None
        return read_plain(body, generation, blamed, settings.dialect)

    async def _read_whole(
        self, response: http.Response, blamed: Blamed, generation: Generation
    ) -> Iterable[Event] | Verdict:
        settings = self._settings
        body = await response.read(settings.body_bytes_max)
        plain = read_plain(body, generation, blamed, settings.dialect)
        if plain is not None:
            return plain
        reader = ReplyReader(generation, blamed, self._clock, settings.dialect)
        if "event-stream" not in response.headers.get("content-type", ""):
            events = reader.read_whole(body)
        else:  # a host that streams unasked
            events = reader.feed(body)
            events += reader.end_stream()
        return reader.verdict or events

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        """Generate. Raises `BadRequest`, `RateLimited` and `UpstreamFault`; closing it drops the upstream's work."""
        body = encode_chat(generation, self._settings.model, self._settings.dialect)
        pick, response, (reader, events, chunks) = await self._exchange.open(body, self._begin, generation)
        if chunks is None:
            self._exchange.hosts.succeeded(pick)
        else:
            self._exchange.hosts.answered(pick)
        try:
            for event in events:
                yield event
            if chunks is None:
                return
            while not reader.complete and reader.verdict is None:
                try:
                    data = await anext(chunks, None)
                except http.HttpError as error:
                    if not reader.finished:
                        self._exchange.hosts.failed(pick)
                        raise judge_transport(error, self._exchange.blame(pick), begun=True).fault from error
                    data = None
                for event in reader.end_stream() if data is None else reader.feed(data):
                    yield event
            if reader.verdict is not None:
                self._exchange.hosts.failed(pick)
                raise reader.verdict.fault
            self._exchange.hosts.succeeded(pick)
            await _drain(chunks)
        finally:
            response.close()

    async def _begin(self, response: http.Response, blamed: Blamed, generation: Generation) -> _Answer | Verdict:
        """Read until the first event; hosts stream or do not, whatever was asked, and say so by the content type."""
        reader = ReplyReader(generation, blamed, self._clock, self._settings.dialect)
        content_type = response.headers.get("content-type", "")
        streamed = "event-stream" in content_type or (generation.stream and "json" not in content_type)
        if not streamed:
            events = reader.read_whole(await response.read(self._settings.body_bytes_max))
            return reader.verdict or _Answer(reader, events, None)
        chunks = aiter(response.chunks())
        events = []
        while not events and reader.verdict is None and not reader.complete:
            data = await anext(chunks, None)
            events = reader.end_stream() if data is None else reader.feed(data)
        if reader.verdict is not None and not events:
            return reader.verdict
        return _Answer(reader, events, chunks)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            async for _ in chunks:
                pass
    except (TimeoutError, http.HttpError):
        pass  # the answer is complete; only the connection's reuse is lost


class OpenAIEmbeddings:
    """An `EmbeddingModel` at an OpenAI-compatible upstream."""

    def __init__(self, client: http.Client, hosts: Hosts, settings: OpenAISettings, clock: Clock) -> None:
        """Serve one model; the arguments are `OpenAIChat`'s."""
        self._settings = settings
        self._exchange = Exchange(client, hosts, "/embeddings", settings, clock)

    @property
    def upstream(self) -> str:
        """The configured upstream's name."""
        return self._settings.upstream

    def ready(self) -> str | None:
        """Return None if some host may be asked now, else why not."""
        return self._exchange.ready()

    async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
        """Return one vector an input. Raises `BadRequest`, `RateLimited` and `UpstreamFault`."""
        body = encode_embeddings(inputs, dimensions, self._settings.model)
        pick, response, found = await self._exchange.open(body, self._read, inputs)
        response.close()
        self._exchange.hosts.succeeded(pick)
        return found

    async def _read(
        self, response: http.Response, blamed: Blamed, inputs: Sequence[str | Sequence[int]]
    ) -> Embeddings | Verdict:
        return read_embeddings(await response.read(self._settings.body_bytes_max), inputs, blamed)

"""A host that fails in every way, over real sockets: each try ends, in time, in one of our faults, and leaves nothing.

The host double is a plain `asyncio` server that writes raw bytes, so that it can break HTTP itself too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import struct
from typing import TYPE_CHECKING, Self

import pytest

from convene.clock import SystemClock
from convene.errors import BadRequest, ConveneError, Malformed, RateLimited, Rejected, TimedOut, Unavailable
from convene.events import Began, Event, Finished, TextDelta, UsageReported
from convene.http.base import Timeouts
from convene.http.client import HttpClient
from convene.providers.base import Capabilities
from convene.providers.hosts import Hosts
from convene.providers.openai import OpenAIChat, OpenAISettings
from unit.providers.upstream_doubles import DONE, USAGE, ask, chunk, frame, whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENT = Timeouts()
QUICK = Timeouts(first_byte_s=0.3, between_bytes_s=0.3)
"""For a host that stalls, of which a time-out is expected; every other may take as long as the machine does."""
QUICK_AFTER = Timeouts(between_bytes_s=0.3)
"""For one that stalls in mid-answer."""
PATIENCE_S = 60.0
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TEXT = [Began("up", "host-model"), TextDelta("Hel")]


def chunked(*parts: bytes, end: bool = True) -> bytes:
    """Return an SSE response, each part in a chunk of its own."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return SSE_HEAD + body + (b"0\r\n\r\n" if end else b"")


def plain(status: int, body: bytes, *headers: bytes) -> bytes:
    """Return a response with a length."""
    lines = [b"HTTP/1.1 %d X" % status, b"content-type: application/json", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Host:
    """A loopback host: its n-th request gets the n-th behaviour, the last one for ever."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.requests = 0
        self.gone = asyncio.Event()
        self.base_url = ""
        self._behaviours = behaviours
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                behave = self._behaviours[min(self.requests, len(self._behaviours) - 1)]
                self.requests += 1
                await behave(reader, writer)
                if writer.is_closing():
                    break
        self.gone.set()
        writer.close()


def write(data: bytes) -> Behaviour:
    """Answer with these bytes and keep the connection."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return behave


def write_and_close(data: bytes = b"") -> Behaviour:
    """Answer with these bytes, then close."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return behave


def write_and_reset(data: bytes = b"") -> Behaviour:
    """Answer with these bytes, then reset the connection."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return behave


def write_and_stall(data: bytes = b"") -> Behaviour:
    """Answer with these bytes, then say nothing until the other side has gone."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await reader.read()
        writer.close()

    return behave


GOOD = chunked(chunk("Hel"), chunk("lo", finish="stop"), USAGE, DONE)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient()
    yield made
    await made.aclose()


def model_at(client: HttpClient, *base_urls: str, retries: int = 0, timeouts: Timeouts = PATIENT) -> OpenAIChat:
    clock = SystemClock()
    settings = OpenAISettings(
        upstream="up", model="host-model", api_key="sk-secret-1234567890", timeouts=timeouts, retries=retries
    )
    return OpenAIChat(client, Hosts(base_urls, (), clock), settings, Capabilities(), clock)


async def run(model: OpenAIChat, *, stream: bool = True) -> tuple[list[Event], ConveneError | None]:
    """Return the events and the fault, if any."""
    events: list[Event] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for event in model.generate(ask(stream=stream)):
                events.append(event)  # noqa: PERF401 - what came before the fault counts
    except ConveneError as fault:
        return events, fault
    return events, None


BEFORE = [
    (write_and_close(), Unavailable),
    (write_and_reset(), Unavailable),
    (write_and_stall(), TimedOut),
    (write_and_close(b"HTTP/1.1 200"), Malformed),
    (write_and_stall(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev"), TimedOut),
    (write_and_close(b"SSH-2.0-OpenSSH_9\r\n\r\n"), Malformed),
    (write_and_close(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000), Malformed),
    (write_and_close(SSE_HEAD), Malformed),
    (write_and_reset(SSE_HEAD), Malformed),
    (write_and_stall(SSE_HEAD), TimedOut),
    (write(chunked()), Malformed),
    (write(chunked(DONE)), Malformed),
    (write(chunked(b"data: not json\n\n")), Malformed),
    (write(chunked(frame({"error": {"message": "loading", "code": 503}}))), Unavailable),
    (write(chunked(b"data: " + b"x" * (5 * 1024 * 1024))), Malformed),
    (write_and_close(SSE_HEAD + b"zz\r\nrubbish"), Malformed),
    (write(plain(400, b'{"error":{"message":"no"}}')), BadRequest),
    (write(plain(401, b"{}")), Rejected),
    (write(plain(429, b"{}", b"retry-after: 3")), RateLimited),
    (write(plain(500, b"<html>")), Unavailable),
    (write(plain(503, b"{}")), Unavailable),
    (write(plain(302, b"", b"location: http://127.0.0.1:1/")), Malformed),
    (write_and_close(b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\n{"), Unavailable),
    (write_and_close(plain(200, whole("Hello"))[:-5]), Malformed),
    (write(plain(200, b"{}")), Malformed),
    (write(plain(200, gzip.compress(whole("Hello"))[:-9] + b"123456789", b"content-encoding: gzip")), Malformed),
]


@pytest.mark.parametrize("number", range(len(BEFORE)))
async def test_a_fault_before_the_first_event_is_one_fault_and_no_event(number: int, client: HttpClient) -> None:
    behaviour, kind = BEFORE[number]
    async with Host(behaviour) as host:
        events, fault = await run(model_at(client, host.base_url, timeouts=QUICK if kind is TimedOut else PATIENT))
        assert events == []
        assert type(fault) is kind
        assert host.base_url in fault.detail
        assert "127.0.0.1" not in fault.message
        assert host.requests == 1


AFTER = [
    (write_and_close(chunked(chunk("Hel"), end=False)), Malformed),
    (write_and_reset(chunked(chunk("Hel"), end=False)), Malformed),
    (write_and_stall(chunked(chunk("Hel"), end=False)), TimedOut),
    (write(chunked(chunk("Hel"))), Malformed),
    (write(chunked(chunk("Hel"), b"data: {\n\n")), Malformed),
    (write(chunked(chunk("Hel"), frame({"error": {"message": "boom"}}))), Unavailable),
    (write(chunked(chunk("Hel"), b"event: error\ndata: boom\n\n")), Unavailable),
    (write(chunked(chunk("Hel"), b"data: " + b"x" * (5 * 1024 * 1024))), Malformed),
    (write_and_close(chunked(chunk("Hel"), end=False) + b"zz\r\n"), Malformed),
    (write_and_close(chunked(chunk("Hel"), chunk("lo")[:20], end=False)), Malformed),
]


@pytest.mark.parametrize("number", range(len(AFTER)))
async def test_a_fault_in_mid_answer_comes_after_the_events_and_is_never_tried_again(
    number: int, client: HttpClient
) -> None:
    behaviour, kind = AFTER[number]
    async with Host(behaviour) as host:
        timeouts = QUICK_AFTER if kind is TimedOut else PATIENT
        events, fault = await run(model_at(client, host.base_url, retries=2, timeouts=timeouts))
        assert events == TEXT
        assert type(fault) is kind
        assert host.requests == 1


@pytest.mark.parametrize("position", range(0, len(GOOD), 7))
async def test_a_close_at_any_byte_is_a_whole_answer_or_one_fault(position: int, client: HttpClient) -> None:
    async with Host(write_and_close(GOOD[:position])) as host:
        events, fault = await run(model_at(client, host.base_url))
        ended = bool(events) and isinstance(events[-1], UsageReported)
        assert ended == (fault is None)
        assert ended == any(isinstance(event, Finished) for event in events)


async def test_nobody_listening_is_unavailable(client: HttpClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        events, fault = await run(model_at(client, f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))
    assert events == []
    assert isinstance(fault, Unavailable)


async def test_after_each_fault_the_same_host_serves_again(client: HttpClient) -> None:
    async with Host(write_and_close(), write(plain(503, b"{}")), write(GOOD)) as host:
        events, fault = await run(model_at(client, host.base_url, retries=2))
        assert fault is None
        assert isinstance(events[-1], UsageReported)
        assert host.requests == 3


async def test_another_host_takes_over_and_the_dead_one_is_left_alone(client: HttpClient) -> None:
    async with Host(write_and_close()) as dead, Host(write(GOOD)) as alive:
        model = model_at(client, dead.base_url, alive.base_url, retries=2)
        for _ in range(60):
            _, fault = await run(model)
            assert fault is None
        assert dead.requests <= 6
        assert alive.requests == 60


@pytest.mark.parametrize("stream", [True, False])
async def test_a_good_answer_leaves_its_connection_for_the_next(stream: bool, client: HttpClient) -> None:  # noqa: FBT001 - a column
    async with Host(write(GOOD if stream else plain(200, whole("Hello")))) as host:
        model = model_at(client, host.base_url)
        for _ in range(3):
            events, fault = await run(model, stream=stream)
            assert fault is None
            assert isinstance(events[-1], UsageReported)
        assert not host.gone.is_set()
        assert [(pool.open, pool.idle) for pool in client.stats()] == [(1, 1)]


@pytest.mark.req("OAI-35")
async def test_closing_the_events_closes_the_hosts_connection_while_it_is_silent(client: HttpClient) -> None:
    async with Host(write_and_stall(chunked(chunk("Hel"), end=False))) as host:
        events: AsyncGenerator[Event] = model_at(client, host.base_url).generate(ask(stream=True))
        assert isinstance(await anext(events), Began)
        await events.aclose()
        await asyncio.wait_for(host.gone.wait(), PATIENCE_S)


@pytest.mark.req("OAI-35")
async def test_cancelling_a_wait_for_the_first_byte_closes_the_hosts_connection(client: HttpClient) -> None:
    asked = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await write_and_stall()(reader, writer)

    async with Host(stall) as host:
        task = asyncio.create_task(run(model_at(client, host.base_url)))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(host.gone.wait(), PATIENCE_S)

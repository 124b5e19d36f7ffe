"""The in-process bridge streams, holds back, disconnects and reports, as a server and a network would."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest

from bridge import AppBroken, Bridge, ClientGone, Lifespan, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from bridge import App, Message, Receive, Send

SOON_S = 60.0
"""A bound for waits that end at once unless something is broken."""


@asynccontextmanager
async def reach(app: App, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:  # noqa: ANN401 - Bridge's own options
    transport = Bridge(app, **options)
    async with (
        asyncio.timeout(SOON_S),
        httpx2.AsyncClient(transport=transport, base_url="http://x.test", trust_env=False) as client,
    ):
        yield client


async def start(send: Send, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def chunk(send: Send, body: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


class Endless:
    """An app that sends until it is stopped, and remembers how it was stopped."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = asyncio.Event()
        self.how = ""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        try:
            await start(send)
            while True:
                await chunk(send, b"x")
                self.sent += 1
        except BaseException as fault:
            self.how = type(fault).__name__
            raise
        finally:
            self.ended.set()


async def test_each_chunk_arrives_before_the_app_sends_the_next_one() -> None:
    go_on = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send, headers=((b"content-type", b"text/event-stream"),))
        await chunk(send, b"data: 1\n\n")
        await go_on.wait()
        await chunk(send, b"data: 2\n\n", last=True)

    async with reach(app) as client, client.stream("GET", "/") as response:
        assert response.headers["content-type"] == "text/event-stream"
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: 1\n\n"
        assert not go_on.is_set()
        go_on.set()
        assert await anext(chunks) == b"data: 2\n\n"
        assert [rest async for rest in chunks] == []


async def test_the_app_sees_the_request_as_it_was_sent() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.update(scope, body=await read_body(receive))
        await start(send, 201)
        await chunk(send, b"ok", last=True)

    async with reach(app, client=("192.0.2.7", 4711)) as client:
        response = await client.post("/a%20b/c?d=e&f", content=b"hello", headers={"X-Some-Thing": "1"})
    assert (response.status_code, response.content) == (201, b"ok")
    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == (
        "POST",
        "/a b/c",
        b"/a%20b/c",
        b"d=e&f",
    )
    assert (seen["body"], seen["client"], seen["scheme"]) == (b"hello", ("192.0.2.7", 4711), "http")
    assert (b"x-some-thing", b"1") in seen["headers"]


async def test_a_streamed_request_body_reaches_the_app_in_its_pieces() -> None:
    pieces: list[bytes] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope
        while (message := await receive())["more_body"]:
            pieces.append(message["body"])
        await start(send)
        await chunk(send, b"", last=True)

    async def body() -> AsyncGenerator[bytes]:
        yield b"one"
        yield b"two"

    async with reach(app) as client:
        await client.post("/", content=body())
    assert pieces == [b"one", b"two"]


async def test_closing_early_signals_a_disconnect_to_an_app_that_listens() -> None:
    told: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope
        await read_body(receive)
        await start(send)
        await chunk(send, b"first")
        told.append((await receive())["type"])
        with pytest.raises(ClientGone):
            await chunk(send, b"too late")

    async with reach(app) as client, client.stream("POST", "/") as response:
        await anext(response.aiter_raw())
    assert told == ["http.disconnect"]


async def test_closing_early_cancels_an_app_that_does_not_listen() -> None:
    how: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send)
        await chunk(send, b"first")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            how.append("cancelled")
            raise

    async with reach(app) as client:
        async with client.stream("GET", "/") as response:
            await anext(response.aiter_raw())
        assert how == ["cancelled"]
        assert isinstance(client._transport, Bridge)
        assert not client._transport.exchanges


async def test_an_app_is_held_back_when_nobody_reads() -> None:
    app = Endless()
    async with reach(app, chunks_ahead=3) as client, client.stream("GET", "/") as response:
        for _ in range(20):
            await asyncio.sleep(0)
        assert app.sent == 3
        chunks = response.aiter_raw()
        await anext(chunks)
        for _ in range(20):
            await asyncio.sleep(0)
        assert app.sent == 4
    assert app.how == "ClientGone"


async def test_a_client_cancelled_before_the_head_takes_the_app_with_it() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive, send
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with reach(app) as client:
        request = asyncio.create_task(client.get("/"))
        await started.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert cancelled.is_set()


async def test_an_app_may_go_on_after_its_last_chunk_until_the_bridge_closes() -> None:
    done = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send)
        await chunk(send, b"all", last=True)
        for _ in range(50):
            await asyncio.sleep(0)
        done.set()

    async with reach(app) as client:
        assert (await client.get("/")).content == b"all"
        assert not done.is_set()
    assert done.is_set()


async def test_many_requests_run_side_by_side() -> None:
    meeting = asyncio.Barrier(20)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del receive
        await meeting.wait()
        await start(send)
        await chunk(send, scope["path"].encode())
        await meeting.wait()
        await chunk(send, b"!", last=True)

    async with reach(app) as client:
        answers = await asyncio.gather(*(client.get(f"/{i}") for i in range(20)))
    assert [answer.text for answer in answers] == [f"/{i}!" for i in range(20)]


async def test_an_error_before_the_head_comes_out_of_the_request() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise LookupError("broken")

    async with reach(app) as client:
        with pytest.raises(LookupError, match="broken"):
            await client.get("/")
        assert isinstance(client._transport, Bridge)
        assert [type(fault) for fault in client._transport.faults] == [LookupError]


async def test_an_error_in_mid_body_comes_after_what_was_sent() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send)
        await chunk(send, b"half")
        raise LookupError("broken")

    async with reach(app) as client, client.stream("GET", "/") as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"half"
        with pytest.raises(LookupError, match="broken"):
            await anext(chunks)


async def test_an_error_after_the_last_chunk_comes_out_of_the_closing() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send)
        await chunk(send, b"all", last=True)
        raise LookupError("late")

    bridge = Bridge(app)
    client = httpx2.AsyncClient(transport=bridge, base_url="http://x.test", trust_env=False)
    assert (await client.get("/")).content == b"all"
    with pytest.raises(ExceptionGroup) as caught:
        await client.aclose()
    assert caught.group_contains(LookupError, match="late")


async def test_an_error_in_an_apps_cleaning_up_comes_out_of_the_early_close() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send)
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("while cleaning up")

    async with reach(app) as client:
        response = await client.send(client.build_request("GET", "/"), stream=True)
        with pytest.raises(LookupError, match="cleaning up"):
            await response.aclose()


async def no_response(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive, send


async def half_response(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive
    await start(send)
    await chunk(send, b"half")


async def two_heads(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive
    await start(send)
    await start(send)


async def body_first(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive
    await chunk(send, b"x")


async def split_header(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive
    await start(send, headers=((b"x-a", b"1\r\nx-b: 2"),))


async def capital_header(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive
    await start(send, headers=((b"X-A", b"1"),))


async def strange_message(scope: Message, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.what"})


@pytest.mark.parametrize(
    "app", [no_response, half_response, two_heads, body_first, split_header, capital_header, strange_message]
)
async def test_an_app_that_breaks_the_protocol_is_found_out(app: App) -> None:
    async with reach(app) as client:
        with pytest.raises(AppBroken):
            await client.get("/")


async def test_an_answer_to_head_has_no_body() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive
        await start(send, headers=((b"content-length", b"3"),))
        await chunk(send, b"abc", last=True)

    async with reach(app) as client:
        response = await client.head("/")
    assert (response.content, response.headers["content-length"]) == (b"", "3")


async def test_the_clients_read_timeout_ends_a_silent_answer_and_the_app() -> None:
    ended = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive, send
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with reach(app) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("/", timeout=httpx2.Timeout(5, read=0.01))
    assert ended.is_set()


async def test_the_official_client_reads_a_stream_as_it_is_written() -> None:
    go_on = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        asked = json.loads(await read_body(receive))
        assert asked["stream"] is True
        await start(send, headers=((b"content-type", b"text/event-stream"),))
        for word in ("one", "two"):
            delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
            await chunk(send, b"data: " + json.dumps(frame).encode() + b"\n\n")
            await go_on.wait()
        await chunk(send, b"data: [DONE]\n\n", last=True)

    async with asyncio.timeout(SOON_S), open_client(app) as http:
        client = openai.AsyncOpenAI(http_client=http, base_url=f"{http.base_url}v1", api_key="k", max_retries=0)
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        first = await anext(stream)
        assert first.choices[0].delta.content == "one"
        assert not go_on.is_set()
        go_on.set()
        assert [piece.choices[0].delta.content async for piece in stream] == ["two"]


async def test_the_official_client_that_stops_reading_stops_the_app() -> None:
    app = Endless()

    async def framed(scope: Message, receive: Receive, send: Send) -> None:
        async def frame(message: Message) -> None:
            body = b'data: {"choices":[{"index":0,"delta":{}}]}\n\n' if "body" in message else b""
            await send({**message, "body": body} if body else message)

        await app(scope, receive, frame)

    async with reach(framed) as http:
        client = openai.AsyncOpenAI(http_client=http, base_url="http://x.test/v1", api_key="k", max_retries=0)
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        await anext(stream)
        await stream.close()
        await app.ended.wait()
    assert app.how in {"ClientGone", "CancelledError"}


async def test_a_lifespan_that_fails_says_so() -> None:
    async def refuses(scope: Message, receive: Receive, send: Send) -> None:
        del scope
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def raises(scope: Message, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise LookupError("broken")

    with pytest.raises(AppBroken, match="no database"):
        await Lifespan(refuses).__aenter__()
    with pytest.raises(LookupError, match="broken"):
        await Lifespan(raises).__aenter__()

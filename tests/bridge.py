"""An in-process bridge from `httpx2` (so from the official `openai` client) to an ASGI app, which streams.

The library's own ASGI transport gathers the whole body before it answers; this one hands on each `http.response.body`
as the app sends it, holds the app back when nobody reads, and when the response is closed early it signals
`http.disconnect` and then cancels the app's task, as a server does. Not here: sockets, HTTP/1.1 bytes and header
limits, which are the server's own tests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ASGI = {"version": "3.0", "spec_version": "2.4"}
TURNS_BEFORE_CANCEL = 20
"""Turns of the loop that an app gets to end by itself after `http.disconnect`."""

CLOSE_TIMEOUT_S = 60.0
"""How long `aclose` lets apps finish what they do after their last chunk."""


class AppBroken(AssertionError):
    """The app broke the ASGI protocol."""


class ClientGone(OSError):
    """What an app's `send` raises after the client has left (ASGI 2.4)."""


class Bridge(httpx2.AsyncBaseTransport):
    """The transport. `chunks_ahead` is how many chunks an app may send that nobody has read.

    An error of the app comes out where the client waits: from the request, or in mid-body from the iteration. One that
    comes after the response is complete, when nobody waits, comes out of `aclose`. All of them are in `faults`, since
    the `openai` client wraps them in its own.
    """

    def __init__(self, app: App, *, client: tuple[str, int] = ("127.0.0.1", 50000), chunks_ahead: int = 16) -> None:
        self.app = app
        self.client = client
        self.chunks_ahead = chunks_ahead
        self.faults: list[Exception] = []
        self.exchanges: set[Exchange] = set()
        """The requests whose app still runs."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Start the app and return when it has sent the head of its response."""
        exchange = Exchange(self, request)
        try:
            status, headers = await exchange.wait_start()
        except BaseException:  # also a cancelled client: the app must not be left running
            await exchange.leave()
            raise
        return httpx2.Response(status, headers=headers, stream=Body(exchange))

    async def aclose(self) -> None:
        """Let the apps end, cancel those that do not in time, and raise the errors nobody has seen."""
        exchanges = list(self.exchanges)
        if exchanges:
            await asyncio.wait([exchange.task for exchange in exchanges], timeout=CLOSE_TIMEOUT_S)
        for exchange in exchanges:
            await exchange.leave()
        unseen = [exchange.fault for exchange in exchanges if exchange.fault is not None and not exchange.fault_seen]
        if unseen:
            raise ExceptionGroup("the app failed after its response was complete", unseen)


class Exchange:
    """One request and its response, between the client's side and the app's task."""

    def __init__(self, bridge: Bridge, request: httpx2.Request) -> None:
        self.request = request
        self.bridge = bridge
        self.read_timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
        self.start: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self.chunks: deque[bytes] = deque()
        self.complete = False
        self.fault: Exception | None = None
        self.fault_seen = False
        self.gone = asyncio.Event()
        self.news = asyncio.Event()
        self.room = asyncio.Event()
        self._body: AsyncIterator[bytes] | None = None
        self._asked = False
        self.task = asyncio.create_task(self._run(), name=f"app {request.method} {request.url.path}")
        self.task.add_done_callback(self._settle)
        bridge.exchanges.add(self)

    async def wait_start(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return status and headers once the app has sent them; raises its error."""
        await self._wait_news(lambda: self.start is not None)
        if self.start is None:
            self.raise_fault()
            raise AppBroken("the app returned without a response")
        return self.start

    async def next_chunk(self) -> bytes | None:
        """Return the next chunk, or None at the end; raises the app's error."""
        await self._wait_news(lambda: bool(self.chunks) or self.complete)
        if self.chunks:
            chunk = self.chunks.popleft()
            self.room.set()
            return chunk
        if self.complete:
            return None
        self.raise_fault()
        raise AppBroken("the app returned in the middle of its response")

    async def leave(self) -> None:
        """Go away as the client: signal it, give the app some turns to end by itself, then cancel it."""
        self.gone.set()
        self.room.set()
        try:
            for _ in range(TURNS_BEFORE_CANCEL):
                if self.task.done():
                    break
                await asyncio.sleep(0)
        finally:
            self.task.cancel()
        await asyncio.wait([self.task], timeout=CLOSE_TIMEOUT_S)
        if not self.task.done():
            raise AppBroken("the app went on after its cancellation")

    async def _wait_news(self, is_there: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(self.read_timeout_s):
                while not (is_there() or self.task.done()):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise httpx2.ReadTimeout("no news from the app in time", request=self.request) from None

    def raise_fault(self) -> None:
        """Raise the app's error, the first time it is asked for."""
        if self.fault is not None and not self.fault_seen:
            self.fault_seen = True
            raise self.fault

    async def _run(self) -> None:
        try:
            await self.bridge.app(self._scope(), self._receive, self._send)
        except ClientGone:
            pass
        except Exception as fault:  # noqa: BLE001 - whatever the app raises belongs to the test
            self.fault = fault
            self.bridge.faults.append(fault)

    def _settle(self, _: asyncio.Task[None]) -> None:
        """Wake the reader after the task is done; with an error nobody waits for, the exchange stays for `aclose`."""
        self.news.set()
        if self.fault is None or not self.complete:
            self.bridge.exchanges.discard(self)

    def _scope(self) -> dict[str, object]:
        url = self.request.url
        return {
            "type": "http",
            "asgi": ASGI,
            "http_version": "1.1",
            "method": self.request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self.request.headers.raw],
            "client": self.bridge.client,
            "server": (url.host, url.port or 80),
            "state": {},
        }

    async def _receive(self) -> Message:
        if not self._asked and not self.gone.is_set():
            if self._body is None:
                if not isinstance(self.request.stream, httpx2.AsyncByteStream):
                    raise AppBroken("the request body cannot be read asynchronously")
                self._body = aiter(self.request.stream)
            try:
                return {"type": "http.request", "body": await anext(self._body), "more_body": True}
            except StopAsyncIteration:
                self._asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.gone.is_set() and not self.complete:
            raise ClientGone("the client has left")
        kind = message["type"]
        if kind == "http.response.start":
            if self.start is not None:
                raise AppBroken("a second http.response.start")
            self.start = (message["status"], _check_headers(message.get("headers", [])))
        elif kind == "http.response.body":
            await self._send_body(message)
        else:
            raise AppBroken(f"an unknown message: {kind}")
        self.news.set()

    async def _send_body(self, message: Message) -> None:
        if self.start is None or self.complete:
            raise AppBroken("http.response.body outside a response")
        if body := bytes(message.get("body", b"")) if self.request.method != "HEAD" else b"":
            while len(self.chunks) >= self.bridge.chunks_ahead:
                self.room.clear()
                await self.room.wait()
                if self.gone.is_set():
                    raise ClientGone("the client has left")
            self.chunks.append(body)
        if not message.get("more_body", False):
            self.complete = True
            self.gone.set()


class Body(httpx2.AsyncByteStream):
    """The response body; closing it before its end is the client going away."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.exchange.next_chunk()) is not None:
            yield chunk

    async def aclose(self) -> None:
        """Leave, if the app has not sent everything yet; raises what goes wrong in the app's cleaning up."""
        if not self.exchange.complete:
            await self.exchange.leave()
            self.exchange.raise_fault()


def _check_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    pairs = [(bytes(name), bytes(value)) for name, value in headers]
    for name, value in pairs:
        if name != name.lower() or any(mark in name + value for mark in (b"\r", b"\n", b"\0")):
            raise AppBroken(f"header {name!r}: {value!r} must be lower-case and on one line")
    return pairs


class Lifespan:
    """The ASGI lifespan of an app: `startup` and `shutdown`, each bounded by `CLOSE_TIMEOUT_S`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._in: asyncio.Queue[Message] = asyncio.Queue()
        self._out: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="app lifespan")
        await self._ask("startup")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await self._ask("shutdown")
            await asyncio.wait_for(self._task, CLOSE_TIMEOUT_S)

    async def _run(self) -> None:
        await self.app({"type": "lifespan", "asgi": ASGI, "state": {}}, self._in.get, self._out.put)

    async def _ask(self, what: str) -> None:
        await self._in.put({"type": f"lifespan.{what}"})
        answer = asyncio.create_task(self._out.get())
        assert self._task is not None
        await asyncio.wait({answer, self._task}, timeout=CLOSE_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self._task.cancel()
            await asyncio.wait({answer, self._task})
            self._task.result()
            raise AppBroken(f"the app did not answer lifespan.{what}")
        if answer.result()["type"] != f"lifespan.{what}.complete":
            self._task.cancel()
            await asyncio.wait({self._task})
            raise AppBroken(f"lifespan.{what} failed: {answer.result().get('message', '')}")


@asynccontextmanager
async def open_client(app: App, *, base_url: str = "http://convene.test") -> AsyncGenerator[httpx2.AsyncClient]:
    """Run the app's lifespan and yield an `httpx2` client bridged to it; the app's late errors are raised at the end.

    For the official client: `AsyncOpenAI(http_client=client, base_url=f"{client.base_url}v1", api_key=…)`.
    """
    async with Lifespan(app), httpx2.AsyncClient(transport=Bridge(app), base_url=base_url, trust_env=False) as client:
        yield client

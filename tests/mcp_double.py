"""An MCP server for tests, on a loopback port of its own: small, obedient, and it remembers every call.

Its tools are plain functions; `calls` has every call with its idempotency key, and `by_key` counts them, so a test can
tell a repeat from a second call even when the client was killed in between. What goes wrong is ordered beforehand:
`down`, `hold`, `forget`, `spoil`. It speaks the revision without sessions and, with `modern=False`, 2025-11-25 with
them; answers come as JSON or, with `streams=True`, as streams. The official SDK's server is in `tests/process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from loopback import Loopback

ToolFunction = Callable[..., Any]
KEY_FIELD: Final = "convene/idempotencyKey"
EMPTY: Final[dict[str, Any]] = {"type": "object"}


@dataclass(frozen=True)
class Called:
    """One call as the server saw it."""

    tool: str
    arguments: dict[str, Any]
    key: str
    headers: dict[str, str]


@dataclass(kw_only=True)
class DoubleTool:
    """One tool: a function of its arguments that returns a text, or a whole result (a dict with `content`).

    A `ValueError` is what the tool then reports as its own error.
    """

    name: str
    run: ToolFunction
    description: str = ""
    schema: dict[str, Any] = field(default_factory=lambda: dict(EMPTY))
    annotations: dict[str, Any] | None = None

    def listed(self) -> dict[str, Any]:
        """Return it as `tools/list` shows it."""
        shown: dict[str, Any] = {"name": self.name, "description": self.description, "inputSchema": self.schema}
        return shown | {"annotations": self.annotations} if self.annotations else shown


class McpDouble(Loopback):
    """The server. Use it as `async with McpDouble(tool, ...) as server`, and its `url` in `[mcp.NAME]`."""

    def __init__(
        self,
        *tools: DoubleTool,
        modern: bool = True,
        streams: bool = False,
        page: int = 100,
        key: str = "",
        port: int = 0,
    ) -> None:
        """`page` is the most tools of one page of the list; `key`, if given, must come as a bearer token."""
        super().__init__(port)
        self.tools = {tool.name: tool for tool in tools}
        self.calls: list[Called] = []
        self.cancelled: list[int | str] = []
        """Ids of requests that the client gave up, by a notification or by closing the connection."""
        self.methods: list[str] = []
        """Every method that was asked for, in order; GET and DELETE by those names."""
        self.hold: asyncio.Event | None = None
        """Set to an event, calls wait for it before they are answered; they are in `calls` by then."""
        self._news = asyncio.Event()
        self.spoil: Callable[[str, bytes], bytes | None] = lambda _method, body: body
        """Changes the body of an answer; None closes the connection instead of answering."""
        self.before: list[dict[str, Any]] = []
        """Messages that go before each answer to a call; their ids and tokens are the test's affair."""
        self.sessions: set[str] = set()
        self._modern, self._streams, self._page, self._key = modern, streams, page, key
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._count = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def by_key(self) -> Counter[str]:
        """How many calls had each idempotency key."""
        return Counter(one.key for one in self.calls)

    def forget(self) -> None:
        """Know no session any more."""
        self.sessions.clear()

    def change(self, *tools: DoubleTool) -> None:
        """Offer these tools from now on, and say so to whoever listens."""
        self.tools = {tool.name: tool for tool in tools}
        for listener in self._listeners:
            listener.put_nowait(_event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait until this is so of what the server has seen."""
        while not there():
            self._news.clear()
            await self._news.wait()

    @property
    def listeners(self) -> int:
        """How many streams are open on which changes are told."""
        return len(self._listeners)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._answer(head[0].split(" ")[0], headers, body, _Line(reader, writer))
                if headers.get("connection") == "close":
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, method: str, headers: dict[str, str], body: bytes, line: _Line) -> None:
        session = headers.get("mcp-session-id", "")
        if self._key and headers.get("authorization") != f"Bearer {self._key}":
            return await line.plain(401, b'{"error": "who are you?"}')
        if method != "POST":
            self.methods.append(method)
            self.sessions -= {session} if method == "DELETE" else set()
            return await (self._listen(line) if method == "GET" and not self._modern else line.plain(405))
        message = json.loads(body)
        asked, number = message.get("method", "answer"), message.get("id")
        self.methods.append(asked)
        if "mcp-method" in headers and not self._modern:
            return await line.plain(400, b"Bad Request: no valid session")
        if not self._modern and asked != "initialize" and session not in self.sessions:
            return await line.plain(404, _fault(number, -32001, "Session not found"))
        if number is None or "method" not in message:
            if asked == "notifications/cancelled":
                self.cancelled.append(message["params"]["requestId"])
            self._news.set()
            return await line.plain(202)
        if asked == "subscriptions/listen":
            return await self._listen(line)
        if asked == "initialize" and not self._modern:
            self._count += 1
            session = f"session-{self._count}"
            self.sessions.add(session)
        reply = await self._reply(message, headers, line)
        if reply is None:
            return None
        spoiled = self.spoil(asked, json.dumps({"jsonrpc": "2.0", "id": number} | reply).encode())
        if spoiled is None:
            raise ConnectionAbortedError
        first = self.before if asked == "tools/call" else []
        return await line.reply(spoiled, first, streams=self._streams, session=session if asked == "initialize" else "")

    async def _reply(self, message: dict[str, Any], headers: dict[str, str], line: _Line) -> dict[str, Any] | None:
        """Return the result or error of a request; None if the client gave it up."""
        params: dict[str, Any] = message.get("params", {})
        capabilities = {"tools": {"listChanged": True}}
        match message["method"]:
            case "server/discover" if self._modern:
                about = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
                return {"result": about | {"supportedVersions": ["2026-07-28"], "capabilities": capabilities}}
            case "initialize" if not self._modern:
                server = {"serverInfo": {"name": "double", "version": "1"}, "capabilities": capabilities}
                return {"result": {"protocolVersion": "2025-11-25"} | server}
            case "tools/list":
                start = int(params.get("cursor", "0"))
                listed = [tool.listed() for tool in self.tools.values()]
                more: dict[str, Any] = (
                    {"nextCursor": str(start + self._page)} if start + self._page < len(listed) else {}
                )
                if self._modern:
                    more |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
                return {"result": {"tools": listed[start : start + self._page]} | more}
            case "tools/call":
                return await self._call(message["id"], params, headers, line)
        return {"error": {"code": -32601, "message": "Method not found"}}

    async def _call(
        self, number: int, params: dict[str, Any], headers: dict[str, str], line: _Line
    ) -> dict[str, Any] | None:
        key = params.get("_meta", {}).get(KEY_FIELD, "")
        self.calls.append(Called(params["name"], params.get("arguments", {}), key, headers))
        self._news.set()
        if self.hold is not None and not await line.unless_left(self.hold.wait()):
            if self._modern:
                self.cancelled.append(number)
                self._news.set()
            return None
        tool = self.tools.get(params["name"])
        if tool is None:
            return {"error": {"code": -32602, "message": f"Unknown tool: {params['name']}"}}
        try:
            given = tool.run(**params.get("arguments", {}))
            given = await given if inspect.isawaitable(given) else given
        except ValueError as error:
            return {"result": {"content": [{"type": "text", "text": str(error)}], "isError": True}}
        if isinstance(given, dict) and "content" in given:
            return {"result": given}
        return {"result": {"content": [{"type": "text", "text": str(given)}], "resultType": "complete"}}

    async def _listen(self, line: _Line) -> None:
        events: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners.add(events)
        try:
            await line.open()
            self._news.set()
            while True:
                await line.event(await events.get())
        finally:
            self._listeners.discard(events)


class _Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def plain(self, status: int, body: bytes = b"", extra: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def reply(self, body: bytes, first: list[dict[str, Any]], *, streams: bool, session: str) -> None:
        extra = f"mcp-session-id: {session}\r\n" if session else ""
        if not streams:
            return await self.plain(200, body, extra)
        await self.open(extra)
        for message in first:
            await self.event(_event(message))
        await self.event(b"event: message\ndata: " + body + b"\n\n")
        self._writer.write(b"0\r\n\r\n")
        return await self._writer.drain()

    async def open(self, extra: str = "") -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{extra}transfer-encoding: chunked\r\n\r\n"
        self._writer.write(head.encode())
        await self._writer.drain()

    async def event(self, event: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await self._writer.drain()

    async def unless_left(self, work: Awaitable[object]) -> bool:
        """Wait for `work`; False if the client closed the connection before."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._reader.read(1))
        try:
            done, _ = await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            return leaving not in done
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.wait([working, leaving])


def _event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


def _fault(number: object, code: int, message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}).encode()

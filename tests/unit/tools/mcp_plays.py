"""What a simulated MCP server answers, for tests in virtual time: one function of each request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from convene.tools.base import ToolContext
from convene.tools.mcp import McpServer, McpSettings
from convene.tools.mcp_exchange import Endpoint
from convene.tools.mcp_offer import Terms
from simulation import Answer, FakeClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.http.base import Request
    from convene.tools.base import Tool
    from simulation import World

URL: Final = "http://mcp.test/mcp"
JSON: Final = (("content-type", "application/json"),)
SSE: Final = (("content-type", "text/event-stream"),)
ECHO: Final[dict[str, Any]] = {"name": "echo", "inputSchema": {"type": "object"}}


def asked(request: Request) -> dict[str, Any]:
    """Return a request's message; GET and DELETE as methods of these names, our own answers as `answer`."""
    message: dict[str, Any] = json.loads(request.body) if request.body else {"method": request.method}
    return {"method": "answer"} | message


def head(request: Request, name: str) -> str:
    """Return one header of a request, empty if it has none of this name."""
    return next((value for key, value in request.headers if key.lower() == name), "")


def whole(message: dict[str, Any], *headers: tuple[str, str], status: int = 200) -> Answer:
    """Return a message as a JSON body."""
    return Answer(status=status, headers=JSON + headers, body=json.dumps({"jsonrpc": "2.0"} | message).encode())


def events(*messages: dict[str, Any] | str) -> bytes:
    """Return messages as the events of a stream; texts go as they are."""
    lines = [one if isinstance(one, str) else f"data: {json.dumps(one)}\n\n" for one in messages]
    return "".join(lines).encode()


class Server:
    """A server of 2025-11-25 with sessions, or of 2026-07-28.

    `also` is asked first: it returns an answer, the result or error of one, or None for what the server would say.
    """

    def __init__(self, also: Callable[[Request], Any] = lambda _: None, *, modern: bool = False) -> None:
        self.also = also
        self.modern = modern
        self.tools: list[dict[str, Any]] = [ECHO]

    def __call__(self, request: Request) -> Answer:
        message = asked(request)
        told = self.also(request)
        if isinstance(told, Answer):
            return told
        told = self._answer(message["method"], request) if told is None else told
        if isinstance(told, Answer):
            return told
        session = (("mcp-session-id", "s-1"),) if message["method"] == "initialize" else ()
        return whole({"id": message["id"]} | told, *session)

    def _answer(self, method: str, request: Request) -> Any:  # noqa: ANN401 -- an answer, or the part that differs
        if not self.modern and head(request, "mcp-method"):
            return Answer(status=400, body=b"no session")
        match method:
            case "server/discover":
                return {"result": {"supportedVersions": ["2026-07-28"], "capabilities": {}}}
            case "initialize" if not self.modern:
                return {"result": {"protocolVersion": "2025-11-25", "capabilities": {}}}
            case "tools/list":
                return {"result": {"tools": self.tools}}
            case "tools/call":
                return {"result": {"content": [{"type": "text", "text": "echoed"}]}}
            case "GET" | "DELETE":
                return Answer(status=405)
            case _ if "id" not in asked(request):
                return Answer(status=202)
        return {"error": {"code": -32601, "message": "Method not found"}}


def open_server(world: World, play: Callable[[Request], Answer], **terms: Any) -> tuple[McpServer, FakeClient]:  # noqa: ANN401 -- fields of Terms
    """Return a server that is not started, and its client."""
    client = FakeClient(world, {URL: play})
    endpoint = Endpoint(url=URL, headers=(("authorization", "Bearer s3cret"),), bytes_max=terms.pop("bytes_max", 5000))
    settings = McpSettings(endpoint=endpoint, terms=Terms(**{"server": "sim"} | terms))
    return McpServer(client, settings, world.clock), client


def methods(client: FakeClient) -> list[str]:
    """Return what was asked, in order."""
    return [asked(request)["method"] for request in client.sent]


async def call(tool: Tool, said: list[str] | None = None, **arguments: object) -> str:
    """Call a tool and return its text."""
    progress = (lambda _: None) if said is None else said.append
    context = ToolContext(owner="o", run_id="r", call_id="c", idempotency_key="r:s1:0", progress=progress)
    return (await tool.run(arguments, context)).text

"""A server of the official MCP SDK, as a program: `mcp_sdk_server.py PORT [json] [stateless] [older] [key=K]`.

It prints its port, then a line for whatever a test wants to see. `older` refuses what only revision 2026-07-28 sends,
as a server of the SDK's first generation does, so that sessions are used.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

server = MCPServer("sdk")


class Answer(BaseModel):
    """What `ask` would like to know."""

    word: str


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("out of stock")


@server.tool()
async def slow(ctx: Context[Any, Any], steps: int) -> str:
    """Take a tenth of a second for each step."""
    tell("slow began")
    try:
        for step in range(steps):
            await ctx.report_progress(step, steps, f"step {step}")
            await anyio.sleep(0.1)
    except anyio.get_cancelled_exc_class():
        tell("slow cancelled")
        raise
    return "done"


@server.tool()
def seen(ctx: Context[Any, Any]) -> str:
    """Return the idempotency key and a header as the server saw them."""
    meta: Any = ctx.request_context.meta or {}
    return f"{meta.get('convene/idempotencyKey')} {(ctx.headers or {}).get('x-team')}"


@server.tool()
def picture() -> list[TextContent | ImageContent]:
    """Return a text and a picture."""
    return [
        TextContent(type="text", text="see"),
        ImageContent(type="image", data="QUJD", mime_type="image/png"),
    ]


@server.tool()
async def ask(ctx: Context[Any, Any]) -> str:
    """Ask the person at the other end."""
    return str(await ctx.elicit("which word?", Answer))


@server.tool()
async def grow(ctx: Context[Any, Any]) -> str:
    """Offer one more tool from now on."""
    server.add_tool(fail, name="grown")
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "grown"


def tell(line: str) -> None:
    """Say something to the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def guarded(app: ASGIApp, key: str, *, older: bool) -> ASGIApp:
    """Return the application behind a key, and without the newest revision if it is `older`."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        status = 0
        if key and headers.get(b"authorization") != f"Bearer {key}".encode():
            status = 401
        elif older and b"mcp-method" in headers:
            status = 400
        if scope["type"] != "http" or not status:
            return await app(scope, receive, send)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        return await send({"type": "http.response.body", "body": b"refused"})

    return front


async def main(port: int, words: list[str]) -> None:
    """Serve until killed."""
    app = server.streamable_http_app(json_response="json" in words, stateless_http="stateless" in words)
    key = next((word.removeprefix("key=") for word in words if word.startswith("key=")), "")
    listening = socket.create_server(("127.0.0.1", port), reuse_port=False)
    config = uvicorn.Config(guarded(app, key, older="older" in words), log_level="warning")
    tell(str(listening.getsockname()[1]))
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))

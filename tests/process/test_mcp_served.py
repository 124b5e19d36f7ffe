"""The official MCP client against a real server over sockets: both eras, silence on the way, a client that is gone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from process.served import WAIT_S, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SETTINGS = """
[edge]
ping_s = 0.2
first_event_s = 0.2
"""
SCRIPT = {
    "models": [
        {"name": "slow", "turns": [{"steps": [{"pause_s": 1.5}, {"text": "At last."}]}]},
        {"name": "never", "turns": [{"steps": [{"pause_s": 600}, {"text": "Never."}]}]},
    ]
}
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


class Server(ScriptedServer):
    """A real server, and the official client."""

    @contextlib.asynccontextmanager
    async def client(self, mode: Any) -> AsyncIterator[Client]:  # noqa: ANN401 -- the library's own literal
        async with httpx2.AsyncClient(headers=self.auth, timeout=20) as http:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=http)
            async with Client(transport, mode=mode, read_timeout_seconds=20) as one:
                yield one

    async def runs(self) -> list[str]:
        async with httpx2.AsyncClient(headers=self.auth) as http:
            return [run["status"] for run in (await http.get(f"{self.url}/v1/runs")).json()["data"]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path, SCRIPT, SETTINGS) as one:
        yield one


@pytest.mark.req("MCP-02", "MCP-05")
@MODES
async def test_the_official_client_asks_several_things_at_once_and_waits_through_silence(
    server: Server, mode: str
) -> None:
    async with server.client(mode) as client:
        slow = client.call_tool("ask", {"prompt": "x", "model": "slow"})
        quick = (client.call_tool("ask", {"prompt": f"echo {n}", "model": "scripted-echo"}) for n in range(10))
        first, *others = await asyncio.gather(slow, *quick)
    assert first.structured_content is not None
    assert first.structured_content["answer"] == "At last."
    assert [one.content[0].text for one in others] == [f"echo {n}" for n in range(10)]  # type: ignore[union-attr]  # texts


@MODES
async def test_a_call_that_its_client_gives_up_ends_here_too(server: Server, mode: str) -> None:
    async with server.client(mode) as client:
        asking = asyncio.create_task(client.call_tool("ask", {"prompt": "x", "model": "never"}))
        async with asyncio.timeout(WAIT_S):
            while not await server.runs():  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.wait([asking])
            while await server.runs() != ["cancelled"]:  # noqa: ASYNC110 -- another process does it
                await asyncio.sleep(0.05)
        result = await client.call_tool("ask", {"prompt": "still well", "model": "scripted-echo"})
        assert result.content[0].text == "still well"  # type: ignore[union-attr]  # it is a text

"""The official MCP client against a real server over sockets: both eras, silence on the way, a client that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WAIT_S = 60.0
"""No test takes it; it turns one that hangs into one that fails."""
CONFIG = """
port = {port}
[engine]
enabled = false
[scripted]
enabled = true
file = "{script}"
[search]
enabled = false
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


class Server:
    """A real server."""

    def __init__(self, port: int, key: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {key}"}

    @contextlib.asynccontextmanager
    async def client(self, mode: Any) -> AsyncIterator[Client]:  # noqa: ANN401 -- the library's own literal
        async with httpx2.AsyncClient(headers=self.headers, timeout=20) as http:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=http)
            async with Client(transport, mode=mode, read_timeout_seconds=20) as one:
                yield one

    async def runs(self) -> list[str]:
        async with httpx2.AsyncClient(headers=self.headers) as http:
            return [run["status"] for run in (await http.get(f"{self.url}/v1/runs")).json()["data"]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    port = free_port()
    script, config = tmp_path / "script.json", tmp_path / "convene.toml"
    script.write_text(json.dumps(SCRIPT))
    config.write_text(CONFIG.format(port=port, script=script))
    known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
    environ = known | {"CONVENE_CONFIG": str(config), "CONVENE_DATA_DIR": str(tmp_path / "data")}
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "convene", "serve"), stdout=log, stderr=log, env=environ, cwd=tmp_path
        )
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                assert process.returncode is None, (tmp_path / "log").read_text()
                with contextlib.suppress(httpx2.HTTPError):
                    if httpx2.get(f"http://127.0.0.1:{port}/livez").status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield Server(port, (tmp_path / "log").read_text().partition("Authorization: Bearer ")[2].split("'")[0])
    finally:
        process.kill()
        await process.wait()


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

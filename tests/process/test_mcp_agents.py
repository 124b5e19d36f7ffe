"""Servers of the official MCP SDK, asked as agents inside chats by a real server: by name, found, and asked back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from process.test_mcp_sdk import Running
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WAIT_S = 60.0
CONFIG = """
port = {port}
[engine]
enabled = false
[scripted]
enabled = true
file = "{script}"
[search]
enabled = false
[agent.tools]
url = "http://127.0.0.1:{tools}/mcp"
api_key = "the key"
[agent.older]
url = "http://127.0.0.1:{older}/mcp"
protocol = "mcp"
"""
ADD = '{"tool": "add", "arguments": {"a": 2, "b": 3}}'
SCRIPT = {
    "models": [
        {
            "name": "played-agentic",
            "turns": [
                {"steps": [{"call": {"name": "search_agents", "args": {"query": "add numbers"}}}]},
                {"steps": [{"call": {"name": "ask_agent", "args": {"agent": "@tools", "message": ADD}}}]},
                {"steps": [{"text": "It is 5."}]},
            ],
        }
    ]
}


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Any]:
    """Yield a function that posts a chat to a server with two MCP servers as agents."""
    tools, older = await Running.begin("key=the key"), await Running.begin("older")
    port, script = free_port(), folder / "script.json"
    script.write_text(json.dumps(SCRIPT))
    config = folder / "convene.toml"
    config.write_text(CONFIG.format(port=port, script=script, tools=tools.port, older=older.port))
    known = {name: value for name, value in os.environ.items() if not name.startswith("CONVENE_")}
    environ = known | {"CONVENE_CONFIG": str(config), "CONVENE_DATA_DIR": str(folder / "data")}
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "convene", "serve"), stdout=log, stderr=log, env=environ, cwd=folder
        )
    async with asyncio.timeout(WAIT_S):
        while not _is_up(port):  # noqa: ASYNC110 -- another process does it
            await asyncio.sleep(0.05)
    key = (folder / "log").read_text().partition("Authorization: Bearer ")[2].split("'")[0]

    async def post(text: str) -> Any:  # noqa: ANN401 -- a reply as JSON
        body = {"model": "played-agentic", "messages": [{"role": "user", "content": text}]}
        async with httpx2.AsyncClient(timeout=WAIT_S) as client:
            url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"Authorization": f"Bearer {key}"}
            answer = await client.post(url, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    try:
        yield post
    finally:
        process.kill()
        await process.wait()
        for one in (tools, older):
            await one.kill()


def _is_up(port: int) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    return False


@pytest.mark.req("AGENT-01", "MCP-01", "MCP-02", "MCP-03", "MCP-04")
async def test_real_servers_are_agents_of_a_chat(tmp_path: Path) -> None:
    async with serving(tmp_path) as post:
        for name in ("tools", "older"):
            reply = await post(f'@{name} {{"tool": "add", "arguments": {{"a": 1, "b": 2}}}}')
            assert reply["choices"][0]["message"]["content"] == "3"
            reply = await post(f"@{name} what can you do?")
            told = reply["choices"][0]["message"]["content"]
            assert "add(a: integer, b: integer) - Add two numbers" in told
            assert "slow(steps: integer)" in told
            reply = await post(f'@{name} {{"tool": "fail"}}')
            assert "Error executing tool fail" in reply["choices"][0]["message"]["content"]
        reply = await post("What is two and three?")
    assert reply["choices"][0]["message"]["content"] == "It is 5."
    found, asked = reply["executable_data"]
    assert {one["name"] for one in found["result"]["agents"]} == {"sdk"}
    assert asked["agent"]["protocol"] == "mcp"
    assert asked["result"]["answer"] == "5"
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "the key" not in log

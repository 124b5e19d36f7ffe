"""Servers of the official MCP SDK, asked as agents inside chats by a real server: by name, found, and asked back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from process.served import ScriptedServer
from process.test_mcp_sdk import Running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SETTINGS = """
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


class Server(ScriptedServer):
    """A real server that knows two MCP servers as agents."""

    def is_ready(self) -> bool:
        return self.answers("/readyz")

    async def ask(self, text: str) -> Any:  # noqa: ANN401 -- a reply as JSON
        return await self.post({"model": "played-agentic", "messages": [{"role": "user", "content": text}]})


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    tools, older = await Running.begin("key=the key"), await Running.begin("older")
    try:
        async with Server(folder, SCRIPT, SETTINGS.format(tools=tools.port, older=older.port)) as server:
            yield server
    finally:
        for one in (tools, older):
            await one.kill()


@pytest.mark.req("AGENT-01", "MCP-01", "MCP-02", "MCP-03", "MCP-04")
async def test_real_servers_are_agents_of_a_chat(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for name in ("tools", "older"):
            reply = await server.ask(f'@{name} {{"tool": "add", "arguments": {{"a": 1, "b": 2}}}}')
            assert reply["choices"][0]["message"]["content"] == "3"
            reply = await server.ask(f"@{name} what can you do?")
            told = reply["choices"][0]["message"]["content"]
            assert "add(a: integer, b: integer) - Add two numbers" in told
            assert "slow(steps: integer)" in told
            reply = await server.ask(f'@{name} {{"tool": "fail"}}')
            assert "Error executing tool fail" in reply["choices"][0]["message"]["content"]
        reply = await server.ask("What is two and three?")
    assert reply["choices"][0]["message"]["content"] == "It is 5."
    found, asked = reply["executable_data"]
    assert {one["name"] for one in found["result"]["agents"]} == {"sdk"}
    assert asked["agent"]["protocol"] == "mcp"
    assert asked["result"]["answer"] == "5"
    log = server.log
    assert "Traceback" not in log
    assert "the key" not in log

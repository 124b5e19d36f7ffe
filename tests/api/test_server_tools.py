"""`GET /v1/tools`: what the server itself may call, with a real MCP server behind it that comes and goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from convene.config import Agents, KnownAgent, Mcp, PageSettings, Scripted, Search
from mcp_double import DoubleTool, McpDouble

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Serve, Served

ALONE: Any = {
    "search": Search(enabled=False),
    "pages": PageSettings(enabled=False),
    "agents": Agents(enabled=False),
}
FIND = DoubleTool(
    name="find.page",
    run=lambda text: text,
    description="Finds",
    schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    annotations={"readOnlyHint": True, "openWorldHint": False},
)
BROKEN = DoubleTool(name="broken", run=lambda: "", schema={"type": "object", "properties": {"a": {"type": "no"}}})


async def listed(served: Served) -> dict[str, Any]:
    answer = await served.http.get("/v1/tools", headers=served.auth)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    body["notices"] = [notice for notice in body["notices"] if notice["code"] != "search_unavailable"]
    return body


async def until(served: Served, *, available: bool) -> dict[str, Any]:
    """Return the list once its only tool is there, or is not."""
    async with asyncio.timeout(60):
        while True:
            turned = asyncio.ensure_future(served.app.tools.servers[0].turned())
            body = await listed(served)
            if [tool["available"] for tool in body["data"]] == [available]:
                turned.cancel()
                return body
            await asyncio.wait([turned], timeout=0.5)  # what turns before the wait begins is seen by the next look
            turned.cancel()


async def test_without_any_tool_the_list_is_empty(serve: Serve) -> None:
    async with serve(**ALONE) as served:
        assert await listed(served) == {"data": [], "notices": [], "object": "list"}


async def test_agents_are_asked_where_there_are_any_and_looked_for_where_a_model_does_so(
    serve: Serve, tmp_path: Path
) -> None:
    rome: Any = {"agent": {"rome": KnownAgent(url="http://127.0.0.1:9/")}}
    played = tmp_path / "played.json"
    played.write_text('{"models": [{"name": "played-agentic", "turns": [{"steps": [{"text": "Hm."}]}]}]}')
    agentic: Any = {"scripted": Scripted(enabled=True, file=str(played))}
    neither, both = {"ask_agent": False, "search_agents": False}, {"ask_agent": True, "search_agents": True}
    for number, (fields, wanted) in enumerate(
        (
            ({"agents": Agents(enabled=False)} | rome | agentic, {}),
            (agentic, neither),
            (rome, {"ask_agent": True, "search_agents": False}),
            (rome | agentic, both),
        )
    ):
        alone = ALONE | {"agents": Agents(), "data_dir": tmp_path / str(number)}
        async with serve(**(alone | fields)) as served:
            assert {tool["name"]: tool["available"] for tool in (await listed(served))["data"]} == wanted


async def test_the_tools_of_an_mcp_server_are_listed_with_all_that_is_known_of_them(serve: Serve) -> None:
    async with (
        McpDouble(FIND, BROKEN) as server,
        serve(mcp={"docs": Mcp(url=server.url)}, **ALONE) as served,
    ):
        body = await until(served, available=True)
        assert body["notices"] == []
        assert body["data"] == [
            {
                "name": "docs__find_page",
                "description": "Finds",
                "parameters": FIND.schema,
                "kind": "tool",
                "labels": ["untrusted"],
                "source": "docs",
                "available": True,
                "object": "tool",
            }
        ]


async def test_the_tools_of_a_server_that_is_down_are_listed_as_such_without_its_address(serve: Serve) -> None:
    async with (
        McpDouble(FIND) as server,
        serve(mcp={"docs": Mcp(url=server.url)}, **ALONE) as served,
    ):
        await until(served, available=True)
        await server.until(lambda: server.listeners > 0)
        await server.down()
        body = await until(served, available=False)
        assert body["data"][0]["name"] == "docs__find_page"
        assert body["notices"] == [{"code": "tools_unavailable", "message": "The tools of docs cannot be used now."}]
        assert str(server.port) not in str(body)
        await server.up()
        await until(served, available=True)


async def test_a_server_that_is_switched_off_is_not_asked(serve: Serve) -> None:
    async with (
        McpDouble(FIND) as server,
        serve(mcp={"docs": Mcp(url=server.url, enabled=False)}, **ALONE) as served,
    ):
        assert (await listed(served))["data"] == []
    assert server.methods == []


async def test_search_is_listed_beside_them(served: Served) -> None:
    body = await listed(served)
    assert {tool["source"] for tool in body["data"]} == {"convene"}
    assert "web_search" in [tool["name"] for tool in body["data"]]


async def test_the_list_needs_a_key(served: Served) -> None:
    assert (await served.http.get("/v1/tools")).status_code == 401


async def test_the_server_says_good_bye_to_its_sessions_when_it_ends(serve: Serve) -> None:
    async with McpDouble(FIND, modern=False) as server:
        async with serve(mcp={"docs": Mcp(url=server.url)}, **ALONE) as served:
            await until(served, available=True)
            assert len(server.sessions) == 1
        assert not server.sessions

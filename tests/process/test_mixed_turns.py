"""One turn that mixes a client's function, web search and a tool of an MCP server: embedded model and scripted one.

The embedded model is too small for its words to mean anything, but constrained decoding binds which calls it makes and
that their arguments are valid: that is what is asserted, never its prose.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from openai import AsyncOpenAI

from mcp_double import DoubleTool, McpDouble
from process.program import program
from searx_double import serving_searx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from openai.types.chat import ChatCompletion

    from process.program import Program
    from searx_double import Searx

CONFIG: Final = """
[engine]
enabled = {embedded}
[scripted]
enabled = true
file = "{script}"
[models.asi1]
upstream = "{upstream}"
search = "tool"
[search]
engines = ["searxng"]
[search.searxng]
base_url = "{searx}"
[egress]
allow = ["127.0.0.0/8"]
[mcp.harbour]
url = "{mcp}"
"""
TIDES: Final = DoubleTool(
    name="tides",
    run=lambda place: f"High water at {place} is at 14:20.",
    description="Tells the tides: when it is high water at a place on the coast",
    schema={
        "type": "object",
        "properties": {"place": {"type": "string", "enum": ["vellmar", "odd"]}},
        "required": ["place"],
        "additionalProperties": False,
    },
    annotations={"readOnlyHint": True, "openWorldHint": False},
)
PAINT: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "paint_wall",
        "description": "Paints a wall of the kitchen",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}, "count": {"type": "integer"}},
            "required": ["colour", "count"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
QUESTION: Final = (
    "Search the web for pages about the lighthouse, and tell me the tides: when is it high water at vellmar?"
)
"""The embedded model calls what is most like this first, and the client's function, which is least like it, last."""
SCRIPT: Final[dict[str, Any]] = {
    "models": [
        {
            "name": "asi1",
            "turns": [
                {
                    "steps": [
                        {"call": {"name": "web_search", "args": {"query": "lighthouse Vellmar"}}},
                        {"call": {"name": "harbour__tides", "args": {"place": "vellmar"}}},
                    ]
                },
                {"steps": [{"call": {"name": "paint_wall", "args": {"colour": "red", "count": 2}}}]},
                {"steps": [{"text": "High water is at 14:20; two walls are red [1]."}]},
            ],
        }
    ]
}


class Scene:
    """A server with a search engine and an MCP server behind it."""

    def __init__(self, server: Program, mcp: McpDouble, searx: Searx) -> None:
        self.mcp = mcp
        self.searx = searx
        self.client = AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=server.key, max_retries=0)

    async def ask(self, messages: list[Any], **more: Any) -> ChatCompletion:  # noqa: ANN401 -- fields of the body
        body: Any = {"model": "asi1", "messages": messages, "tools": [PAINT], "extra_body": {"web_search": True}}
        found: ChatCompletion = await self.client.chat.completions.create(**body, **more)
        return found


@pytest.fixture(scope="module")
def searx() -> Iterator[Searx]:
    with serving_searx() as serving:
        yield serving


@pytest.fixture(params=["scripted", "engine"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path, searx: Searx) -> AsyncIterator[Scene]:
    """The same server over the scripted model and over the embedded one."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps(SCRIPT))
    embedded = request.param == "engine"
    async with McpDouble(TIDES) as mcp:
        config = CONFIG.format(
            embedded=str(embedded).lower(), script=script, upstream=request.param, searx=searx.base_url, mcp=mcp.url
        )
        with program(tmp_path, config) as server:
            await asyncio.to_thread(server.wait_ready)
            if embedded:
                await asyncio.to_thread(server.wait_for, "all-minilm-l6-v2: ready")
            scene = Scene(server, mcp, searx)
            await mcp.until(lambda: "tools/list" in mcp.methods)
            yield scene
            await scene.client.close()


def ran(reply: ChatCompletion) -> list[tuple[str, str]]:
    """Return the server's own calls, with how each ended."""
    items: Any = reply.model_extra["executable_data"] if reply.model_extra else []
    return [(item["tool_name"], item["status"]) for item in items]


@pytest.mark.req("TOOLS-04", "TOOLS-10")
async def test_server_tools_run_here_and_the_clients_function_ends_the_turn(scene: Scene) -> None:
    user = {"role": "user", "content": QUESTION}
    first = await scene.ask([user], tool_choice="required")
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "paint_wall"
    painted = json.loads(call.function.arguments)
    assert painted["colour"] in {"red", "blue"}
    assert isinstance(painted["count"], int)
    assert {("harbour__tides", "done"), ("web_search", "done")} <= set(ran(first))
    assert [(one.tool, set(one.arguments)) for one in scene.mcp.calls] == [("tides", {"place"})]
    assert scene.mcp.calls[0].arguments["place"] in {"vellmar", "odd"}
    assert scene.mcp.calls[0].key
    assert scene.searx.asked[-1]["q"]

    result = {"role": "tool", "tool_call_id": call.id, "content": '{"painted": true}'}
    second = await scene.ask([user, choice.message.model_dump(), result])
    assert second.choices[0].finish_reason in {"stop", "length"}
    assert second.choices[0].message.content
    assert len(scene.mcp.calls) == 1, "what the server did before is not done again"

"""One turn of the embedded model with everything in it: a web search, an MCP tool, and a function of the client's.

Real weights, a SearXNG and an MCP server on loopback. Calls and arguments are asserted, never the tiny model's prose.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from bridge import open_client
from convene.app import App
from convene.clock import SystemClock
from convene.config import Config, EgressSettings, Mcp, Search, Searxng, Tools
from convene.engine.process import Engine
from mcp_double import DoubleTool, McpDouble
from searx_double import serving_searx

if TYPE_CHECKING:
    import httpx2

PATIENCE_S = 300.0
"""Long enough for a first fetch of the weights over a slow line."""
SENTENCE: dict[str, Any] = {
    "type": "object",
    "properties": {"sentence": {"type": "string"}, "language": {"type": "string"}},
    "required": ["sentence", "language"],
    "additionalProperties": False,
}
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Current weather in a city", "parameters": CITY},
}
QUESTION = "Translate the sentence 'good morning' into Spanish language. Then the weather in Rome."


@pytest.mark.req("CHAT-18", "CHAT-38")
async def test_a_turn_mixes_a_web_search_an_mcp_tool_and_a_function_of_the_clients(tmp_path: Path) -> None:
    translate = DoubleTool(
        name="translate_sentence",
        description="Translates a sentence into another language",
        run=lambda sentence, language: f"{sentence} in {language}",
        schema=SENTENCE,
    )
    with serving_searx() as searx:
        async with McpDouble(translate) as notes:
            config = Config(
                data_dir=tmp_path,
                cache_dir=Path.home() / ".cache" / "convene",
                auth="none",
                search=Search(engines=("searxng",), searxng=Searxng(base_url=searx.base_url)),
                egress=EgressSettings(allow=("127.0.0.0/8",)),
                mcp={"notes": Mcp(url=notes.url)},
                tools=Tools(allow_after_untrusted=("notes__*",)),
            )
            app = App(config, SystemClock(), lambda _: None)
            async with open_client(app.front, base_url="http://localhost") as http:
                for engine in app.deployments.engines:
                    assert isinstance(engine, Engine)
                    await engine.wait_ready(PATIENCE_S)
                await notes.until(lambda: "tools/list" in notes.methods)
                await check(http, searx.asked, notes)


async def check(http: httpx2.AsyncClient, asked: list[Any], notes: McpDouble) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    body = {"model": "asi1", "max_tokens": 40, "web_search": True, "tools": [WEATHER]}
    answer = await http.post(
        "/v1/chat/completions", json=body | {"messages": messages, "tool_choice": "required"}, timeout=PATIENCE_S
    )
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    (choice,) = reply["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (made,) = choice["message"]["tool_calls"]
    assert made["function"]["name"] == "get_weather"
    assert jsonschema_rs.validator_for(CITY).is_valid(json.loads(made["function"]["arguments"]))
    assert asked, "the server has searched before the answer"
    ran = {item["tool_name"]: item for item in reply["executable_data"]}
    assert set(ran) == {"web_search", "notes__translate_sentence"}
    assert {item["status"] for item in ran.values()} == {"done"}
    assert jsonschema_rs.validator_for(SENTENCE).is_valid(ran["notes__translate_sentence"]["args"])
    assert [(one.tool, one.arguments) for one in notes.calls] == [
        ("translate_sentence", ran["notes__translate_sentence"]["args"])
    ]
    assert [(step["kind"], step["status"]) for step in reply["intermediate_steps"]] == [
        ("search", "done"),
        ("model", "done"),
        ("tool", "done"),
        ("model", "done"),
    ]

    messages += [choice["message"], {"role": "tool", "tool_call_id": made["id"], "content": "21 degrees"}]
    del body["tools"]
    answer = await http.post("/v1/chat/completions", json=body | {"messages": messages}, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    again = answer.json()
    assert again["choices"][0]["finish_reason"] in {"stop", "length"}
    assert again["choices"][0]["message"]["content"]
    assert len(notes.calls) == 1, "what has run is not run again"

"""Agents that lend tools by the real MCP adapter of `uagents`: found with their tools, called exactly, and once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from process.test_real_market import CONFIG, Town, environment, wait

if TYPE_CHECKING:
    from collections.abc import Iterator

LLM = Path(__file__).with_name("llm_agent.py")
AGENT = Path(__file__).with_name("adapter_agent.py")
ADD = '{"tool": "add", "arguments": {"a": 2, "b": 3}}'
CALL = {"call": {"name": "search_agents", "args": {"query": "add numbers"}}}
ASK = {"call": {"name": "ask_agent", "args": {"agent": "@adder", "message": ADD}}}
SCRIPT = {
    "models": [
        {"name": "played-agentic", "turns": [{"steps": [CALL]}, {"steps": [ASK]}, {"steps": [{"text": "It is 5."}]}]},
        *(
            {
                "name": model,
                "turns": [
                    {"steps": [{"call": {"name": tool, "args": {"a": 20, "b": 22}}}]},
                    {"steps": [{"text": "The sum is 42."}]},
                ],
            }
            for model, tool in (("asi1", "add"), ("asi1-mini", "Add"))
        ),
    ]
}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    python, folder = environment("uagents-adapter"), tmp_path_factory.mktemp("adapters")
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT))
    config = CONFIG.replace("[scripted]\n", f'[scripted]\nfile = "{script}"\n')
    town = Town(folder, config)
    town.start()
    try:
        for name, kind in (("adder", "tools"), ("chatter", "both"), ("postbox", "mailbox")):
            town.join(name, kind, python, program=AGENT, environ={"ASI_KEY": town.key})
        assert town.connect("adder", "custom", endpoint=f"http://127.0.0.1:{town.ports['adder']}/submit")["success"]
        yield town
    finally:
        town.close()


@pytest.mark.req("ACP-14", "REG-09")
@pytest.mark.parametrize("name", ["adder", "chatter", "postbox"])
async def test_a_tool_is_called_by_its_name_with_exact_arguments(town: Town, name: str) -> None:
    address = town.addresses[name]
    assert await town.ask(address, ADD) == "5"
    assert await town.ask(address, '{"tool": "count"}') == "2"  # one call for one question
    told = await town.ask(address, '{"tool": "add", "arguments": {"a": 1}}')
    assert "Failed to call tool add" in told
    told = await town.ask(address, '{"tool": "subtract"}')
    assert "There is no tool 'subtract'" in told
    assert "- add(a: integer, b: integer) - Add two numbers" in told
    assert "Traceback" not in town.log


@pytest.mark.req("ACP-14")
async def test_an_agent_that_does_not_chat_answers_anything_else_with_its_tools(town: Town) -> None:
    told = await town.ask(town.addresses["adder"], "what can you do?")
    assert "- add(a: integer, b: integer) - Add two numbers" in told


@pytest.mark.req("ACP-14")
async def test_a_model_finds_the_tools_and_calls_one(town: Town) -> None:
    def found() -> list[Any]:
        listed = town.get("/v1/agents?query=add+numbers", f"Bearer {town.key}")
        return [one for one in listed["data"] if one["handle"] == "adder"]

    await asyncio.to_thread(wait, found, "the index follows the store")
    reply = await chat(town, "played-agentic", "What is two and three?")
    assert reply["choices"][0]["message"]["content"] == "It is 5."
    searched, asked = reply["executable_data"]
    [adder] = [one for one in searched["result"]["agents"] if one["handle"] == "adder"]
    assert adder["manifest"]["skills"][0] == "add(a: integer, b: integer) - Add two numbers"
    assert (asked["agent"]["protocol"], asked["result"]["answer"]) == ("acp", "5")


@pytest.mark.req("HOSTED-06", "CLIENT-05")
async def test_an_agent_that_chats_too_is_chatted_with_and_has_this_server_as_its_model(town: Town) -> None:
    assert await town.ask(town.addresses["chatter"], "What is twenty and twenty-two?") == "The sum is 42."
    assert "add {'a': 20, 'b': 22}" in town.agent_log("chatter")


@pytest.mark.req("HOSTED-06", "CLIENT-04")
async def test_a_chat_agent_of_the_library_has_this_server_as_its_model(town: Town) -> None:
    environ = {"ASI1_BASE_URL": f"{town.url}/v1", "ASI1_API_KEY": town.key}
    town.join("thinker", "llm", environment("uagents-adapter"), program=LLM, environ=environ)
    assert await town.ask(town.addresses["thinker"], "What is twenty and twenty-two?") == "The sum is 42."
    assert "adds 20 and 22" in town.agent_log("thinker")


async def chat(town: Town, model: str, text: str) -> Any:  # noqa: ANN401 -- JSON
    async with httpx2.AsyncClient(timeout=90) as client:
        answer = await client.post(
            f"{town.url}/v1/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": text}]},
            headers={"Authorization": f"Bearer {town.key}"},
        )
    assert answer.status_code == 200, answer.text
    return answer.json()

"""Tools of the client's through the chat endpoint: what may be asked, and what a turn that calls looks like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from api.conftest import Served

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "getTime"}}
MODEL = "scripted-tools"


async def calls(served: Served, **fields: object) -> list[dict[str, Any]]:
    """Return the calls of a reply."""
    answer = await served.chat(**{"model": MODEL, **fields})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["choices"][0]["message"].get("tool_calls", [])
    return found


@pytest.mark.req("TOOLS-01", "TOOLS-02", "TOOLS-04", "CHAT-12", "OAI-41", "COMPAT-02")
async def test_a_turn_that_calls_ends_in_tool_calls_with_arguments_as_json_text(served: Served) -> None:
    choice = (await served.chat(model=MODEL, tools=[WEATHER])).json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert set(call) == {"id", "type", "function"}
    assert call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city"}
    assert choice["message"]["content"] is None


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f"},
        {"name": "f", "parameters": {}},
        {"name": "f", "parameters": {"type": "object", "properties": {}}},
        {"name": "f", "description": None, "parameters": None, "strict": None},
        {"name": "f", "strict": False},
        {"name": "f", "strict": True, "parameters": {"foo": "bar"}},
    ],
)
@pytest.mark.req("OAI-14")
async def test_tools_may_lack_parameters_description_and_strictness(served: Served, function: dict[str, Any]) -> None:
    assert len(await calls(served, tools=[{"type": "function", "function": function}])) == 1


@pytest.mark.parametrize("choice", ["required", "any", {"type": "function", "function": {"name": "getTime"}}])
@pytest.mark.req("CHAT-14", "OAI-12", "TOOLS-11", "OAI-15", "CHAT-15")
async def test_a_forced_choice_calls_even_a_model_that_only_echoes(served: Served, choice: object) -> None:
    found = await calls(
        served, model="scripted-echo", tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False
    )
    wanted = "getTime" if isinstance(choice, dict) else "get_weather"
    assert [call["function"]["name"] for call in found] == [wanted]


@pytest.mark.req("CHAT-14", "OAI-12")
async def test_none_never_calls_and_auto_may(served: Served) -> None:
    assert not await calls(served, tools=[WEATHER], tool_choice="none")
    assert await calls(served, tools=[WEATHER], tool_choice="auto")
    assert await calls(served, tools=[WEATHER])


@pytest.mark.req("CHAT-15")
async def test_several_calls_come_unless_parallel_ones_are_forbidden(served: Served) -> None:
    assert len(await calls(served, tools=[WEATHER, TIME])) == 2
    assert len(await calls(served, tools=[WEATHER, TIME], parallel_tool_calls=False)) == 1


@pytest.mark.req("OAI-12")
async def test_allowed_tools_narrow_the_choice(served: Served) -> None:
    listed = [{"type": "function", "function": {"name": "getTime"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": listed}}
    found = await calls(served, tools=[WEATHER, TIME], tool_choice=choice)
    assert [call["function"]["name"] for call in found] == ["getTime"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [7]}}}, "tool_choice"),
        ({"tool_choice": 7}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [WEATHER, {"type": "function", "function": {"name": "two words"}}]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": {"type": "function"}}, "tools"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
    ],
)
@pytest.mark.req("ERRSHAPE-06", "ERRSHAPE-03", "OAI-30", "OAI-12")
async def test_what_cannot_be_a_tool_or_a_choice_is_a_400_that_names_the_field(
    served: Served, fields: dict[str, Any], param: str
) -> None:
    answer = await served.chat(**({"tools": [WEATHER]} | fields))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_tool_types_that_do_not_run_here_are_left_out(served: Served) -> None:
    tools = [{"type": "web_search"}, {"type": "custom", "custom": {"name": "x"}}, WEATHER, {"type": "namespace"}]
    assert [call["function"]["name"] for call in await calls(served, tools=tools)] == ["get_weather"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "tool", "tool_call_id": "c", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": "x"}],
        [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "other", "content": "x"},
        ],
        [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "user", "content": "wait"},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ],
    ],
)
@pytest.mark.req("TOOLS-07")
async def test_a_result_without_its_call_is_an_error(served: Served, messages: list[Any]) -> None:
    answer = await served.chat(messages=messages)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == f"messages[{len(messages) - 1}].tool_call_id"


@pytest.mark.req("TOOLS-06", "TOOLS-08", "CLIENT-03", "DEC-20")
async def test_the_round_trip_of_the_documented_sample_ends_in_text(served: Served) -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather in Rome?"}]
    first = (await served.chat(model=MODEL, messages=messages, tools=[WEATHER, TIME])).json()["choices"][0]["message"]
    messages.append(first)
    messages += [
        {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"temp": place})}
        for place, call in enumerate(first.get("tool_calls", []))
    ]
    last = (await served.chat(model=MODEL, messages=messages)).json()["choices"][0]
    assert last["finish_reason"] == "stop"
    assert last["message"]["content"] == 'The tools answered: "{"temp": 0}"; "{"temp": 1}"'
    assert "tool_calls" not in last["message"]


@pytest.mark.req("TOOLS-11")
async def test_required_calls_in_each_of_fifteen_rounds(served: Served) -> None:
    finish = {"type": "function", "function": {"name": "finish"}}
    messages: list[Any] = [{"role": "user", "content": "go"}]
    for _ in range(15):
        message = (
            await served.chat(
                model=MODEL, messages=messages, tools=[TIME, finish], tool_choice="required", parallel_tool_calls=False
            )
        ).json()["choices"][0]["message"]
        assert len(message["tool_calls"]) == 1
        messages += [message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "{}"}]


@pytest.mark.req("OAI-41")
async def test_the_old_functions_list_is_answered_in_the_old_form_whole_and_streamed(served: Served) -> None:
    fields = {"model": MODEL, "functions": [WEATHER["function"]], "function_call": {"name": "get_weather"}}
    choice = (await served.chat(**fields)).json()["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "get_weather"
    assert "tool_calls" not in choice["message"]
    chunks = (await served.frames(**fields))[:-1]
    pieces = [
        c["delta"]["function_call"] for chunk in chunks for c in chunk["choices"] if "function_call" in c["delta"]
    ]
    assert [piece["name"] for piece in pieces if "name" in piece] == ["get_weather"]
    assert "".join(piece["arguments"] for piece in pieces) == choice["message"]["function_call"]["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    assert (
        not (await served.chat(model=MODEL, functions=[WEATHER["function"]], function_call="none"))
        .json()["choices"][0]["message"]
        .get("function_call")
    )

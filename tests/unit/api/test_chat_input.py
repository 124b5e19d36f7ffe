"""A body of the Responses form at the chat path, rewritten (OAI-26)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from convene.api.chat_input import as_chat
from convene.api.chat_request import read_chat
from convene.errors import BadRequest
from convene.messages import FunctionTool, Message, ResponseFormat, ToolCall, ToolChoice

pytestmark = pytest.mark.req("OAI-26")


def test_a_text_is_a_user_message_after_the_instructions() -> None:
    assert as_chat({"model": "m", "input": "hi", "instructions": "be brief", "store": False}) == {
        "model": "m",
        "store": False,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    }


def test_a_whole_conversation_with_calls_becomes_one_of_the_chat() -> None:
    body = {
        "model": "m",
        "input": [
            {"role": "developer", "content": "rules"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": None},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "g", "arguments": '{"x":1}'},
            {"type": "function_call_output", "call_id": "b", "output": "2"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
            {"type": "function", "function": {"name": "g"}},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "reasoning": {"effort": "high"},
        "max_output_tokens": 9,
        "top_k": 3,
    }
    generation = read_chat(msgspec.json.encode(body), None).request.generation
    assert generation.messages == (
        Message(role="system", content="rules"),
        Message(role="user", content="go"),
        Message(role="assistant", tool_calls=(ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"x":1}'))),
        Message(role="tool", content="2", tool_call_id="b"),
        Message(role="tool", content="1", tool_call_id="a"),
        Message(role="assistant", content="done"),
    )
    assert generation.tools == (FunctionTool("f", "", {"type": "object"}, strict=True), FunctionTool("g"))
    assert generation.tool_choice == ToolChoice("named", "f")
    assert generation.response_format == ResponseFormat("json_schema", "n", {"type": "object"})
    assert (generation.sampling.reasoning_effort, generation.sampling.max_tokens) == ("high", 9)
    assert generation.extra == {"top_k": 3}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 7}, "input"),
        ({"input": ["text"]}, "input[0]"),
        ({"input": [{"role": "user", "content": "x"}, {"type": "image_generation_call"}]}, "input[1]"),
        ({"input": [{"type": "item_reference", "role": "user"}]}, "input[0]"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "conversation": "c"}, "conversation"),
        ({"input": []}, "messages"),
    ],
)
def test_what_cannot_be_rewritten_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_chat(msgspec.json.encode({"model": "m"} | fields), None)
    assert caught.value.param == param


def test_a_body_with_messages_is_never_rewritten() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "chat"}], "input": "responses"}
    generation = read_chat(msgspec.json.encode(body), None).request.generation
    assert generation.messages[0].content == "chat"
    assert generation.extra == {"input": "responses"}


@pytest.mark.parametrize(
    ("text", "kind"), [({"format": {"type": "json_object"}}, "json_object"), ({"verbosity": "low"}, "text")]
)
def test_the_text_format_moves(text: dict[str, Any], kind: str) -> None:
    body = msgspec.json.encode({"model": "m", "input": "x", "text": text})
    assert read_chat(body, None).request.generation.response_format.kind == kind

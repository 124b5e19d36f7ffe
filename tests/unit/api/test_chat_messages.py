"""Messages of every dialect to the one form inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.api.chat_messages import read_messages
from convene.api.shapes import WireMessage
from convene.errors import BadRequest
from convene.messages import ImagePart, Message, OpaquePart, TextPart, ToolCall

if TYPE_CHECKING:
    from convene.messages import Part, Role


def read(*wire: dict[str, Any]) -> tuple[Message, ...]:
    """Return messages off the wire."""
    return read_messages(msgspec.convert(list(wire), list[WireMessage]))


CALLS = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.req("CHAT-03", "OAI-07", "OAI-10")
@pytest.mark.parametrize(
    ("role", "inside"), [("system", "system"), ("developer", "system"), ("user", "user"), ("assistant", "assistant")]
)
def test_a_role_becomes_one_of_four(role: str, inside: Role) -> None:
    assert read({"role": role, "content": "x", "name": "n"}) == (Message(role=inside, content="x", name="n"),)


@pytest.mark.req("OAI-09", "CHAT-26", "CHAT-27")
@pytest.mark.parametrize(
    ("content", "inside"),
    [
        ("text", "text"),
        ("", ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb"),
        ([{"text": "typeless"}], "typeless"),
        ([{"type": "image_url", "image_url": {"url": "http://a"}}], (ImagePart("http://a"),)),
        ([{"type": "input_image", "image_url": "data:image/png;base64,A"}], (ImagePart("data:image/png;base64,A"),)),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://a", "detail": "low"}}],
            (TextPart("a"), ImagePart("https://a", "low")),
        ),
        ([{"type": "input_audio", "input_audio": {"data": "A"}}], (OpaquePart("input_audio", {"data": "A"}),)),
        ([{"type": "file", "file": {"file_id": "A"}}], (OpaquePart("file", {"file_id": "A"}),)),
    ],
)
def test_content_is_text_where_it_can_be_and_else_parts(content: object, inside: str | tuple[Part, ...]) -> None:
    assert read({"role": "user", "content": content}) == (Message(role="user", content=inside),)


@pytest.mark.req("OAI-08", "OAI-11", "CHAT-30")
@pytest.mark.parametrize(
    ("wire", "inside"),
    [
        ({}, Message(role="assistant")),
        ({"content": None, "refusal": None, "tool_calls": None, "annotations": None}, Message(role="assistant")),
        ({"content": None, "refusal": "no"}, Message(role="assistant", content="no")),
        ({"content": "x", "reasoning_content": "r"}, Message(role="assistant", content="x", reasoning="r")),
        ({"content": "x", "reasoning": "r"}, Message(role="assistant", content="x", reasoning="r")),
        ({"content": "x", "reasoning": {"a": 1}}, Message(role="assistant", content="x")),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, Message(role="assistant", content="no")),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}, {"id": "", "function": {"name": "g"}}]},
            Message(role="assistant", tool_calls=(ToolCall("call_0", "f", '{"a":1}'), ToolCall("call_1", "g", "{}"))),
        ),
        (
            {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": 'say "x"'}}]},
            Message(role="assistant", tool_calls=(ToolCall("c", "f", '{"input":"say \\"x\\""}'),)),
        ),
        (
            {"function_call": {"name": "f", "arguments": ""}},
            Message(role="assistant", tool_calls=(ToolCall("call_0", "f", "{}"),)),
        ),
        (
            {
                "tool_calls": [
                    {"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": "not json"}}
                ]
            },
            Message(role="assistant", tool_calls=(ToolCall("c", "f", "not json"),)),
        ),
    ],
)
def test_an_assistant_message_is_read_with_all_it_may_lack(wire: dict[str, Any], inside: Message) -> None:
    assert read({"role": "assistant"} | wire) == (inside,)


@pytest.mark.req("TOOLS-06")
def test_results_follow_their_calls_in_any_order_and_number() -> None:
    calls = {"role": "assistant", "tool_calls": [{"id": c, "function": {"name": "f"}} for c in ("a", "b")]}
    results = [{"role": "tool", "tool_call_id": c, "content": [{"type": "text", "text": c}]} for c in ("b", "a")]
    assert [message.content for message in read(calls, *results)[1:]] == ["b", "a"]
    assert len(read(calls, results[0], {"role": "user", "content": "go on"})) == 3
    assert len(read(calls, {"role": "user", "content": "never mind"})) == 2


@pytest.mark.req("ERRSHAPE-06", "OAI-30", "TOOLS-07")
@pytest.mark.parametrize(
    ("wire", "param"),
    [
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "system", "content": None}], "messages[0].content"),
        ([{"role": "", "content": "x"}], "messages[0].role"),
        ([{"role": "USER", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].input_audio"),
        ([{"role": "user", "content": [{"type": "file"}]}], "messages[0].content[0].file"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "ftp://a"}]}],
            "messages[0].content[0].image_url",
        ),
        ([{"role": "user", "content": [{"type": "tool_use"}]}], "messages[0].content[0].type"),
        ([{"role": "assistant", "tool_calls": [{"id": "c"}]}], "messages[0].tool_calls[0].function"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "messages[0].tool_calls[0].function.name"),
        ([{"role": "assistant", "function_call": {"name": ""}}], "messages[0].function_call.name"),
        ([CALLS, {"role": "tool", "tool_call_id": "c2", "content": "x"}], "messages[1].tool_call_id"),
        ([CALLS, {"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c1"}], "messages[2].tool_call_id"),
        ([CALLS, {"role": "assistant", "content": "x"}, {"role": "tool", "content": "x"}], "messages[2].tool_call_id"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].tool_call_id"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_path(wire: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(*wire)
    assert caught.value.param == param

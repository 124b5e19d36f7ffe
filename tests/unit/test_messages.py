"""Messages are values: equal by content, unchangeable, and their text is what was written."""

from __future__ import annotations

import msgspec
import pytest

from convene.messages import (
    FunctionTool,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolChoice,
    sentences_of,
)

PARTS: tuple[Part, ...] = (
    TextPart("one"),
    ImagePart("data:image/png;base64,AA", "low"),
    TextPart("two"),
    OpaquePart("input_audio", {"data": "AA", "format": "wav"}),
)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ((), ""),
        ((TextPart("only"),), "only"),
        (PARTS, "one\ntwo"),
        (PARTS[1:2], ""),
        ((TextPart(""), TextPart("")), "\n"),
    ],
)
def test_the_text_of_a_message_is_its_text_parts_by_line(content: str | tuple[Part, ...], text: str) -> None:
    assert Message(role="user", content=content).text() == text


@pytest.mark.req("OAI-08")
def test_a_message_needs_only_a_role() -> None:
    message = Message(role="assistant")
    assert (message.content, message.tool_calls, message.name, message.tool_call_id) == ("", (), None, None)
    assert message.reasoning is None


def test_messages_with_the_same_content_are_equal() -> None:
    calls = (ToolCall("c1", "f", '{"a":1}'),)
    one = Message(role="assistant", content=PARTS, tool_calls=calls)
    assert one == Message(role="assistant", content=PARTS, tool_calls=calls)
    assert one != Message(role="user", content=PARTS, tool_calls=calls)
    assert Message(role="tool", content="7", tool_call_id="c1") != Message(role="tool", content="7")


@pytest.mark.parametrize(
    "value",
    [
        Message(role="user", content="x"),
        TextPart("x"),
        ToolCall("c", "f", "{}"),
        FunctionTool("f"),
        ToolChoice(),
        ResponseFormat(),
    ],
)
def test_values_cannot_be_changed(value: msgspec.Struct) -> None:
    field = value.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(value, field, "y")


def test_a_conversation_survives_being_written_down_and_read_again() -> None:
    messages = (
        Message(role="system", content="Be kind."),
        Message(role="user", content=PARTS, name="ada"),
        Message(role="assistant", tool_calls=(ToolCall("c1", "f", '{"a": '),), reasoning="hm"),
        Message(role="tool", content="7", tool_call_id="c1"),
    )
    written = msgspec.json.encode(messages)
    assert msgspec.json.decode(written, type=tuple[Message, ...]) == messages


def test_an_unknown_role_cannot_be_read() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"role": "wizard"}', type=Message)


def test_without_a_word_from_the_caller_tools_are_optional_and_text_is_free() -> None:
    assert (ToolChoice().mode, ToolChoice().name, ToolChoice().allowed) == ("auto", None, None)
    assert (ResponseFormat().kind, ResponseFormat().schema) == ("text", None)
    assert FunctionTool("f").parameters is None


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ()),
        ("  \n ", ()),
        ("One", ("One",)),
        ("One. Two? Three! Four; five", ("One.", "Two?", "Three!", "Four;", "five")),
        ("It costs 6.50 at 14:40.", ("It costs 6.50 at 14:40.",)),
        ("a line\n\n another", ("a line", "another")),
    ],
)
def test_sentences_stand_as_they_are_in_the_text(text: str, sentences: tuple[str, ...]) -> None:
    assert sentences_of(text) == sentences

"""What a model is to read is sized before it reads it: texts exactly, the rest by stated figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.messages import FunctionTool, ImagePart, Message, OpaquePart, ResponseFormat, TextPart, ToolCall
from convene.providers.base import Generation
from convene.serving.turn_size import IMAGE_BYTES, MESSAGE_BYTES, prompt_bytes

HELLO = Message(role="user", content="hello")


def size(*messages: Message, **fields: object) -> int:
    """Return the size of a generation of these messages."""
    return prompt_bytes(Generation(messages=messages, **fields))  # type: ignore[arg-type]  # tests name real fields


@pytest.mark.parametrize(
    ("content", "expected"),
    [("", 0), ("hello", 5), ("naïve", 6), ("日本語", 9), ("👋", 4)],
)
def test_a_text_counts_as_its_utf_8_bytes_and_a_message_as_what_its_template_adds(content: str, expected: int) -> None:
    assert size(Message(role="user", content=content)) == MESSAGE_BYTES + expected
    parts = (TextPart(text=content), TextPart(text=content))
    assert size(Message(role="user", content=parts)) == MESSAGE_BYTES + 2 * expected


def test_messages_add_up() -> None:
    assert size() == 0
    assert size(HELLO, HELLO, HELLO) == 3 * size(HELLO)


def test_an_image_counts_flat_whatever_its_bytes_are() -> None:
    small = Message(role="user", content=(ImagePart(url="https://x/y.png"),))
    large = Message(role="user", content=(ImagePart(url="data:image/png;base64," + "A" * 100_000),))
    assert size(small) == size(large) == MESSAGE_BYTES + IMAGE_BYTES


def test_a_part_that_is_handed_on_unread_counts_as_it_is_written() -> None:
    short = Message(role="user", content=(OpaquePart(kind="file", body={"file_data": "AA"}),))
    long = Message(role="user", content=(OpaquePart(kind="file", body={"file_data": "A" * 502}),))
    assert size(long) - size(short) == 500


def test_calls_of_tools_in_the_history_count_with_their_arguments() -> None:
    call = ToolCall(id="c1", name="weather", arguments='{"city": "Zürich"}')
    asked = Message(role="assistant", content="", tool_calls=(call, call))
    assert size(asked) == MESSAGE_BYTES + 2 * (7 + 19)


def test_tools_and_a_schema_count_as_the_model_reads_them() -> None:
    tool = FunctionTool(name="f", description="d" * 100, parameters={"type": "object"})
    assert size(HELLO, tools=(tool,)) > size(HELLO) + 100
    assert size(HELLO, tools=(tool, tool)) > size(HELLO) + 200
    schema = ResponseFormat("json_schema", "n", {"type": "object", "description": "s" * 300})
    assert size(HELLO, response_format=schema) > size(HELLO) + 300
    assert size(HELLO, response_format=ResponseFormat("json_object")) == size(HELLO)


@given(st.lists(st.text(), max_size=8))
def test_any_texts_are_sized_without_an_error(texts: list[str]) -> None:
    messages = [Message(role="user", content=text) for text in texts]
    exact = sum(len(text.encode("utf-8", "replace")) + MESSAGE_BYTES for text in texts)
    assert size(*messages) == exact

"""A conversation for a chat template that knows only system, user and assistant. Pure.

Calls become a line of the assistant's, tool results a user turn with the result quoted as data: a JSON string in which
`<` is escaped, so nothing a tool returns can close the turn and speak for somebody else (invariant 10). Called by
`local` and `local_tools`. Templates with tools of their own get messages untouched (`openai_codec`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from convene.errors import BadRequest
from convene.messages import ImagePart, OpaquePart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import Message

Turn = dict[str, str]


def render_turns(messages: Sequence[Message]) -> list[Turn]:
    """Return the turns for the template, neighbours of one role merged (it refuses two assistant turns at the end)."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    turns: list[Turn] = []
    for message in messages:
        role, text = _render(message, names)
        if turns and turns[-1]["role"] == role and role != "system":
            turns[-1]["content"] += "\n\n" + text
        else:
            turns.append({"role": role, "content": text})
    return turns


def _render(message: Message, names: dict[str, str]) -> tuple[str, str]:
    text = message.text()
    if message.role == "tool":
        name = names.get(message.tool_call_id or "", message.name or "the function")
        return "user", f"{name} returned: {quote_data(text)}"
    if message.tool_calls:
        calls = [f"I call {call.name} with {call.arguments}." for call in message.tool_calls]
        return "assistant", "\n".join([text, *calls] if text else calls)
    return message.role, text


def quote_data(text: str) -> str:
    """Return `text` as a JSON string without `<`, so that it holds no token of a chat template."""
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c")


def count_bytes(turns: Sequence[Turn]) -> int:
    """Return the UTF-8 bytes of the contents: never fewer than their tokens, as each token covers at least one byte."""
    return sum(len(turn["content"].encode("utf-8", "replace")) for turn in turns)


def find_request(messages: Sequence[Message]) -> str:
    """Return what the user said last, or nothing."""
    return next((message.text() for message in reversed(messages) if message.role == "user"), "")


def find_round(messages: Sequence[Message]) -> Sequence[Message]:
    """Return what followed the user's last message: the calls and results of the round under way."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user":
            return messages[index + 1 :]
    return messages


def refuse_parts(messages: Sequence[Message]) -> None:
    """Raise `BadRequest` naming the field of the first part that is not text: the engine would answer 500."""
    for at, message in enumerate(messages):
        if isinstance(message.content, str):
            continue
        for number, part in enumerate(message.content):
            if isinstance(part, ImagePart | OpaquePart):
                what = "image_url" if isinstance(part, ImagePart) else part.kind
                raise BadRequest(
                    f"The embedded model reads text only; leave the {what} part out or ask a model that takes it.",
                    code="unsupported_parameter",
                    param=f"messages[{at}].content[{number}]",
                )

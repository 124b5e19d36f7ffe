"""How large a prompt is, in bytes: the measure that estimates of tokens start from. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.messages import ImagePart, TextPart
from convene.usage import count_bytes

if TYPE_CHECKING:
    from convene.messages import Message
    from convene.providers.base import Generation

IMAGE_BYTES: Final = 3_000
"""What an image counts as text for the estimate of a prompt: about a thousand tokens, as hosts commonly bill."""
MESSAGE_BYTES: Final = 12
"""What a chat template adds to a message, for the same estimate: about four tokens."""


def prompt_bytes(generation: Generation) -> int:
    """Return the UTF-8 bytes of all that a model is to read, with what its template adds; an image counts flat."""
    total = 0
    for message in generation.messages:
        content = message.content
        if type(content) is str and content.isascii() and not message.tool_calls:  # nearly all: without a call
            total += MESSAGE_BYTES + len(content)
        else:
            total += message_bytes(message)
    if generation.tools:
        total += len(msgspec.json.encode(generation.tools))
    if generation.response_format.schema is not None:
        total += len(msgspec.json.encode(generation.response_format.schema))
    return total


def message_bytes(message: Message) -> int:
    """Return the bytes of one message."""
    content = message.content
    if isinstance(content, str):
        total = MESSAGE_BYTES + count_bytes(content)
    else:
        total = MESSAGE_BYTES + sum(_part_bytes(part) for part in content)
    if message.tool_calls:
        total += sum(count_bytes(call.name) + count_bytes(call.arguments) for call in message.tool_calls)
    return total


def _part_bytes(part: object) -> int:
    if isinstance(part, TextPart):
        return count_bytes(part.text)
    return IMAGE_BYTES if isinstance(part, ImagePart) else len(msgspec.json.encode(part))

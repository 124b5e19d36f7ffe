"""Results of tools cut to the model's window: oldest first, marked as cut (decision 23). Pure.

    each result of the server's    at most a share of the window
    still too long, all together   results, the client's too, lose their middle, oldest first, then all but the mark

The turn never fails for length while there is something to cut. Sizes are UTF-8 bytes: a token per three of them, the
stated estimate (reliability 1.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.serving.conversation import QUOTE_HEAD
from convene.serving.turn_size import message_bytes
from convene.usage import BYTES_PER_TOKEN, count_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.messages import Message

UNKNOWN_WINDOW: Final = 128_000
"""Tokens of a model whose window nobody has stated."""
KEPT_BYTES: Final = 600
"""What the first cut for want of room leaves of a result."""
MARK_BYTES: Final = 48
"""What the words take that say how much is missing."""
ANSWER_SHARE: Final = 4
"""A quarter of the window stays free for the answer, or as much as the request asks for, if that is less."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What the messages of one round may take, in bytes."""

    room: int
    """All messages together."""
    result: int
    """One result."""

    @classmethod
    def of(cls, tokens: int | None, answer: int | None, beside: int, share: float) -> Window:
        """Return the window of a model of `tokens`, with `answer` tokens asked for and `beside` bytes of tools."""
        whole = tokens or UNKNOWN_WINDOW
        reserve = whole // ANSWER_SHARE
        if answer is not None:
            reserve = min(reserve, answer)
        room = max(0, (whole - reserve) * BYTES_PER_TOKEN - beside)
        return cls(room=room, result=max(1, int(whole * share) * BYTES_PER_TOKEN))

    def halved(self) -> Window:
        """Return half of it, for a model that counts more tokens than the estimate."""
        return Window(room=self.room // 2, result=max(1, self.result // 2))


def fit_window(messages: Sequence[Message], window: Window) -> tuple[Message, ...]:
    """Return the messages with results cut as far as needed; the same ones if nothing is."""
    found = [cut_message(one, window.result) if is_quoted(one) else one for one in messages]
    excess = sum(map(message_bytes, found)) - window.room
    for kept in (KEPT_BYTES, 0):
        for index, message in enumerate(found):
            if excess <= 0:
                return tuple(found)
            if is_result(message):
                size = message_bytes(message)
                found[index] = cut_message(message, max(kept, _text_bytes(message) - excess))
                excess -= size - message_bytes(found[index])
    return tuple(found)


def can_cut(messages: Sequence[Message]) -> bool:
    """Whether there is a result that could still be shorter."""
    return any(is_result(message) and _text_bytes(message) > KEPT_BYTES for message in messages)


def is_quoted(message: Message) -> bool:
    """Whether it is a result of the server's own; a model without tools reads it as a user's message."""
    content = message.content
    return isinstance(content, str) and content.startswith(QUOTE_HEAD) and message.role in {"tool", "user"}


def is_result(message: Message) -> bool:
    """Whether it is a result of any tool, the server's or the client's."""
    return message.role == "tool" or is_quoted(message)


def cut_message(message: Message, size: int) -> Message:
    """Return the message with at most about `size` bytes of text; what is left out is said."""
    text = message.text()
    return message if count_bytes(text) <= size else msgspec.structs.replace(message, content=cut_text(text, size))


def cut_text(text: str, size: int) -> str:
    """Return the beginning and the end of a text, at most `size` bytes, and between them how much is missing.

    The words for what is missing are within `size`, unless it is too small for them.
    """
    if count_bytes(text) <= size:
        return text
    raw = text.encode("utf-8", "replace")
    kept = max(0, size - MARK_BYTES)
    tail = kept // 4
    head = raw[: kept - tail].decode("utf-8", "ignore")
    end = raw[len(raw) - tail :].decode("utf-8", "ignore")
    return f"{head}\n[cut: {len(raw) - kept} bytes left out]\n{end}"


def _text_bytes(message: Message) -> int:
    return count_bytes(message.text())

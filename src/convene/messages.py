"""A conversation as values: what a `Message` is, and its parts. Pure; knows no wire format and no vendor.

Wire forms come in many dialects (string or part list, `developer`, nulls, deprecated `function`); `api/` reads them all
into these shapes, and `providers/` write them out again for their host.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]

_SENTENCE_END: Final = re.compile(r"(?<=[.?!;])\s+|\s*\n\s*")


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Plain text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="image"):
    """A picture by `data:` or web URL (CHAT-26); `detail` is OpenAI's low, high or auto."""

    url: str
    detail: str | None = None


class OpaquePart(msgspec.Struct, frozen=True, tag_field="type", tag="opaque"):
    """A part we hand on as it came to hosts that understand it (`input_audio`, `file`)."""

    kind: str
    body: dict[str, object]


Part = TextPart | ImagePart | OpaquePart


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a client's function; `arguments` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One turn of the conversation. `content` is text, or parts when there is more than text.

    Encoded, one that has text and no calls is a message in OpenAI's plain form; `openai_codec.py` lives on it.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None

    def text(self) -> str:
        """Return the text of the content, parts joined by newlines, other parts left out."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class FunctionTool(msgspec.Struct, frozen=True):
    """A function of the client's that the model may call (TOOLS-02); `parameters` is a JSON schema or None."""

    name: str
    description: str = ""
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether a function must be called: `name` is for mode `named`; `allowed` narrows auto and required (OAI-12)."""

    mode: Literal["none", "auto", "required", "named"] = "auto"
    name: str | None = None
    allowed: tuple[str, ...] | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """The form that the answer's text must have (OAI-16); `schema` is set for `json_schema` only."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    name: str = "answer"
    schema: dict[str, object] | None = None
    strict: bool | None = None
    description: str | None = None


def sentences_of(text: str) -> tuple[str, ...]:
    """Return the sentences of a text as they stand in it, for models that are given one at a time.

    They end at a mark with a space behind it, and at line ends; an abbreviation makes two of one, which does no harm.
    """
    return tuple(part.strip() for part in _SENTENCE_END.split(text) if part.strip())

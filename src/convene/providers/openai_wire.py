"""The outline of an OpenAI-compatible reply or chunk, and its leaves read by what they are. Pure.

Only the outline is typed: hosts bend every leaf (nulls, numbers for strings, objects for text), and
none of that may cost an answer. What the pieces add up to is `openai_choice.py`'s and `openai_reply.py`'s.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from convene.events import TokenLogprob

NOTHING = msgspec.Raw()


class WireFunction(msgspec.Struct, gc=False):
    """The function of a call."""

    name: object = None
    arguments: object = None


class WireCall(msgspec.Struct, gc=False):
    """A call, or a piece of one."""

    index: object = None
    id: object = None
    function: WireFunction | None = None


class WireMessage(msgspec.Struct, gc=False):
    """A message or a delta."""

    content: object = None
    reasoning_content: object = None
    reasoning: object = None
    thinking: object = None
    refusal: object = None
    tool_calls: list[WireCall | None] | None = None
    function_call: WireFunction | None = None


class WireChoice(msgspec.Struct, gc=False):
    """One choice of a reply or chunk."""

    index: object = None
    delta: WireMessage | None = None
    message: WireMessage | None = None
    finish_reason: object = None
    logprobs: msgspec.Raw = NOTHING


class WirePromptDetails(msgspec.Struct, gc=False):
    """Parts of the prompt's tokens."""

    cached_tokens: object = None


class WireCompletionDetails(msgspec.Struct, gc=False):
    """Parts of the completion's tokens."""

    reasoning_tokens: object = None


class WireUsage(msgspec.Struct, gc=False):
    """Token counts; `prompt_cache_hit_tokens` is DeepSeek's word for cached ones."""

    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    reasoning_tokens: object = None
    prompt_cache_hit_tokens: object = None
    prompt_tokens_details: WirePromptDetails | None = None
    completion_tokens_details: WireCompletionDetails | None = None


class WireChunk(msgspec.Struct, gc=False):
    """A reply, a chunk, or an error in the place of one."""

    model: object = None
    system_fingerprint: object = None
    choices: list[WireChoice | None] | None = None
    usage: WireUsage | None = None
    error: object = None
    message: object = None
    code: object = None
    kind: object = msgspec.field(name="object", default=None)


class PlainMessage(msgspec.Struct, gc=False):
    """Text and nothing else."""

    content: Annotated[str, msgspec.Meta(min_length=1)]
    reasoning_content: Literal[""] | None = None
    reasoning: Literal[""] | None = None
    thinking: Literal[""] | None = None
    refusal: Literal[""] | None = None
    tool_calls: Annotated[list[None], msgspec.Meta(max_length=0)] | None = None
    function_call: None = None


class PlainChoice(msgspec.Struct, gc=False):
    """The only choice, ended in a plain way."""

    message: PlainMessage
    finish_reason: Literal["stop", "length"]
    index: Literal[0] = 0


class PlainPromptDetails(msgspec.Struct, gc=False):
    """Parts of the prompt's tokens."""

    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class PlainCompletionDetails(msgspec.Struct, gc=False):
    """No reasoning."""

    reasoning_tokens: Literal[0] | None = None


class PlainUsage(msgspec.Struct, gc=False):
    """Both counts, above 0, and no reasoning beside them."""

    prompt_tokens: Annotated[int, msgspec.Meta(gt=0)]
    completion_tokens: Annotated[int, msgspec.Meta(gt=0)]
    reasoning_tokens: Literal[0] | None = None
    prompt_cache_hit_tokens: Literal[0] | None = None
    prompt_tokens_details: PlainPromptDetails | None = None
    completion_tokens_details: PlainCompletionDetails | None = None


class PlainReply(msgspec.Struct, gc=False):
    """The commonest whole reply: one choice of text, its counts, nothing odd. Types ask what branches would."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    choices: Annotated[list[PlainChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: PlainUsage
    system_fingerprint: str | None = None
    error: None = None
    kind: Literal["chat.completion"] = msgspec.field(name="object", default="chat.completion")


class WireRival(msgspec.Struct, gc=False):
    """A token with its log probability."""

    token: str
    logprob: float | None = None
    bytes: list[int] | None = None


class WireToken(WireRival, gc=False):
    """A generated token."""

    top_logprobs: list[WireRival] | None = None


class WireLogprobs(msgspec.Struct, gc=False):
    """The log probabilities of one delta."""

    content: list[WireToken] | None = None


_PLAIN = msgspec.json.Decoder(PlainReply)
_CHUNK = msgspec.json.Decoder(WireChunk)
_LOGPROBS = msgspec.json.Decoder(WireLogprobs)


def decode_plain(data: bytes) -> PlainReply | None:
    """Return the reply if it is a plain one."""
    try:
        return _PLAIN.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_chunk(data: bytes) -> WireChunk:
    """Return a reply or chunk. Raises `ValueError` or `RecursionError` for what is none."""
    try:
        return _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # broken UTF-8 and halves of surrogate pairs: hosts that cut a character between two tokens
        return _CHUNK.decode(_mend(data))


def decode_any(data: bytes) -> object:
    """Return JSON as Python values, or the text itself where it is no JSON."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data.decode("utf-8", "replace")


def read_count(value: object) -> int | None:
    """Return a count of tokens, None where there is none."""
    return max(0, int(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def byte_length(text: str) -> int:
    """Return the length of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def read_text(value: object) -> tuple[str, str]:
    """Return the text and the reasoning of a `content`: a string, or a list of parts (Mistral sends both in one)."""
    if isinstance(value, str):
        return value, ""
    text, reasoning = "", ""
    for part in value if isinstance(value, list) else ():
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict):
            if part.get("type") in ("thinking", "reasoning"):
                inner = read_text(part.get("thinking") or part.get("reasoning") or part.get("text"))
                reasoning += inner[0] + inner[1]
            elif isinstance(part.get("text"), str):
                text += part["text"]
    return text, reasoning


def read_arguments(value: object) -> str:
    """Return arguments as JSON text, also where a host sends the object itself (Q25)."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def read_logprobs(raw: msgspec.Raw) -> tuple[TokenLogprob, ...]:
    """Return the tokens of a `logprobs`; other forms than OpenAI's chat form give none."""
    if not bytes(raw):
        return ()
    try:
        found = _LOGPROBS.decode(raw).content
    except msgspec.DecodeError:
        return ()
    return tuple(
        TokenLogprob(
            token.token,
            _finite(token.logprob),
            token.bytes,
            tuple(TokenLogprob(rival.token, _finite(rival.logprob), rival.bytes) for rival in token.top_logprobs or ()),
        )
        for token in found or ()
    )


def _finite(logprob: float | None) -> float:
    return -9999.0 if logprob is None else logprob  # OpenAI's own figure for "too unlikely"


_SURROGATES = re.compile(
    rb"\\\\"  # an escaped backslash is no beginning of an escape
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def _mend(data: bytes) -> bytes:
    """Return `data` with what is no character replaced by U+FFFD."""
    valid = data.decode("utf-8", "replace").encode()
    return _SURROGATES.sub(lambda found: rb"\ufffd" if len(found.group()) == len(rb"\ud800") else found.group(), valid)

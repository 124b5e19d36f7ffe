"""A turn's events as the frames of a chat completion stream. Pure: events in, bytes out; `chat.py` sends them.

The rules of the conventions page, held here: role first (SSE-05), `choices` always a list and `delta` an object
(SSE-04, SSE-06), tool calls by index with id and name once (SSE-07, SSE-08), the finish chunk without content
(SSE-11), usage last and only when asked (SSE-12, SSE-13), errors as one frame (SSE-15), `[DONE]` (SSE-14). The head of
a frame is the same for the whole stream, so it is built once and a delta costs one JSON string.

    event(s) ──► frames(event) ──► b'data: {...}' + blank line, each
    end      ──► end()         ──► finish chunk(s) with the extras, usage chunk, [DONE]
    fault    ──► failure(error) ─► error frame, [DONE]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from convene.api.chat_reply import (
    SERVICE_TIER,
    annotation_of,
    fingerprint_of,
    logprobs_of,
    metadata_of,
    step_of,
    tool_of,
    usage_of,
)
from convene.api.problems import detail_of
from convene.events import (
    Began,
    CallDelta,
    Cited,
    Fold,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
)

if TYPE_CHECKING:
    from msgspec import UnsetType

    from convene.api.shapes import Cost, ReplyMetadata
    from convene.errors import ConveneError
    from convene.events import Event, TokenLogprob

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
TEXT_HEAD = b'{"index":0,"delta":{"content":'
_encode = msgspec.json.Encoder().encode
_LINE_BREAKS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def encode_line(value: object) -> bytes:
    """Return JSON that every line splitter leaves whole: U+2028, U+2029 and U+0085 escaped (reliability 3.3)."""
    line = _encode(value)
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        for raw, escaped in _LINE_BREAKS:
            line = line.replace(raw, escaped)
    return line


class ChatFrames:
    """The frames of one stream. Feed it every event once, then call `end` or `failure` once."""

    def __init__(
        self,
        *,
        reply_id: str,
        created: int,
        model: str,
        request_id: str,
        include_usage: bool,
        legacy_functions: bool = False,
        service_tier: bool = False,
        seeded: bool = False,
    ) -> None:
        self._model = model
        self._request_id = request_id
        self._include_usage = include_usage
        self._legacy = legacy_functions
        self._seeded = seeded
        head: dict[str, object] = {
            "id": reply_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        if service_tier:
            head["service_tier"] = SERVICE_TIER
        self._fields = b"data: " + encode_line(head)[:-1]
        self._head = self._fields + b',"choices":['
        self._tail = b'],"usage":null' if include_usage else b"]"
        self._plain_end = b'},"logprobs":null,"finish_reason":null}' + self._tail + b"}\n\n"
        self._text_head = self._head + TEXT_HEAD
        self._spoke: set[int] = set()
        self._kept = Fold()

    def frames(self, event: Event) -> list[bytes]:
        """Return the frames for one event; none for what only the last chunk tells."""
        match event:
            case TextDelta():
                return self._text(event)
            case ReasoningDelta():
                self._kept.add(event)
                text = encode_line(event.text)
                return self._delta(event.choice, b'"reasoning_content":%b,"reasoning":%b' % (text, text))
            case CallDelta():
                self._kept.choice(event.choice)
                return self._delta(event.choice, self._call(event))
            case RefusalDelta():
                return self._delta(event.choice, b'"refusal":' + encode_line(event.text))
            case Cited():
                return self._delta(0, b'"annotations":[%b]' % encode_line(annotation_of(event)))
            case StepChanged():
                self._kept.add(event)
                extra = b',"intermediate_steps":[%b]' % encode_line(step_of(event))
                return self._opened(0, [self._chunk(0, b"", b"null", extra)])
            case Began():
                self._kept.add(event)
                self._begin(event)
                return []
            case _:
                self._kept.add(event)
                return []

    def end(
        self, cost: Cost | UnsetType = UNSET, *, run_id: str = "", conversation_id: str | None = None
    ) -> list[bytes]:
        """Return the finish chunks (the last with the extras), the usage chunk if asked for, and `[DONE]`.

        `cost` is what the settled turn has cost, for `metadata`, `conversation_id` what its session is called.
        """
        kept = self._kept
        finished = [index for index in sorted(kept.choices) if kept.choices[index].finish is not None] or [0]
        frames: list[bytes] = []
        for index in finished:
            reason = kept.choice(index).finish or "stop"
            word = "function_call" if self._legacy and reason == "tool_calls" else reason
            extra = b""
            if index == finished[-1]:
                metadata = metadata_of(kept, self._request_id, self._model, cost, run_id)
                extra = self._extras(metadata, conversation_id)
            frames += self._opened(index, [self._chunk(index, b"", b'"%b"' % word.encode(), extra)])
        if self._include_usage:
            frames.append(self._head + b'],"usage":' + encode_line(usage_of(kept.usage)) + b"}\n\n")
        frames.append(DONE)
        return frames

    @staticmethod
    def failure(error: ConveneError) -> list[bytes]:
        """Return the one form of a fault in mid-stream that every client understands (decisions 6, SSE-15)."""
        return [b"data: " + encode_line({"error": detail_of(error), "choices": []}) + b"\n\n", DONE]

    def _begin(self, began: Began) -> None:
        """Put the fingerprint into the head of the frames: it is known before the first of them (OAI-20)."""
        mark = fingerprint_of(began, seeded=self._seeded)
        if mark is not UNSET:
            self._head = self._fields + b',"system_fingerprint":%b,"choices":[' % encode_line(mark)
            self._text_head = self._head + TEXT_HEAD

    def _text(self, event: TextDelta) -> list[bytes]:
        if event.choice == 0 and not event.logprobs and 0 in self._spoke:
            return [self._text_head + encode_line(event.text) + self._plain_end]
        return self._delta(event.choice, b'"content":' + encode_line(event.text), event.logprobs)

    def _delta(self, choice: int, body: bytes, logprobs: tuple[TokenLogprob, ...] = ()) -> list[bytes]:
        return self._opened(choice, [self._chunk(choice, body, b"null", b"", logprobs)])

    def _opened(self, choice: int, frames: list[bytes]) -> list[bytes]:
        """Put the role frame before a choice's first one (SSE-05); the very first also opens the extras (STREAM-06)."""
        if choice in self._spoke:
            return frames
        extra = b"" if self._spoke else b',"executable_data":[]'
        self._spoke.add(choice)
        return [self._chunk(choice, b'"role":"assistant","content":""', b"null", extra), *frames]

    def _chunk(
        self, choice: int, delta: bytes, finish: bytes, extra: bytes = b"", logprobs: tuple[TokenLogprob, ...] = ()
    ) -> bytes:
        probabilities = encode_line(logprobs_of(logprobs)) if logprobs else b"null"
        return b'%b{"index":%d,"delta":{%b},"logprobs":%b,"finish_reason":%b}%b%b}\n\n' % (
            self._head,
            choice,
            delta,
            probabilities,
            finish,
            self._tail,
            extra,
        )

    def _call(self, event: CallDelta) -> bytes:
        function: dict[str, str] = {"arguments": event.arguments}
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
        if self._legacy:
            return b'"function_call":' + encode_line(function)
        call: dict[str, object] = {"index": event.index}
        if event.id is not None:
            call |= {"id": event.id, "type": "function"}
        call["function"] = function
        return b'"tool_calls":[%b]' % encode_line(call)

    def _extras(self, metadata: ReplyMetadata, conversation_id: str | None) -> bytes:
        kept = self._kept
        thought = ["".join(choice.reasoning) for choice in kept.choices.values() if choice.reasoning]
        return b',"executable_data":%b,"thought":%b,"conversation_id":%b,"metadata":%b' % (
            encode_line([tool_of(ran) for ran in kept.tools]),
            encode_line(thought),
            encode_line(conversation_id),
            encode_line(metadata),
        )

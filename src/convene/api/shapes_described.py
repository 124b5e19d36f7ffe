"""Wire shapes that exist only to be described: what leaves as bytes (`sse.py`) or as plain objects has its type here.

Nothing is encoded from these, for a frame of a stream costs one JSON string and no Struct. Tests hold them to what is
really sent. `openapi.py` reads them.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from convene.api.shapes import Annotation, ErrorDetail, JsonObject, ReplyLogprobs, ReplyMetadata, ReplyUsage


class ChunkFunction(msgspec.Struct):
    """A piece of a call: the name once, the arguments in fragments to be joined."""

    arguments: str
    name: str | UnsetType = UNSET


class ChunkToolCall(msgspec.Struct):
    """A piece of the call at `index`; `id` and `type` come with its first piece only."""

    index: int
    function: ChunkFunction
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChunkDelta(msgspec.Struct):
    """What is new in one choice; mostly one field, empty when only the finish or an extra is told."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    tool_calls: list[ChunkToolCall] | UnsetType = UNSET
    function_call: ChunkFunction | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    """One choice in one chunk."""

    index: int
    delta: ChunkDelta
    logprobs: ReplyLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"] | None


class ExecutedTool(msgspec.Struct):
    """A tool or agent that the server itself used: an item of `executable_data`."""

    id: str
    tool_name: str
    type: Literal["tool_call", "agent_manifest"]
    args: JsonObject
    result: object
    status: Literal["done", "failed"]
    agent: JsonObject | UnsetType = UNSET


class Step(msgspec.Struct):
    """The state of one step of an agentic turn: an item of `intermediate_steps`; readers fold them by `id`."""

    id: str
    kind: Literal["plan", "model", "search", "fetch", "tool", "agent", "judge"]
    name: str
    status: Literal["pending", "running", "done", "failed", "skipped"]
    depends_on: list[str]
    summary: str
    started_at: float | None
    ended_at: float | None
    usage: dict[str, int] | UnsetType = UNSET
    detail: JsonObject | UnsetType = UNSET


class ChatChunk(msgspec.Struct):
    """One frame of a stream, after `data: `. The last frame is the text `[DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    service_tier: str | UnsetType = UNSET
    system_fingerprint: str | UnsetType = UNSET
    usage: ReplyUsage | UnsetType | None = UNSET
    executable_data: list[ExecutedTool] | UnsetType = UNSET
    intermediate_steps: list[Step] | UnsetType = UNSET
    thought: list[str] | UnsetType = UNSET
    conversation_id: str | UnsetType | None = UNSET
    metadata: ReplyMetadata | UnsetType = UNSET


class StreamFault(msgspec.Struct):
    """The frame of a fault in mid-stream; only `[DONE]` follows."""

    error: ErrorDetail
    choices: list[ChunkChoice]


class Status(msgspec.Struct):
    """What a probe answers; version and models only from `/readyz?verbose`."""

    status: Literal["ok", "ready", "loading", "shutting down"]
    version: str | UnsetType = UNSET
    models: dict[str, str] | UnsetType = UNSET

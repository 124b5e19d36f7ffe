"""Wire shapes of runs and sessions. Times are Unix seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

from convene.api.shapes import ChatReply, JsonObject, ReplyUsage
from convene.api.shapes_usage import Money

RunWord = Literal["running", "done", "failed", "cancelled"]


class RunReply(msgspec.Struct, kw_only=True):
    """One run: an agentic turn. `response_id` is the id of its answer, and of its entry in the books."""

    id: str
    object: Literal["run"] = "run"
    status: RunWord
    model: str
    response_id: str
    request_id: str
    session_id: str | None
    created_at: float
    finished_at: float | None
    expires_at: float | None
    cancel_asked: bool
    resumes: int


class RunList(msgspec.Struct, kw_only=True):
    """A page of runs, newest first; the last id is the `after` of the next page."""

    object: Literal["list"] = "list"
    data: list[RunReply]
    has_more: bool


class RunError(msgspec.Struct):
    """Why a run failed or was cancelled."""

    code: str
    message: str


class RunDetail(RunReply, kw_only=True):
    """One run with its steps as they are now; `response` is the answer of a run that is done."""

    conversation_id: str | None
    intermediate_steps: list[JsonObject]
    usage: ReplyUsage
    cost: Money
    response: ChatReply | None
    error: RunError | None


class SessionReply(msgspec.Struct, kw_only=True):
    """One session. `bytes` is the size of what it remembers."""

    id: str
    object: Literal["session"] = "session"
    conversation_id: str
    created_at: float
    last_used_at: float
    bytes: int


class SessionList(msgspec.Struct, kw_only=True):
    """A page of sessions, last used first; the last id is the `after` of the next page."""

    object: Literal["list"] = "list"
    data: list[SessionReply]
    has_more: bool


class SessionNote(msgspec.Struct, kw_only=True):
    """One thing that a session remembers: its name, as `plan` or `result:s3`, and its value, any JSON."""

    name: str
    at: float
    value: object


class SessionDetail(SessionReply, kw_only=True):
    """One session with all that it remembers, oldest first."""

    notes: list[SessionNote]


class SessionDeleted(msgspec.Struct, kw_only=True):
    """A session that is no more."""

    id: str
    object: Literal["session"] = "session"
    deleted: Literal[True] = True

"""Wire shapes of usage and limits. Whole numbers throughout: tokens, requests, micro-units of money, microseconds."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class Money(msgspec.Struct):
    """Money: millionths of the currency's unit, so 250,000 is 0.25."""

    currency: str
    micros: int


class Used(msgspec.Struct, kw_only=True):
    """What several requests came to. `prompt_tokens` includes `cached_tokens`, `completion_tokens` the reasoning."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int
    images: int
    tool_calls: int
    agent_calls: int
    cost: Money


class UsageTotal(Used, kw_only=True):
    """The answer without `group_by`: one sum. Times are Unix seconds; null leaves a side open."""

    object: Literal["usage"] = "usage"
    scope: Literal["key", "user", "team", "all"]
    key: str | None = None
    user: str | None = None
    team: str | None = None
    since: float | None = None
    until: float | None = None


class UsageGroup(Used, kw_only=True):
    """One group: the values it is grouped by, and its sum."""

    object: Literal["usage.group"] = "usage.group"
    group: dict[str, str]


class UsageGroups(msgspec.Struct, kw_only=True):
    """Groups in the order of their values; `next_after` is the `after` of the next page."""

    object: Literal["list"] = "list"
    group_by: list[str]
    data: list[UsageGroup]
    has_more: bool
    next_after: str | None


class UsageEntry(msgspec.Struct, kw_only=True):
    """One request in the books."""

    object: Literal["usage.request"] = "usage.request"
    id: str
    request_id: str
    created: int
    at_us: int
    kind: Literal["chat", "embedding", "image", "agent"]
    key: str
    user: str | None
    team: str | None
    session: str | None
    agent: str | None
    model: str
    served_by: str
    upstream: str | None
    stream: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int
    images: int
    tool_calls: int
    agent_calls: int
    estimated: bool
    cost: Money
    price: str | None
    status: Literal["ok", "client_left", "failed", "unknown"]
    finish: str | None
    time_to_first_token_us: int | None
    duration_us: int
    others: list[str] | UnsetType = UNSET


class UsageEntries(msgspec.Struct, kw_only=True):
    """Requests, newest first; the next page is `after` the last one's id."""

    object: Literal["list"] = "list"
    data: list[UsageEntry]
    first_id: str | None
    last_id: str | None
    has_more: bool


class LimitLevel(msgspec.Struct, kw_only=True):
    """One limit and how it stands. A budget is in micro-units of the currency. Null: time alone restores nothing."""

    object: Literal["limit"] = "limit"
    name: str
    scope: Literal["key", "user", "team", "model", "key_model"]
    subject: str
    kind: Literal["rate", "budget", "slots"]
    unit: Literal["requests", "tokens", "input_tokens", "output_tokens", "images", "micros", "slots"]
    amount: int
    window_s: int | None
    period: Literal["day", "month", "total"] | None
    used: int
    remaining: int
    reset_ms: int | None


class LimitLevels(msgspec.Struct, kw_only=True):
    """Every limit that binds the caller."""

    object: Literal["list"] = "list"
    key: str
    plan: str
    model: str | None
    currency: str
    data: list[LimitLevel]

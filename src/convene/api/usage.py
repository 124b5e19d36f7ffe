"""`/v1/usage`, `/v1/usage/requests`, `/v1/limits`, and the same for all callers under `/v1/admin` (USAGE-02).

Without parameters `GET /v1/usage` answers for the calling key with one sum of whole numbers, exact as soon as the last
byte of a reply has arrived. What a caller may see is decided in `serving/usage.py`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, cast

import msgspec
from msgspec import UNSET

from convene.api.query import Parameter, Query
from convene.api.shapes_usage import (
    LimitLevel,
    LimitLevels,
    Money,
    UsageEntries,
    UsageEntry,
    UsageGroup,
    UsageGroups,
    UsageTotal,
)
from convene.errors import BadRequest
from convene.limits.limit import Unit
from convene.moments import SECOND_US, moment_us
from convene.serving.base_usage import GROUP_BY, LIMIT_MAX, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call
    from convene.serving.base_usage import Bucket, Entry, GroupBy, Level, LimitDesk, Scope, Sums, UsageDesk

PAGE: Final = 100
AFTER_MAX: Final = 4096
"""Longest place where a page of groups ended, which holds the values of the last group."""
OWN_SCOPES: Final = ("key", "user", "team")
ALL_SCOPES: Final = (*OWN_SCOPES, "all")

_TIME = "7d or 24h (ago), 2026-11-26, 2026-11-26T19:30Z, or Unix seconds; days and times are of UTC."
_RANGE: Final = (
    Parameter(name="since", about=f"Only what was admitted at this time or later: {_TIME}"),
    Parameter(name="until", about="Only what was admitted before this time; written like `since`."),
    Parameter(name="model", about="Only this model, by the name of what served it."),
    Parameter(name="session", about="Only this `x-session-id`."),
    Parameter(name="agent", about="Only this `agent_address`."),
    Parameter(name="key", about="Only this key, by its id."),
)
_WHOSE: Final = Parameter(
    name="scope",
    about="Whose usage: the calling key's, its user's, or its team's (only for a key of the team itself).",
    enum=OWN_SCOPES,
)
_PAGED: Final = (
    Parameter(name="limit", about="Most rows in one answer; 100 if absent.", least=1, most=LIMIT_MAX),
    Parameter(name="after", about="Continue behind this: `next_after` of groups, the last id of requests."),
)
_GROUPED: Final = Parameter(
    name="group_by", about="Sums by one or more of these, joined by commas.", enum=GROUP_BY, is_list=True
)
_ANYBODY: Final = (
    Parameter(name="user", about="Only this user, by its id."),
    Parameter(name="team", about="Only this team, by its id."),
)
USAGE_QUERY: Final = (_WHOSE, *_RANGE, _GROUPED, *_PAGED)
REQUESTS_QUERY: Final = (_WHOSE, *_RANGE, *_PAGED)
FIND_QUERY: Final = (_WHOSE,)
ADMIN_USAGE_QUERY: Final = (*_ANYBODY, *_RANGE, _GROUPED, *_PAGED)
ADMIN_REQUESTS_QUERY: Final = (*_ANYBODY, *_RANGE, *_PAGED)
LIMITS_QUERY: Final = (Parameter(name="model", about="Also the limits on this model, for everybody and for this key."),)


class UsageReports:
    """The endpoints of usage."""

    def __init__(self, desk: UsageDesk, now: Callable[[], float], currency: str) -> None:
        self._desk = desk
        self._now = now
        self._currency = currency

    async def show(self, call: Call) -> None:
        """Answer with one sum, or with groups."""
        query = Query.of(call)
        await self._report(call, query, self._view(query, query.choice("scope", "key", OWN_SCOPES)))

    async def show_all(self, call: Call) -> None:
        """Answer the same over all keys. Admins only."""
        query = Query.of(call)
        await self._report(call, query, self._admin_view(query))

    async def requests(self, call: Call) -> None:
        """Answer with a page of single requests."""
        query = Query.of(call)
        await self._entries(call, query, self._view(query, query.choice("scope", "key", OWN_SCOPES)))

    async def all_requests(self, call: Call) -> None:
        """Answer with a page of everybody's requests. Admins only."""
        query = Query.of(call)
        await self._entries(call, query, self._admin_view(query))

    async def request(self, call: Call) -> None:
        """Answer with one request, found by its id or its `x-request-id`."""
        await self._one(call, View(scope=cast("Scope", Query.of(call).choice("scope", "key", OWN_SCOPES))))

    async def any_request(self, call: Call) -> None:
        """Answer with one request of anybody's. Admins only."""
        await self._one(call, View(scope="all"))

    async def _report(self, call: Call, query: Query, view: View) -> None:
        by = cast("tuple[GroupBy, ...]", query.choices("group_by", GROUP_BY))
        limit = query.number("limit", PAGE, 1, LIMIT_MAX)
        if not by:
            sums = await self._desk.total(call.caller, view)
            await call.reply_json(self._total(call, view, sums))
            return
        after = _read_after(query.text("after", AFTER_MAX), len(by))
        buckets, has_more = await self._desk.groups(call.caller, view, by, limit, after)
        groups = UsageGroups(
            group_by=list(by),
            data=[self._group(by, bucket) for bucket in buckets],
            has_more=has_more,
            next_after=write_after(buckets[-1].group) if has_more else None,
        )
        await call.reply_json(groups)

    async def _entries(self, call: Call, query: Query, view: View) -> None:
        limit = query.number("limit", PAGE, 1, LIMIT_MAX)
        found, has_more = await self._desk.entries(call.caller, view, limit, query.text("after") or "")
        data = [entry_shape(entry, self._currency) for entry in found]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        await call.reply_json(UsageEntries(data=data, first_id=first, last_id=last, has_more=has_more))

    async def _one(self, call: Call, view: View) -> None:
        found = await self._desk.find(call.caller, view, call.params["request"])
        shape = entry_shape(found[0], self._currency)
        if len(found) > 1:
            shape.others = [entry.id for entry in found[1:]]
        await call.reply_json(shape)

    def _view(self, query: Query, scope: str, named: str = "") -> View:
        now_us = int(self._now() * SECOND_US)
        since, until = query.text("since"), query.text("until")
        view = View(
            scope=cast("Scope", scope),
            id=named,
            since_us=None if since is None else moment_us(since, now_us, "since"),
            until_us=None if until is None else moment_us(until, now_us, "until"),
            model=query.text("model"),
            key_id=query.text("key"),
            session_id=query.text("session"),
            agent_address=query.text("agent"),
        )
        if view.since_us is not None and view.until_us is not None and view.since_us > view.until_us:
            raise BadRequest("since must not be later than until.", param="since")
        return view

    def _admin_view(self, query: Query) -> View:
        user, team = query.text("user"), query.text("team")
        if user is not None and team is not None:
            raise BadRequest("Give user or team, not both.", param="team")
        if user is not None:
            return self._view(query, "user", user)
        return self._view(query, "all") if team is None else self._view(query, "team", team)

    def _total(self, call: Call, view: View, sums: Sums) -> UsageTotal:
        named = {"key": call.caller.key_id, "user": call.caller.user_id, "team": call.caller.team_id, "all": ""}
        whose = view.id or named[view.scope]
        return UsageTotal(
            scope=view.scope,
            key=whose if view.scope == "key" else view.key_id,
            user=whose if view.scope == "user" else None,
            team=whose if view.scope == "team" else None,
            since=_seconds(view.since_us),
            until=_seconds(view.until_us),
            **self._figures(sums),  # type: ignore[arg-type]  # the names of `Used`, each with its own type
        )

    def _group(self, by: tuple[GroupBy, ...], bucket: Bucket) -> UsageGroup:
        group = dict(zip(by, bucket.group, strict=True))
        return UsageGroup(group=group, **self._figures(bucket.sums))  # type: ignore[arg-type]  # as above

    def _figures(self, sums: Sums) -> dict[str, int | Money]:
        return sums_shape(sums, self._currency)


class LimitReports:
    """`GET /v1/limits`."""

    def __init__(self, desk: LimitDesk, currency: str) -> None:
        self._desk = desk
        self._currency = currency

    async def show(self, call: Call) -> None:
        """Answer with every limit that binds the caller, and where it stands."""
        model = Query.of(call).text("model")
        levels = await self._desk.limits(call.caller, model)
        answer = LimitLevels(
            key=call.caller.key_id,
            plan=call.caller.plan,
            model=model,
            currency=self._currency,
            data=[level_shape(level) for level in levels],
        )
        await call.reply_json(answer)


def sums_shape(sums: Sums, currency: str) -> dict[str, int | Money]:
    """Return sums by the names of `shapes_usage.Used`."""
    return {
        "requests": sums.requests,
        "prompt_tokens": sums.prompt_tokens,
        "cached_tokens": sums.cached_tokens,
        "completion_tokens": sums.completion_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "total_tokens": sums.total_tokens,
        "images": sums.images,
        "tool_calls": sums.tool_calls,
        "agent_calls": sums.agent_calls,
        "cost": Money(currency, sums.cost_micros),
    }


def entry_shape(entry: Entry, currency: str) -> UsageEntry:
    """Return one entry of the books as clients see it."""
    return UsageEntry(
        id=entry.id,
        request_id=entry.request_id,
        created=entry.at_us // SECOND_US,
        at_us=entry.at_us,
        kind=entry.kind,
        key=entry.key_id,
        user=entry.user_id or None,
        team=entry.team_id or None,
        session=entry.session_id or None,
        agent=entry.agent_address or None,
        model=entry.model_asked,
        served_by=entry.model,
        upstream=entry.upstream or None,
        stream=entry.stream,
        prompt_tokens=entry.prompt_tokens,
        cached_tokens=entry.cached_tokens,
        completion_tokens=entry.completion_tokens,
        reasoning_tokens=entry.reasoning_tokens,
        total_tokens=entry.prompt_tokens + entry.completion_tokens,
        images=entry.images,
        tool_calls=entry.tool_calls,
        agent_calls=entry.agent_calls,
        estimated=entry.estimated,
        cost=Money(currency, entry.cost_micros),
        price=entry.price or None,
        status=entry.status,
        finish=entry.finish or None,
        time_to_first_token_us=entry.ttft_us,
        duration_us=entry.duration_us,
        others=UNSET,
    )


def level_shape(level: Level) -> LimitLevel:
    """Return one limit as clients see it; the time until it is whole is rounded up."""
    limit = level.limit
    return LimitLevel(
        name=limit.name,
        scope=limit.scope,
        subject=limit.subject,
        kind=limit.kind,
        unit=_UNIT_WORDS[limit.unit],  # type: ignore[arg-type]  # the words of the shape
        amount=limit.amount,
        window_s=-(-limit.window_us // SECOND_US) or None,
        period=limit.period or None,
        used=level.used,
        remaining=level.remaining,
        reset_ms=None if level.whole_after_us is None else -(-level.whole_after_us // 1000),
    )


_UNIT_WORDS: Final = {unit: unit.name.lower() for unit in Unit}


def write_after(group: tuple[str, ...]) -> str:
    """Return where a page of groups ended, as text for `after`."""
    return base64.urlsafe_b64encode(msgspec.json.encode(group)).decode().rstrip("=")


def _read_after(text: str | None, parts: int) -> tuple[str, ...]:
    if text is None:
        return ()
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        group = msgspec.json.decode(packed, type=tuple[str, ...])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        group = ()
    if len(group) != parts:
        raise BadRequest("after must be the next_after of a page with the same group_by.", param="after")
    return group


def _seconds(at_us: int | None) -> float | None:
    return None if at_us is None else at_us / SECOND_US

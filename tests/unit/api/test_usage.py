"""`/v1/usage`, `/v1/usage/requests` and `/v1/limits` by themselves: shapes, parameters, pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.api.shapes_usage import LimitLevels, UsageEntries, UsageEntry, UsageGroups, UsageTotal
from convene.api.usage import LimitReports, UsageReports, write_after
from convene.errors import BadRequest, Forbidden, NotFound
from convene.limits.limit import DAY_US, Limit, Unit
from convene.serving.base import Principal
from convene.serving.base_usage import Level
from convene.serving.usage import UsageReader
from ledger_double import ListLedger, entry
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from convene.api.routes import Endpoint

ME = Principal(key_id="k1", owner="k1", plan="free")
ADMIN = Principal(key_id="k9", owner="k9", scopes=("api", "admin"))
NOW = 1_795_651_200.0 + 100_000

LEDGER = ListLedger(
    [
        entry(1, cached_tokens=4, reasoning_tokens=2),
        entry(2, model="large", tool_calls=1, agent_calls=2, images=3),
        entry(3, key_id="k2", user_id="u1", team_id="t1"),
        entry(90_000, session_id="s1", request_id="req_1", status="failed", finish="upstream_error", ttft_us=5),
    ]
)
REPORTS = UsageReports(UsageReader(lambda: LEDGER), lambda: NOW, "EUR")


async def ask(endpoint: Endpoint, query: bytes = b"", caller: Principal = ME, **params: str) -> Any:  # noqa: ANN401
    """Return the JSON of an answer."""
    connection = Connection(method="GET", path="/v1/usage")
    connection.scope["query_string"] = query
    call = connection.call()
    call.principal, call.params = caller, params
    await endpoint(call)
    assert connection.status == 200
    return msgspec.json.decode(connection.body)


async def test_without_parameters_it_is_one_sum_of_whole_numbers_for_the_calling_key() -> None:
    assert await ask(REPORTS.show) == {
        "object": "usage",
        "scope": "key",
        "key": "k1",
        "user": None,
        "team": None,
        "since": None,
        "until": None,
        "requests": 3,
        "prompt_tokens": 30,
        "cached_tokens": 4,
        "completion_tokens": 15,
        "reasoning_tokens": 2,
        "total_tokens": 45,
        "images": 3,
        "tool_calls": 1,
        "agent_calls": 2,
        "cost": {"currency": "EUR", "micros": 300},
    }


async def test_a_range_is_one_sum_too_and_says_its_bounds() -> None:
    found = await ask(REPORTS.show, b"since=2026-11-26&until=2026-11-27&model=small")
    assert (found["requests"], found["since"], found["until"]) == (1, 1_795_651_200.0, 1_795_737_600.0)
    recent = await ask(REPORTS.show, b"since=1d")
    assert recent["requests"] == 1


async def test_groups_page_by_next_after() -> None:
    first = await ask(REPORTS.show, b"group_by=day,model&limit=2")
    assert [row["group"] for row in first["data"]] == [
        {"day": "2026-11-26", "model": "large"},
        {"day": "2026-11-26", "model": "small"},
    ]
    assert (first["object"], first["group_by"], first["has_more"]) == ("list", ["day", "model"], True)
    rest = await ask(REPORTS.show, b"group_by=day,model&limit=2&after=" + first["next_after"].encode())
    assert [row["group"]["day"] for row in rest["data"]] == ["2026-11-27"]
    assert (rest["has_more"], rest["next_after"]) == (False, None)
    assert rest["data"][0]["total_tokens"] == 15


async def test_requests_come_newest_first_and_page_by_the_last_id() -> None:
    first = await ask(REPORTS.requests, b"limit=2")
    assert [row["id"] for row in first["data"]] == ["e90000", "e2"]
    assert (first["first_id"], first["last_id"], first["has_more"]) == ("e90000", "e2", True)
    rest = await ask(REPORTS.requests, b"limit=2&after=e2")
    assert [row["id"] for row in rest["data"]] == ["e1"]
    empty = await ask(REPORTS.requests, b"model=none")
    assert (empty["data"], empty["first_id"], empty["last_id"], empty["has_more"]) == ([], None, None, False)


async def test_one_request_is_found_by_its_id_or_its_request_id() -> None:
    found = await ask(REPORTS.request, request="e90000")
    assert found == {
        "object": "usage.request",
        "id": "e90000",
        "request_id": "req_1",
        "created": 1_795_741_200,
        "at_us": 1_795_741_200_000_000,
        "kind": "chat",
        "key": "k1",
        "user": None,
        "team": None,
        "session": "s1",
        "agent": None,
        "model": "asi1",
        "served_by": "small",
        "upstream": None,
        "stream": False,
        "prompt_tokens": 10,
        "cached_tokens": 0,
        "completion_tokens": 5,
        "reasoning_tokens": 0,
        "total_tokens": 15,
        "images": 0,
        "tool_calls": 0,
        "agent_calls": 0,
        "estimated": False,
        "cost": {"currency": "EUR", "micros": 100},
        "price": None,
        "status": "failed",
        "finish": "upstream_error",
        "time_to_first_token_us": 5,
        "duration_us": 0,
    }
    shared = await ask(REPORTS.request, request="req_1")
    assert (shared["id"], shared["others"]) == ("e90000", ["e1"])


async def test_a_foreign_request_is_not_there() -> None:
    with pytest.raises(NotFound):
        await ask(REPORTS.request, request="e3")
    assert (await ask(REPORTS.any_request, caller=ADMIN, request="e3"))["key"] == "k2"


@pytest.mark.parametrize("endpoint", [REPORTS.show_all, REPORTS.all_requests, REPORTS.any_request])
async def test_everybodys_usage_is_for_admins_only(endpoint: Endpoint) -> None:
    with pytest.raises(Forbidden):
        await ask(endpoint, request="e1")


@pytest.mark.parametrize(
    ("query", "count"),
    [(b"", 4), (b"user=u1", 1), (b"team=t1", 1), (b"key=k1", 3), (b"user=u1&key=k1", 0), (b"session=s1", 1)],
)
async def test_an_admin_narrows_it_to_a_user_a_team_or_a_key(query: bytes, count: int) -> None:
    assert (await ask(REPORTS.show_all, query, ADMIN))["requests"] == count
    assert len((await ask(REPORTS.all_requests, query, ADMIN))["data"]) == count


async def test_a_sum_says_whose_it_is() -> None:
    named = ("scope", "key", "user", "team")

    async def said(endpoint: Endpoint, query: bytes, caller: Principal) -> list[object]:
        found = await ask(endpoint, query, caller)
        return [found[name] for name in named]

    member = Principal(key_id="k2", owner="k2", user_id="u1")
    assert await said(REPORTS.show, b"scope=user", member) == ["user", None, "u1", None]
    assert await said(REPORTS.show, b"scope=user&key=k2", member) == ["user", "k2", "u1", None]
    assert await said(REPORTS.show, b"scope=team", Principal(key_id="k3", owner="t", team_id="t")) == [
        "team",
        None,
        None,
        "t",
    ]
    assert await said(REPORTS.show_all, b"team=t1", ADMIN) == ["team", None, None, "t1"]
    assert await said(REPORTS.show_all, b"key=k1", ADMIN) == ["all", "k1", None, None]


@pytest.mark.req("ERRSHAPE-03", "ERRSHAPE-06")
@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"since=soon", "since"),
        (b"until=never", "until"),
        (b"since=2026-11-27&until=2026-11-26", "since"),
        (b"scope=all", "scope"),
        (b"group_by=week", "group_by"),
        (b"group_by=day,day", "group_by"),
        (b"group_by=day&limit=0", "limit"),
        (b"group_by=day&limit=1001", "limit"),
        (b"group_by=day&after=!!", "after"),
        (b"group_by=day&after=YQ", "after"),
        (b"group_by=day&after=" + write_after(("2026-11-26", "small")).encode(), "after"),
        (b"group_by=day&after=" + b"W" * 5000, "after"),
        (b"model=" + b"x" * 600, "model"),
    ],
)
async def test_a_bad_parameter_is_a_400_that_names_it(query: bytes, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await ask(REPORTS.show, query)
    assert caught.value.param == param


async def test_user_and_team_at_once_are_refused() -> None:
    with pytest.raises(BadRequest, match="not both"):
        await ask(REPORTS.show_all, b"user=u&team=t", ADMIN)


@pytest.mark.parametrize("group", [("2026-11-26", 'a"b\\c', "ü" * 100), ("",), ("x" * 500, "y" * 500)])
async def test_the_end_of_a_page_survives_the_way_through_an_address(group: tuple[str, ...]) -> None:
    kinds = b"session,agent,model"
    wanted = b",".join(kinds.split(b",")[: len(group)])
    found = await ask(REPORTS.show, b"group_by=" + wanted + b"&after=" + write_after(group).encode())
    assert found["object"] == "list"


class Desk:
    """A `LimitDesk` that remembers what it was asked."""

    def __init__(self, *levels: Level) -> None:
        self.levels = list(levels)
        self.asked: list[tuple[str, str | None]] = []

    async def limits(self, caller: Principal, model: str | None) -> list[Level]:
        self.asked.append((caller.key_id, model))
        return self.levels


async def test_limits_say_amount_use_rest_and_when_they_are_whole() -> None:
    tokens = Limit.rate(Unit.TOKENS, 1000, DAY_US, scope="key", subject="k1", name="tokens per day")
    money = Limit.budget(Unit.MICROS, 5_000_000, "total", scope="user", subject="u1", name="budget in total")
    desk = Desk(
        Level(limit=tokens, used=10, remaining=990, whole_after_us=864_000_001),
        Level(limit=money, used=1, remaining=4_999_999, whole_after_us=None),
    )
    found = await ask(LimitReports(desk, "EUR").show, b"model=asi1")
    assert desk.asked == [("k1", "asi1")]
    assert found == {
        "object": "list",
        "key": "k1",
        "plan": "free",
        "model": "asi1",
        "currency": "EUR",
        "data": [
            {
                "object": "limit",
                "name": "tokens per day",
                "scope": "key",
                "subject": "k1",
                "kind": "rate",
                "unit": "tokens",
                "amount": 1000,
                "window_s": 86_400,
                "period": None,
                "used": 10,
                "remaining": 990,
                "reset_ms": 864_001,
            },
            {
                "object": "limit",
                "name": "budget in total",
                "scope": "user",
                "subject": "u1",
                "kind": "budget",
                "unit": "micros",
                "amount": 5_000_000,
                "window_s": None,
                "period": "total",
                "used": 1,
                "remaining": 4_999_999,
                "reset_ms": None,
            },
        ],
    }
    assert (await ask(LimitReports(Desk(), "EUR").show))["model"] is None


async def test_every_answer_is_of_the_shape_that_is_described() -> None:
    """The shapes are what the API description is made from."""
    msgspec.convert(await ask(REPORTS.show), UsageTotal, strict=True)
    msgspec.convert(await ask(REPORTS.show, b"group_by=key"), UsageGroups, strict=True)
    msgspec.convert(await ask(REPORTS.requests), UsageEntries, strict=True)
    msgspec.convert(await ask(REPORTS.request, request="e1"), UsageEntry, strict=True)
    msgspec.convert(await ask(LimitReports(Desk(), "USD").show), LimitLevels, strict=True)

"""Limits as header fields: the tightest of each, resets rounded up, structured fields that parse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api.limit_headers import CACHED_MAX, INTEGER_MAX, LimitHeaders, ReadyHeaders, duration
from convene.limits.allowance import Allowance, limits_of
from convene.limits.limit import DAY_US, MINUTE_US, Limit, Refusal, Unit
from structured_fields import parse_list

if TYPE_CHECKING:
    from convene.api.problems import Header

NOW_US = 1_000_000_000_000
SECOND_US = 1_000_000
LONG_AGO_US = -(1 << 52)

TYPICAL = limits_of(
    Allowance(
        requests_per_minute=60,
        requests_per_day=1_000,
        tokens_per_minute=20_000,
        tokens_per_day=100_000,
        concurrent_requests=8,
        budget_per_month=5_000_000,
    ),
    "key",
    "k1",
)
"""Their states: two arrival times of requests, two of tokens, slots under way, micro-units used."""


def read(headers: list[Header]) -> dict[str, str]:
    """Return headers by name; each may come once."""
    found = {name.decode(): value.decode() for name, value in headers}
    assert len(found) == len(headers)
    return found


def items(headers: list[Header], name: bytes) -> dict[str, dict[str, int | str]]:
    """Return the items of one structured field by their names, which must differ."""
    listed = parse_list(dict(headers)[name])
    found = dict(listed)
    assert len(found) == len(listed)
    return found


@pytest.mark.req("LIMIT-03", "OSDK-09")
def test_openais_six_headers_tell_amount_rest_and_reset() -> None:
    states = (NOW_US + 3 * SECOND_US, LONG_AGO_US, NOW_US + 30 * SECOND_US, LONG_AGO_US, 1, 0)
    found = read(LimitHeaders(TYPICAL).granted(NOW_US, states))
    assert {name: value for name, value in found.items() if name.startswith("x-")} == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "57",
        "x-ratelimit-reset-requests": "3s",
        "x-ratelimit-limit-tokens": "20000",
        "x-ratelimit-remaining-tokens": "10000",
        "x-ratelimit-reset-tokens": "30s",
    }


@pytest.mark.req("LIMIT-03")
def test_a_bare_reset_header_is_never_sent() -> None:
    found = read(LimitHeaders(TYPICAL).granted(NOW_US, (LONG_AGO_US,) * 4 + (0, 0)))
    assert not {"x-ratelimit-reset", "ratelimit-reset"} & found.keys()


@pytest.mark.req("OSDK-09")
def test_the_limit_with_the_least_left_is_shown_whatever_its_place() -> None:
    day_nearly_used = NOW_US + DAY_US * 99_990 // 100_000
    found = read(LimitHeaders(TYPICAL).granted(NOW_US, (LONG_AGO_US, LONG_AGO_US, NOW_US, day_nearly_used, 0, 0)))
    assert found["x-ratelimit-limit-tokens"] == "100000"
    assert found["x-ratelimit-remaining-tokens"] == "10"
    assert found["x-ratelimit-limit-requests"] == "60", "untouched limits differ by their amounts"


def test_a_debt_is_nothing_left_and_its_reset_is_longer_than_the_window() -> None:
    states = (NOW_US, NOW_US, NOW_US + 90 * SECOND_US, NOW_US, 0, 0)
    found = read(LimitHeaders(TYPICAL).granted(NOW_US, states))
    assert found["x-ratelimit-remaining-tokens"] == "0"
    assert found["x-ratelimit-reset-tokens"] == "1m30s"


def test_input_and_output_limits_stand_in_where_tokens_as_such_have_none() -> None:
    apart = limits_of(Allowance(input_tokens_per_minute=900, output_tokens_per_minute=100), "key", "k1")
    found = read(LimitHeaders(apart).granted(NOW_US, (LONG_AGO_US, NOW_US + MINUTE_US // 2)))
    assert found["x-ratelimit-limit-tokens"] == "100"
    assert found["x-ratelimit-remaining-tokens"] == "50"
    assert "x-ratelimit-limit-requests" not in found


def test_no_limits_no_headers() -> None:
    assert LimitHeaders(()).granted(NOW_US, ()) == []
    money = limits_of(Allowance(budget_total=5), "key", "k1")
    assert LimitHeaders(money).granted(NOW_US, (3,)) == [], "money is nobody's business on the way"


def test_the_policy_names_every_rate_and_slots_with_units_of_our_own() -> None:
    assert items(LimitHeaders(TYPICAL).granted(NOW_US, (LONG_AGO_US,) * 4 + (0, 0)), b"ratelimit-policy") == {
        "key-requests-per-minute": {"q": 60, "w": 60},
        "key-requests-per-day": {"q": 1000, "w": 86400},
        "key-tokens-per-minute": {"q": 20000, "qu": "convene-tokens", "w": 60},
        "key-tokens-per-day": {"q": 100000, "qu": "convene-tokens", "w": 86400},
        "key-concurrent-requests": {"q": 8, "qu": "concurrent-requests"},
    }


def test_t_is_when_the_next_unit_comes_and_missing_while_nothing_was_used() -> None:
    few = limits_of(Allowance(requests_per_day=10, tokens_per_minute=20_000), "key", "k1")
    one_used = NOW_US + DAY_US // 10
    half_an_hour_later = NOW_US + 1800 * SECOND_US
    headers = LimitHeaders(few)
    assert items(headers.granted(NOW_US, (one_used, LONG_AGO_US)), b"ratelimit") == {
        "key-requests-per-day": {"r": 9, "t": 8640},
        "key-tokens-per-minute": {"r": 20000},
    }
    assert items(headers.granted(half_an_hour_later, (one_used, NOW_US)), b"ratelimit")["key-requests-per-day"] == {
        "r": 9,
        "t": 8640 - 1800,
    }
    used_up = headers.granted(NOW_US, (NOW_US + DAY_US, NOW_US + 1))
    assert items(used_up, b"ratelimit") == {
        "key-requests-per-day": {"r": 0, "t": 8640},
        "key-tokens-per-minute": {"r": 19999, "t": 1},
    }


def test_a_limit_of_nothing_is_said_without_dividing_by_it() -> None:
    none = limits_of(Allowance(requests_per_minute=0), "key", "k1")
    found = LimitHeaders(none).granted(NOW_US, (NOW_US + 1,))
    assert items(found, b"ratelimit") == {"key-requests-per-minute": {"r": 0, "t": 60}}
    assert read(found)["x-ratelimit-limit-requests"] == "0"


def test_a_limit_above_every_structured_integer_is_left_out() -> None:
    huge = limits_of(Allowance(tokens_per_day=INTEGER_MAX + 1, requests_per_day=INTEGER_MAX), "key", "k1")
    found = LimitHeaders(huge).granted(NOW_US, (LONG_AGO_US, LONG_AGO_US))
    assert items(found, b"ratelimit") == {"key-requests-per-day": {"r": INTEGER_MAX}}
    assert "x-ratelimit-limit-tokens" not in read(found)


@pytest.mark.req("LIMIT-02")
def test_a_refusal_says_when_the_limit_that_refused_has_more_and_nothing_later() -> None:
    states = (NOW_US, NOW_US + DAY_US, NOW_US + MINUTE_US, NOW_US, 0, 0)
    refusal = Refusal(TYPICAL[2], "wait", 1_200_001, NOW_US, states)
    found = LimitHeaders(TYPICAL).refused(refusal)
    assert items(found, b"ratelimit") == {"key-requests-per-day": {"r": 0}, "key-tokens-per-minute": {"r": 0, "t": 2}}
    assert read(found)["x-ratelimit-remaining-tokens"] == "0"


def test_a_refusal_by_a_limit_that_is_not_the_tightest_names_it_too() -> None:
    states = (NOW_US, NOW_US, NOW_US, NOW_US, 8, 0)
    refusal = Refusal(TYPICAL[4], "full", SECOND_US, NOW_US, states)
    assert items(LimitHeaders(TYPICAL).refused(refusal), b"ratelimit") == {
        "key-requests-per-minute": {"r": 60},
        "key-tokens-per-minute": {"r": 20000},
        "key-concurrent-requests": {"r": 0, "t": 1},
    }


@pytest.mark.parametrize(("place", "reason", "wait_us"), [(5, "spent", DAY_US), (2, "never", None)])
def test_a_refusal_without_a_time_in_these_fields_has_none(place: int, reason: str, wait_us: int | None) -> None:
    refusal = Refusal(TYPICAL[place], reason, wait_us, NOW_US, (NOW_US,) * 4 + (0, 5_000_000))  # type: ignore[arg-type]
    left = items(LimitHeaders(TYPICAL).refused(refusal), b"ratelimit")
    assert left == {"key-requests-per-minute": {"r": 60}, "key-tokens-per-minute": {"r": 20000}}


def test_a_refusal_where_only_money_is_limited_has_no_fields() -> None:
    money = limits_of(Allowance(budget_total=5), "key", "k1")
    assert LimitHeaders(money).refused(Refusal(money[0], "spent", None, NOW_US, (5,))) == []


@pytest.mark.req("OSDK-09")
@pytest.mark.parametrize(
    ("span_us", "text"),
    [
        (-5, b"0s"),
        (0, b"0s"),
        (1, b"1ms"),
        (60_000, b"60ms"),
        (998_001, b"999ms"),
        (999_001, b"1s"),
        (1_000_000, b"1s"),
        (1_000_001, b"2s"),
        (59_000_001, b"1m0s"),
        (360_000_000, b"6m0s"),
        (3_599_000_001, b"1h0m0s"),
        (86_400_000_000, b"24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them_and_rounded_up(span_us: int, text: bytes) -> None:
    assert duration(span_us) == text


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s|(\d+)ms")


@given(st.integers(0, 100 * DAY_US))
def test_no_duration_is_shorter_than_its_span_or_a_second_longer(span_us: int) -> None:
    found = _DURATION.fullmatch(duration(span_us).decode())
    assert found is not None
    hours, minutes, seconds, millis = (int(part or 0) for part in found.groups())
    said_us = ((hours * 60 + minutes) * 60 + seconds) * SECOND_US + millis * 1000
    assert span_us <= said_us < span_us + SECOND_US


RATES = st.builds(
    lambda unit, amount, window_s, scope: Limit.rate(
        unit, amount, window_s * SECOND_US, scope=scope, subject="x", name=f"{unit.name.lower()} per {window_s} s"
    ),
    st.sampled_from([Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS, Unit.IMAGES]),
    st.one_of(st.integers(0, 100), st.integers(0, INTEGER_MAX + 10)),
    st.sampled_from([1, 60, 3600, 86_400]),
    st.sampled_from(["key", "user", "team", "model", "key_model"]),
)
SLOTS = st.builds(lambda amount: Limit.slots(amount, scope="key", subject="x"), st.integers(0, 100))
STATE = st.one_of(st.integers(-DAY_US, 2 * DAY_US), st.integers(0, 200))


@given(st.data())
def test_whatever_the_limits_and_states_both_fields_parse_and_agree(data: st.DataObject) -> None:
    """Goal A6: the fields parse as structured fields, always."""
    limits = tuple(data.draw(st.lists(st.one_of(RATES, SLOTS), max_size=8, unique_by=lambda limit: limit.counter)))
    moves = data.draw(st.lists(STATE, min_size=len(limits), max_size=len(limits)))
    states = tuple(
        abs(move) if limit.kind == "slots" else NOW_US + move for limit, move in zip(limits, moves, strict=True)
    )
    found = LimitHeaders(limits).granted(NOW_US, states)
    by_name = dict(found)
    policies = dict(parse_list(by_name.get(b"ratelimit-policy", b"")))
    left = dict(parse_list(by_name.get(b"ratelimit", b"")))
    assert len(policies) == sum(limit.amount <= INTEGER_MAX for limit in limits)
    for name, parameters in left.items():
        rest, amount = parameters["r"], policies[name]["q"]
        assert isinstance(rest, int)
        assert isinstance(amount, int)
        assert 0 <= rest <= amount
    for place, limit in enumerate(limits):
        refusal = Refusal(limit, "wait", 1, NOW_US, states)
        refused = dict(parse_list(dict(LimitHeaders(limits).refused(refusal)).get(b"ratelimit", b"")))
        assert [parameters["t"] for parameters in refused.values() if "t" in parameters] == (
            [1] if limit.amount <= INTEGER_MAX else []
        ), place


@given(st.data())
def test_the_lines_of_an_answer_say_what_its_fields_say(data: st.DataObject) -> None:
    limits = tuple(data.draw(st.lists(st.one_of(RATES, SLOTS), max_size=8, unique_by=lambda limit: limit.counter)))
    moves = data.draw(st.lists(STATE, min_size=len(limits), max_size=len(limits)))
    states = tuple(
        abs(move) if limit.kind == "slots" else NOW_US + move for limit, move in zip(limits, moves, strict=True)
    )
    ready = LimitHeaders(limits)
    fields = ready.granted(NOW_US, states)
    assert ready.lines(NOW_US, states) == b"".join(b"%b: %b\r\n" % field for field in fields)


@given(st.integers(1, 10**9), st.sampled_from([60, 86_400]), st.integers(0, DAY_US))
def test_what_is_left_fits_and_one_more_fits_t_seconds_later(amount: int, window_s: int, behind_us: int) -> None:
    """`r` and `t` against the definition: a cost fits if its arrival time is at most a window ahead."""
    limit = Limit.rate(Unit.REQUESTS, amount, window_s * SECOND_US, scope="key", subject="x", name="requests")
    found = items(LimitHeaders((limit,)).granted(NOW_US, (NOW_US + behind_us,)), b"ratelimit")["key-requests"]
    rest, wait_s = int(found["r"]), int(found.get("t", 0))
    ahead_us = behind_us * limit.per

    def fits(units: int, after_s: int = 0) -> bool:
        return max(0, ahead_us - after_s * SECOND_US * limit.per) + units * limit.step <= limit.window_us * limit.per

    assert fits(rest) or rest == 0
    assert not fits(rest + 1)
    if behind_us:
        assert fits(rest + 1, wait_s), "t is never too early"
        assert wait_s == 1 or not fits(rest + 1, wait_s - 1), "nor a second late"


def test_ready_headers_are_found_by_the_tuple_itself_and_bounded() -> None:
    ready = ReadyHeaders()
    first = ready.of(TYPICAL)
    assert ready.of(TYPICAL) is first
    others = [limits_of(Allowance(requests_per_minute=number), "key", "k1") for number in range(CACHED_MAX + 1)]
    for limits in others:
        granted = ready.of(limits).granted(NOW_US, (LONG_AGO_US,))
        assert read(granted)["x-ratelimit-limit-requests"] == str(limits[0].amount)
    assert ready.of(TYPICAL) is not first, "all were dropped when there were too many"

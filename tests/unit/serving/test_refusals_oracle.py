"""Goal A6: a client that waits as it is told is admitted the first time, and is never told to wait a second too long.

Driven by the arithmetic itself (`limits/gcra.py`): random limits, random requests until one is refused, then the wait
that each of the three places of an answer names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convene.api.limit_headers import LimitHeaders
from convene.api.problems import body_of, headers_of, status_of
from convene.limits.gcra import Moment, State, decide, unused
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Limit, Refusal, Unit
from convene.serving.refusals import refusal_fault
from structured_fields import parse_list

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND_US = 1_000_000
START = Moment(5_000_000_000_000, 1_795_651_200 * SECOND_US + 12_345)
_PART_US = {"ms": 1000, "s": SECOND_US, "min": MINUTE_US, "h": 60 * MINUTE_US, "d": DAY_US}

RATES = st.builds(
    lambda unit, amount, window_us, scope: Limit.rate(
        unit, amount, window_us, scope=scope, subject="x", name=f"{unit.name.lower()} in {window_us} us"
    ),
    st.sampled_from([Unit.REQUESTS, Unit.TOKENS, Unit.OUTPUT_TOKENS]),
    st.one_of(st.integers(1, 50), st.integers(1, 10**9)),
    st.sampled_from([SECOND_US, MINUTE_US, DAY_US]),
    st.sampled_from(["key", "user", "team"]),
)
BUDGETS = st.builds(
    lambda amount, period: Limit.budget(
        Unit.MICROS, amount, period, scope="key", subject="x", name=f"budget per {period}"
    ),
    st.integers(1, 10**7),
    st.sampled_from(["day", "month"]),
)
LIMITS = st.lists(st.one_of(RATES, RATES, BUDGETS), min_size=1, max_size=5, unique_by=lambda limit: limit.counter)


class Caller:
    """One client of some limits, on a time that it moves itself."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)
        self.states: tuple[State, ...] = tuple(unused(limit) for limit in limits)
        self.moment = START

    def ask(self, amounts: Amounts) -> Refusal | None:
        """Return the refusal, or None if it was granted and charged."""
        answer, self.states = decide(self.states, self.moment, self.limits, amounts)
        return answer if isinstance(answer, Refusal) else None

    def wait(self, span_us: int) -> None:
        """Let time pass, on both scales."""
        self.moment = Moment(self.moment.now_us + span_us, self.moment.wall_us + span_us)


def cost(share: float, limits: Sequence[Limit]) -> Amounts:
    """Return a request that takes a share of the smallest limit of each unit, at least one unit of each."""

    def units(unit: Unit) -> int:
        amounts = [limit.amount for limit in limits if limit.unit is unit]
        return max(1, int(min(amounts) * share)) if amounts else 1

    return Amounts(
        requests=1,
        tokens=units(Unit.TOKENS),
        input_tokens=1,
        output_tokens=units(Unit.OUTPUT_TOKENS),
        micros=units(Unit.MICROS),
    )


def refused(caller: Caller, amounts: Amounts, idle_us: int) -> Refusal:
    """Ask until refused, with a pause in between, and return the refusal."""
    for _ in range(200):
        refusal = caller.ask(amounts)
        if refusal is not None:
            assume(refusal.reason in {"wait", "spent"})
            return refusal
        caller.wait(idle_us)
    assume(condition=False)
    raise AssertionError


@settings(max_examples=300, deadline=None)
@given(LIMITS, st.floats(0.05, 1.0), st.integers(0, 200_000), st.sampled_from(["seconds", "millis", "words", "t"]))
def test_a_client_that_waits_as_told_is_admitted_the_first_time(
    limits: list[Limit], share: float, idle_us: int, place: str
) -> None:
    caller = Caller(limits)
    amounts = cost(share, limits)
    refusal = refused(caller, amounts, idle_us)
    assert refusal.wait_us is not None
    fault = refusal_fault(refusal, "USD")
    found = dict(headers_of(fault))
    told_us = {
        "seconds": int(found[b"retry-after"]) * SECOND_US,
        "millis": int(found[b"retry-after-ms"]) * 1000,
        "words": _in_words(fault.message),
        "t": _in_fields(limits, refusal),
    }[place]
    caller.wait(told_us)
    assert caller.ask(amounts) is None, f"{place}: told {told_us}, true wait {refusal.wait_us}"


@settings(max_examples=200, deadline=None)
@given(LIMITS, st.floats(0.05, 1.0), st.integers(0, 200_000))
def test_no_client_is_told_to_wait_a_second_too_long(limits: list[Limit], share: float, idle_us: int) -> None:
    caller = Caller(limits)
    amounts = cost(share, limits)
    refusal = refused(caller, amounts, idle_us)
    assert refusal.wait_us is not None
    told_us = int(dict(headers_of(refusal_fault(refusal)))[b"retry-after"]) * SECOND_US
    caller.wait(told_us - SECOND_US)
    earlier = caller.ask(amounts) if told_us >= SECOND_US else refusal
    assert earlier is not None, f"told {told_us}, and a second less would have done"


@settings(max_examples=100, deadline=None)
@given(LIMITS, st.floats(0.05, 1.0))
def test_retry_after_is_never_earlier_than_a_t_beside_it(limits: list[Limit], share: float) -> None:
    """What draft-ietf-httpapi-ratelimit-headers asks of the two (its section 6)."""
    caller = Caller(limits)
    refusal = refused(caller, cost(share, limits), 0)
    seconds = int(dict(headers_of(refusal_fault(refusal)))[b"retry-after"])
    fields = dict(LimitHeaders(limits).refused(refusal)).get(b"ratelimit", b"")
    for _, parameters in parse_list(fields):
        assert int(parameters.get("t", 0)) <= seconds


@settings(max_examples=100, deadline=None)
@given(LIMITS, st.floats(0.05, 1.0))
def test_the_limit_that_is_named_is_the_one_that_refused(limits: list[Limit], share: float) -> None:
    caller = Caller(limits)
    refusal = refused(caller, cost(share, limits), 0)
    fault = refusal_fault(refusal)
    assert status_of(fault) == 429
    assert refusal.limit.name in fault.message
    assert fault.message.encode() in body_of(fault)


def test_the_longest_of_several_waits_is_told() -> None:
    """Reliability 1.5: one wait is enough, also where several limits refuse."""
    limits = (
        Limit.rate(Unit.REQUESTS, 1, SECOND_US, scope="key", subject="k", name="requests per second"),
        Limit.rate(Unit.TOKENS, 10, MINUTE_US, scope="user", subject="u", name="tokens per minute"),
    )
    caller = Caller(limits)
    amounts = Amounts(requests=1, tokens=10)
    assert caller.ask(amounts) is None
    refusal = caller.ask(amounts)
    assert refusal is not None
    fault = refusal_fault(refusal)
    assert fault.message == "Rate limit reached for this key's user: 10 tokens per minute. Try again in 1 min."
    assert dict(headers_of(fault))[b"retry-after"] == b"60"


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("month", 5)])
def test_a_spent_budget_is_told_when_its_next_period_begins(period: str, days: int) -> None:
    limit = Limit.budget(Unit.MICROS, 10, period, scope="key", subject="k", name=f"budget per {period}")  # type: ignore[arg-type]
    caller = Caller((limit,))
    assert caller.ask(Amounts(micros=10)) is None
    refusal = caller.ask(Amounts(micros=1))
    assert refusal is not None
    until_us = days * DAY_US - 12_345
    assert dict(headers_of(refusal_fault(refusal)))[b"retry-after-ms"] == str(-(-until_us // 1000)).encode()


def _in_words(message: str) -> int:
    parts = re.findall(r"([0-9.]+) (ms|s|min|h|d)\b", message.rpartition(" in ")[2])
    return round(sum(float(count) * _PART_US[word] for count, word in parts))


def _in_fields(limits: Sequence[Limit], refusal: Refusal) -> int:
    """Return the `t` of the limit that refused; a budget has none there, so its true wait."""
    fields = parse_list(dict(LimitHeaders(limits).refused(refusal)).get(b"ratelimit", b""))
    told = [int(parameters["t"]) * SECOND_US for _, parameters in fields if "t" in parameters]
    return told[0] if told else refusal.wait_us or 0

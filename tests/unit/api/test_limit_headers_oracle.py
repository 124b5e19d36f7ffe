"""What the headers say of a limit, held to the arithmetic that decides: what is left fits, one more does not."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from convene.api.limit_headers import LimitHeaders
from convene.limits.gcra import Moment, decide, unused
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit

SECOND_US = 1_000_000
START_US = 7_000_000_000_000


def moment(after_us: int = 0) -> Moment:
    """Return a moment, on both scales `after_us` behind the start."""
    return Moment(START_US + after_us, 1_795_651_200 * SECOND_US + after_us)


def rates(amount: int, per_day: int) -> tuple[Limit, ...]:
    """Return limits on requests per minute and tokens per day."""
    return (
        Limit.rate(Unit.REQUESTS, amount, MINUTE_US, scope="key", subject="k", name="requests per minute"),
        Limit.rate(Unit.TOKENS, per_day, DAY_US, scope="key", subject="k", name="tokens per day"),
    )


def seconds_of(duration: bytes) -> int:
    """Return a duration of the headers in microseconds."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s|(\d+)ms", duration.decode())
    assert found is not None
    hours, minutes, seconds, millis = (int(part or 0) for part in found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * SECOND_US + millis * 1000


AMOUNT = st.one_of(st.integers(1, 100), st.integers(1, 10**6))
USES = st.lists(st.tuples(st.integers(0, 2 * MINUTE_US), st.integers(0, 50)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(AMOUNT, AMOUNT, USES)
def test_what_is_left_can_be_had_at_once_and_not_one_more(
    amount: int, per_day: int, uses: list[tuple[int, int]]
) -> None:
    limits = rates(amount, per_day)
    states, at_us = tuple(unused(limit) for limit in limits), 0
    grant = Grant(START_US, tuple(state[0] for state in states))
    for pause_us, tokens in uses:
        at_us += pause_us
        answer, states = decide(states, moment(at_us), limits, Amounts(requests=1, tokens=tokens))
        grant = Grant(moment(at_us).now_us, answer.states)
    found = dict(LimitHeaders(limits).granted(grant.now_us, grant.states))
    requests = int(found[b"x-ratelimit-remaining-requests"])
    tokens = int(found[b"x-ratelimit-remaining-tokens"])
    for amounts in (Amounts(requests=requests), Amounts(tokens=tokens)):
        granted, _ = decide(states, moment(at_us), limits, amounts)
        assert isinstance(granted, Grant), amounts
    for amounts in (Amounts(requests=requests + 1), Amounts(tokens=tokens + 1)):
        refused, _ = decide(states, moment(at_us), limits, amounts)
        assert isinstance(refused, Refusal), amounts


@settings(max_examples=200, deadline=None)
@given(AMOUNT, AMOUNT, USES)
def test_after_the_reset_the_whole_limit_can_be_had(amount: int, per_day: int, uses: list[tuple[int, int]]) -> None:
    limits = rates(amount, per_day)
    states, at_us = tuple(unused(limit) for limit in limits), 0
    for pause_us, tokens in uses:
        at_us += pause_us
        answer, states = decide(states, moment(at_us), limits, Amounts(requests=1, tokens=tokens))
    answer, states = decide(states, moment(at_us), limits, Amounts())
    found = dict(LimitHeaders(limits).granted(answer.now_us, answer.states))
    for name, amounts in ((b"requests", Amounts(requests=amount)), (b"tokens", Amounts(tokens=per_day))):
        # a state shows whole microseconds; the fraction behind it may ask for one more
        whole_us = at_us + seconds_of(found[b"x-ratelimit-reset-" + name]) + 1
        granted, _ = decide(states, moment(whole_us), limits, amounts)
        assert isinstance(granted, Grant), name


def test_settled_usage_above_what_was_reserved_shows_as_nothing_left() -> None:
    limits = rates(60, 1000)
    _, states = decide(tuple(unused(limit) for limit in limits), moment(), limits, Amounts(requests=1, tokens=1000))
    debt = (states[0][0], states[1][0] + DAY_US)
    found = dict(LimitHeaders(limits).granted(START_US, debt))
    assert found[b"x-ratelimit-remaining-tokens"] == b"0"
    assert found[b"x-ratelimit-reset-tokens"] == b"48h0m0s"
    assert found[b"x-ratelimit-remaining-requests"] == b"59"

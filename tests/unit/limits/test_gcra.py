"""The arithmetic of limits, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convene.limits import gcra
from convene.limits.gcra import FULL_WAIT_US, LONG_AGO_US, MOST_US, Moment
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Past, Refusal, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.limits.gcra import State
    from convene.limits.limit import Period

NOW: Final = Moment(1_000_000_000, 1_800_014_400_000_000)
"""Wall: 2027-01-15 12:00 in UTC."""


def rate(amount: int, window_us: int = MINUTE_US, unit: Unit = Unit.TOKENS) -> Limit:
    return Limit.rate(unit, amount, window_us, scope="key", subject="k", name=f"{unit.name} per {window_us}")


def budget(amount: int, period: Period) -> Limit:
    return Limit.budget(Unit.MICROS, amount, period, scope="key", subject="k", name=f"budget per {period}")


SLOTS: Final = Limit.slots(2, scope="key", subject="k")

RATES: Final = st.builds(rate, st.integers(1, 10**9), st.sampled_from([MINUTE_US, DAY_US]))
SWEEP: Final = [
    rate(amount, window_us)
    for amount in (
        1,
        2,
        3,
        7,
        60,
        97,
        999,
        1_440,
        65_537,
        999_983,
        6_666_667,
        10**7,
        99_999_989,
        10**8,
        10**9 - 63,
        10**9,
    )
    for window_us in (MINUTE_US, DAY_US)
] + [rate(amount) for amount in (11, 13, 480, 4_096, 7 * 10**6, 4 * 10**7, 3 * 10**8, 999_999_999)]
"""Forty limits from one a day to 1 G a minute (goal A2)."""


def tat(limit: Limit, state: State) -> Fraction:
    return state[0] + Fraction(state[1], limit.per)


def sane(limit: Limit, units: int) -> int:
    """Keep a drawn number below the bound of one price, 71 years of the limit."""
    return max(-20_000 * limit.amount, min(units, 20_000 * limit.amount))


def moment(now_us: int) -> Moment:
    return Moment(now_us, NOW.wall_us)


def ask(limits: Sequence[Limit], amounts: Amounts, states: Sequence[State] | None = None) -> Grant | Refusal:
    answer, _ = gcra.decide(states or [gcra.unused(limit) for limit in limits], NOW, limits, amounts)
    return answer


@given(RATES, st.integers(-(10**9), 10**9))
def test_a_price_is_the_exact_fraction(limit: Limit, units: int) -> None:
    units = sane(limit, units)
    whole, rest = gcra.price(limit, units)
    assert 0 <= rest < limit.per
    assert whole + Fraction(rest, limit.per) == Fraction(units * limit.window_us, limit.amount)


@given(RATES, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_refund_is_the_exact_inverse_of_a_charge(limit: Limit, first: int, second: int) -> None:
    first, second = sane(limit, first), sane(limit, second)
    start = (NOW.now_us, 0)
    both = gcra.move(limit, gcra.move(limit, start, first), second)
    assert gcra.move(limit, both, -second) == gcra.move(limit, start, first)
    assert gcra.move(limit, gcra.move(limit, both, -first), -second) == start


@given(RATES, st.lists(st.integers(1, 5_000), max_size=30))
def test_small_charges_lose_nothing_to_rounding(limit: Limit, charges: list[int]) -> None:
    assume(sum(charges) == sane(limit, sum(charges)))
    state = (NOW.now_us, 0)
    for units in charges:
        state = gcra.move(limit, state, units)
    assert state == gcra.move(limit, (NOW.now_us, 0), sum(charges))


@pytest.mark.parametrize("limit", SWEEP, ids=lambda limit: f"{limit.amount}/{limit.window_us}")
def test_all_of_a_limit_can_be_used_by_calls_of_any_size(limit: Limit) -> None:
    """Goal A2: 99.5 % of burst + rate x time at saturation, here all of it, with calls of one unit too."""
    for cost in {1, max(1, limit.amount // 1_000), max(1, limit.amount // 7)}:
        used_up = (NOW.now_us + limit.window_us, 0)
        steps = 50
        state, used = used_up, 0
        span_us = -(-steps * cost * limit.window_us // limit.amount)
        for number in range(1, steps + 1):
            now = moment(NOW.now_us + -(-number * cost * limit.window_us // limit.amount))
            answer, [state] = gcra.decide([state], now, [limit], Amounts(tokens=cost))
            used += cost if isinstance(answer, Grant) else 0
        assert used == steps * cost
        assert used * limit.window_us <= limit.amount * span_us


@given(RATES, st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, DAY_US))
def test_the_wait_is_exact_to_the_microsecond(limit: Limit, cost: int, used: int, passed_us: int) -> None:
    """Goal A6: whoever waits as long as told is admitted, and a microsecond earlier is not."""
    cost = min(cost, limit.amount)
    state = gcra.move(limit, (NOW.now_us, 0), min(used, 2 * limit.amount))
    now_us = NOW.now_us + passed_us
    answer, _ = gcra.decide([state], moment(now_us), [limit], Amounts(tokens=cost))
    if isinstance(answer, Refusal):
        assert answer.reason == "wait"
        assert answer.wait_us is not None
        early, _ = gcra.decide([state], moment(now_us + answer.wait_us - 1), [limit], Amounts(tokens=cost))
        in_time, _ = gcra.decide([state], moment(now_us + answer.wait_us), [limit], Amounts(tokens=cost))
        assert isinstance(early, Refusal)
        assert early.wait_us == 1
        assert isinstance(in_time, Grant)


@given(RATES, st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_grant_means_that_it_fits_in_the_bucket(limit: Limit, before: int, cost: int) -> None:
    state = gcra.move(limit, (NOW.now_us, 0), before)
    answer, [after] = gcra.decide([state], NOW, [limit], Amounts(tokens=cost))
    fits = Fraction(before + cost) <= limit.amount
    assert isinstance(answer, Grant) == (fits or cost == 0)
    assert after == (gcra.move(limit, state, cost) if fits else state)


def test_an_arrival_time_that_has_passed_is_lifted_and_a_later_one_is_not() -> None:
    limit = rate(7)
    assert gcra.lift(limit, (NOW.now_us - 1, 6), NOW) == (NOW.now_us, 0)
    assert gcra.lift(limit, (NOW.now_us, 6), NOW) == (NOW.now_us, 6)
    assert gcra.lift(limit, (NOW.now_us + 1, 0), NOW) == (NOW.now_us + 1, 0)
    assert gcra.lift(limit, gcra.unused(limit), NOW) == (NOW.now_us, 0)


def test_the_rest_of_a_limit_that_was_changed_is_rounded_up() -> None:
    assert gcra.lift(rate(60), (NOW.now_us + 9, 1), NOW) == (NOW.now_us + 10, 0)
    assert gcra.lift(rate(7), (NOW.now_us + 9, 999_999_936), NOW) == (NOW.now_us + 10, 0)


@pytest.mark.parametrize("limit", [rate(0), budget(0, "day"), Limit.slots(0, scope="key", subject="k")])
def test_a_limit_of_zero_allows_nothing_and_costs_nothing_free(limit: Limit) -> None:
    answer = ask([limit], Amounts(tokens=1, micros=1, slots=1))
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.wait_us) == ("never", None)
    assert isinstance(ask([limit], Amounts(requests=1)), Grant)
    assert gcra.settle(limit, gcra.lift(limit, gcra.unused(limit), NOW), NOW, 0, 3)


def test_never_comes_before_any_wait() -> None:
    limits = (rate(10), budget(5, "total"), SLOTS)
    full = [(NOW.now_us + MINUTE_US, 0), (0, 0), (2, 0)]
    answer = ask(limits, Amounts(tokens=1, micros=6, slots=1), full)
    assert isinstance(answer, Refusal)
    assert (answer.limit, answer.reason) == (limits[1], "never")


def test_the_longest_wait_is_told_and_a_total_waits_longest() -> None:
    minute, day = rate(10), rate(10, DAY_US)
    amounts = Amounts(tokens=1, micros=1, slots=1)
    full = [(NOW.now_us + MINUTE_US, 0), (NOW.now_us + DAY_US, 0)]
    answer = ask((minute, day), amounts, full)
    assert isinstance(answer, Refusal)
    assert (answer.limit, answer.wait_us) == (day, DAY_US // 10)
    answer = ask((minute, day, budget(3, "day")), amounts, [*full, (NOW.wall_us // DAY_US, 3)])
    assert isinstance(answer, Refusal)
    assert (answer.limit.kind, answer.reason, answer.wait_us) == ("budget", "spent", DAY_US // 2)
    answer = ask((minute, day, budget(3, "total")), amounts, [*full, (0, 3)])
    assert isinstance(answer, Refusal)
    assert (answer.limit.period, answer.wait_us) == ("total", None)


def test_of_equal_waits_the_first_limit_is_told() -> None:
    limits = (rate(10), rate(10, MINUTE_US, Unit.REQUESTS))
    answer = ask(limits, Amounts(1, 1), [(NOW.now_us + MINUTE_US, 0)] * 2)
    assert isinstance(answer, Refusal)
    assert answer.limit == limits[0]


def test_a_want_of_slots_is_told_only_when_nothing_else_refuses() -> None:
    amounts = Amounts(tokens=1, slots=1)
    answer = ask((SLOTS, rate(10)), amounts, [(2, 0), (NOW.now_us, 0)])
    assert isinstance(answer, Refusal)
    assert (answer.limit, answer.reason, answer.wait_us) == (SLOTS, "full", FULL_WAIT_US)
    answer = ask((SLOTS, rate(10_000_000)), amounts, [(2, 0), (NOW.now_us + MINUTE_US, 0)])
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.wait_us) == ("wait", 6)


def test_a_refusal_returns_the_states_as_they_were() -> None:
    limits = (rate(10), SLOTS, budget(5, "day"))
    states = [(NOW.now_us + MINUTE_US, 0), (1, 0), (NOW.wall_us // DAY_US, 4)]
    answer, after = gcra.decide(states, NOW, limits, Amounts(tokens=1, slots=1, micros=1))
    assert isinstance(answer, Refusal)
    assert answer.states == (NOW.now_us + MINUTE_US, 1, 4)
    assert list(after) == states


def test_a_budget_of_a_past_period_begins_anew_and_of_a_later_one_goes_on() -> None:
    limit = budget(10, "day")
    today = NOW.wall_us // DAY_US
    answer, [after] = gcra.decide([(today - 1, 10)], NOW, [limit], Amounts(micros=4))
    assert isinstance(answer, Grant)
    assert after == (today, 4)
    answer, [after] = gcra.decide([(today + 1, 8)], NOW, [limit], Amounts(micros=2))
    assert isinstance(answer, Grant)
    assert after == (today + 1, 10)
    answer, _ = gcra.decide([after], NOW, [limit], Amounts(micros=1))
    assert isinstance(answer, Refusal)
    assert answer.wait_us == DAY_US + DAY_US // 2


def test_a_spent_month_waits_for_the_first_of_the_next() -> None:
    answer = ask([budget(10, "month")], Amounts(micros=3), [(12 * 2027, 8)])
    assert isinstance(answer, Refusal)
    assert answer.wait_us == (31 - 15) * DAY_US + DAY_US // 2


@pytest.mark.parametrize("unit", list(Unit))
def test_a_negative_amount_of_anything_is_an_error(unit: Unit) -> None:
    amounts = Amounts(*(-1 if one == unit else 1 for one in Unit))
    with pytest.raises(ValueError, match="never negative"):
        gcra.decide([], NOW, [], amounts)


@given(RATES, st.integers(0, 10**9), st.integers(0, 3 * 10**9))
def test_a_settlement_is_as_if_the_actual_cost_had_been_charged(limit: Limit, reserved: int, actual: int) -> None:
    reserved, actual = sane(limit, reserved), sane(limit, actual)
    start = (NOW.now_us + 5, 0)
    settled = gcra.settle(limit, gcra.move(limit, start, reserved), NOW, reserved, actual)
    assert gcra.lift(limit, settled, NOW) == gcra.lift(limit, gcra.move(limit, start, actual), NOW)


def test_a_debt_is_bounded_so_that_doubles_stay_exact() -> None:
    limit = rate(1, DAY_US)
    state = gcra.settle(limit, (NOW.now_us, 0), NOW, 0, 10**9)
    assert state == (NOW.now_us + MOST_US, 0)
    assert 2 * MOST_US - LONG_AGO_US <= 1 << 53


@given(RATES, st.integers(0, 10**9), st.integers(0, 10**9))
def test_stores_that_only_add_agree_with_the_arithmetic(limit: Limit, reserved: int, actual: int) -> None:
    """The rule that Lua and SQL follow: add the prices of both, then carry once. No product, nothing above 2^53."""
    reserved, actual = sane(limit, reserved), sane(limit, actual)
    charged = gcra.price(limit, reserved)
    used = gcra.price(limit, actual)
    first, second = NOW.now_us + charged[0], charged[1]
    first, second = first + used[0] - charged[0], second + used[1] - charged[1]
    if second < 0:
        first, second = first - 1, second + limit.per
    if second >= limit.per:
        first, second = first + 1, second - limit.per
    assert (first, second) == gcra.move(limit, (NOW.now_us, 0), actual)
    assert max(abs(number) for number in (*charged, *used, first, second)) < 1 << 53


def test_a_budget_moves_only_in_the_period_that_was_charged() -> None:
    assert gcra.settle_budget((9, 50), 9, 20, -15) == (9, 35)
    assert gcra.settle_budget((9, 50), 9, 20, -30) == (9, 30)
    assert gcra.settle_budget((9, 50), 9, 20, 30) == (9, 80)
    assert gcra.settle_budget((9, 50), 8, 20, 30) == (9, 50)


def past(limits: tuple[Limit, ...], age_us: int, **amounts: int) -> Past:
    return Past(limits, Amounts(**amounts), age_us)


def test_what_remains_of_the_past_is_what_has_not_refilled() -> None:
    limits = (rate(24, DAY_US),)
    hour_us = DAY_US // 24
    found = gcra.remains([past(limits, 20 * hour_us, tokens=3), past(limits, 2 * hour_us, tokens=5)], NOW.wall_us)
    assert found == {limits[0].counter: (limits[0], (3 * hour_us, 0))}
    found = gcra.remains([past(limits, 20 * hour_us, tokens=20), past(limits, 2 * hour_us, tokens=5)], NOW.wall_us)
    assert found[limits[0].counter][1] == (5 * hour_us, 0)
    found = gcra.remains([past(limits, 5 * hour_us, tokens=5)], NOW.wall_us)
    assert found[limits[0].counter][1] == (0, 0)


def test_what_remains_of_a_budget_is_its_latest_period() -> None:
    limits = (budget(9, "day"), budget(9, "total"), SLOTS)
    today = NOW.wall_us // DAY_US
    ages = (DAY_US, 1, 0, DAY_US)
    found = gcra.remains([past(limits, age_us, micros=2, slots=1) for age_us in ages], NOW.wall_us)
    assert found == {limits[0].counter: (limits[0], (today, 4)), limits[1].counter: (limits[1], (0, 8))}


@given(RATES, st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, DAY_US)), max_size=8), st.integers(0, 10**9))
def test_the_past_added_late_is_the_past_added_first(
    limit: Limit, history: list[tuple[int, int]], admitted: int
) -> None:
    """Whoever was admitted while the counters were rebuilt: the order does not matter."""
    ages = sorted(history, key=lambda one: -one[1])
    left = gcra.remains([past((limit,), age_us, tokens=units) for units, age_us in ages], NOW.wall_us)
    _, remainder = left.get(limit.counter, (limit, (0, 0)))
    start = (NOW.now_us, 0)
    first = gcra.move(limit, gcra.add(limit, start, remainder), admitted)
    assert gcra.add(limit, gcra.move(limit, start, admitted), remainder) == first


def test_a_budget_takes_the_later_of_two_periods_and_adds_within_one() -> None:
    limit = budget(9, "day")
    assert gcra.add(limit, (5, 3), (5, 4)) == (5, 7)
    assert gcra.add(limit, (6, 3), (5, 4)) == (6, 3)
    assert gcra.add(limit, (4, 3), (5, 4)) == (5, 4)

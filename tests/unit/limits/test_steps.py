"""The loops for stores against the arithmetic that they write out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypothesis import given
from hypothesis import strategies as st

from convene.limits import gcra
from convene.limits.gcra import LONG_AGO_US, MOST_US, Moment, State
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Unit
from convene.limits.periods import Calendar, number_of
from convene.limits.steps import DAY, MONTH, RATE, SLOTS, TOTAL, charge, kind_of, settle, shown, steps_of

if TYPE_CHECKING:
    from convene.limits.limit import Period

NOW: Final = Moment(3_000_000_000, 1_800_014_400_000_000)
NUMBERS: Final = Calendar().numbers(NOW.wall_us / 1e6)
TODAY: Final = NOW.wall_us // DAY_US


def rate(amount: int, window_us: int, unit: Unit) -> Limit:
    return Limit.rate(unit, amount, window_us, scope="key", subject="k", name=f"{unit.name} per {window_us}")


def budget(amount: int, period: Period) -> Limit:
    return Limit.budget(Unit.MICROS, amount, period, scope="user", subject="u", name=f"budget per {period}")


SLOT_LIMITS: Final = st.builds(lambda amount: Limit.slots(amount, scope="key", subject="k"), st.integers(0, 5))
RATES: Final = st.builds(
    rate,
    st.one_of(st.integers(0, 100), st.integers(1, 10**9)),
    st.sampled_from([MINUTE_US, DAY_US]),
    st.sampled_from([Unit.REQUESTS, Unit.TOKENS, Unit.OUTPUT_TOKENS]),
)
BUDGETS: Final = st.builds(budget, st.integers(0, 200), st.sampled_from(["day", "month", "total"]))


@st.composite
def limits_and_states(draw: st.DrawFn) -> tuple[tuple[Limit, ...], tuple[State, ...]]:
    """Draw limits of all kinds, each with a state that it may be found in."""
    limits = draw(st.lists(st.one_of(RATES, BUDGETS, SLOT_LIMITS), max_size=7))
    return tuple(limits), tuple(draw(state_of(limit)) for limit in limits)


def state_of(limit: Limit) -> st.SearchStrategy[State]:
    if limit.kind == "slots":
        return st.tuples(st.integers(0, 5), st.just(0))
    if limit.kind == "budget":
        present = number_of(limit.period, NOW.wall_us)
        return st.tuples(st.sampled_from([0, present - 1, present, present + 1]), st.integers(0, 250))
    near = st.integers(NOW.now_us - 5, NOW.now_us + 2 * limit.window_us)
    rests = st.one_of(st.integers(0, limit.per - 1), st.integers(0, 10**9))  # the latter: the limit was changed
    return st.one_of(st.just((LONG_AGO_US, 0)), st.tuples(near, rests))


COSTS: Final = st.builds(
    Amounts,
    requests=st.integers(0, 3),
    tokens=st.integers(0, 10**9),
    input_tokens=st.just(0),
    output_tokens=st.integers(0, 500),
    images=st.just(0),
    micros=st.integers(0, 99),
    slots=st.integers(0, 1),
)


def test_the_calendar_has_the_numbers_of_the_periods_and_follows_the_day() -> None:
    calendar = Calendar()
    for wall_us in (
        NOW.wall_us,
        NOW.wall_us + 1,
        NOW.wall_us + DAY_US,
        NOW.wall_us - 40 * DAY_US,
        0,
        DAY_US - 1,
        DAY_US,
    ):
        expected = tuple(number_of(period, wall_us) for period in ("day", "month", "total"))
        assert calendar.numbers(wall_us / 1e6) == expected


def test_a_budgets_kind_is_the_place_of_its_period() -> None:
    kinds = [kind_of(budget(1, period)) for period in ("day", "month", "total")]
    assert kinds == [DAY, MONTH, TOTAL] == [0, 1, 2]
    assert kind_of(rate(1, DAY_US, Unit.TOKENS)) == RATE
    assert kind_of(Limit.slots(1, scope="key", subject="k")) == SLOTS


@given(limits_and_states(), COSTS)
def test_a_charge_is_that_of_the_arithmetic(drawn: tuple[tuple[Limit, ...], tuple[State, ...]], cost: Amounts) -> None:
    limits, states = drawn
    answer, after = gcra.decide(states, NOW, limits, cost)
    found = charge(steps_of(limits), states, cost, NOW.now_us, NUMBERS)
    if isinstance(answer, Grant):
        assert found == list(after)
        assert shown(steps_of(limits), after) == answer.states
    else:
        assert found is None


@given(drawn=limits_and_states(), reserved=COSTS, actual=COSTS, over=st.booleans(), charged=st.integers(0, 300))
def test_a_settlement_is_that_of_the_arithmetic(
    *, drawn: tuple[tuple[Limit, ...], tuple[State, ...]], reserved: Amounts, actual: Amounts, over: bool, charged: int
) -> None:
    limits, states = drawn
    difference = [used - held for used, held in zip(actual, reserved, strict=True)]
    difference[Unit.SLOTS] = 0 if over else -reserved.slots
    expected = []
    for limit, state in zip(limits, states, strict=True):
        lifted = gcra.lift(limit, state, NOW)
        if limit.kind == "rate":
            expected.append(gcra.settle(limit, state, NOW, reserved[limit.unit], actual[limit.unit]))
        elif limit.kind == "slots":
            expected.append((state[0] - (0 if over else reserved.slots), 0))
        else:
            expected.append(gcra.settle_budget(lifted, TODAY, charged, actual.micros - reserved.micros))
    pairs = [(TODAY, charged)] * len(limits)
    assert settle(steps_of(limits), states, difference, NOW.now_us, NUMBERS, pairs) == expected


def test_a_debt_is_bounded_as_in_the_arithmetic() -> None:
    limits = (rate(1, DAY_US, Unit.TOKENS),)
    [state] = settle(steps_of(limits), [(NOW.now_us, 0)], [0, 10**9, 0, 0, 0, 0, 0], NOW.now_us, NUMBERS, [(0, 0)])
    assert state == (NOW.now_us + MOST_US, 0)


def test_a_debt_at_its_bound_carries_as_in_the_arithmetic() -> None:
    limit = rate(47, DAY_US, Unit.TOKENS)
    state = NOW.now_us, limit.per - 1
    [found] = settle(steps_of((limit,)), [state], [0, 10**9, 0, 0, 0, 0, 0], NOW.now_us, NUMBERS, [(0, 0)])
    assert found == gcra.settle(limit, state, NOW, 0, 10**9)


def test_states_beyond_the_last_limit_are_left_aside() -> None:
    limits = (Limit.slots(2, scope="key", subject="k"),)
    states = [(1, 0), (77, 77)]
    assert charge(steps_of(limits), states, Amounts(slots=1), 0, NUMBERS) == [(2, 0)]
    assert shown(steps_of(limits), states) == (1,)

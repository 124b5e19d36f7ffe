"""States made readable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.limits import gcra
from convene.limits.gcra import Moment
from convene.limits.levels import Room, room_of
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit

if TYPE_CHECKING:
    from convene.limits.limit import Period

NOW: Final = Moment(2_000_000_000, 1_800_014_400_000_000)
"""Wall: 2027-01-15 12:00 in UTC."""


def rate(amount: int, window_us: int = MINUTE_US) -> Limit:
    return Limit.rate(Unit.TOKENS, amount, window_us, scope="key", subject="k", name="tokens")


def budget(period: Period) -> Limit:
    return Limit.budget(Unit.MICROS, 100, period, scope="key", subject="k", name=f"budget per {period}")


SLOTS: Final = Limit.slots(3, scope="key", subject="k")


def room(limit: Limit, state: int) -> Room:
    return room_of(limit, state, NOW.now_us, NOW.wall_us)


def test_a_rate_that_nobody_used_is_whole() -> None:
    for state in (NOW.now_us, NOW.now_us - 5, -(1 << 52)):
        assert room(rate(60), state) == Room(0, 60, 0)


def test_a_rate_comes_back_unit_by_unit() -> None:
    limit = rate(60)
    assert room(limit, NOW.now_us + 1_000_000) == Room(1, 59, 1_000_000)
    assert room(limit, NOW.now_us + 999_999) == Room(1, 59, 999_999)
    assert room(limit, NOW.now_us + MINUTE_US) == Room(60, 0, MINUTE_US)


def test_a_rate_in_debt_has_nothing_left_and_more_used_than_there_is() -> None:
    assert room(rate(60), NOW.now_us + 2 * MINUTE_US) == Room(120, 0, 2 * MINUTE_US)


def test_a_rate_of_nothing_has_nothing_left() -> None:
    assert room(rate(0), NOW.now_us) == Room(0, 0, 0)


@given(st.integers(1, 10**9), st.sampled_from([MINUTE_US, DAY_US]), st.integers(0, 10**9))
def test_what_remains_is_exactly_what_would_be_granted(amount: int, window_us: int, used: int) -> None:
    """Up to the microsecond that the fraction of an arrival time stands for."""
    limit = rate(amount, window_us)
    state = gcra.move(limit, (NOW.now_us, 0), min(used, amount))
    left = room(limit, state[0])
    assert left.used + left.remaining == amount
    later = Moment(NOW.now_us + 1, NOW.wall_us)
    granted, _ = gcra.decide([state], later, [limit], Amounts(tokens=left.remaining))
    assert isinstance(granted, Grant)
    refused, _ = gcra.decide([state], NOW, [limit], Amounts(tokens=left.remaining + 1))
    assert isinstance(refused, Refusal)


@pytest.mark.parametrize(
    ("period", "end_after_us"),
    [("day", DAY_US // 2), ("month", 16 * DAY_US + DAY_US // 2), ("total", None)],
)
def test_a_budget_comes_back_with_the_next_period(period: Period, end_after_us: int | None) -> None:
    assert room(budget(period), 0) == Room(0, 100, 0)
    assert room(budget(period), 30) == Room(30, 70, end_after_us)
    assert room(budget(period), 130) == Room(130, 0, end_after_us)


def test_slots_do_not_come_back_by_waiting() -> None:
    assert room(SLOTS, 0) == Room(0, 3, 0)
    assert room(SLOTS, 3) == Room(3, 0, None)
    assert room(SLOTS, 4) == Room(4, 0, None)

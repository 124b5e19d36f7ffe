"""Days and months in integers, against the standard library's calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.limits.limit import DAY_US
from convene.limits.periods import end_us, first_day_of, month_of, number_of

if TYPE_CHECKING:
    from convene.limits.limit import Period

EPOCH: Final = date(1970, 1, 1)


def as_us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@given(st.dates())
def test_every_day_lies_in_the_month_of_the_calendar(day: date) -> None:
    assert month_of((day - EPOCH).days) == 12 * day.year + day.month - 1


@given(st.dates())
def test_every_month_begins_where_the_calendar_says(day: date) -> None:
    assert first_day_of(12 * day.year + day.month - 1) == (day.replace(day=1) - EPOCH).days


def test_all_days_of_four_centuries_lie_between_the_ends_of_their_months() -> None:
    for day in range(-200_000, 200_000, 17):
        month = month_of(day)
        assert first_day_of(month) <= day < first_day_of(month + 1)


@pytest.mark.parametrize(
    ("moment", "day_end", "month_end"),
    [
        (
            datetime(2024, 2, 28, 23, 59, 59, 999_999, UTC),
            datetime(2024, 2, 29, tzinfo=UTC),
            datetime(2024, 3, 1, tzinfo=UTC),
        ),
        (datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        (datetime(2100, 2, 28, 12, 0, 0, 0, UTC), datetime(2100, 3, 1, tzinfo=UTC), datetime(2100, 3, 1, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 0, 0, 0, UTC), datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_period_ends_with_the_first_moment_of_the_next(
    moment: datetime, day_end: datetime, month_end: datetime
) -> None:
    now_us = as_us(moment)
    assert end_us("day", number_of("day", now_us)) == as_us(day_end)
    assert end_us("month", number_of("month", now_us)) == as_us(month_end)


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from(["day", "month"]))
def test_a_moment_lies_in_its_period_and_its_end_in_the_next(moment: datetime, period: Period) -> None:
    now_us = as_us(moment)
    number = number_of(period, now_us)
    end = end_us(period, number)
    assert end is not None
    assert now_us < end
    assert number_of(period, end) == number + 1
    assert number_of(period, end - 1) == number


def test_a_total_never_ends() -> None:
    assert number_of("total", 77 * DAY_US) == 0
    assert end_us("total", 0) is None

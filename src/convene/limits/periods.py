"""Calendar periods of UTC in integers: which day or month a moment lies in, and how long until the next.

A budget is what may be used in one such period. Days are counted from 1970-01-01, months from the year 0, so that a
later period always has a larger number. Proleptic Gregorian calendar, 400 years of 146,097 days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.limits.limit import DAY_US

if TYPE_CHECKING:
    from convene.limits.limit import Period

ERA_DAYS: Final = 146_097
"""Days in 400 years, after which the calendar repeats."""
EPOCH_DAYS: Final = 719_468
"""Days from 0000-03-01 to 1970-01-01. Years that begin in March put the leap day last, where it moves nothing."""


def month_of(day: int) -> int:
    """Return the month (12 x year + month - 1) in which a day (counted from 1970-01-01) lies."""
    era, in_era = divmod(day + EPOCH_DAYS, ERA_DAYS)
    year = (in_era - in_era // 1_460 + in_era // 36_524 - in_era // 146_096) // 365
    in_year = in_era - (365 * year + year // 4 - year // 100)
    from_march = (5 * in_year + 2) // 153
    return 12 * (400 * era + year) + from_march + 2


def first_day_of(month: int) -> int:
    """Return the day (counted from 1970-01-01) on which a month begins."""
    year, from_march = divmod(month - 2, 12)
    era, of_era = divmod(year, 400)
    in_era = 365 * of_era + of_era // 4 - of_era // 100 + (153 * from_march + 2) // 5
    return ERA_DAYS * era + in_era - EPOCH_DAYS


def number_of(period: Period, wall_us: int) -> int:
    """Return the number of the period in which a moment (microseconds since 1970 in UTC) lies; `total` has only 0."""
    if period == "day":
        return wall_us // DAY_US
    if period == "month":
        return month_of(wall_us // DAY_US)
    return 0


def end_us(period: Period, number: int) -> int | None:
    """Return when a period ends (microseconds since 1970 in UTC): with its next one's first moment; None for never."""
    if period == "day":
        return (number + 1) * DAY_US
    if period == "month":
        return first_day_of(number + 1) * DAY_US
    return None


class Calendar:
    """The numbers of the present periods, worked out once a day: it is asked for every request."""

    __slots__ = ("_end_s", "_numbers", "_start_s")

    def __init__(self) -> None:
        self._start_s = self._end_s = 0.0
        self._numbers = (0, 0, 0)

    def numbers(self, wall_s: float) -> tuple[int, int, int]:
        """Return the numbers of day, month and total at a moment, in Unix seconds."""
        if not self._start_s <= wall_s < self._end_s:
            day = int(wall_s // 86_400)
            self._start_s, self._end_s = day * 86_400.0, (day + 1) * 86_400.0
            self._numbers = (day, month_of(day), 0)
        return self._numbers

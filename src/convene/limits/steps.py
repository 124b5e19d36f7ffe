"""The arithmetic of `gcra.py` for a store that reads all states of a call, decides, and writes all of them back.

The same rules, written out in one loop over plain tuples, as every request passes here: 2 us for six limits, a fifth of
the time of `gcra.decide`. A test holds the two to each other. A `Step` is a limit made ready for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from convene.limits.gcra import MOST_US

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from convene.limits.gcra import State
    from convene.limits.limit import Limit, Period

DAY: Final = 0
MONTH: Final = 1
TOTAL: Final = 2
RATE: Final = 3
SLOTS: Final = 4
"""What a limit is, as a number. That of a budget is the place of its period in `Calendar.numbers`."""

_KINDS: Final[Mapping[Period, int]] = {"day": DAY, "month": MONTH, "total": TOTAL, "": RATE}

Step: TypeAlias = tuple[int, int, int, int, int]
"""Kind, unit, step, per, and of a rate its window, else its amount."""


def kind_of(limit: Limit) -> int:
    """Return what a limit is."""
    return SLOTS if limit.kind == "slots" else _KINDS[limit.period]


def steps_of(limits: Iterable[Limit]) -> tuple[Step, ...]:
    """Make limits ready."""
    return tuple(
        (kind_of(one), int(one.unit), one.step, one.per, one.window_us if one.kind == "rate" else one.amount)
        for one in limits
    )


def charge(
    steps: Sequence[Step], states: Iterable[State], amounts: Sequence[int], now_us: int, numbers: Sequence[int]
) -> list[State] | None:
    """Return the states after a charge of `amounts`, or None if a limit refuses (`gcra.refuse` says which and why).

    `numbers` are those of the present periods (`Calendar.numbers`). States beyond the last step are left aside.
    """
    after: list[State] = []
    for (kind, unit, step, per, most), (before, more) in zip(steps, states, strict=False):
        first, second = before, more
        cost = amounts[unit]
        level = 0
        if kind == RATE:
            if first < now_us:
                first = now_us
                second = 0
            elif second >= per:  # the limit was changed, see gcra.lift
                first += 1
                second = 0
            if cost:
                second += cost * step
                first += second // per
                second %= per
                ahead_us = first - now_us
                if ahead_us >= most and (second or ahead_us > most):
                    return None
        elif kind == SLOTS:
            level = first = first + cost
        else:
            if first < numbers[kind]:
                first = numbers[kind]
                second = 0
            level = second = second + cost
        if level > most and cost:
            return None
        after.append((first, second))
    return after


def settle(
    steps: Sequence[Step],
    states: Iterable[State],
    difference: Sequence[int],
    now_us: int,
    numbers: Sequence[int],
    charged: Sequence[State],
) -> list[State]:
    """Return the states after a settlement by `difference` (actual minus reserved; of slots, what is given back).

    `charged` has for each budget the period that was charged last and the units charged in it; others are left aside.
    """
    after: list[State] = []
    for (kind, unit, step, per, _), (before, more), (period, units) in zip(steps, states, charged, strict=False):
        first, second = before, more
        moved = difference[unit]
        if kind == RATE:
            if first < now_us:
                first = now_us
                second = 0
            elif second >= per:
                first += 1
                second = 0
            if moved:
                whole, rest = divmod(moved * step, per)
                second += rest
                first += min(whole, MOST_US) + second // per  # bounded before the carry, as in gcra.price
                second %= per
        elif kind == SLOTS:
            first += moved
        else:
            if first < numbers[kind]:
                first = numbers[kind]
                second = 0
            if first == period:
                second += max(moved, -units)
        after.append((first, second))
    return after


def shown(steps: Sequence[Step], states: Iterable[State]) -> tuple[int, ...]:
    """Return what a `Grant` shows: TAT, units used, slots under way."""
    return tuple([first if step[0] >= RATE else second for step, (first, second) in zip(steps, states, strict=False)])

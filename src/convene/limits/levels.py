"""How a limit stands, for people: what a `Grant` or `Refusal` holds turned into units and times.

For `GET /v1/limits` and the console. Header fields have their own, unrolled, in `api/limit_headers.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from convene.limits.periods import end_us, number_of

if TYPE_CHECKING:
    from convene.limits.limit import Limit


class Room(NamedTuple):
    """How one limit stands."""

    used: int
    """Units that were used and have not come back; above the amount it is a debt."""
    remaining: int
    """Units that a request may be charged now; 0 in debt."""
    whole_after_us: int | None
    """Microseconds until nothing of it is used any more if nobody asks; None if time alone does not restore it."""


def room_of(limit: Limit, state: int, now_us: int, wall_us: int) -> Room:
    """Return how a limit stands whose state a store has given.

    Args:
        limit: the limit.
        state: its number in `Grant.states`.
        now_us: `Grant.now_us`, of the same answer.
        wall_us: microseconds since 1970 in UTC, for the end of a budget's period.
    """
    if limit.kind == "rate":
        ahead_us = max(0, state - now_us)
        # The arrival time is known to the microsecond below; the fraction above it has passed by the time this is read.
        free = (limit.window_us - ahead_us) * limit.per // limit.step
        return Room(limit.amount - free, max(0, free), ahead_us)
    remaining = max(0, limit.amount - state)
    if not state:
        return Room(0, remaining, 0)
    end = end_us(limit.period, number_of(limit.period, wall_us)) if limit.kind == "budget" else None
    return Room(state, remaining, None if end is None else end - wall_us)

"""The arithmetic of limits: exact, on integers, for a moment that is handed in. The oracle of every store.

The state of a limit on one counter is two integers, `State`:

    rate     (tat, rest)     the theoretical arrival time: tat + rest/per microseconds, 0 <= rest < per
    budget   (period, used)  what was used in the latest period that anybody has seen
    slots    (under way, 0)

GCRA: a unit costs step/per microseconds; what is charged moves the arrival time (TAT) into the future, time catches up
with it, and it may lie at most one window ahead. The remainder of the division is carried, so nothing is ever lost to
rounding, whatever the limit and however small the charge (goal A2).

One step is always: lift to the present, then move by a price. Lifting makes every TAT that has passed the same as no
state at all, so a store may forget a counter whose TAT has passed, and nobody can tell. This also holds for a
settlement: what it adds to a full bucket counts from the moment it is known (reliability 1.1).

For stores that compute in doubles (Lua) or 64-bit integers: `price` makes the only product, here, in integers without
bound. What it returns needs additions and one carry: whole <= 2^51, rest < per <= amount. Keep amounts below 2^51.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from convene.limits.limit import Grant, Refusal
from convene.limits.periods import end_us, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.limits.limit import Amounts, Kind, Limit, Past

State: TypeAlias = tuple[int, int]

LONG_AGO_US: Final = -(1 << 52)
"""The TAT of a rate that nobody has used. Not 0: a machine that has just started has seen less than a day."""

MOST_US: Final = 1 << 51
"""The price of one charge is at most 71 years, so that sums of a few stay exact in a double (2^53)."""

FULL_WAIT_US: Final = 1_000_000
"""The wait of a refusal for want of a slot: a guess, as nobody knows when one comes free (goal A6 leaves it out)."""

_REASONS: Final[Mapping[Kind, Literal["wait", "spent", "full"]]] = {"rate": "wait", "budget": "spent", "slots": "full"}


class Moment(NamedTuple):
    """When it is, on both scales."""

    now_us: int
    """On the clock of rates, which only grows."""
    wall_us: int
    """Microseconds since 1970 in UTC, for the periods of budgets; may be set back."""


def unused(limit: Limit) -> State:
    """Return the state of a limit that nobody has used."""
    return (LONG_AGO_US, 0) if limit.kind == "rate" else (0, 0)


def price(limit: Limit, units: int) -> State:
    """Return what units cost a rate: whole microseconds and the remaining fraction, in `limit.per`ths of one.

    Prices add up: `price(a) + price(b) - price(c)`, carried, is the price of a + b - c (below `MOST_US`).
    """
    whole, rest = divmod(units * limit.step, limit.per)
    return min(whole, MOST_US), rest


def lift(limit: Limit, state: State, moment: Moment) -> State:
    """Return the same state as of now: a TAT that has passed becomes the present, a period that is over begins anew."""
    first, second = state
    if limit.kind == "rate":
        if first < moment.now_us:
            return moment.now_us, 0
        # The limit was changed since: the fraction of a microsecond in other parts is rounded up, once.
        return (first + 1, 0) if second >= limit.per else state
    if limit.kind == "budget":
        period = number_of(limit.period, moment.wall_us)
        return (period, 0) if first < period else state
    return state


def move(limit: Limit, state: State, units: int) -> State:
    """Return a lifted state after a charge, or a refund if `units` is negative. Does not ask whether it fits."""
    first, second = state
    if limit.kind == "rate":
        whole, rest = price(limit, units)
        carry, second = divmod(second + rest, limit.per)
        return first + whole + carry, second
    if limit.kind == "budget":
        return first, second + units
    return first + units, 0


def fits(limit: Limit, units: int) -> bool:
    """Return whether a charge can ever be granted: one above the whole limit cannot, whoever waits."""
    return units <= limit.amount


def wait_us(limit: Limit, moved: State, moment: Moment) -> int | None:
    """Return how long to wait until a charge, whose result would be `moved`, is allowed; 0 = now, None = for ever.

    Of a rate it is exact to the microsecond: a client that waits so long, alone, is admitted (goal A6).
    """
    first, second = moved
    if limit.kind == "rate":
        return max(0, first + (second > 0) - moment.now_us - limit.window_us)
    if limit.kind == "budget":
        if second <= limit.amount:
            return 0
        end = end_us(limit.period, first)
        return None if end is None else max(1, end - moment.wall_us)
    return FULL_WAIT_US if first > limit.amount else 0


def decide(
    states: Sequence[State], moment: Moment, limits: Sequence[Limit], amounts: Amounts
) -> tuple[Grant | Refusal, tuple[State, ...]]:
    """Charge every limit `amounts[limit.unit]`, or none of them; return the answer and the states after it.

    The states are of `limits`, in their order; of slots, leases that are over must not be counted any more. A limit
    that is charged nothing refuses nothing. Raises ValueError for a negative amount.
    """
    check(amounts)
    lifted = tuple(lift(limit, state, moment) for limit, state in zip(limits, states, strict=True))
    moved = tuple(move(limit, state, amounts[limit.unit]) for limit, state in zip(limits, lifted, strict=True))
    refusal = refuse(limits, lifted, moment, amounts)
    if refusal is not None:
        return refusal, lifted
    return Grant(moment.now_us, shown(limits, moved)), moved


def refuse(limits: Sequence[Limit], lifted: Sequence[State], moment: Moment, amounts: Sequence[int]) -> Refusal | None:
    """Return why a charge on lifted states is refused, or None if it is not.

    One that can never fit comes first; then the rate or budget with the longest wait; then a want of slots.
    """
    found: tuple[int, float, int] | None = None
    for index, (limit, state) in enumerate(zip(limits, lifted, strict=True)):
        units = amounts[limit.unit]
        if not units:
            continue
        if not fits(limit, units):
            return Refusal(limit, "never", None, moment.now_us, shown(limits, lifted))
        wait = wait_us(limit, move(limit, state, units), moment)
        if wait != 0:
            rank = (limit.kind != "slots", math.inf if wait is None else wait, -index)
            found = rank if found is None else max(found, rank)
    if found is None:
        return None
    _, longest, place = found
    limit = limits[-place]
    wait = None if longest == math.inf else int(longest)
    return Refusal(limit, _REASONS[limit.kind], wait, moment.now_us, shown(limits, lifted))


def settle(limit: Limit, state: State, moment: Moment, reserved: int, actual: int) -> State:
    """Return a rate's state after a settlement, lifted first: it moves by the difference, into debt if need be."""
    return move(limit, lift(limit, state, moment), actual - reserved)


def settle_budget(state: State, period: int, charged: int, units: int) -> State:
    """Return a budget's state after a settlement by `units`, if it is still in the period that was `charged`.

    A refund gives back at most what was charged in this period (a turn may have begun in the one before).
    """
    first, used = state
    return (first, used + max(units, -charged)) if first == period else state


def remains(past: Sequence[Past], wall_us: int) -> dict[str, tuple[Limit, State]]:
    """Return what is left now of charges of the past, oldest first, by counter: what `add` adds. Slots are left out.

    Of a rate it is a price, what has not refilled since; of a budget the latest period charged and what was used in it.
    """
    found: dict[str, tuple[Limit, State]] = {}
    for one in past:
        then = Moment(-one.age_us, wall_us - one.age_us)
        for limit in one.limits:
            units = one.amounts[limit.unit]
            if units and limit.kind != "slots":
                _, state = found.get(limit.counter, (limit, unused(limit)))
                if limit.kind == "rate" or state[0] <= number_of(limit.period, then.wall_us):
                    state = move(limit, lift(limit, state, then), units)
                found[limit.counter] = limit, state
    present = Moment(0, 0)
    return {counter: (limit, lift(limit, state, present)) for counter, (limit, state) in found.items()}


def add(limit: Limit, state: State, remainder: State) -> State:
    """Return a lifted state with what `remains` of the past added. So it does not matter who was admitted before."""
    first, second = state
    if limit.kind == "rate":
        carry, second = divmod(second + remainder[1], limit.per)
        return first + remainder[0] + carry, second
    if first == remainder[0]:
        return first, second + remainder[1]
    return max(state, remainder)


def shown(limits: Sequence[Limit], states: Sequence[State]) -> tuple[int, ...]:
    """Return what `Grant.states` and `Refusal.states` hold: TAT, units used, slots under way."""
    return tuple(state[1] if limit.kind == "budget" else state[0] for limit, state in zip(limits, states, strict=True))


def check(amounts: Sequence[int]) -> None:
    """Raise ValueError for a negative amount: it would be a refund that nobody has earned."""
    if min(amounts) < 0:
        raise ValueError(f"amounts are never negative: {amounts}")

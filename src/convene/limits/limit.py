"""The values of limiting: what is counted, one limit on one subject, what was asked and what came of it.

    Limit    amount per window of one unit on one counter, such as 20,000 tokens a minute on key k1
    Amounts  what a request costs (estimated), or has cost (settled), in every unit at once
    Grant    it may run; Refusal  it may not: which limit, and how long to wait

Three kinds: a `rate` refills steadily (GCRA on a theoretical arrival time, LIMIT-01), a `budget` is what may be used in
a calendar period of UTC, `slots` is how much may be under way at once. All numbers are integers, times microseconds.
Read by `store/`, which makes the arithmetic atomic, and by `serving/`, which decides which limits apply.
"""

from __future__ import annotations

from enum import IntEnum
from math import gcd
from typing import Final, Literal, NamedTuple, Self, final

import msgspec

MINUTE_US: Final = 60_000_000
DAY_US: Final = 86_400_000_000

Kind = Literal["rate", "budget", "slots"]
Period = Literal["", "day", "month", "total"]
Scope = Literal["key", "user", "team", "model", "key_model"]


class Unit(IntEnum):
    """What a limit counts; the value is the place of its figure in `Amounts`."""

    REQUESTS = 0
    TOKENS = 1
    INPUT_TOKENS = 2
    OUTPUT_TOKENS = 3
    IMAGES = 4
    MICROS = 5
    SLOTS = 6


class Amounts(NamedTuple):
    """A cost in every unit; `amounts[limit.unit]` is what one limit is charged. Never negative."""

    requests: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    micros: int = 0
    slots: int = 0


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit on one subject. Two limits with the same `counter` are the same limit."""

    counter: str
    """The name of its state in a store, such as `key:k1:tokens/minute`."""
    unit: Unit
    kind: Kind
    amount: int
    """Rate: units per window, also the burst. Budget: units per period. Slots: most at once. Zero allows nothing."""
    window_us: int = 0
    """Of a rate; 0 for the others."""
    period: Period = ""
    """Of a budget; empty for the others."""
    scope: Scope
    subject: str
    """Whose: a key's id, a user's, a team's, a model's name, or `key/model`."""
    name: str
    """In words, for the refusal: `tokens per minute`."""
    step: int = 0
    """With `per`, window_us/amount in lowest terms: a unit costs step/per microseconds of a rate.

    Where the amount is zero, one unit costs more than the window, so that no division needs a case of its own.
    """
    per: int = 1

    @classmethod
    def rate(cls, unit: Unit, amount: int, window_us: int, *, scope: Scope, subject: str, name: str) -> Self:
        """Return `amount` units per `window_us`, all of it at once if nothing was used."""
        shared = gcd(window_us, amount) or 1
        return cls(
            counter=f"{scope}:{subject}:{name}",
            unit=unit,
            kind="rate",
            amount=amount,
            window_us=window_us,
            scope=scope,
            subject=subject,
            name=name,
            step=window_us // shared if amount else window_us + 1,
            per=amount // shared or 1,
        )

    @classmethod
    def budget(cls, unit: Unit, amount: int, period: Period, *, scope: Scope, subject: str, name: str) -> Self:
        """Return `amount` units per calendar period."""
        counter = f"{scope}:{subject}:{name}"
        return cls(
            counter=counter,
            unit=unit,
            kind="budget",
            amount=amount,
            period=period,
            scope=scope,
            subject=subject,
            name=name,
        )

    @classmethod
    def slots(cls, amount: int, *, scope: Scope, subject: str, name: str = "concurrent requests") -> Self:
        """Return at most `amount` requests at once."""
        counter = f"{scope}:{subject}:{name}"
        return cls(
            counter=counter, unit=Unit.SLOTS, kind="slots", amount=amount, scope=scope, subject=subject, name=name
        )


@final
class Grant(msgspec.Struct, frozen=True, gc=False):
    """It may run: every limit has been charged. `states` has one number a limit, in the order they were given.

    A rate's state is its theoretical arrival time in microseconds on the clock of `now_us`; a budget's is what is used,
    a slots limit's how many are under way, this one included. `limits/levels.py` makes them readable.
    """

    now_us: int
    states: tuple[int, ...]


@final
class Refusal(msgspec.Struct, frozen=True):
    """It may not run, and nothing was charged anywhere.

    `wait`: a rate, `wait_us` is exact and the longest over all limits that refuse. `spent`: a budget, `wait_us` is the
    time to the next period, None for a total. `full`: slots, `wait_us` is a guess. `never`: the cost is above the whole
    limit, so waiting is pointless.
    """

    limit: Limit
    reason: Literal["wait", "spent", "full", "never"]
    wait_us: int | None
    now_us: int
    states: tuple[int, ...]


class Past(msgspec.Struct, frozen=True):
    """What a request of the past has cost, for rebuilding counters.

    It was admitted `age_us` ago by the books' wall clock; a budget counts it in the period of that moment.
    """

    limits: tuple[Limit, ...]
    amounts: Amounts
    age_us: int

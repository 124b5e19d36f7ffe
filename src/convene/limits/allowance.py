"""How much somebody is allowed, by name: what a plan, a key, a user, a team or a model says, and the limits it makes.

An `Allowance` is said in people's units; None says nothing. `limits_of` turns one into `Limit`s on one subject.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.limits.limit import DAY_US, MINUTE_US, Limit, Unit

if TYPE_CHECKING:
    from convene.limits.limit import Period, Scope


class Allowance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits on one subject; None leaves that one open (or to whoever it inherits from). Money in micro-units."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    input_tokens_per_minute: int | None = None
    input_tokens_per_day: int | None = None
    output_tokens_per_minute: int | None = None
    output_tokens_per_day: int | None = None
    images_per_minute: int | None = None
    images_per_day: int | None = None
    concurrent_requests: int | None = None
    budget_per_day: int | None = None
    budget_per_month: int | None = None
    budget_total: int | None = None

    def over(self, inherited: Allowance) -> Allowance:
        """Return these limits, and where they say nothing the inherited ones."""
        mine = {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(inherited, **mine) if mine else inherited


FIELDS: Final = Allowance.__struct_fields__

_RATES: Final = (
    ("requests", Unit.REQUESTS),
    ("tokens", Unit.TOKENS),
    ("input_tokens", Unit.INPUT_TOKENS),
    ("output_tokens", Unit.OUTPUT_TOKENS),
    ("images", Unit.IMAGES),
)
_WINDOWS: Final = (("minute", MINUTE_US), ("day", DAY_US))
_BUDGETS: Final[tuple[tuple[str, Period], ...]] = (
    ("budget_per_day", "day"),
    ("budget_per_month", "month"),
    ("budget_total", "total"),
)


def limits_of(allowance: Allowance, scope: Scope, subject: str) -> tuple[Limit, ...]:
    """Return the limits an allowance puts on one subject, in the order of its fields."""
    found: list[Limit] = []
    for word, unit in _RATES:
        for window, window_us in _WINDOWS:
            amount = getattr(allowance, f"{word}_per_{window}")
            if amount is not None:
                name = f"{word.replace('_', ' ')} per {window}"
                found.append(Limit.rate(unit, amount, window_us, scope=scope, subject=subject, name=name))
    if allowance.concurrent_requests is not None:
        found.append(Limit.slots(allowance.concurrent_requests, scope=scope, subject=subject))
    for field, period in _BUDGETS:
        amount = getattr(allowance, field)
        if amount is not None:
            name = "budget in total" if period == "total" else f"budget per {period}"
            found.append(Limit.budget(Unit.MICROS, amount, period, scope=scope, subject=subject, name=name))
    return tuple(found)

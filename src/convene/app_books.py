"""The composition of limits and books: plans, prices and stores of a configuration, put together for `app.py`.

A third part of the composition root, beside `app.py` and `app_models.py`: which store, which counters, which limits.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from convene.config import plans_of
from convene.limits.allowance import Allowance
from convene.serving.allowances import Allowances
from convene.serving.terms import Terms
from convene.usage import FREE, Price

if TYPE_CHECKING:
    from convene.config import Config, Plan
    from convene.config import Price as PriceSetting

MICROS: Final = 1_000_000
VERSION_DIGITS: Final = 12


def allowances_of(config: Config) -> Allowances:
    """Return the limits of all plans."""
    return Allowances({name: allowance_of(plan) for name, plan in plans_of(config.plans).items()})


def allowance_of(plan: Plan) -> Allowance:
    """Return a plan's limits, money in micro-units."""
    fields = msgspec.structs.asdict(plan)
    for name in ("budget_per_day", "budget_per_month", "budget_total"):
        if fields[name] is not None:
            fields[name] = round(fields[name] * MICROS)
    return Allowance(**fields)


def terms_of(config: Config, name: str, upstream: str) -> Terms:
    """Return the terms of the deployment `name` on `upstream`."""
    model, host = config.models.get(name), config.upstreams.get(upstream)
    plans = plans_of(config.plans)
    price = config.prices.get((model.price if model else "") or name)
    terms = Terms(price=FREE if price is None else price_of(price, config.currency))
    if model is not None:
        terms = msgspec.structs.replace(
            terms,
            shared=allowance_of(plans[model.limits]) if model.limits else None,
            per_key=allowance_of(plans[model.limits_per_key]) if model.limits_per_key else None,
        )
    if host is not None:
        terms = msgspec.structs.replace(terms, on_disconnect=host.on_disconnect, drain_s=host.drain_s)
    return terms


def price_of(setting: PriceSetting, currency: str) -> Price:
    """Return a price in micro-units; its version follows from its figures, so that a row says what it was made of."""
    cached = setting.input if setting.cached_input is None else setting.cached_input
    said = msgspec.json.encode((currency, setting.input, cached, setting.output, setting.request, setting.image))
    return Price(
        input=round(setting.input * MICROS),
        cached=round(cached * MICROS),
        output=round(setting.output * MICROS),
        request=round(setting.request * MICROS),
        image=round(setting.image * MICROS),
        version=hashlib.sha256(said).hexdigest()[:VERSION_DIGITS],
    )

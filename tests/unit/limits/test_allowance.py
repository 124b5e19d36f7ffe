"""What an allowance says, what it inherits, and the limits it makes."""

from __future__ import annotations

import pytest

from convene.limits.allowance import FIELDS, Allowance, limits_of
from convene.limits.limit import DAY_US, MINUTE_US, Limit, Unit


def test_what_an_allowance_leaves_open_is_inherited() -> None:
    plan = Allowance(requests_per_minute=60, tokens_per_minute=1_000, budget_total=5)
    own = Allowance(tokens_per_minute=0, images_per_day=3)
    assert own.over(plan) == Allowance(requests_per_minute=60, tokens_per_minute=0, images_per_day=3, budget_total=5)
    assert Allowance().over(plan) is plan


def test_an_allowance_that_says_nothing_makes_no_limits() -> None:
    assert limits_of(Allowance(), "key", "k1") == ()


def test_every_field_makes_one_limit_in_the_order_of_the_fields() -> None:
    everything = Allowance(**{field: place + 1 for place, field in enumerate(FIELDS)})
    limits = limits_of(everything, "key", "k1")
    assert [limit.amount for limit in limits] == list(range(1, len(FIELDS) + 1))
    assert len({limit.counter for limit in limits}) == len(FIELDS)
    assert {limit.unit for limit in limits} == set(Unit)
    assert {limit.scope for limit in limits} == {"key"}


@pytest.mark.parametrize(
    ("field", "unit", "window_us", "name"),
    [
        ("requests_per_minute", Unit.REQUESTS, MINUTE_US, "requests per minute"),
        ("tokens_per_day", Unit.TOKENS, DAY_US, "tokens per day"),
        ("input_tokens_per_minute", Unit.INPUT_TOKENS, MINUTE_US, "input tokens per minute"),
        ("output_tokens_per_day", Unit.OUTPUT_TOKENS, DAY_US, "output tokens per day"),
        ("images_per_minute", Unit.IMAGES, MINUTE_US, "images per minute"),
    ],
)
def test_a_rate_counts_its_unit_in_its_window(field: str, unit: Unit, window_us: int, name: str) -> None:
    [limit] = limits_of(Allowance(**{field: 7}), "team", "t1")
    assert limit == Limit.rate(unit, 7, window_us, scope="team", subject="t1", name=name)
    assert limit.counter == f"team:t1:{name}"


def test_budgets_and_slots_are_named_for_people() -> None:
    allowance = Allowance(concurrent_requests=2, budget_per_day=3, budget_per_month=4, budget_total=5)
    limits = limits_of(allowance, "user", "u1")
    assert [limit.name for limit in limits] == [
        "concurrent requests",
        "budget per day",
        "budget per month",
        "budget in total",
    ]
    assert [limit.period for limit in limits] == ["", "day", "month", "total"]
    assert [limit.unit for limit in limits] == [Unit.SLOTS, Unit.MICROS, Unit.MICROS, Unit.MICROS]


@pytest.mark.parametrize("amount", [0, 1, 7, 60, 999_999_937, 1_000_000_000])
def test_the_cost_of_a_unit_is_in_lowest_terms(amount: int) -> None:
    limit = Limit.rate(Unit.TOKENS, amount, DAY_US, scope="key", subject="k1", name="tokens")
    if amount:
        assert limit.step * amount == limit.per * DAY_US
        assert limit.per <= amount
    else:
        assert limit.step > limit.window_us * limit.per

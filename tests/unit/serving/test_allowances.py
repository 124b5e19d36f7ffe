"""Which limits a caller has on a model: its plan's, its own over them, its user's, its team's and the model's."""

from __future__ import annotations

import msgspec
import pytest

from convene.errors import Forbidden
from convene.limits.allowance import Allowance
from convene.limits.limit import Limit, Unit
from convene.serving import allowances
from convene.serving.allowances import Allowances
from convene.serving.base import Principal
from convene.serving.terms import PLAIN, Terms

PLANS = {
    "free": Allowance(requests_per_minute=20, tokens_per_day=1000, concurrent_requests=2),
    "pro": Allowance(requests_per_minute=600, budget_per_month=5_000_000),
    "open": Allowance(),
}


def who(**fields: object) -> Principal:
    """Return a caller on plan `free` unless said otherwise."""
    given: dict[str, object] = {"key_id": "k1", "owner": "o", "plan": "free"} | fields
    return msgspec.convert(given, Principal)


def said(limits: tuple[Limit, ...]) -> dict[str, int]:
    """Return the amounts by counter."""
    assert len({limit.counter for limit in limits}) == len(limits)
    return {limit.counter: limit.amount for limit in limits}


@pytest.mark.req("LIMIT-04", "KEY-04")
def test_a_key_has_the_limits_of_its_plan_and_its_own_go_before_them() -> None:
    found = Allowances(PLANS)
    assert said(found.of(who(), "m", PLAIN)) == {
        "key:k1:requests per minute": 20,
        "key:k1:tokens per day": 1000,
        "key:k1:concurrent requests": 2,
    }
    assert said(found.of(who(plan="pro", key_id="k2"), "m", PLAIN)) == {
        "key:k2:requests per minute": 600,
        "key:k2:budget per month": 5_000_000,
    }
    own = Allowance(requests_per_minute=5, budget_total=7)
    assert said(found.of(who(limits=own, key_id="k3"), "m", PLAIN)) == {
        "key:k3:requests per minute": 5,
        "key:k3:tokens per day": 1000,
        "key:k3:concurrent requests": 2,
        "key:k3:budget in total": 7,
    }
    assert found.of(who(plan="open"), "m", PLAIN) == ()


def test_a_user_a_team_and_a_model_add_limits_of_their_own() -> None:
    caller = who(
        plan="open",
        user_id="u1",
        team_id="t1",
        user_limits=Allowance(requests_per_day=9),
        team_limits=Allowance(tokens_per_minute=8),
        model_limits={"m": Allowance(requests_per_day=1)},
    )
    terms = Terms(shared=Allowance(concurrent_requests=7), per_key=Allowance(tokens_per_day=6, requests_per_day=5))
    assert said(Allowances(PLANS).of(caller, "m", terms)) == {
        "user:u1:requests per day": 9,
        "team:t1:tokens per minute": 8,
        "model:m:concurrent requests": 7,
        "key_model:k1/m:requests per day": 1,
        "key_model:k1/m:tokens per day": 6,
    }
    assert said(Allowances(PLANS).of_caller(caller)) == {"user:u1:requests per day": 9, "team:t1:tokens per minute": 8}


def test_the_tuple_stays_the_same_object_until_something_about_it_changes() -> None:
    found, first = Allowances(PLANS), who()
    limits = found.of(first, "m", PLAIN)
    assert found.of(first, "m", PLAIN) is limits
    assert found.of(msgspec.structs.replace(first), "m", PLAIN) is limits
    tighter = found.of(msgspec.structs.replace(first, limits=Allowance(requests_per_minute=1)), "m", PLAIN)
    assert said(tighter)["key:k1:requests per minute"] == 1
    assert found.of(first, "other", PLAIN) is not limits


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "REMEMBERED_MAX", 3)
    found = Allowances(PLANS)
    callers = [who(key_id=f"k{n}") for n in range(10)]
    for caller in callers:
        assert len(found.of(caller, "m", PLAIN)) == 3
    assert len(found._found) <= 3


def test_a_plan_that_is_gone_closes_the_key_and_says_so() -> None:
    with pytest.raises(Forbidden, match="The plan 'gold' of this key is not configured"):
        Allowances(PLANS).of(who(plan="gold"), "m", PLAIN)


def test_money_of_a_plan_is_a_budget_in_micro_units() -> None:
    limits = Allowances(PLANS).of(who(plan="pro"), "m", PLAIN)
    (budget,) = [limit for limit in limits if limit.kind == "budget"]
    assert (budget.unit, budget.amount, budget.period) == (Unit.MICROS, 5_000_000, "month")

"""A worker's share of a limit, and its answers in the words of the whole limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit
from convene.serving.shares import CHOICES, Shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.limits.limit import Kind
    from convene.serving.shares import Choice

WAIT_US = 1_000_000

RATE = Limit.rate(Unit.TOKENS, 1000, MINUTE_US, scope="key", subject="k1", name="tokens per minute")
SLOTS = Limit.slots(10, scope="key", subject="k1")
MONEY = Limit.budget(Unit.MICROS, 500, "day", scope="user", subject="u1", name="budget per day")


def shares(workers: int = 4, choices: Mapping[Kind, Choice] | None = None) -> Shares:
    return Shares(workers, choices or {}, WAIT_US)


def test_a_rate_is_divided_by_the_workers_and_keeps_its_name_and_window() -> None:
    (part,) = shares().divide((RATE,)).shares
    assert (part.amount, part.window_us, part.counter, part.name) == (250, MINUTE_US, RATE.counter, RATE.name)
    assert part.step / part.per == MINUTE_US / 250


@given(amount=st.integers(0, 10**9), workers=st.integers(1, 64))
def test_shares_of_a_rate_add_up_to_no_more_than_the_limit(amount: int, workers: int) -> None:
    limit = Limit.rate(Unit.TOKENS, amount, DAY_US, scope="key", subject="k", name="n")
    (part,) = shares(workers).divide((limit,)).shares
    assert part.amount * workers <= max(amount, workers if amount else 0)
    assert bool(part.amount) == bool(amount), "never nothing, unless nothing is allowed"
    assert part.amount * workers > amount - workers


@given(amount=st.integers(0, 1000), workers=st.integers(1, 64))
def test_shares_of_slots_are_rounded_up(amount: int, workers: int) -> None:
    (part,) = shares(workers).divide((Limit.slots(amount, scope="key", subject="k"),)).shares
    assert amount <= part.amount * workers < amount + workers


def test_a_limit_whose_counter_has_another_name_keeps_it() -> None:
    limit = Limit(
        counter="other", unit=Unit.IMAGES, kind="rate", amount=9, window_us=DAY_US, scope="key", subject="k", name="n"
    )
    assert shares().divide((limit,)).shares[0].counter == "other"


def test_money_is_closed_unless_chosen_otherwise() -> None:
    assert CHOICES == {"rate": "local", "budget": "closed", "slots": "local"}
    assert not shares().divide((RATE, SLOTS)).closed
    assert shares().divide((RATE, MONEY)).closed
    assert not shares(choices={"budget": "open"}).divide((RATE, MONEY)).closed
    assert shares(choices={"slots": "closed"}).divide((RATE, SLOTS)).closed


def test_a_local_budget_is_divided_too() -> None:
    divided = shares(choices={"budget": "local"}).divide((MONEY,))
    assert [part.amount for part in divided.shares] == [125]
    assert divided.shares[0].period == "day"


def test_what_is_open_is_not_counted_and_looks_unused() -> None:
    chosen = shares(choices={"rate": "open", "budget": "open"})
    divided = chosen.divide((RATE, SLOTS, MONEY))
    assert divided.places == (1,)
    assert chosen.grant(divided, Grant(77, (3,))) == Grant(77, (77, 3, 0))


def test_a_division_is_made_once() -> None:
    once = shares()
    limits = (RATE, SLOTS)
    assert once.divide(limits) is once.divide(limits)
    assert once.divide((RATE, SLOTS)).shares == once.divide(limits).shares


def test_no_number_of_divisions_is_kept_for_ever() -> None:
    many = shares()
    kept = [(RATE,) for _ in range(3)]
    first = many.divide(kept[0])
    for number in range(20_000):
        many.divide((Limit.slots(number, scope="key", subject="k"),))
    assert len(many._known) <= 16_384
    assert many.divide(kept[0]) == first


def test_a_refusal_names_the_whole_limit() -> None:
    one = shares()
    divided = one.divide((SLOTS, RATE))
    answer = Refusal(divided.shares[1], "wait", 42, 7, (1, 60_000_007))
    told = one.refusal(divided, answer, Amounts(tokens=100))
    assert told == Refusal(RATE, "wait", 42, 7, (1, 60_000_007))


def test_a_cost_above_the_share_waits_for_the_store_and_one_above_the_limit_for_nothing() -> None:
    one = shares()
    divided = one.divide((RATE, SLOTS))
    never = Refusal(divided.shares[0], "never", None, 7, (7, 0))
    assert one.refusal(divided, never, Amounts(tokens=1000)).wait_us == WAIT_US
    assert one.refusal(divided, never, Amounts(tokens=1000)).reason == "wait"
    assert one.refusal(divided, never, Amounts(tokens=1001)) == Refusal(RATE, "never", None, 7, (7, 0))


def test_a_budget_above_its_share_is_a_wait_of_its_own_kind() -> None:
    one = shares(choices={"budget": "local"})
    divided = one.divide((MONEY,))
    never = Refusal(divided.shares[0], "never", None, 7, (0,))
    told = one.refusal(divided, never, Amounts(micros=400))
    assert (told.limit, told.reason, told.wait_us) == (MONEY, "spent", WAIT_US)


@pytest.mark.parametrize("workers", [0, -3, 1])
def test_a_worker_alone_has_the_whole_limit(workers: int) -> None:
    assert shares(workers).divide((RATE, SLOTS)).shares == (RATE, SLOTS)

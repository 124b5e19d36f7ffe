"""The contract of `convene.store.base_counters.Counters`, run unchanged against every implementation.

Three parts: what holds on any clock (time is read from the answers), what needs a clock that can be moved, and what
several processes see of each other. The oracle is `counters_model.Model`, plain calls of `convene.limits.gcra`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from contract.counters_backends import BACKENDS, MOVABLE, NEAR, NOON_US, SHARED, IntegerClock, Opened
from convene.errors import NotFound
from convene.limits.allowance import Allowance, limits_of
from convene.limits.gcra import Moment
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit
from convene.store.base_counters import Past
from counters_model import Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from convene.store.base_counters import Counters

HOUR_US: Final = 3_600_000_000
ONE: Final = Amounts(requests=1)


@pytest.fixture(params=list(BACKENDS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    async with BACKENDS[request.param](tmp_path) as found:
        yield found


@pytest.fixture
def counters(opened: Opened) -> Counters:
    return opened.counters


@pytest.fixture(params=MOVABLE)
async def moved(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Counters, IntegerClock]]:
    async with BACKENDS[request.param](tmp_path) as found:
        assert found.clock is not None
        yield found.counters, found.clock


@pytest.fixture(params=SHARED)
async def two(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Counters, Counters]]:
    async with BACKENDS[request.param](tmp_path) as found:
        assert found.more is not None
        other = await found.more()
        yield found.counters, other
        await other.aclose()


def rate(amount: int, window_us: int = DAY_US, unit: Unit = Unit.REQUESTS, subject: str = "k1") -> Limit:
    return Limit.rate(unit, amount, window_us, scope="key", subject=subject, name=f"{unit.name} per {window_us}")


def slots(amount: int, subject: str = "k1") -> Limit:
    return Limit.slots(amount, scope="key", subject=subject)


def total(amount: int, subject: str = "k1") -> Limit:
    return Limit.budget(Unit.MICROS, amount, "total", scope="user", subject=subject, name="budget in total")


def daily(amount: int) -> Limit:
    return Limit.budget(Unit.MICROS, amount, "day", scope="user", subject="u1", name="budget per day")


def left(limit: Limit, answer: Grant | Refusal, place: int = 0) -> int:
    """Return the units of a rate that are left, rounded to the nearest: a microsecond more or less does not show."""
    ahead_us = max(0, answer.states[place] - answer.now_us)
    return limit.amount - round(ahead_us * limit.amount / limit.window_us)


async def grant(counters: Counters, lease: str, limits: tuple[Limit, ...], amounts: Amounts) -> Grant:
    answer = await counters.reserve(lease, limits, amounts, HOUR_US)
    assert isinstance(answer, Grant), answer
    return answer


async def refusal(counters: Counters, lease: str, limits: tuple[Limit, ...], amounts: Amounts) -> Refusal:
    answer = await counters.reserve(lease, limits, amounts, HOUR_US)
    assert isinstance(answer, Refusal), answer
    return answer


# What holds on any clock.


async def test_a_request_charges_every_limit_in_its_own_unit(counters: Counters) -> None:
    limits = (rate(100), rate(1000, unit=Unit.TOKENS), slots(4), total(500))
    answer = await grant(counters, "a", limits, Amounts(requests=1, tokens=250, micros=120, slots=1))
    assert left(limits[0], answer) == 99
    assert left(limits[1], answer, 1) == 750
    assert answer.states[2:] == (1, 120)


async def test_exactly_the_amount_fits(counters: Counters) -> None:
    limits = (rate(7),)
    for number in range(7):
        await grant(counters, f"l{number}", limits, ONE)
    answer = await refusal(counters, "l7", limits, ONE)
    assert answer.reason == "wait"
    assert answer.limit == limits[0]
    assert answer.wait_us is not None
    assert 0 < answer.wait_us <= DAY_US // 7 + 1


async def test_a_refused_request_charges_nothing_on_any_other_limit(counters: Counters) -> None:
    limits = (rate(100), rate(10, unit=Unit.TOKENS), slots(9), total(1000))
    await grant(counters, "a", limits, Amounts(requests=1, tokens=8, micros=5, slots=1))
    before = await counters.levels(limits)
    answer = await refusal(counters, "b", limits, Amounts(requests=1, tokens=5, micros=5, slots=1))
    after = await counters.levels(limits)
    assert answer.limit == limits[1]
    assert before.states == after.states == answer.states


async def test_a_refusal_leaves_no_lease(counters: Counters) -> None:
    limits = (rate(1),)
    await grant(counters, "a", limits, ONE)
    await refusal(counters, "b", limits, ONE)
    assert await counters.settle("b", ONE) is None
    await counters.settle("a", Amounts())
    await grant(counters, "b", limits, ONE)


async def test_a_cost_above_the_whole_limit_can_never_run(counters: Counters) -> None:
    for limit in (rate(10), total(10), slots(0), rate(0)):
        cost = Amounts(requests=11, micros=11, slots=1)
        answer = await refusal(counters, "a", (limit,), cost)
        assert (answer.reason, answer.wait_us) == ("never", None)


async def test_the_longest_wait_of_all_limits_is_told(counters: Counters) -> None:
    limits = (rate(1, MINUTE_US), rate(2, DAY_US), rate(3, MINUTE_US, Unit.TOKENS))
    await grant(counters, "a", limits, Amounts(requests=1, tokens=3))
    await counters.settle("a", Amounts(requests=2, tokens=3))
    answer = await refusal(counters, "b", limits, Amounts(requests=1, tokens=3))
    assert answer.limit == limits[1]
    assert answer.wait_us is not None
    assert MINUTE_US < answer.wait_us <= DAY_US // 2


async def test_a_limit_that_is_charged_nothing_refuses_nothing(counters: Counters) -> None:
    limits = (rate(10), rate(0, unit=Unit.IMAGES), rate(5, unit=Unit.TOKENS), total(3))
    await grant(counters, "a", limits, Amounts(requests=1, tokens=5, micros=3))
    await counters.settle("a", Amounts(requests=1, tokens=50, micros=30))
    answer = await grant(counters, "b", limits, ONE)
    assert answer.states[3] == 30


async def test_a_spent_total_is_never_given_back_by_waiting(counters: Counters) -> None:
    limits = (total(10),)
    await grant(counters, "a", limits, Amounts(micros=8))
    answer = await refusal(counters, "b", limits, Amounts(micros=3))
    assert (answer.reason, answer.wait_us, answer.states) == ("spent", None, (8,))
    assert (await grant(counters, "c", limits, Amounts(micros=2))).states == (10,)


async def test_a_spent_day_waits_for_the_next(counters: Counters) -> None:
    limits = (daily(10),)
    await grant(counters, "a", limits, Amounts(micros=10))
    answer = await refusal(counters, "b", limits, Amounts(micros=1))
    assert answer.reason == "spent"
    assert answer.wait_us is not None
    assert 0 < answer.wait_us <= DAY_US


async def test_slots_are_taken_and_given_back(counters: Counters) -> None:
    limits = (slots(2),)
    taking = Amounts(slots=1)
    assert (await grant(counters, "a", limits, taking)).states == (1,)
    assert (await grant(counters, "b", limits, taking)).states == (2,)
    answer = await refusal(counters, "c", limits, taking)
    assert answer.reason == "full"
    assert answer.wait_us is not None
    settled = await counters.settle("a", Amounts())
    assert settled is not None
    assert settled.states == (1,)
    assert (await grant(counters, "c", limits, taking)).states == (2,)


async def test_a_want_of_slots_yields_to_a_wait_that_is_exact(counters: Counters) -> None:
    limits = (slots(1), rate(1))
    await grant(counters, "a", limits, Amounts(requests=1, slots=1))
    assert (await refusal(counters, "b", limits, Amounts(requests=1, slots=1))).reason == "wait"


async def test_settling_refunds_what_was_not_used(counters: Counters) -> None:
    limits = (rate(1000, unit=Unit.TOKENS), total(1000))
    await grant(counters, "a", limits, Amounts(tokens=900, micros=900))
    settled = await counters.settle("a", Amounts(tokens=100, micros=50))
    assert settled is not None
    assert left(limits[0], settled) == 900
    assert settled.states[1] == 50


async def test_settling_above_the_reservation_goes_into_debt(counters: Counters) -> None:
    limits = (rate(1000, unit=Unit.TOKENS), total(1000))
    await grant(counters, "a", limits, Amounts(tokens=900, micros=900))
    settled = await counters.settle("a", Amounts(tokens=2500, micros=1700))
    assert settled is not None
    assert left(limits[0], settled) == -1500
    assert settled.states[1] == 1700
    answer = await refusal(counters, "b", limits, Amounts(tokens=1))
    assert answer.wait_us is not None
    assert 1.49 * DAY_US < answer.wait_us <= 1.51 * DAY_US
    assert (await refusal(counters, "c", limits, Amounts(micros=1))).reason == "spent"


async def test_a_lease_is_settled_once(counters: Counters) -> None:
    limits = (rate(10), slots(3), total(100))
    await grant(counters, "a", limits, Amounts(requests=4, micros=40, slots=1))
    assert await counters.settle("a", Amounts(requests=1, micros=1)) is not None
    before = (await counters.levels(limits)).states
    assert await counters.settle("a", Amounts()) is None
    assert await counters.settle("nobody", ONE) is None
    assert (await counters.levels(limits)).states == before


async def test_a_repeat_of_a_lease_returns_the_first_answer_and_charges_nothing(counters: Counters) -> None:
    limits = (rate(10), slots(3), total(100))
    amounts = Amounts(requests=2, micros=10, slots=1)
    first = await grant(counters, "a", limits, amounts)
    assert await grant(counters, "a", limits, amounts) == first
    assert await grant(counters, "a", limits, Amounts(requests=9)) == first
    settled = await counters.settle("a", amounts)
    assert settled is not None
    assert left(limits[0], settled) == 8
    assert settled.states[1:] == (0, 10)


async def test_leases_share_what_their_limits_share_and_nothing_else(counters: Counters) -> None:
    team = Limit.rate(Unit.REQUESTS, 5, DAY_US, scope="team", subject="t", name="requests per day")
    for number, key in enumerate(("k1", "k2", "k1", "k2", "k1")):
        await grant(counters, f"l{number}", (rate(3, subject=key), team), ONE)
    assert (await refusal(counters, "x", (rate(3, subject="k2"), team), ONE)).limit == team
    assert left(rate(3), await counters.levels((rate(3, subject="k2"),))) == 1


async def test_a_negative_amount_is_refused_without_a_trace(counters: Counters) -> None:
    limits = (rate(10), total(10))
    await grant(counters, "a", limits, Amounts(requests=1, micros=1))
    before = await counters.levels(limits)
    with pytest.raises(ValueError, match="negative"):
        await counters.reserve("b", limits, Amounts(requests=1, micros=-1), HOUR_US)
    with pytest.raises(ValueError, match="negative"):
        await counters.top_up("a", 1, Amounts(requests=-1), HOUR_US)
    with pytest.raises(ValueError, match="negative"):
        await counters.settle("a", Amounts(micros=-1))
    assert (await counters.levels(limits)).states == before.states
    assert await counters.settle("a", Amounts()) is not None


async def test_a_further_round_charges_all_but_the_slot(counters: Counters) -> None:
    limits = (rate(100, unit=Unit.TOKENS), slots(1), total(100))
    await grant(counters, "a", limits, Amounts(tokens=10, micros=20, slots=1))
    answer = await counters.top_up("a", 1, Amounts(tokens=30, micros=5, slots=1), HOUR_US)
    assert isinstance(answer, Grant)
    assert left(limits[0], answer) == 60
    assert answer.states[1:] == (1, 25)
    settled = await counters.settle("a", Amounts(tokens=15, micros=7))
    assert settled is not None
    assert left(limits[0], settled) == 85
    assert settled.states[1:] == (0, 7)


async def test_a_repeated_round_charges_nothing_more(counters: Counters) -> None:
    limits = (rate(100, unit=Unit.TOKENS), total(100))
    await grant(counters, "a", limits, Amounts(tokens=10, micros=10))
    for round_number in (1, 1, 2, 1, 2):
        answer = await counters.top_up("a", round_number, Amounts(tokens=20, micros=20), HOUR_US)
        assert isinstance(answer, Grant)
    assert left(limits[0], answer) == 50
    assert answer.states[1] == 50


async def test_a_refused_round_charges_nothing_and_may_be_tried_again(counters: Counters) -> None:
    limits = (rate(100, unit=Unit.TOKENS), total(100))
    await grant(counters, "a", limits, Amounts(tokens=10, micros=10))
    await grant(counters, "b", limits, Amounts(micros=60))
    before = await counters.levels(limits)
    answer = await counters.top_up("a", 1, Amounts(tokens=20, micros=50), HOUR_US)
    assert isinstance(answer, Refusal)
    assert answer.limit == limits[1]
    assert answer.states == before.states
    await counters.settle("b", Amounts())
    assert isinstance(await counters.top_up("a", 1, Amounts(tokens=20, micros=50), HOUR_US), Grant)


async def test_a_round_of_an_unknown_lease_is_not_found(counters: Counters) -> None:
    await grant(counters, "a", (rate(9),), ONE)
    await counters.settle("a", ONE)
    for lease in ("a", "nobody"):
        with pytest.raises(NotFound):
            await counters.top_up(lease, 1, ONE, HOUR_US)


async def test_levels_of_what_nobody_used_are_empty(counters: Counters) -> None:
    limits = (rate(10), slots(2), total(5), daily(5))
    levels = await counters.levels(limits)
    assert levels.states == (levels.now_us, 0, 0, 0)
    assert (await counters.levels(())).states == ()


async def test_no_limits_are_always_granted_and_still_a_lease(counters: Counters) -> None:
    assert (await grant(counters, "a", (), ONE)).states == ()
    assert await counters.settle("a", ONE) is not None
    assert await counters.settle("a", ONE) is None


async def test_a_lease_that_is_alive_is_left_alone(counters: Counters) -> None:
    await grant(counters, "a", (slots(1),), Amounts(slots=1))
    await counters.renew(["a", "nobody"], HOUR_US)
    await counters.renew([], HOUR_US)
    assert await counters.expire() == ()
    assert await counters.settle("a", Amounts()) is not None


async def test_the_past_is_charged_without_a_refusal(counters: Counters) -> None:
    limits = (rate(100, unit=Unit.TOKENS), total(100), slots(2))
    used = Amounts(tokens=80, micros=80, slots=1)
    await counters.replay([Past(limits, used, HOUR_US * 2), Past(limits, used, HOUR_US)])
    levels = await counters.levels(limits)
    # 160 of 100 tokens a day, of which two hours have given back 8 1/3
    assert left(limits[0], levels) == round(100 - 160 + 100 / 12)
    assert levels.states[1:] == (160, 0)


async def test_what_is_long_past_is_forgotten(counters: Counters) -> None:
    limits = (rate(100), daily(100))
    await counters.replay([Past(limits, Amounts(requests=90, micros=90), DAY_US * 3)])
    levels = await counters.levels(limits)
    assert levels.states == (levels.now_us, 0)
    await counters.replay([])


async def test_the_newest_past_counts_though_an_older_one_came_before(counters: Counters) -> None:
    limits = (rate(10), total(9))
    older, newer = Past(limits, Amounts(requests=10, micros=4), DAY_US), Past(limits, Amounts(requests=5, micros=4), 0)
    await counters.replay([older, newer])
    levels = await counters.levels(limits)
    assert left(limits[0], levels) == 5
    assert levels.states[1] == 8


async def test_the_rebuilding_is_claimed_once(counters: Counters) -> None:
    assert await counters.fresh() is True
    assert await counters.fresh() is False


async def test_closing_twice_is_fine(counters: Counters) -> None:
    await counters.aclose()
    await counters.aclose()


async def test_only_what_is_near_says_so(request: pytest.FixtureRequest, counters: Counters) -> None:
    assert (counters.local is not None) == any(f"[{name}]" in request.node.name for name in NEAR)


@pytest.mark.parametrize("backend", NEAR)
async def test_what_is_near_answers_the_same_without_a_wait(backend: str, tmp_path: Path) -> None:
    async with BACKENDS[backend](tmp_path) as (counters, _, _):
        await check_near(counters)


async def check_near(counters: Counters) -> None:
    limits = (rate(2),)
    near = counters.local
    assert near is not None
    assert isinstance(near.reserve("a", limits, ONE, HOUR_US), Grant)
    assert isinstance(near.top_up("a", 1, ONE, HOUR_US), Grant)
    assert isinstance(near.reserve("b", limits, ONE, HOUR_US), Refusal)
    near.renew(["a"], HOUR_US)
    assert near.expire() == ()
    settled = near.settle("a", ONE)
    assert settled is not None
    assert left(limits[0], settled) == left(limits[0], near.levels(limits)) == 1
    near.replay([Past(limits, ONE, 0)])
    assert left(limits[0], await counters.levels(limits)) == 0


AMOUNTS: Final = (1, 3, 7, 60, 999, 20_000, 6_666_667, 999_999_937, 1_000_000_000)


@pytest.mark.parametrize("window_us", [MINUTE_US, DAY_US])
@pytest.mark.parametrize("amount", AMOUNTS)
async def test_answers_are_those_of_the_arithmetic_whatever_the_limit(
    counters: Counters, amount: int, window_us: int
) -> None:
    """Follows the store by the times of its own answers, so that it needs no clock of ours."""
    model = Model()
    limits = (rate(amount, window_us), rate(amount, window_us, Unit.TOKENS, "k2"), total(amount), slots(3))
    for number in range(12):
        cost = Amounts(1, max(1, amount * number // 17), micros=amount // 9, slots=number % 2)
        answer = await counters.reserve(f"l{number}", limits, cost, HOUR_US)
        moment = Moment(answer.now_us, NOON_US)
        assert answer == model.reserve(f"l{number}", limits, cost, HOUR_US, moment)
        if number % 3 == 2:
            actual = Amounts(tokens=amount * number // 19, micros=number)
            settled = await counters.settle(f"l{number}", actual)
            moment = Moment(settled.now_us if settled else 0, NOON_US)
            assert settled == model.settle(f"l{number}", actual, moment)
    levels = await counters.levels(limits)
    assert levels == model.levels(limits, Moment(levels.now_us, NOON_US))


async def test_a_changed_amount_keeps_the_share_that_was_used(counters: Counters) -> None:
    before, after = rate(999_999_937), rate(60)
    assert before.counter == after.counter
    await grant(counters, "a", (before,), Amounts(requests=333_333_333))
    answer = await grant(counters, "b", (after,), ONE)
    assert left(after, answer) == 39
    settled = await counters.settle("a", Amounts(requests=333_333_333))
    assert settled is not None
    assert left(after, await counters.levels((after,))) == 39


async def test_many_at_once_get_exactly_what_there_is(counters: Counters) -> None:
    limits = tuple(limits_of(Allowance(requests_per_day=40, tokens_per_day=10_000, budget_total=50), "key", "k1"))
    asked = [counters.reserve(f"l{number}", limits, Amounts(1, 100, micros=1), HOUR_US) for number in range(60)]
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Grant) for answer in answers) == 40


# What needs a clock that can be moved.


async def test_whoever_waits_as_long_as_told_is_admitted_and_no_microsecond_earlier(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    for amount in (1, 7, 60, 999, 999_999_937):
        limits = (rate(amount, MINUTE_US, subject=f"m{amount}"), rate(amount, DAY_US, Unit.TOKENS, f"d{amount}"))
        cost = Amounts(requests=(amount + 1) // 2, tokens=(amount + 2) // 3)
        number = 0
        while isinstance(answer := await counters.reserve(f"{amount}-{number}", limits, cost, HOUR_US), Grant):
            number += 1
        assert answer.wait_us is not None
        clock.pass_us(answer.wait_us - 1)
        early = await refusal(counters, "early", limits, cost)
        assert (early.reason, early.wait_us) == ("wait", 1)
        clock.pass_us(1)
        await grant(counters, f"{amount}-in-time", limits, cost)


async def test_an_idle_limit_fills_up_and_not_above(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (rate(10, MINUTE_US),)
    await grant(counters, "a", limits, Amounts(requests=10))
    clock.pass_us(MINUTE_US // 2)
    assert left(limits[0], await counters.levels(limits)) == 5
    clock.pass_us(MINUTE_US * 50)
    await grant(counters, "b", limits, Amounts(requests=10))
    await refusal(counters, "c", limits, ONE)


async def test_a_refund_after_the_limit_has_filled_up_gives_nothing_extra(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (rate(10, MINUTE_US),)
    await grant(counters, "a", limits, Amounts(requests=10))
    clock.pass_us(MINUTE_US * 3)
    await counters.settle("a", Amounts())
    await grant(counters, "b", limits, Amounts(requests=10))
    await refusal(counters, "c", limits, ONE)


async def test_what_a_settlement_adds_to_a_full_limit_counts_from_now(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (rate(10, MINUTE_US),)
    await grant(counters, "a", limits, ONE)
    clock.pass_us(MINUTE_US * 3)
    settled = await counters.settle("a", Amounts(requests=7))
    assert settled is not None
    assert left(limits[0], settled) == 4


async def test_a_wall_clock_that_jumps_moves_no_rate(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (rate(3, MINUTE_US),)
    await grant(counters, "a", limits, Amounts(requests=3))
    for jump_us in (HOUR_US, -2 * HOUR_US, 400 * DAY_US, -800 * DAY_US):
        clock.wall_us += jump_us
        assert (await refusal(counters, "b", limits, ONE)).wait_us == MINUTE_US // 3


async def test_a_budget_begins_anew_with_its_day_and_its_month(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    month = Limit.budget(Unit.MICROS, 25, "month", scope="user", subject="u1", name="budget per month")
    limits = (daily(10), month, total(27))
    assert (await grant(counters, "a", limits, Amounts(micros=10))).states == (10, 10, 10)
    spent = await refusal(counters, "b", limits, Amounts(micros=1))
    assert (spent.limit, spent.wait_us) == (limits[0], DAY_US // 2)
    clock.pass_us(DAY_US // 2 - 1)
    assert (await refusal(counters, "b", limits, Amounts(micros=1))).wait_us == 1
    clock.pass_us(1)
    assert (await grant(counters, "b", limits, Amounts(micros=10))).states == (10, 20, 20)
    clock.pass_us(DAY_US)
    spent = await refusal(counters, "c", limits, Amounts(micros=6))
    assert (spent.limit, spent.wait_us) == (month, 15 * DAY_US)
    clock.pass_us(15 * DAY_US)
    assert (await grant(counters, "c", limits, Amounts(micros=6))).states == (6, 6, 26)
    assert (await refusal(counters, "d", limits, Amounts(micros=2))).wait_us is None


async def test_a_wall_clock_that_is_set_back_gives_no_second_day(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (daily(10),)
    clock.wall_us += DAY_US
    await grant(counters, "a", limits, Amounts(micros=10))
    clock.wall_us -= DAY_US
    answer = await refusal(counters, "b", limits, Amounts(micros=1))
    assert (answer.reason, answer.wait_us) == ("spent", DAY_US + DAY_US // 2)


async def test_a_settlement_touches_only_the_day_that_was_charged(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (daily(100),)
    await grant(counters, "refund", limits, Amounts(micros=50))
    await grant(counters, "debt", limits, Amounts(micros=10))
    clock.pass_us(DAY_US)
    await grant(counters, "today", limits, Amounts(micros=5))
    for lease, actual in (("refund", 0), ("debt", 90)):
        settled = await counters.settle(lease, Amounts(micros=actual))
        assert settled is not None
        assert settled.states == (5,)
    settled = await counters.settle("today", Amounts(micros=7))
    assert settled is not None
    assert settled.states == (7,)


async def test_a_turn_over_midnight_gives_back_at_most_what_the_new_day_was_charged(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    limits = (daily(100),)
    assert isinstance(await counters.reserve("a", limits, Amounts(micros=50), DAY_US), Grant)
    clock.pass_us(DAY_US // 2)
    answer = await counters.top_up("a", 1, Amounts(micros=20), DAY_US)
    assert isinstance(answer, Grant)
    assert answer.states == (20,)
    await grant(counters, "b", limits, Amounts(micros=30))
    settled = await counters.settle("a", Amounts(micros=10))
    assert settled is not None
    assert settled.states == (30,)


async def test_a_turn_within_one_day_gives_back_what_all_its_rounds_were_charged(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, _ = moved
    limits = (daily(100),)
    await grant(counters, "a", limits, Amounts(micros=50))
    for round_number in (1, 2):
        assert isinstance(await counters.top_up("a", round_number, Amounts(micros=20), DAY_US), Grant)
    settled = await counters.settle("a", Amounts(micros=3))
    assert settled is not None
    assert settled.states == (3,)


async def test_a_past_day_is_charged_to_itself(moved: tuple[Counters, IntegerClock]) -> None:
    counters, _ = moved
    month = Limit.budget(Unit.MICROS, 100, "month", scope="user", subject="u1", name="budget per month")
    limits = (daily(100), month, rate(24, DAY_US))
    used = Amounts(requests=24, micros=10)
    await counters.replay([Past(limits, used, age_us) for age_us in (15 * DAY_US, 13 * HOUR_US, 11 * HOUR_US)])
    levels = await counters.levels(limits)
    assert levels.states[:2] == (10, 20)
    assert left(limits[2], levels, 2) == 24 - 48 + 13


async def test_the_past_is_added_to_what_others_were_admitted_meanwhile(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, _ = moved
    limits = (rate(24, DAY_US), daily(100))
    await grant(counters, "a", limits, Amounts(requests=1, micros=1))
    await counters.replay([Past(limits, Amounts(requests=24, micros=50), 11 * HOUR_US)])
    levels = await counters.levels(limits)
    assert left(limits[0], levels) == 24 - 1 - 13
    assert levels.states[1] == 51
    await counters.replay([Past(limits, Amounts(micros=50), 13 * HOUR_US)])
    assert (await counters.levels(limits)).states == levels.states


async def test_a_rate_used_before_the_machine_started_is_charged_at_its_time(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    clock.now_us = 60_000_000
    limits = (rate(10, DAY_US),)
    await counters.replay([Past(limits, Amounts(requests=10), 20 * HOUR_US)])
    levels = await counters.levels(limits)
    assert levels.states[0] - levels.now_us == 4 * HOUR_US


async def test_a_lease_whose_time_is_up_keeps_its_charge_and_gives_back_its_slot(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    limits = (slots(1), total(10), rate(10, DAY_US))
    charge = Amounts(requests=5, micros=5, slots=1)
    await grant(counters, "a", limits, charge)
    clock.pass_us(HOUR_US - 1)
    assert (await refusal(counters, "b", limits, charge)).reason == "full"
    assert await counters.expire() == ()
    clock.pass_us(1)
    answer = await grant(counters, "b", limits, charge)
    assert answer.states[:2] == (1, 10)
    assert await counters.expire() == ("a",)
    assert await counters.expire() == ()
    assert await counters.settle("a", Amounts()) is None
    levels = await counters.levels(limits)
    assert levels.states[:2] == (1, 10)


async def test_a_lease_whose_time_is_up_can_be_settled_until_it_is_ended(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    limits = (slots(1), total(10))
    await grant(counters, "a", limits, Amounts(micros=5, slots=1))
    clock.pass_us(HOUR_US)
    await grant(counters, "b", limits, Amounts(micros=1, slots=1))
    settled = await counters.settle("a", Amounts(micros=2))
    assert settled is not None
    assert settled.states == (1, 3)
    assert await counters.expire() == ()
    assert (await counters.levels(limits)).states == (1, 3)


async def test_a_lease_that_is_overdue_is_named_until_it_is_settled_or_ended(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    near = counters.local
    if near is None:
        return  # elsewhere they end at what they reserved
    limits = (slots(3), total(20))
    for lease in ("a", "b", "c"):
        await grant(counters, lease, limits, Amounts(micros=5, slots=1))
    assert near.overdue() == ()
    clock.pass_us(HOUR_US // 2)
    near.renew(["c"], HOUR_US)
    clock.pass_us(HOUR_US // 2)
    assert sorted(near.overdue()) == sorted(near.overdue()) == ["a", "b"]
    assert near.levels(limits).states == (1, 15)
    settled = near.settle("a", Amounts(micros=2))
    assert settled is not None
    assert settled.states == (1, 12)
    assert near.overdue() == ("b",)
    assert near.expire() == ("b",)
    assert near.overdue() == ()
    assert near.levels(limits).states == (1, 12)


async def test_a_lease_whose_time_is_up_is_neither_renewed_nor_topped_up(
    moved: tuple[Counters, IntegerClock],
) -> None:
    counters, clock = moved
    limits = (slots(1), total(10))
    await grant(counters, "a", limits, Amounts(micros=5, slots=1))
    clock.pass_us(HOUR_US)
    await counters.renew(["a"], HOUR_US)
    with pytest.raises(NotFound):
        await counters.top_up("a", 1, Amounts(micros=1), HOUR_US)
    assert (await counters.levels(limits)).states == (0, 5)
    assert await counters.expire() == ("a",)


async def test_a_lease_that_is_renewed_or_topped_up_lives_on(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (slots(2), total(10))
    await grant(counters, "renewed", limits, Amounts(slots=1))
    await grant(counters, "topped", limits, Amounts(slots=1))
    for round_number in range(1, 6):
        clock.pass_us(HOUR_US - 1)
        await counters.renew(["renewed", "nobody"], HOUR_US)
        assert isinstance(await counters.top_up("topped", round_number, Amounts(micros=1), HOUR_US), Grant)
        assert await counters.expire() == ()
    await refusal(counters, "c", limits, Amounts(slots=1))
    clock.pass_us(HOUR_US)
    assert set(await counters.expire()) == {"renewed", "topped"}
    assert (await counters.levels(limits)).states == (0, 5)


async def test_a_refused_round_does_not_prolong_the_lease(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    await grant(counters, "a", (total(10),), Amounts(micros=5))
    clock.pass_us(HOUR_US - 1)
    assert isinstance(await counters.top_up("a", 1, Amounts(micros=6), HOUR_US), Refusal)
    clock.pass_us(1)
    assert await counters.expire() == ("a",)


async def test_a_lease_may_be_cut_short(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    await grant(counters, "a", (slots(1),), Amounts(slots=1))
    await counters.renew(["a"], 1_000_000)
    clock.pass_us(1_000_000)
    assert (await counters.levels((slots(1),))).states == (0,)
    assert await counters.expire() == ("a",)


async def test_an_id_may_be_used_again_after_its_lease(moved: tuple[Counters, IntegerClock]) -> None:
    counters, clock = moved
    limits = (slots(1),)
    await grant(counters, "a", limits, Amounts(slots=1))
    await counters.settle("a", Amounts())
    clock.pass_us(HOUR_US // 2)
    await grant(counters, "a", limits, Amounts(slots=1))
    clock.pass_us(HOUR_US // 2)
    assert await counters.expire() == ()
    assert (await counters.levels(limits)).states == (1,)
    clock.pass_us(HOUR_US // 2)
    assert await counters.expire() == ("a",)


async def test_no_number_of_other_counters_makes_one_forgotten(moved: tuple[Counters, IntegerClock]) -> None:
    """The store of a well-known library evicts at 1,024 keys, which lets a limited caller through (reliability 1.4)."""
    counters, clock = moved
    victim = (rate(1, DAY_US, subject="victim"), slots(1, "victim"), total(5, "victim"))
    assert isinstance(await counters.reserve("victim", victim, Amounts(1, micros=5, slots=1), 9 * DAY_US), Grant)
    for number in range(1_500):
        lease = f"l{number}"
        await grant(counters, lease, (rate(1_000, MINUTE_US, subject=lease), slots(1, lease)), Amounts(1, slots=1))
        await counters.settle(lease, ONE)
    for _ in range(70):
        clock.pass_us(MINUTE_US)
        await counters.expire()
    for unit in (ONE, Amounts(slots=1), Amounts(micros=1)):
        await refusal(counters, "again", victim, unit)


# What several processes see of each other.


async def test_what_one_process_charges_the_other_sees(two: tuple[Counters, Counters]) -> None:
    here, there = two
    limits = (rate(10), slots(5), total(100))
    cost = Amounts(requests=1, micros=9, slots=1)
    for number in range(5):
        await grant((here, there)[number % 2], f"l{number}", limits, cost)
    levels = await there.levels(limits)
    assert left(limits[0], levels) == 5
    assert levels.states[1:] == (5, 45)
    assert levels.states[1:] == (await here.levels(limits)).states[1:]
    assert (await refusal(here, "full", limits, cost)).reason == "full"


async def test_a_lease_is_known_to_all(two: tuple[Counters, Counters]) -> None:
    here, there = two
    limits = (rate(10), slots(5), total(100), daily(50))
    first = await grant(here, "a", limits, Amounts(requests=4, micros=9, slots=1))
    assert await grant(there, "a", limits, ONE) == first
    await there.renew(["a"], HOUR_US)
    answer = await there.top_up("a", 1, Amounts(requests=2, micros=1), HOUR_US)
    assert isinstance(answer, Grant)
    assert (left(limits[0], answer), *answer.states[1:]) == (4, 1, 10, 10)
    assert isinstance(await here.top_up("a", 1, Amounts(requests=2), HOUR_US), Grant)
    refused = await there.top_up("a", 2, Amounts(requests=5), HOUR_US)
    assert isinstance(refused, Refusal)
    assert refused.limit == limits[0]
    settled = await there.settle("a", ONE)
    assert settled is not None
    assert (left(limits[0], settled), *settled.states[1:]) == (9, 0, 0, 0)
    assert await here.settle("a", ONE) is None


async def test_the_rebuilding_is_claimed_by_one_of_all(two: tuple[Counters, Counters]) -> None:
    here, there = two
    assert sorted([await there.fresh(), await here.fresh(), await there.fresh()]) == [False, False, True]


async def test_what_one_rebuilds_the_other_sees(two: tuple[Counters, Counters]) -> None:
    here, there = two
    limits = (rate(24, DAY_US), total(9))
    await grant(here, "a", limits, Amounts(requests=1, micros=1))
    await there.replay([Past(limits, Amounts(requests=3, micros=4), 0)])
    levels = await here.levels(limits)
    assert left(limits[0], levels) == 20
    assert levels.states[1] == 5

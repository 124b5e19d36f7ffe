"""What only counters in Postgres have: arithmetic written a second time, in SQL, and locks that could be in the way."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from convene.errors import StoreFault
from convene.limits import gcra
from convene.limits.gcra import Moment
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit
from convene.limits.periods import end_us, number_of
from convene.store.postgres_counters import PostgresCounters
from convene.store.postgres_pool import PostgresPool
from postgres_clock import empty
from servers import kept_schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from convene.limits.limit import Period

HOUR_US = 3_600_000_000
DEADLINE_S = 60.0
ONE = Amounts(requests=1, tokens=10, micros=3, slots=1)


@pytest.fixture
def url() -> str:
    return kept_schema("counters")


@pytest.fixture
async def counters(url: str) -> AsyncIterator[PostgresCounters]:
    opened = await PostgresCounters.open(url)
    await empty(opened)
    yield opened
    await opened.aclose()


@pytest.fixture
async def pool(url: str) -> AsyncIterator[PostgresPool]:
    opened = await PostgresPool.open(url)
    yield opened
    await opened.aclose()


def rate(amount: int, window_us: int = MINUTE_US, subject: str = "k1") -> Limit:
    return Limit.rate(Unit.REQUESTS, amount, window_us, scope="key", subject=subject, name="requests")


def slots(amount: int, subject: str = "k1") -> Limit:
    return Limit.slots(amount, scope="key", subject=subject)


async def rows(counters: PostgresCounters, statement: str) -> list[tuple[Any, ...]]:
    return await counters._pool.rows(statement)


# The arithmetic.


async def test_moving_a_rate_is_that_of_the_oracle_for_small_and_for_huge_products(pool: PostgresPool) -> None:
    chance = random.Random(7)  # noqa: S311 -- a seeded test
    for _ in range(300):
        amount = chance.choice([1, 7, 60, 20_000, 999_999_937, 10**12 + 39, 2**50 + 1])
        limit = rate(amount, chance.choice([MINUTE_US, DAY_US]))
        state = (chance.randrange(2**51), chance.randrange(limit.per))
        units = chance.choice([-1, 1]) * chance.randrange(0, chance.choice([10, amount + 1, 2**50]))
        [found] = await pool.rows(
            "SELECT r_tat, r_rest FROM counters_move(?, ?, ?, ?, ?)", (*state, units, limit.step, limit.per)
        )
        expected = gcra.move(limit, state, units)
        if abs(expected[0] - state[0]) < gcra.MOST_US:  # beyond 71 years nobody counts
            assert found == expected, (limit, state, units)


@pytest.mark.parametrize(("kind", "period"), [(0, "day"), (1, "month"), (2, "total")])
async def test_periods_are_those_of_the_calendar(pool: PostgresPool, kind: int, period: Period) -> None:
    chance = random.Random(11)  # noqa: S311 -- a seeded test
    edges = [number * DAY_US + step for number in (0, 58, 59, 10_956, 11_016, 19_782, 47_540) for step in (-1, 0, 1)]
    for wall_us in [us for us in edges if us >= 0] + [chance.randrange(2**52) for _ in range(150)]:
        number = number_of(period, wall_us)
        [found] = await pool.rows("SELECT counters_period(?, ?), counters_end(?, ?)", (kind, wall_us, kind, number))
        assert found == (number, end_us(period, number)), wall_us


async def test_the_longest_wait_is_named_and_of_two_equal_ones_the_first_given(counters: PostgresCounters) -> None:
    fast, slow = rate(60, subject="z"), rate(1, subject="a")
    twins = (rate(1, subject="zz"), rate(1, subject="aa"))
    for limits, named in (((fast, slow), slow), ((slow, fast), slow), (twins, twins[0]), (twins[::-1], twins[1])):
        await empty(counters)
        model = {limit.counter: gcra.unused(limit) for limit in limits}
        for lease in ("a", "b"):
            answer = await counters.reserve(lease, limits, Amounts(requests=1), HOUR_US)
            moment = Moment(answer.now_us, answer.now_us)
            expected, after = gcra.decide([model[one.counter] for one in limits], moment, limits, Amounts(requests=1))
            model = {limit.counter: state for limit, state in zip(limits, after, strict=True)}
            if limits not in {twins, twins[::-1]}:
                assert answer == expected
        assert isinstance(answer, Refusal)
        assert answer.limit == named


# Locks.


async def test_requests_that_share_limits_in_every_order_neither_block_each_other_for_ever_nor_slip_through(
    counters: PostgresCounters,
) -> None:
    most = 40
    shared = [rate(most, DAY_US, f"s{number}") for number in range(5)]
    chance = random.Random(3)  # noqa: S311 -- a seeded test
    granted = {limit.counter: 0 for limit in shared}

    async def ask(number: int) -> None:
        limits = tuple(chance.sample(shared, 3))
        answer = await counters.reserve(f"l{number}", limits, Amounts(requests=1), HOUR_US)
        if isinstance(answer, Grant):
            for limit in limits:
                granted[limit.counter] += 1
        if number % 3 == 0:
            await counters.renew([f"l{number}", f"l{number - 1}"], HOUR_US)
            await counters.expire()

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(ask(number) for number in range(200)))
    assert max(granted.values()) == most
    assert all(count <= most for count in granted.values())


async def test_rivals_with_one_lease_are_given_one_answer_and_charge_once(counters: PostgresCounters) -> None:
    limits = (rate(100, DAY_US), slots(9))
    answers = await asyncio.gather(*(counters.reserve("same", limits, ONE, HOUR_US) for _ in range(12)))
    assert all(answer == answers[0] for answer in answers)
    assert isinstance(answers[0], Grant)
    assert (await counters.levels(limits)).states[1] == 1


async def test_rivals_with_one_lease_and_nothing_to_wait_for_are_given_one_answer(counters: PostgresCounters) -> None:
    answers = await asyncio.gather(*(counters.reserve("same", (), ONE, HOUR_US) for _ in range(12)))
    assert {type(answer) for answer in answers} == {Grant}
    assert len({answer.now_us for answer in answers}) == 1


async def test_cancelled_requests_leave_a_lease_or_nothing_and_no_slot_without_a_lease(
    counters: PostgresCounters,
) -> None:
    limits = (rate(10_000, DAY_US), slots(10_000))
    for number in range(40):
        asking = asyncio.ensure_future(counters.reserve(f"l{number}", limits, ONE, HOUR_US))
        for _ in range(number % 10):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    async with asyncio.timeout(DEADLINE_S):
        while True:
            [(leases,)] = await rows(counters, "SELECT count(*) FROM leases")
            levels = await counters.levels(limits)
            [(after,)] = await rows(counters, "SELECT count(*) FROM leases")
            if leases == after:
                break
    assert levels.states[1] == leases
    for number in range(40):
        await counters.settle(f"l{number}", Amounts())
    assert (await counters.levels(limits)).states[1] == 0


# Trips, forgetting, failures.


async def test_a_decision_is_one_statement_once_its_limits_are_known(
    counters: PostgresCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = (rate(100), slots(5))
    await counters.reserve("first", limits, ONE, HOUR_US)
    asked: list[str] = []
    ask = counters._ask

    async def count(statement: str, *values: object) -> list[Any]:
        asked.append(statement)
        return await ask(statement, *values)

    monkeypatch.setattr(counters, "_ask", count)
    await counters.reserve("second", limits, ONE, HOUR_US)
    await counters.top_up("second", 1, ONE, HOUR_US)
    await counters.settle("second", ONE)
    assert len(asked) == 3


async def test_a_set_of_limits_that_was_forgotten_is_told_again(counters: PostgresCounters) -> None:
    limits = (rate(100), slots(5))
    await counters.reserve("a", limits, ONE, HOUR_US)
    await counters.settle("a", ONE)
    await rows(counters, "DELETE FROM limit_sets")
    assert isinstance(await counters.reserve("b", limits, ONE, HOUR_US), Grant)


async def test_a_set_that_is_in_use_or_was_seen_this_week_is_not_forgotten(counters: PostgresCounters) -> None:
    used, recent, old = (rate(100, subject="used"),), (rate(100, subject="recent"),), (rate(100, subject="old"),)
    for lease, limits in (("used", used), ("recent", recent), ("old", old)):
        await counters.reserve(lease, limits, ONE, HOUR_US)
    for lease in ("recent", "old"):
        await counters.settle(lease, ONE)
    week = "UPDATE limit_sets SET seen_us = seen_us - 605000000000 WHERE names[1] <> 'key:recent:requests'"
    await rows(counters, week)
    for _ in range(2_000):  # each call looks at a share of the pages
        await counters.expire()
        if len(await rows(counters, "SELECT id FROM limit_sets")) < 3:
            break
    left = await rows(counters, "SELECT names[1] FROM limit_sets ORDER BY 1")
    assert left == [("key:recent:requests",), ("key:used:requests",)]


async def test_a_counter_that_was_forgotten_under_a_lease_can_still_be_settled_and_topped_up(
    counters: PostgresCounters,
) -> None:
    limits = (rate(1_000_000), slots(5))
    await counters.reserve("a", limits, ONE, HOUR_US)
    await counters.reserve("b", limits, ONE, HOUR_US)
    await rows(counters, "DELETE FROM counters")
    assert isinstance(await counters.top_up("a", 1, ONE, HOUR_US), Grant)
    await rows(counters, "DELETE FROM counters")
    settled = await counters.settle("a", ONE)
    assert settled is not None
    assert settled.states[1] == 1


async def test_idle_counters_are_forgotten_and_totals_never(counters: PostgresCounters) -> None:
    total = Limit.budget(Unit.MICROS, 10, "total", scope="key", subject="k", name="total")
    limits = (rate(60_000_000), slots(5), total)
    await counters.reserve("a", limits, ONE, HOUR_US)
    await counters.settle("a", ONE)
    for _ in range(500):
        await counters.expire()
        if len(await rows(counters, "SELECT counter FROM counters")) == 1:
            break
    assert await rows(counters, "SELECT counter FROM counters") == [(total.counter,)]


async def test_a_call_whose_connection_is_lost_is_repeated_and_charges_once(
    counters: PostgresCounters, pool: PostgresPool
) -> None:
    limits = (rate(1_000, DAY_US), slots(900))
    granted = 0
    for number in range(60):
        [(pid,)] = await rows(counters, "SELECT pg_backend_pid()")  # the session that is used next
        asking = asyncio.ensure_future(counters.reserve(f"l{number}", limits, ONE, HOUR_US))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        await pool.rows("SELECT pg_terminate_backend(?)", (pid,))
        granted += isinstance(await asking, Grant)
    assert granted == 60
    assert (await counters.levels(limits)).states[1] == 60


async def test_a_database_that_is_gone_is_a_store_fault(counters: PostgresCounters) -> None:
    await counters.aclose()
    with pytest.raises(StoreFault):
        await counters.reserve("a", (rate(1),), ONE, HOUR_US)
    with pytest.raises(StoreFault):
        await counters.levels((rate(1),))


async def test_names_that_postgres_cannot_hold_are_counted_all_the_same(counters: PostgresCounters) -> None:
    limits = (rate(1, DAY_US, "model\0x"),)
    assert isinstance(await counters.reserve("a", limits, Amounts(requests=1), HOUR_US), Grant)
    answer = await counters.reserve("b", limits, Amounts(requests=1), HOUR_US)
    assert isinstance(answer, Refusal)
    assert answer.limit == limits[0]

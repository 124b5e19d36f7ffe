"""Random histories of every store of counters, with time that moves, against the model; and the bound of any span.

Only for stores whose clock is ours (`MOVABLE`); `test_counters.py` follows the others by the times of their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.counters_backends import BACKENDS, MOVABLE
from convene.errors import NotFound
from convene.limits.gcra import Moment
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Unit
from convene.store.base_counters import Past
from counters_model import Model

if TYPE_CHECKING:
    from convene.store.base_counters import Counters

HOUR_US: Final = 3_600_000_000


def rate(amount: int, window_us: int, unit: Unit = Unit.REQUESTS, subject: str = "k1") -> Limit:
    return Limit.rate(unit, amount, window_us, scope="key", subject=subject, name=f"{unit.name} per {window_us}")


def budget(amount: int, period: Literal["day", "total"]) -> Limit:
    return Limit.budget(Unit.MICROS, amount, period, scope="user", subject="u1", name=f"budget per {period}")


SLOTS: Final = Limit.slots(2, scope="key", subject="k1")

LEVELS: Final = (
    (rate(7, MINUTE_US), rate(999_983, MINUTE_US, Unit.TOKENS), SLOTS, budget(90, "day"), budget(400, "total")),
    (rate(7, MINUTE_US), rate(1_000_003, DAY_US, Unit.TOKENS, "team"), rate(3, MINUTE_US, Unit.IMAGES)),
    (rate(999_983, MINUTE_US, Unit.TOKENS), budget(90, "day")),
)
"""Three requests' limits, which share some of their counters."""

LEASES: Final = st.sampled_from([f"l{number}" for number in range(6)])
COSTS: Final = st.builds(
    Amounts,
    requests=st.integers(0, 3),
    tokens=st.sampled_from([0, 1, 333_331, 999_983, 1_000_003]),
    input_tokens=st.just(0),
    output_tokens=st.just(0),
    images=st.integers(0, 1),
    micros=st.integers(0, 60),
    slots=st.integers(0, 1),
)
MOVES: Final = st.one_of(
    st.integers(0, 3),
    st.sampled_from([999_999, MINUTE_US // 7, MINUTE_US - 1, MINUTE_US, HOUR_US, DAY_US // 2, DAY_US]),
)
ACTIONS: Final = st.one_of(
    st.tuples(st.just("reserve"), LEASES, st.sampled_from(LEVELS), COSTS, st.sampled_from([1, MINUTE_US, HOUR_US])),
    st.tuples(st.just("top_up"), LEASES, st.integers(1, 3), COSTS),
    st.tuples(st.just("settle"), LEASES, COSTS),
    st.tuples(st.just("renew"), LEASES, st.sampled_from([1, MINUTE_US, HOUR_US])),
    st.tuples(st.just("expire")),
    st.tuples(st.just("levels"), st.sampled_from(LEVELS)),
    st.tuples(st.just("replay"), st.sampled_from(LEVELS), COSTS, st.sampled_from([0, MINUTE_US, DAY_US])),
    st.tuples(st.just("pass"), MOVES),
    st.tuples(st.just("pass"), MOVES),
    st.tuples(st.just("wall"), st.sampled_from([-HOUR_US, HOUR_US])),
)


async def perform(counters: Counters, action: tuple[Any, ...]) -> object:
    """Do one thing to a store; what it answers, `NotFound` as None."""
    name, *rest = action
    match name:
        case "reserve":
            lease, limits, amounts, lease_us = rest
            return await counters.reserve(lease, limits, amounts, lease_us)
        case "top_up":
            lease, number, amounts = rest
            with contextlib.suppress(NotFound):
                return await counters.top_up(lease, number, amounts, HOUR_US)
            return None
        case "settle":
            return await counters.settle(*rest)
        case "renew":
            await counters.renew([rest[0]], rest[1])
            return None
        case "expire":
            return set(await counters.expire())
        case "levels":
            return await counters.levels(rest[0])
        case _:
            limits, amounts, age_us = rest
            await counters.replay([Past(limits, amounts, age_us)])
            return None


def expect(model: Model, action: tuple[Any, ...], moment: Moment) -> object:
    """Do the same to the model."""
    name, *rest = action
    match name:
        case "reserve":
            lease, limits, amounts, lease_us = rest
            return model.reserve(lease, limits, amounts, lease_us, moment)
        case "top_up":
            lease, number, amounts = rest
            return model.top_up(lease, number, amounts, HOUR_US, moment)
        case "settle":
            return model.settle(rest[0], rest[1], moment)
        case "renew":
            model.renew(rest[0], rest[1], moment.now_us)
            return None
        case "expire":
            return model.expire(moment.now_us)
        case "levels":
            return model.levels(rest[0], moment)
        case _:
            model.replay(Past(*rest), moment)
            return None


async def compare(backend: str, actions: list[tuple[Any, ...]]) -> None:
    """Play a history on a store and on the model, side by side."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        async with BACKENDS[backend](Path(folder)) as (counters, clock, _):
            assert clock is not None
            for action in actions:
                if action[0] == "pass":
                    clock.pass_us(action[1])
                elif action[0] == "wall":
                    clock.wall_us += action[1]
                else:
                    wanted = expect(model, action, Moment(clock.now_us, clock.wall_us))
                    assert await perform(counters, action) == wanted, action
            for limits in LEVELS:
                wanted = model.levels(limits, Moment(clock.now_us, clock.wall_us))
                assert await counters.levels(limits) == wanted


@pytest.mark.parametrize("backend", MOVABLE)
@given(actions=st.lists(ACTIONS, max_size=40))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_history_is_that_of_the_model(backend: str, actions: list[tuple[Any, ...]]) -> None:
    asyncio.run(compare(backend, actions))


Span: TypeAlias = list[tuple[int, int, bool]]
"""Moments in microseconds, the units charged (a refund is negative), and whether it was an admission."""


def excess(spans: Span, limit: Limit) -> int:
    """Return by how much any span that begins with an admission is over the bound, in units x window; <= 0 is right."""
    worst = -limit.amount
    for start, (began_us, _, admission) in enumerate(spans):
        if admission:
            charged = 0
            for now_us, units, _ in spans[start:]:
                charged += units
                allowed = limit.amount * limit.window_us + limit.amount * (now_us - began_us)
                worst = max(worst, charged * limit.window_us - allowed)
    return worst


async def saturate(backend: str, steps: list[tuple[int, int, int]]) -> Span:
    """Reserve, wait and settle as drawn; return what was charged on the one limit and when."""
    limit = rate(97, MINUTE_US, Unit.TOKENS)
    spans: Span = []
    held: list[tuple[str, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with BACKENDS[backend](Path(folder)) as (counters, clock, _):
            assert clock is not None
            for number, (cost, wait_us, actual) in enumerate(steps):
                clock.pass_us(wait_us)
                answer = await counters.reserve(f"l{number}", (limit,), Amounts(tokens=cost), 9 * DAY_US)
                if isinstance(answer, Grant):
                    spans.append((clock.now_us, cost, True))
                    held.append((f"l{number}", cost))
                if held and number % 2:
                    lease, reserved = held.pop(0)
                    used = min(actual, reserved)
                    await counters.settle(lease, Amounts(tokens=used))
                    spans.append((clock.now_us, used - reserved, False))
    return spans


@pytest.mark.parametrize("backend", MOVABLE)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 97), st.integers(0, MINUTE_US), st.integers(0, 97)), min_size=2, max_size=40
    )
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_span_is_charged_more_than_burst_and_rate_allow(backend: str, steps: list[tuple[int, int, int]]) -> None:
    """Goal A1, by the definition of reliability 1.1: charges minus refunds, each counted when it happens."""
    assert excess(asyncio.run(saturate(backend, steps)), rate(97, MINUTE_US, Unit.TOKENS)) <= 0


def test_the_check_of_spans_can_fail() -> None:
    assert excess([(0, 97, True), (0, 1, True)], rate(97, MINUTE_US, Unit.TOKENS)) == MINUTE_US
    assert excess([(0, 97, True), (MINUTE_US, 97, True)], rate(97, MINUTE_US, Unit.TOKENS)) == 0
    assert excess([(0, 98, False)], rate(97, MINUTE_US, Unit.TOKENS)) < 0

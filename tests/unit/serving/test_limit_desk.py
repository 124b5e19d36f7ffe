"""Where limits stand: from a counter's state to used, left and when it is whole."""

from __future__ import annotations

import pytest

from convene.errors import NotFound
from convene.limits.allowance import Allowance
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Limit, Unit
from convene.serving.allowances import Allowances
from convene.serving.base import ModelCard, Principal
from convene.serving.catalog import Catalog, Deployment
from convene.serving.limit_desk import LimitReader, level_of
from convene.serving.terms import Terms
from convene.store.memory_counters import MemoryCounters
from fakes import FakeClock

WALL_US = 1_795_651_200_000_000 + 5
ME = Principal(key_id="k1", owner="k1", plan="free", model_limits={"small": Allowance(requests_per_day=9)})


def rate(amount: int = 60) -> Limit:
    """Return a limit on requests per minute."""
    return Limit.rate(Unit.REQUESTS, amount, MINUTE_US, scope="key", subject="k1", name="requests per minute")


@pytest.mark.parametrize(
    ("state", "used", "remaining", "whole_after_us"),
    [
        (-(1 << 52), 0, 60, 0),
        (1000, 0, 60, 0),
        (1000 + 1_000_000, 1, 59, 1_000_000),
        (1000 + 1, 1, 59, 1),
        (1000 + MINUTE_US, 60, 0, MINUTE_US),
        (1000 + 2 * MINUTE_US, 120, 0, 2 * MINUTE_US),
    ],
)
def test_a_rate(state: int, used: int, remaining: int, whole_after_us: int) -> None:
    level = level_of(rate(), state, 1000, WALL_US)
    assert (level.used, level.remaining, level.whole_after_us) == (used, remaining, whole_after_us)


def test_a_rate_of_nothing_has_nothing_left() -> None:
    level = level_of(rate(0), 0, 1000, WALL_US)
    assert (level.used, level.remaining) == (0, 0)


@pytest.mark.parametrize(
    ("period", "state", "remaining", "whole_after_us"),
    [
        ("day", 30, 70, DAY_US - 5),
        ("month", 130, 0, 5 * DAY_US - 5),
        ("total", 30, 70, None),
        ("total", 0, 100, 0),
        ("day", 0, 100, 0),
    ],
)
def test_a_budget(period: str, state: int, remaining: int, whole_after_us: int | None) -> None:
    limit = Limit.budget(Unit.MICROS, 100, period, scope="key", subject="k1", name="budget")  # type: ignore[arg-type]
    level = level_of(limit, state, 1000, WALL_US)
    assert (level.used, level.remaining, level.whole_after_us) == (state, remaining, whole_after_us)


def test_slots_come_back_when_requests_end_not_with_time() -> None:
    level = level_of(Limit.slots(4, scope="key", subject="k1"), 3, 1000, WALL_US)
    assert (level.used, level.remaining, level.whole_after_us) == (3, 1, None)


def reader(counters: MemoryCounters | None, clock: FakeClock) -> LimitReader:
    """Return a reader of a plan "free" and one model with limits of its own."""
    card = ModelCard(id="small", created=0, owned_by="x", upstream="x", target="x", aliases=("asi1",))
    catalog = Catalog([Deployment(card=card, terms=Terms(shared=Allowance(concurrent_requests=2)))])
    free = Allowance(requests_per_minute=60, budget_total=100)
    return LimitReader(Allowances({"free": free}), catalog, catalog.terms, lambda: counters, clock.now)


async def test_what_was_used_is_shown_for_the_caller_alone_or_on_a_model_by_any_of_its_names() -> None:
    clock = FakeClock()
    counters = MemoryCounters(clock)
    desk = reader(counters, clock)
    await counters.reserve("l1", desk.limits_for(ME, "asi1"), Amounts(requests=1, micros=40, slots=1), 60_000_000)
    general = await desk.limits(ME, None)
    assert [(level.limit.name, level.used, level.remaining) for level in general] == [
        ("requests per minute", 1, 59),
        ("budget in total", 40, 60),
    ]
    on_model = await desk.limits(ME, "asi1")
    assert [(level.limit.scope, level.limit.subject, level.used) for level in on_model[2:]] == [
        ("model", "small", 1),
        ("key_model", "k1/small", 1),
    ]
    assert on_model == await desk.limits(ME, "small")


async def test_a_model_that_is_not_the_callers_is_not_there() -> None:
    clock = FakeClock()
    with pytest.raises(NotFound):
        await reader(MemoryCounters(clock), clock).limits(ME, "large")


async def test_without_counters_nothing_is_limited() -> None:
    assert await reader(None, FakeClock()).limits(ME, None) == []
